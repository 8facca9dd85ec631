"""The harness: plan, train, evaluate, store and report runs."""

__version__ = "0.5.0"
"""Version of the package, raised with every change of its arithmetic that moves a number, if by rounding only."""
