"""Detectors, one a file. The tuple below is the explicit list of those that run."""
