"""What every method must keep."""
