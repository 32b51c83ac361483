"""Data sets as arrays on the host: embedded, drawn from a key, from files, or from tensorflow-datasets.

Example:
  >>> from gm_jax import data
  >>> digits = data.load('digits')
  >>> digits.train.x.shape, digits.kind, digits.levels
  ((1297, 8, 8, 1), 'grey', 17)
"""

from gm_jax.data.dataset import DataError, Dataset, Split, check
from gm_jax.data.registry import available, load

__all__ = ['DataError', 'Dataset', 'Split', 'available', 'check', 'load']
