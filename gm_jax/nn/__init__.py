"""Parts of networks that several families build from."""
