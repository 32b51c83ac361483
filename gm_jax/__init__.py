"""Classic generative models in JAX."""
