"""Models with a code: autoencoders, and latent-variable models learnt by bounds on their likelihood."""
