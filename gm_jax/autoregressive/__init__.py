"""Models that factorise the density of a vector or a document by the chain rule, and learn every conditional."""
