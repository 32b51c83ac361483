"""Data as a flow takes them, the way there and back, and its samples.

Real data are standardised by the training set; grey values are dequantised anew at every step and, unless --space=unit,
taken to the real line by a logit. Each of these maps has a log-det.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import vectors
from gm_jax import data as datasets
from gm_jax.base import bind
from gm_jax.data import transforms
from gm_jax.flows import dequantisation

SPACES = ('logit', 'unit')
DEQUANTISATIONS = ('uniform', 'variational')


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of the data."""
  help = 'Where grey data live: the real line, by a logit, or the unit cube (centred).'
  absl_flags.DEFINE_enum('space', SPACES[0], SPACES, help, flag_values=flags)
  help = 'Noise that makes integers real: uniform, or learnt, which makes numbers bounds.'
  absl_flags.DEFINE_enum('dequantisation', DEQUANTISATIONS[0], DEQUANTISATIONS, help, flag_values=flags)
  help = 'The logit is taken of alpha + (1 - 2 alpha) x.'
  absl_flags.DEFINE_float('alpha', 0.05, help, lower_bound=0, flag_values=flags)
  absl_flags.DEFINE_bool('conditional', False, 'Learn p(x | label).', flag_values=flags)


def context_size(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> int:
  """The number of classes that the flow is conditioned on, or 0.

  Raises:
    ValueError: if there are no labels to condition on.
  """
  if not flags.conditional:
    return 0
  if dataset.num_classes is None or any(split.y is None for split in (dataset.train, dataset.valid, dataset.test)):
    raise ValueError(f'conditional: dataset={dataset.name!r} has no labels to condition on')
  return dataset.num_classes


def num_dimensions(dataset: datasets.Dataset) -> int:
  """D."""
  return int(np.prod(dataset.shape))


class Data(NamedTuple):
  """The three splits as vectors ``[N, D]`` of original values, and the way to where the flow lives and back."""

  splits: tuple[np.ndarray, np.ndarray, np.ndarray]
  contexts: tuple[np.ndarray | None, ...]
  to_flow: Callable  # (key, x [..., D]) -> y [..., D], log-det [...]
  from_flow: Callable  # y [..., D] -> x [..., D]
  from_cube: Callable | None = None  # of grey data: from the unit cube to where the flow lives, and its log-det


def prepare(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """Real data are standardised, grey ones dequantised and taken to the real line or centred.

  Raises:
    ValueError: if the data are of another kind, or alpha does not fit.
  """
  if dataset.kind not in ('real', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a flow is a density of real or grey data')
  splits, every = vectors.flat(dataset)[:3], (dataset.train, dataset.valid, dataset.test)
  contexts = tuple(split.y for split in every) if context_size(flags, dataset) else (None,) * 3
  if dataset.kind == 'real':
    if flags.dequantisation != 'uniform':
      raise ValueError(f'dequantisation={flags.dequantisation} is of grey data, but dataset={dataset.name!r} is real')
    fitted = transforms.fit_standardisation(splits[0])
    to_flow = lambda key, x: transforms.standardise(fitted, x)
    return Data(splits, contexts, to_flow, lambda y: transforms.inverse_standardise(fitted, y))
  levels, alpha = dataset.levels, flags.alpha
  if flags.space == 'logit':
    transforms.logit(np.float32(0.5), alpha, event_ndims=0)  # refuses an alpha that is out of range

  from_cube = dequantisation.centred if flags.space == 'unit' else lambda y: transforms.logit(y, alpha)
  to_cube = lambda y: transforms.inverse_logit(y, alpha) if flags.space == 'logit' else y + 0.5

  def to_flow(key, x):
    y, log_det = transforms.dequantise(key, x, levels)
    y, more = from_cube(y)
    return y, log_det + more

  return Data(splits, contexts, to_flow, lambda y: levels * to_cube(y), from_cube)


def draw_samples(module, params, key, num, contexts, temperature=1.0):
  """Samples where the flow lives; of a conditional one for the labels of the test set in turn."""
  context = None if contexts is None else jnp.arange(num) % (int(np.max(contexts)) + 1)
  sample = jax.jit(bind(module, 'sample'), static_argnums=2)
  return np.asarray(sample(params, key, num, context=context, temperature=temperature))
