"""Results on disk: one JSON file per run, written completely or not at all."""
