"""Density from the distance to the k-th nearest neighbour.

With N points, r_k(x) the distance from x to the k-th nearest of them and V_D the volume of the unit ball::

  p(x) = k / (N V_D r_k(x)^D)        V_D = pi^(D/2) / Gamma(D/2 + 1)

**It is not a density: its integral is infinite.** Far from the data r_k(x) grows like |x|, so p falls like |x|^-D, and
every tenfold widening of the region adds k log(10) / N times the surface of the unit sphere over V_D, that is D: 0.23
for N = 100, k = 10 in one dimension, for ever (the test measures it). Compare its values with each other, as k-NN
classification does, not with the log-likelihood of a model; ``sample`` is missing for the same reason. At a query that
equals k points or more it is infinite.

Reference: Loftsgaarden & Quesenberry, A nonparametric estimate of a multivariate density function (1965).

Example:
  >>> import jax, jax.numpy as jnp
  >>> estimator = fit(jnp.array([[0.0], [1.0], [2.0]]), k=2)
  >>> density = jnp.exp(jax.jit(log_prob)(estimator, jnp.array([[0.0], [3.0]])))  # 2 / (3 * 2 r) with r = 1, 2
  >>> bool(jnp.allclose(density, jnp.array([1 / 3, 1 / 6])))
  True

Its only parameter is k, and a classifier made of one estimate per class has the k-NN rule as its posterior:

  >>> classes = [fit(jnp.array([[0.0], [0.5], [4.0]]), 1), fit(jnp.array([[2.0], [3.0], [3.5]]), 1)]
  >>> scores = []
  >>> for estimator in classes:
  ...   scores.append(float(log_prob(estimator, jnp.array([2.2]))))
  >>> scores[1] > scores[0]
  True
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Model, refuse_context
from gm_jax.distances import BLOCK_SIZE, check_points, check_queries, smallest, split, squared_distance


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class NumNeighbors:
  """The number k: it sets shapes, so it is part of the structure and not an array."""

  k: int


class NearestNeighbors(NamedTuple):
  """A nearest-neighbour estimate."""

  points: Array  # [N, D]
  neighbors: NumNeighbors


def fit(points: Array, k: int) -> NearestNeighbors:
  """Keeps the points.

  Args:
    points: [N, D].
    k: which neighbour, from 1 to N. About sqrt(N) is usual.

  Raises:
    ValueError: if points are not [N, D], or k is not between 1 and N.
  """
  points = check_points(points)
  if not 1 <= k <= len(points):
    raise ValueError(f'k={k}: give a number between 1 and that of the points, {len(points)}')
  return NearestNeighbors(points, NumNeighbors(int(k)))


def model(k: int) -> Model:
  """The estimate as a ``Model``: ``init(key, batch)`` is ``fit`` of the batch. Its ``log_prob`` is not normalised."""
  return Model(init=lambda key, batch: fit(batch.x, k), log_prob=log_prob)


def log_prob(
  estimator: NearestNeighbors, x: Array, *, block_size: int = BLOCK_SIZE, context: Array | None = None
) -> Array:
  """Log of the estimate in nats, [..., D] to [...]; not normalised (see above).

  Args:
    estimator: from ``fit``.
    x: queries.
    block_size: queries and points per tile; memory is a few times its square, and k numbers per query.
    context: must be None.

  Raises:
    ValueError: if x has another number of features than the points, ``block_size`` is below 1, or there is a context.
  """
  refuse_context(context)
  num, d = estimator.points.shape
  log_volume = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1)
  squared = distances(estimator, x, block_size=block_size)[..., -1]
  return math.log(estimator.neighbors.k) - math.log(num) - log_volume - 0.5 * d * jnp.log(squared)


def distances(estimator: NearestNeighbors, x: Array, *, block_size: int = BLOCK_SIZE) -> Array:
  """Squared distances to the k nearest points in rising order, [..., D] to [..., k]."""
  k = estimator.neighbors.k
  queries = check_queries(x, estimator.points)
  centre = estimator.points.mean(0)
  points = estimator.points - centre
  (query_blocks,) = split((queries - centre,), block_size, (0.0,))
  point_blocks = split((points, jnp.zeros(len(points), points.dtype)), block_size, (0.0, jnp.inf))

  def rows(query):
    def add_points(nearest, block):
      point, penalty = block  # the penalty is infinite for what only fills the block
      squared = jnp.concatenate([nearest, squared_distance(query, point) + penalty], 1)
      return smallest(squared, k), None

    start = jnp.full((len(query), k), jnp.inf, query.dtype)
    return jax.lax.scan(add_points, start, point_blocks)[0]

  nearest = jax.lax.map(rows, query_blocks).reshape(-1, k)[: len(queries)]
  return nearest.reshape(*jnp.shape(x)[:-1], k)
