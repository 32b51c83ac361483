"""Autoregressive models: the product rule over the dimensions of x, with a network for each conditional."""
