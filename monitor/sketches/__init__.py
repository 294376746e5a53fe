"""Incremental estimators over arrays, mergeable where they say so."""
