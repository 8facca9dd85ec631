"""Results as files: one JSON a run, whole or not at all."""
