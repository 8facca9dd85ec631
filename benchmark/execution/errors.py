"""Exceptions that end a sweep; each message is meant for the user."""


class ConfigurationError(Exception):
    """No worker can do what the command asks for."""


class WorkerStartError(Exception):
    """The first worker died or hung before it could resolve the plan's names."""


class ResultsNotWritable(Exception):
    """Results cannot be stored, so going on would lose work."""
