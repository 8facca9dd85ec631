"""Execution of planned runs: scheduling, locks, local and Ray workers, progress, signals."""
