"""Learning rules, and the loop that runs them."""
