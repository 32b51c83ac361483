"""The histogram: a density that is constant on the cells of a grid.

With n_c the weight of the examples in cell c, n that of all, and h the widths of a cell::

  p(x) = n_c / (n prod_d h_d)      for x in cell c, and 0 outside the grid

The number of cells is the product over features, which is why a histogram fits in few dimensions only. Its other
weakness is the origin of the grid: shifted by half a cell, the same data can show another number of modes.

Reference: Silverman, Density Estimation for Statistics and Data Analysis (1986), section 2.2.

Example:
  >>> import jax, jax.numpy as jnp
  >>> points = jax.random.uniform(jax.random.key(0), (1000, 2)) * jnp.array([2.0, 5.0])
  >>> estimator = fit(points, bins=4)
  >>> density = jnp.exp(jax.jit(log_prob)(estimator, jnp.array([[1.0, 1.0], [9.0, 1.0]])))
  >>> bool(abs(density[0] - 0.1) < 0.03), float(density[1])
  (True, 0.0)

It has nothing that needs more than one look at the data; counts of batches add up:

  >>> edges = dict(width=0.5, origin=0.0)
  >>> total = 0
  >>> for batch in (jnp.array([[0.1], [0.7]]), jnp.array([[0.2], [0.9]])):
  ...   total += jnp.exp(log_prob(fit(batch, **edges), jnp.array([[0.25], [0.75]]))) / 2
  >>> total.tolist()
  [1.0, 1.0]
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key, Model, refuse_context
from gm_jax.distances import check_points, check_positive, check_queries

MOST_CELLS = 2**26


class Histogram(NamedTuple):
  """A histogram estimate."""

  low: Array  # [D], the corner of the first cell
  width: Array  # [D], of a cell
  log_density: Array  # [M_1, ..., M_D], of each cell


def fit(
  points: Array,
  bins: int | tuple[int, ...] | None = None,
  *,
  width: float | Array | None = None,
  origin: float | Array | None = None,
  weights: Array | None = None,
) -> Histogram:
  """Counts points in cells.

  Args:
    points: [N, D].
    bins: number of cells, the same for every feature or one for each; they divide the range of the data, and the last
      one includes the greatest value.
    width: instead of ``bins``, the width of a cell, one number or one per feature. The cells then are the half-open
      intervals [origin + k width, origin + (k + 1) width) that meet the range of the data; their number depends on the
      values, so this cannot be traced.
    origin: any edge between cells [] or [D], with ``width`` only; by default the least value of each feature.
    weights: [N], not negative, of any sum; equal if ``None``.

  Raises:
    ValueError: if not exactly one of ``bins`` and ``width`` is given, one is not positive, ``origin`` comes without
      ``width``, shapes disagree, or there would be more than 2^26 cells.
  """
  points = check_points(points)
  num, num_features = points.shape
  if (bins is None) == (width is None):
    raise ValueError(f'bins={bins} and width={width}: give exactly one of them')
  if bins is not None and origin is not None:
    raise ValueError(f'origin={origin}: with bins the grid begins at the least value, so give width instead of bins')
  low, high = points.min(0), points.max(0)
  if bins is not None:
    counts = (bins,) * num_features if isinstance(bins, int) else tuple(bins)
    if len(counts) != num_features or min(counts) < 1:
      raise ValueError(f'bins={bins}: give a positive number, or one for each of {num_features} features')
    cells = jnp.array(counts, points.dtype)
    varies = high > low  # where nothing does, the cells have width one and the value lies amid them
    width = jnp.where(varies, (high - low) / cells, 1.0)
    low = jnp.where(varies, low, low - 0.5 * cells)
  else:
    width = jnp.broadcast_to(check_positive('width', jnp.asarray(width, points.dtype)), (num_features,))
    origin = low if origin is None else jnp.broadcast_to(jnp.asarray(origin, points.dtype), (num_features,))
    low = origin + width * jnp.floor((low - origin) / width)
    counts = tuple(int(count) + 1 for count in jnp.floor((high - low) / width))
  if math.prod(counts) > MOST_CELLS:
    raise ValueError(f'{" x ".join(map(str, counts))} cells are more than {MOST_CELLS}: give fewer bins or features')
  weights = jnp.ones(num, points.dtype) if weights is None else jnp.asarray(weights, points.dtype)
  if weights.shape != (num,):
    raise ValueError(f'weights of shape {weights.shape}: {num} points need weights of shape [{num}]')
  cell, _ = _locate(low, width, counts, points)
  mass = jnp.zeros(counts, points.dtype).at[cell].add(weights / weights.sum())
  return Histogram(low, width, jnp.log(mass) - jnp.sum(jnp.log(width)))


def model(
  bins: int | tuple[int, ...] | None = None, *, width: float | Array | None = None, origin: float | Array | None = None
) -> Model:
  """The histogram as a ``Model``: ``init(key, batch)`` is ``fit`` of the batch."""
  return Model(init=lambda key, batch: fit(batch.x, bins, width=width, origin=origin), log_prob=log_prob, sample=sample)


def log_prob(estimator: Histogram, x: Array, *, context: Array | None = None) -> Array:
  """Log p(x) in nats, [..., D] to [...]; minus infinity in an empty cell and outside the grid.

  Raises:
    ValueError: if x has another number of features than the grid, or there is a context.
  """
  refuse_context(context)
  queries = check_queries(x, estimator.low[None])
  cell, inside = _locate(estimator.low, estimator.width, estimator.log_density.shape, queries)
  return jnp.where(inside, estimator.log_density[cell], -jnp.inf).reshape(jnp.shape(x)[:-1])


def sample(estimator: Histogram, key: Key, num: int, *, context: Array | None = None) -> Array:
  """``num`` draws [num, D]: a cell by its weight, then uniform in it."""
  refuse_context(context)
  cell_key, place_key = jax.random.split(key)
  shape = estimator.log_density.shape
  cell = jax.random.categorical(cell_key, estimator.log_density.reshape(-1), shape=(num,))
  corner = jnp.stack(jnp.unravel_index(cell, shape), -1)
  place = jax.random.uniform(place_key, (num, len(shape)), estimator.low.dtype)
  return estimator.low + estimator.width * (corner + place)


def _locate(low: Array, width: Array, counts: tuple[int, ...], x: Array) -> tuple[tuple[Array, ...], Array]:
  """The index of the cell of each row of x [Q, D], one array [Q] per feature, and whether it lies in the grid."""
  counts = jnp.array(counts)
  scaled = (x - low) / width
  # The greatest value belongs to the last cell, though the division may put it a rounding beyond.
  inside = (scaled >= 0) & (scaled <= counts * (1 + 4 * jnp.finfo(x.dtype).eps))
  index = jnp.clip(jnp.floor(scaled).astype(int), 0, counts - 1)
  return tuple(index.T), jnp.all(inside, -1)
