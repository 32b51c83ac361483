"""Whether a sampler has learnt its training examples by heart.

A sampler that copies is closer to the training examples than fresh real examples are. Two measures of that, both with
a known null, and both blind to fidelity:

* ``copies``: the share of samples that lie nearer to a training example than all but 5 % of the test examples do.
  A perfect sampler has 5 %.
* ``copying_test``, the C_T of Meehan et al.: in each cell of a partition of space, the Mann-Whitney statistic z of the
  distances d(x) to the nearest training example, of samples against test examples; C_T is the mean of z over the cells
  by their share of the test examples. **Far below 0 is copying, far above 0 is underfitting**, and a perfect sampler
  has mean 0 with the variance that the weights leave of independent standard normals.

Both need three sets that share nothing: train, test and samples.

Reference: Meehan, Chaudhuri & Dasgupta, A non-parametric test to detect data-copying in generative models (2020).

Example:
  >>> import jax
  >>> train, test = jax.random.normal(jax.random.key(0), (2, 500, 2))
  >>> copied = train + 0.01 * jax.random.normal(jax.random.key(1), train.shape)
  >>> bool(jax.jit(copying_test)(jax.random.key(2), train, test, copied).value < -3)
  True
"""

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.distances import nearest
from gm_jax.evaluation.clusters import kmeans
from gm_jax.evaluation.sample_score import SampleScore, check_features, proportion, sample_score


def copies(train: Array, test: Array, fake: Array, *, level: float = 0.05) -> SampleScore:
  """The share of samples nearer to a training example than all but ``level`` of the test examples.

  Args:
    train: [T, D] features.
    test: [N, D], not in ``train``.
    fake: [M, D].
    level: what a perfect sampler has.

  Raises:
    ValueError: if the level is not between 0 and 1; and see ``check_features``.
  """
  if not 0 < level < 1:
    raise ValueError(f'level={level}: give a share between 0 and 1')
  train, test, fake = check_features(train=train, test=test, fake=fake)
  of_test, of_fake = nearest(test, train)[1], nearest(fake, train)[1]
  # With ties, the share of test examples at or below the threshold may exceed the level, and then counts as the null.
  threshold = jnp.quantile(of_test, level, method='lower')
  value, null = jnp.mean(of_fake <= threshold), jnp.mean(of_test <= threshold)
  null_error = proportion(null, len(fake), len(test))
  return sample_score(value, jnp.hypot(proportion(value, len(fake)), proportion(null, len(test))), null, null_error)


def copying_test(
  key: Key, train: Array, test: Array, fake: Array, *, num_cells: int = 5, least: int = 10
) -> SampleScore:
  """C_T; its value is in standard deviations of a single cell, and its null is 0.

  Args:
    key: of the k-means that makes the cells from the training examples.
    train: [T, D] features.
    test: [N, D], not in ``train``.
    fake: [M, D].
    num_cells: cells; 1 compares the distances as they are.
    least: a cell with fewer test examples, or fewer samples, sits out: what a sampler never reaches says nothing about
      copying.

  Raises:
    ValueError: see ``check_features``.
  """
  train, test, fake = check_features(train=train, test=test, fake=fake)
  centres = kmeans(key, train, num_cells)
  (test_cell, _), (fake_cell, _) = nearest(test, centres), nearest(fake, centres)
  of_test, of_fake = nearest(test, train)[1], nearest(fake, train)[1]

  def cell(number):
    z = mann_whitney(of_fake, of_test, fake_cell == number, test_cell == number)
    n, m = jnp.sum(test_cell == number), jnp.sum(fake_cell == number)
    counts = (n >= least) & (m >= least)
    return jnp.where(counts, z, 0.0), jnp.where(counts, n, 0)

  z, weights = jax.lax.map(cell, jnp.arange(num_cells))
  weights = weights / weights.sum()
  spread = jnp.sqrt(jnp.sum(weights**2))
  return sample_score(jnp.sum(weights * z), spread, 0.0, spread)


def mann_whitney(x: Array, y: Array, x_in: Array, y_in: Array) -> Array:
  """The Mann-Whitney statistic of x against y, in standard deviations of its null, corrected for ties.

  Args:
    x: [N]; large values raise the statistic.
    y: [M].
    x_in: [N] bool, which of x count.
    y_in: [M] bool.
  """
  n, m = jnp.sum(x_in).astype(x.dtype), jnp.sum(y_in).astype(x.dtype)
  ordered = jnp.sort(jnp.where(y_in, y, jnp.inf))
  below, upto = (jnp.searchsorted(ordered, x, side=side).astype(x.dtype) for side in ('left', 'right'))
  u = jnp.sum(jnp.where(x_in, 0.5 * (below + jnp.minimum(upto, m)), 0.0))
  both = jnp.sort(jnp.concatenate([ordered, jnp.where(x_in, x, jnp.inf)]))
  sizes = (jnp.searchsorted(both, both, side='right') - jnp.searchsorted(both, both, side='left')).astype(x.dtype)
  # Each member of a group of t equals adds t^2 - 1, so that groups add t^3 - t.
  ties = jnp.sum(jnp.where(jnp.isfinite(both), sizes**2 - 1, 0.0))
  total = n + m
  variance = n * m / 12 * (total + 1 - ties / jnp.maximum(total * (total - 1), 1.0))
  return jnp.where(variance > 0, (u - 0.5 * n * m) / jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
