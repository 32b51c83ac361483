"""Data sets as binary models take them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from gm_jax import data as datasets
from gm_jax.data import transforms
from gm_jax.training import loop

BINARISE = ('threshold', 'static', 'stochastic')


class Splits(NamedTuple):
  """The three splits, ``[N, D]``, and what is still to be done to training examples at each step."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  transform: Callable  # (key, x) -> x


def define_binarise(flags: absl_flags.FlagValues) -> None:
  """The flag --binarise."""
  absl_flags.DEFINE_enum(
    'binarise', BINARISE[0], BINARISE,
    'How grey data become binary: at one half, at random once, or at random anew at every step.', flag_values=flags,
  )  # fmt: skip


def binary(dataset: datasets.Dataset, binarise: str) -> Splits:
  """Binary data as they are, grey data binarised; with ``stochastic`` the training set is drawn anew at every step.

  Raises:
    ValueError: for data that are neither.
  """
  if dataset.kind not in ('binary', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but this model needs binary or grey data')
  grey = dataset
  if dataset.kind == 'grey':
    method = 'static' if binarise == 'stochastic' else binarise
    dataset = transforms.binarise(dataset, method, jax.random.key(0))
  train, valid, test = (flatten(split.x) for split in (dataset.train, dataset.valid, dataset.test))
  if grey is not dataset and binarise == 'stochastic':
    transform = lambda key, x: transforms.stochastic_binarise(key, x, grey.levels)
    return Splits(flatten(grey.train.x), valid, test, transform)
  return Splits(train, valid, test, loop.as_float)


def flatten(x: np.ndarray) -> np.ndarray:
  """``[N, ...] -> [N, D]``."""
  return np.asarray(x).reshape(len(x), -1)
