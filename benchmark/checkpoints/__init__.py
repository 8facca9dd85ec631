"""Adapter checkpoints: read, restored, and exported to other formats."""
