"""Functions of the commands, one module per command, and what they share."""
