"""The harness: plan, train, evaluate, store, judge."""

__version__ = "0.5.0"
"""Raised with every change of the suite's own arithmetic that moves a number, if by rounding only."""
