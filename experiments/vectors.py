"""Data sets as vectors: the three splits ``[N, D]``, and what is still to be done to the training set at each step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from gm_jax import data as datasets
from gm_jax.data import transforms
from gm_jax.training import loop

BINARISE = ('threshold', 'static', 'stochastic', 'none')


class Vectors(NamedTuple):
  """The three splits as a model sees them, ``[N, D]``, but for the transform of the training set."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  transform: Callable = loop.as_float  # (key, x) -> x


def define_binarise(flags: absl_flags.FlagValues, methods: Sequence[str] = BINARISE) -> None:
  """The flag that ``binary`` takes for its method, with some of the methods."""
  help = 'How grey data become binary: at one half, at random once (static) or at every step (stochastic), or not.'
  absl_flags.DEFINE_enum('binarise', methods[0], methods, help, flag_values=flags)


def flat(dataset: datasets.Dataset) -> Vectors:
  """The data as they are stored."""
  splits = dataset.train, dataset.valid, dataset.test
  return Vectors(*(np.asarray(split.x).reshape(len(split.x), -1) for split in splits))


def binary(dataset: datasets.Dataset, method: str) -> Vectors:
  """Bits; binary data are left as they are, and grey data with ``method='none'``.

  With ``method='stochastic'`` the training set is drawn anew at every step; valid and test once, as with 'static'.
  """
  if dataset.kind != 'grey' or method == 'none':
    return flat(dataset)
  if method != 'stochastic':
    return flat(transforms.binarise(dataset, method, jax.random.key(0)))
  held_out = flat(transforms.binarise(dataset, 'static', jax.random.key(0)))
  anew = lambda key, x: transforms.stochastic_binarise(key, x, dataset.levels)
  return held_out._replace(train=flat(dataset).train, transform=anew)


def dequantised(dataset: datasets.Dataset) -> Vectors:
  """Real numbers: real data as they are, grey values spread over the unit cube, once.

  Raises:
    ValueError: if the data are neither.
  """
  if dataset.kind not in ('real', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a density needs real or grey data')
  stored = flat(dataset)
  if dataset.kind == 'real':
    return stored
  spread = jax.jit(lambda key, x: transforms.dequantise(key, x, dataset.levels)[0])
  return Vectors(*(np.asarray(spread(jax.random.key(i), x)) for i, x in enumerate(stored[:3])))
