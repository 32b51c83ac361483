"""The handwritten digits that come with scikit-learn: 1,797 real images of 8 x 8 pixels, at hand without any file."""

import numpy as np

from gm_jax.data.dataset import Dataset, Split


def load() -> Dataset:
  """1,297 / 250 / 250 digits in a fixed random split: grey values 0 ... 16, ink high, labels 0 ... 9."""
  from sklearn.datasets import load_digits  # half a second, for those who want it only

  bunch = load_digits()
  # RandomState and not Generator: NumPy promises that its stream stays as it is.
  order = np.random.RandomState(0).permutation(len(bunch.images))
  x, y = bunch.images.astype(np.uint8)[order, :, :, None], bunch.target.astype(np.uint8)[order]
  train, valid, test = (Split(x[part], y[part]) for part in (slice(0, 1297), slice(1297, 1547), slice(1547, None)))
  return Dataset(
    'digits', train, valid, test, shape=(8, 8, 1), kind='grey', levels=17, num_classes=10,
    provenance="scikit-learn's load_digits (UCI optical recognition of handwritten digits, the test part of 1,797); "
    'our own random split 1297/250/250, so writers are shared between the parts; not comparable with published tables',
  )  # fmt: skip
