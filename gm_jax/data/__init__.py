"""Data sets as arrays, from an embedded set, from toys, from files or from tensorflow-datasets."""
