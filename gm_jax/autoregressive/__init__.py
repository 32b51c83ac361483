"""Models whose density is a product of conditionals, one per dimension in some ordering."""
