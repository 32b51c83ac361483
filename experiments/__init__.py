"""Experiment binaries, one per model."""
