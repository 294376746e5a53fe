"""Poisoning monitor for online learners: a gate between labelled feedback and the model."""
