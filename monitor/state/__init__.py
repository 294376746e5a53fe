"""Stored forms: partition state, codec, recovery."""
