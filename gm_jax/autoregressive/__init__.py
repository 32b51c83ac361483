"""Autoregressive models: exact likelihoods as products of conditionals."""
