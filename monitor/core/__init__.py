"""Types, schema, decoding and encoding: what every other layer speaks."""
