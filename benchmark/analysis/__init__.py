"""Angles, spectra and bounds of trained adapters; off the core path."""
