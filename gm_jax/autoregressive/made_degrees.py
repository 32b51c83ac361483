"""Who sees whom in a MADE: orderings of the dimensions and degrees of the hidden units, under each of several masks.

An input bears its place 1..D in the ordering, a hidden unit a degree in 1..D-1, and a unit sees the units below of no
higher degree (``gm_jax/nn/masked.py``). The degrees are numbers of NumPy, fixed before anything is compiled.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from gm_jax.base import Key
from gm_jax.nn import masked


@dataclass(frozen=True, eq=False)
class Degrees:
  """The degrees of all units, for each of M masks; made by ``degrees``.

  Attributes:
    orderings: ``[M, D]``; ``orderings[m, t]`` comes t-th under mask m.
    inputs: ``[M, D]``, the place 1..D of each dimension.
    hidden: for each hidden layer ``[M, H]``.
  """

  orderings: np.ndarray
  inputs: np.ndarray
  hidden: tuple[np.ndarray, ...]

  @property
  def num_masks(self) -> int:
    """M."""
    return self.inputs.shape[0]

  @property
  def num_dimensions(self) -> int:
    """D."""
    return self.inputs.shape[1]

  @functools.cached_property
  def blocks(self) -> list['Blocks']:
    """The units of each hidden layer by degree."""
    return [Blocks.of(layer, self.num_dimensions) for layer in self.hidden]


class Blocks(NamedTuple):
  """The units of a hidden layer by rising degree, where ``count[m, t]`` of them from ``start[m, t]`` on bear t."""

  order: np.ndarray  # [M, H]
  start: np.ndarray  # [M, D]
  count: np.ndarray  # [M, D]
  size: int  # the largest count

  @classmethod
  def of(cls, layer: np.ndarray, num_dimensions: int) -> 'Blocks':
    """The blocks of degrees ``[M, H]``."""
    order = np.argsort(layer, axis=1, kind='stable')
    rising = np.take_along_axis(layer, order, axis=1)
    ends = np.stack([np.searchsorted(row, np.arange(num_dimensions + 1)) for row in rising])
    count = np.diff(ends, axis=1)
    return cls(order, ends[:, :-1], count, int(count.max()))


def degrees(
  num_dimensions: int,
  hidden_sizes: Sequence[int],
  *,
  ordering: Sequence[int] | str = 'natural',
  connectivity: str = 'even',
  num_masks: int = 1,
  key: Key | None = None,
  reach_all: bool = True,
) -> Degrees:
  """The degrees of all units of a MADE.

  Args:
    num_dimensions: D.
    hidden_sizes: units of each hidden layer; none leaves a network of direct connections alone.
    ordering: ``'natural'``, ``'random'`` (one is drawn for each mask), or the ordering itself, common to all masks.
    connectivity: ``'even'`` spreads the degrees 1..D-1 as evenly as can be; ``'random'`` draws each between the
      smallest degree of the layer below and D-1, as in the paper.
    num_masks: M.
    key: for what is random; None if nothing is.
    reach_all: whether an even layer must have a unit of each degree. Without one of degree t, dimension t + 1 does not
      see dimension t through the hidden layers, which direct connections make good.

  Raises:
    ValueError: if the ordering is no permutation, a layer is too narrow (see above), there is no key for what is
      random, or several masks would all be the same.
  """
  if num_dimensions < 1 or num_masks < 1 or any(size < 1 for size in hidden_sizes):
    raise ValueError(f'num_dimensions={num_dimensions}, {hidden_sizes=}, num_masks={num_masks}: each must be 1 or more')
  if connectivity not in ('even', 'random'):
    raise ValueError(f"connectivity={connectivity!r}: choose 'even' or 'random'")
  if isinstance(ordering, str) and ordering not in ('natural', 'random'):
    raise ValueError(f"ordering={ordering!r}: choose 'natural', 'random' or a permutation")
  random_ordering = isinstance(ordering, str) and ordering == 'random'
  random_connectivity = connectivity == 'random' and bool(hidden_sizes)
  if (random_ordering or random_connectivity) and key is None:
    raise ValueError('key=None, but a random ordering or connectivity is drawn from a key')
  if num_masks > 1 and not (random_ordering or random_connectivity):
    raise ValueError(f'num_masks={num_masks}, but neither ordering nor connectivity is random: they would be equal')
  # RandomState and not Generator: NumPy promises that its stream stays as it is, and a run that goes on draws again.
  random = None if key is None else np.random.RandomState(np.asarray(jax.random.key_data(key)).ravel())
  if random_ordering:
    orderings = np.stack([random.permutation(num_dimensions) for _ in range(num_masks)])
  else:
    given = np.arange(num_dimensions) if isinstance(ordering, str) else masked.check_ordering(ordering, num_dimensions)
    orderings = np.tile(given, (num_masks, 1))
  hidden, lowest = [], np.ones((num_masks, 1), int)
  for size in hidden_sizes:
    if connectivity == 'even':
      layer = np.tile(masked.even_degrees(size, num_dimensions, reach_all=reach_all), (num_masks, 1))
    else:
      layer = random.randint(np.tile(lowest, size), max(num_dimensions, 2))
    hidden.append(layer.astype(np.int32))
    lowest = layer.min(1, keepdims=True)
  return Degrees(orderings.astype(np.int32), np.argsort(orderings, axis=1).astype(np.int32) + 1, tuple(hidden))
