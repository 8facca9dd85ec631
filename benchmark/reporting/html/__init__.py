"""The leaderboard page: one file that opens from disk, with everything in it."""
