"""Lloyd's k-means: cells for tests and histograms, and the control that shows what a Parzen estimate rewards."""

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.distances import check_points, nearest


def kmeans(key: Key, points: Array, num_clusters: int, *, num_iterations: int = 20) -> Array:
  """Centres [K, D] after Lloyd's iterations from different random points; an empty cell keeps its centre.

  Args:
    key: of the start.
    points: [N, D].
    num_clusters: K, up to N.
    num_iterations: how often cells and centres are found anew.

  Raises:
    ValueError: if there are fewer points than clusters.
  """
  points = check_points(points)
  if not 1 <= num_clusters <= len(points):
    raise ValueError(f'num_clusters={num_clusters}: give a number between 1 and that of the points, {len(points)}')

  def iterate(_, centres):
    cell, _ = nearest(points, centres)
    counts = jnp.zeros(num_clusters, points.dtype).at[cell].add(1)
    sums = jnp.zeros_like(centres).at[cell].add(points)
    return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centres)

  start = points[jax.random.choice(key, len(points), (num_clusters,), replace=False)]
  return jax.lax.fori_loop(0, num_iterations, iterate, start)
