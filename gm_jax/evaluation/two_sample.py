"""Two-sample tests: maximum mean discrepancy, a classifier, and sliced Wasserstein distances.

**MMD** by the full U-statistic, with kernel k::

  MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)

It is unbiased: a perfect sampler scores 0 in expectation, whatever the number of examples. With the polynomial kernel
(x.y / D + 1)^3 it is the kernel inception distance (KID); the customary mean over random blocks of 1000 is the same
number with more noise. Variance: 4 var(h) / n of the projections h(x) = E k(x, x') - E k(x, y) on either side, less
what estimating them adds, plus the variance that is left under the null, which is of the order of n^-2.

**Classifier test** (C2ST): the accuracy on held-out examples of a network that learns to tell real from fake.

**Sliced Wasserstein**: the squared distance of quantile functions, averaged over random directions.

References: Gretton et al., A kernel two-sample test (2012); Sutherland et al., Generative models and model criticism
via optimized MMD (2017); Bińkowski et al., Demystifying MMD GANs (2018); Lopez-Paz & Oquab, Revisiting classifier
two-sample tests (2017); Rabin et al., Wasserstein barycenter and its application to texture mixing (2012).

Example:
  >>> import jax, jax.numpy as jnp
  >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 8))
  >>> score = jax.jit(mmd)(x, y + 1.0)
  >>> bool(score.value > 5 * score.null_stderr)
  True
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.base import Array, Batch, Extra, Key
from gm_jax.distances import split, squared_distance
from gm_jax.evaluation import critics
from gm_jax.evaluation.sample_score import SampleScore, check_features, proportion, sample_score
from gm_jax.nn.mlp import MLP
from gm_jax.training import rules

BLOCK_SIZE = 512  # examples on either side of a tile

Kernel = Callable[[Array, Array], Array]  # [A, D], [B, D] -> [A, B]


def polynomial(x: Array, y: Array) -> Array:
  """(x.y / D + 1)^3, the kernel of KID."""
  base = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST) / x.shape[-1] + 1
  return base * base * base


def gaussian(bandwidth: float | Array) -> Kernel:
  """exp(-|x - y|^2 / (2 bandwidth^2))."""
  return lambda x, y: jnp.exp(-0.5 * squared_distance(x, y) / bandwidth**2)


def median_distance(points: Array, *, num: int = 500) -> Array:
  """The median of the distances between ``num`` points spread over [N, D]: a customary bandwidth."""
  chosen = points[np.linspace(0, len(points) - 1, min(num, len(points))).astype(int)]
  above = np.triu_indices(len(chosen), 1)
  return jnp.sqrt(jnp.median(squared_distance(chosen, chosen)[above]))


def mmd(real: Array, fake: Array, *, kernel: Kernel = polynomial, block_size: int = BLOCK_SIZE) -> SampleScore:
  """The squared maximum mean discrepancy, as the full U-statistic.

  Args:
    real: [N, D] features.
    fake: [M, D].
    kernel: of two blocks of features.
    block_size: examples on either side of a tile, which bounds the memory.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  n, m = len(real), len(fake)
  is_real = (jnp.arange(n + m) < n).astype(real.dtype)
  sums, squares = _kernel_sums(kernel, real, fake, jnp.stack([is_real, 1 - is_real], 1), block_size)
  within = jnp.where(is_real > 0, sums[:, 0] / (n - 1), sums[:, 1] / (m - 1))
  across = jnp.where(is_real > 0, sums[:, 1] / m, sums[:, 0] / n)
  value = within[:n].mean() + within[n:].mean() - across[:n].mean() - across[n:].mean()
  # E of the squared kernel, centred on both sides: what the null's variance is made of.
  centred_square = squares / (n * (n - 1)) - 2 * jnp.mean(within[:n] ** 2) + jnp.mean(within[:n]) ** 2
  centred_square = jnp.maximum(centred_square, 0.0)
  null_variance = centred_square * (2 / (n * (n - 1)) + 2 / (m * (m - 1)) + 4 / (n * m))
  excess = centred_square * (1 / n + 1 / m)
  projections = within - across
  first_order = [jnp.maximum(jnp.var(part) - excess, 0.0) for part in (projections[:n], projections[n:])]
  variance = 4 * first_order[0] / n + 4 * first_order[1] / m + null_variance
  return sample_score(value, jnp.sqrt(variance), 0.0, jnp.sqrt(null_variance))


class PermutationTest(NamedTuple):
  """A statistic, and how often a random relabelling of the examples reaches it."""

  value: Array
  p_value: Array  # (1 + number of relabellings that reach the value) / (1 + relabellings)


def permutation_test(
  key: Key,
  real: Array,
  fake: Array,
  *,
  kernel: Kernel = polynomial,
  num_permutations: int = 200,
  block_size: int = BLOCK_SIZE,
) -> PermutationTest:
  """The exact level of an MMD: all relabellings are summed in one pass over the kernel.

  Arguments are those of ``mmd``; ``num_permutations`` relabellings are drawn from ``key``.
  """
  real, fake = check_features(real=real, fake=fake)
  n, m = len(real), len(fake)
  labels = (jnp.arange(n + m) < n).astype(real.dtype)
  drawn = jax.vmap(lambda k: jax.random.permutation(k, labels))(jax.random.split(key, num_permutations))
  labels = jnp.concatenate([labels[None], drawn]).T  # [N + M, 1 + P]
  sums, _ = _kernel_sums(kernel, real, fake, jnp.concatenate([labels, jnp.ones_like(labels[:, :1])], 1), block_size)
  to_first, to_all = sums[:, :-1], sums[:, -1:]
  first, every = jnp.sum(labels * to_first, 0), jnp.sum(to_all)
  across = jnp.sum(labels * to_all, 0) - first
  values = first / (n * (n - 1)) + (every - first - 2 * across) / (m * (m - 1)) - 2 * across / (n * m)
  reached = jnp.sum(values[1:] >= values[0])
  return PermutationTest(values[0], (1 + reached) / (1 + num_permutations))


def _kernel_sums(kernel, real, fake, columns, block_size) -> tuple[Array, Array]:
  """K Z [N + M, C] for columns Z, K without its diagonal, and the sum of squares of K among the real examples.

  K is the kernel of real and fake together, centred as k(x, y) - k(x, c) - k(c, y) + k(c, c) at their mean c. That
  leaves every difference of means as it is, and spares float32 the cancellation of what all examples share. It is
  symmetric, so each tile above the diagonal serves twice.
  """
  points = jnp.concatenate([real, fake])
  centre = points.mean(0, keepdims=True)
  to_centre, offset = kernel(points, centre)[:, 0], kernel(centre, centre)[0, 0]
  num = len(points)
  is_real = (jnp.arange(num) < len(real)).astype(points.dtype)
  fills = (0.0, 0.0, 0.0, 0.0, -1)
  blocks = split((points, to_centre, columns, is_real, jnp.arange(num)), block_size, fills)
  num_blocks = len(blocks[0])
  rows, others = np.triu_indices(num_blocks)

  def add_tile(total, pair):
    sums, squares = total
    x, x_centre, x_columns, x_real, x_index = jax.tree.map(lambda leaf: leaf[pair[0]], blocks)
    y, y_centre, y_columns, y_real, y_index = jax.tree.map(lambda leaf: leaf[pair[1]], blocks)
    tile = kernel(x, y) - x_centre[:, None] - y_centre + offset
    valid = (x_index[:, None] != y_index) & (x_index >= 0)[:, None] & (y_index >= 0)
    tile = jnp.where(valid, tile, 0.0)
    twice = jnp.where(pair[0] == pair[1], 0.0, 1.0)
    sums = sums.at[pair[0]].add(tile @ y_columns)
    sums = sums.at[pair[1]].add(twice * (tile.T @ x_columns))
    return (sums, squares + (1 + twice) * (x_real @ (tile * tile) @ y_real)), None

  start = jnp.zeros_like(blocks[2]), jnp.zeros((), points.dtype)
  (sums, squares), _ = jax.lax.scan(add_tile, start, np.stack([rows, others], 1))
  return sums.reshape(-1, columns.shape[1])[:num], squares


def classifier_test(
  key: Key,
  real: Array,
  fake: Array,
  *,
  hidden_sizes: Sequence[int] = (64,),
  num_steps: int = 1000,
  batch_size: int = 128,
  learning_rate: float = 1e-3,
) -> SampleScore:
  """The accuracy of a network that was taught on half of the examples to tell real from fake, on the other half.

  Real and fake are cut to equal numbers after a shuffle, so chance is one half; features are standardised by the half
  that is learnt from.

  Args:
    key: of the shuffle, the network and its training.
    real: [N, D] features.
    fake: [M, D].
    hidden_sizes: of the network; none for logistic regression.
    num_steps: updates by Adam.
    batch_size: examples of either kind in an update.
    learning_rate: of Adam.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  num = min(len(real), len(fake))
  real_key, fake_key, train_key = jax.random.split(key, 3)
  both = jnp.stack([jax.random.permutation(k, x)[:num] for k, x in ((real_key, real), (fake_key, fake))])
  learnt, held_out = both[:, : num // 2], both[:, num // 2 :]
  mean, scale = learnt.mean((0, 1)), learnt.std((0, 1))
  standardise = lambda x: (x - mean) / jnp.where(scale > 0, scale, 1.0)
  network = MLP(tuple(hidden_sizes), 1)

  def batch(step, key):
    del step
    rows = jax.random.randint(key, (2, batch_size), 0, num // 2)
    return Batch(standardise(jnp.concatenate([learnt[0][rows[0]], learnt[1][rows[1]]])))

  def loss(params, key, batch, state):
    del key, state
    logits = network.apply({'params': params}, batch.x)[:, 0]
    return optax.sigmoid_binary_cross_entropy(logits, jnp.repeat(jnp.array([1.0, 0.0]), batch_size)).mean(), Extra()

  init = lambda key, batch: network.init(key, batch.x)['params']
  algorithm = rules.descent(init, loss, optax.adam(learning_rate))
  state = critics.train(train_key, algorithm, batch, num_steps)
  logits = network.apply({'params': state.params}, standardise(held_out))[..., 0]
  accuracy = 0.5 * jnp.mean(logits[0] > 0) + 0.5 * jnp.mean(logits[1] <= 0)
  num_test = 2 * held_out.shape[1]
  return sample_score(accuracy, proportion(accuracy, num_test), 0.5, proportion(jnp.float32(0.5), num_test))


def sliced_wasserstein(
  key: Key, real: Array, fake: Array, *, num_projections: int = 256, num_resamples: int = 16
) -> SampleScore:
  """The squared 2-Wasserstein distance of one-dimensional projections, averaged over directions of the unit sphere.

  In D dimensions a shift of all examples by v costs |v|^2 / D. Error and null come from the bootstrap: resamples of
  real and fake for the error, pairs of resamples of the real examples for the null.

  Args:
    key: of directions and resamples.
    real: [N, D] features.
    fake: [M, D]; M may differ from N.
    num_projections: directions.
    num_resamples: of the bootstrap, at least 2.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  n, m = len(real), len(fake)
  direction_key, *keys = jax.random.split(key, 3)
  x, y = project(direction_key, real, fake, num_projections)

  def resampled(first, second):
    def one(key):
      rows = [jax.random.randint(k, (num,), 0, size) for k, num, size in zip(
        jax.random.split(key), (n, m), (first.shape[1], second.shape[1]), strict=True
      )]  # fmt: skip
      return mean_wasserstein(first[:, rows[0]], second[:, rows[1]])

    return lambda key: jax.lax.map(one, jax.random.split(key, num_resamples))

  spread = resampled(x, y)(keys[0])
  null = resampled(x, x)(keys[1])
  return sample_score(mean_wasserstein(x, y), spread.std(ddof=1), null.mean(), null.std(ddof=1))


def project(key: Key, real: Array, fake: Array, num: int) -> tuple[Array, Array]:
  """Both sets on ``num`` random directions of the unit sphere: ``[N, D], [M, D] -> [num, N], [num, M]``."""
  directions = jax.random.normal(key, (real.shape[1], num), real.dtype)
  directions /= jnp.linalg.norm(directions, axis=0)
  return (real @ directions).T, (fake @ directions).T


def mean_wasserstein(x: Array, y: Array) -> Array:
  """The mean of ``wasserstein`` over the rows of ``[P, N]`` and ``[P, M]``."""
  return jax.lax.map(lambda pair: wasserstein(*pair), (x, y)).mean()


def wasserstein(x: Array, y: Array) -> Array:
  """The squared 2-Wasserstein distance between samples [N] and [M] on a line, exactly."""
  n, m = len(x), len(y)
  # Quantile functions are steps; between the levels i / n and j / m both are constant.
  levels = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))
  widths = np.diff(levels, prepend=0) / (n * m)
  upper = [-(-levels // other) - 1 for other in (m, n)]
  return jnp.sum((jnp.sort(x)[upper[0]] - jnp.sort(y)[upper[1]]) ** 2 * jnp.asarray(widths, x.dtype))
