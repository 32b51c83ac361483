"""Distances between queries and points, in tiles of bounded memory; for estimators and for scores of samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.base import Array

BLOCK_SIZE = 1024  # rows of a tile on either side: 4 MiB of float32
DIRECT = 8  # up to this many features distances are summed feature by feature
FEW = 16  # up to this many smallest values are found by repeated minima, which on a CPU is far faster than a sort


def squared_distance(query: Array, point: Array) -> Array:
  """|q - p|^2 [Q, P] of queries [Q, D] and points [P, D].

  Up to ``DIRECT`` features it is exact to rounding. Above that it is |q|^2 + |p|^2 - 2 q.p, one matrix product, with an
  error of about the float's precision times the larger square: centre the points first.
  """
  return squared_distance_to(point)(query)


def squared_distance_to(point: Array) -> Callable[[Array], Array]:
  """``squared_distance`` as a function of the queries, for loops over blocks of few of them.

  The points are transposed once, before the loop, which the barrier holds there: products with few rows are a third
  faster for it on a CPU.
  """
  columns = jax.lax.optimization_barrier(point.T)
  if point.shape[1] <= DIRECT:
    return lambda query: sum((query[:, d, None] - columns[d]) ** 2 for d in range(len(columns)))
  squares = jnp.sum(point**2, 1)

  def squared(query):
    product = jnp.matmul(query, columns, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(query**2, 1)[:, None] + squares - 2 * product, 0.0)

  return squared


def smallest(values: Array, k: int) -> Array:
  """The k smallest values of each row in rising order, [..., N] to [..., k]; equal values count one by one."""
  if k > FEW:
    return -jax.lax.top_k(-values, k)[0]

  different = [jnp.min(values, -1)]
  for _ in range(k - 1):
    above = values > different[-1][..., None]
    different.append(jnp.min(jnp.where(above, values, jnp.inf), -1))
  found = jnp.stack(different, -1)

  def with_ties(found):
    """Value t has the ranks from the number of smaller values on."""
    smaller = jnp.stack([jnp.sum(values < value[..., None], -1) for value in different], -1)
    last = jnp.sum(smaller[..., None, :] <= jnp.arange(k)[:, None], -1) - 1
    return jnp.take_along_axis(found, last, -1)

  none_tied = jnp.all(jnp.sum(values <= different[-1][..., None], -1) == k)
  return jax.lax.cond(none_tied, lambda found: found, with_ties, found)


def nearest(queries: Array, points: Array, *, block_size: int = BLOCK_SIZE) -> tuple[Array, Array]:
  """The nearest point of each query, and the squared distance to it.

  Args:
    queries: [Q, D].
    points: [P, D].
    block_size: queries in a tile; memory is that times P.

  Returns:
    Indices [Q], the first of equals, and squared distances [Q], which are exact to rounding: a copy is at 0.
  """
  points = check_points(points)
  queries = check_queries(queries, points)
  centre = points.mean(0)
  centred = points - centre
  (blocks,) = split((queries - centre,), block_size, (0.0,))
  index = jax.lax.map(lambda block: jnp.argmin(squared_distance(block, centred), 1), blocks).reshape(-1)[: len(queries)]
  return index, jnp.sum((queries - points[index]) ** 2, -1)


def split(arrays: tuple[Array, ...], block_size: int, fills: tuple[float, ...]) -> tuple[Array, ...]:
  """Arrays [N, ...] as equal blocks [M, B, ...] with B at most ``block_size``, the last filled up with ``fills``.

  Raises:
    ValueError: if ``block_size`` is below 1.
  """
  if block_size < 1:
    raise ValueError(f'block_size={block_size}: a tile needs at least one query and one point')
  num = len(arrays[0])
  num_blocks = max(1, -(-num // block_size))
  size = -(-num // num_blocks)

  def one(array, fill):
    padding = [(0, num_blocks * size - num)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding, constant_values=fill).reshape(num_blocks, size, *array.shape[1:])

  return tuple(one(array, fill) for array, fill in zip(arrays, fills, strict=True))


def check_points(points: Array) -> Array:
  """Points as floats [N, D].

  Raises:
    ValueError: if they are anything else.
  """
  points = jnp.asarray(points)
  points = points if jnp.issubdtype(points.dtype, jnp.floating) else points.astype(float)
  if points.ndim != 2 or not points.size:
    raise ValueError(f'points of shape {points.shape}: give [N, D] with N and D at least 1')
  return points


def check_queries(x: Array, points: Array) -> Array:
  """Queries [..., D] as rows [Q, D] of the points' type.

  Raises:
    ValueError: if they have another number of features than the points.
  """
  num_features = points.shape[1]
  if jnp.shape(x)[-1:] != (num_features,):
    raise ValueError(f'x of shape {jnp.shape(x)}: the last axis must have the {num_features} features of the points')
  return jnp.asarray(x, points.dtype).reshape(-1, num_features)


def check_positive(name: str, value: Array) -> Array:
  """The value, if each of its numbers is positive and finite or cannot be known yet (under ``jit``).

  Raises:
    ValueError: if not.
  """
  if not isinstance(value, jax.core.Tracer) and not jnp.all((value > 0) & jnp.isfinite(value)):
    raise ValueError(f'{name}={value.tolist()}: give positive and finite numbers')
  return value
