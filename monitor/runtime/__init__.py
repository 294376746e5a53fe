"""The only loop, and what watches it."""
