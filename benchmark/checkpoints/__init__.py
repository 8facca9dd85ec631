"""Cells that were kept: opened again, analysed, and taken away in other formats."""
