"""Who said it: signatures of events, the keys that may make them, and what is refused."""
