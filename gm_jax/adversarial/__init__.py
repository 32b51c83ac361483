"""Adversarial models: a generator of samples, taught by a critic that tells them from the data."""
