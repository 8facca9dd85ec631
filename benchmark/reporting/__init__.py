"""Judging: what the stored runs support saying.  Frames in, files out; no torch."""
