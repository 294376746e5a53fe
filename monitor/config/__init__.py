"""Settings frozen at start, and the live policy."""
