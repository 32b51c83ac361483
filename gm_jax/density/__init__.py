"""Densities without a network: estimators, mixtures and linear-Gaussian models."""
