"""Fidelity and diversity apart: neighbourhoods of features in one pass, and precision-recall curves of histograms.

With r_k(a) the distance from a to its k-th nearest neighbour among the others of its own set, and B(a) the closed ball
of that radius::

  precision  share of samples in some B(real)          recall    share of real examples in some B(fake)
  density    mean over samples of #{B(real) holding it} / k
  coverage   share of real examples whose B(real) holds a sample
  realism    of a sample: the greatest r_k(x) / |y - x| over the real x with r_k at most the median
  authentic  a sample farther from its nearest real example than that one is from its own nearest other
  nearest-neighbour accuracy: the share of all examples whose nearest other is of their own kind (leave-one-out)

What a perfect sampler scores is known: density 1 exactly; coverage 1 - prod_{j<k} (N-1-j) / (N-1+M-j), about 1 - 2^-k
for N = M; precision, and recall for N = M, the share of real examples that are among the k nearest of another one
(which is the event itself, with one real example less); authenticity, the share that is not the nearest of its own
nearest.

Of exact duplicates: balls are closed, so a copy of a real example lies in its ball even where the radius is 0, and
distances below what rounding can tell from 0 are 0.

The curve of Sajjadi et al.: histograms p (real) and q (fake) over k-means cells of the union, and for each slope
``precision = sum min(slope p, q)``, ``recall = precision / slope``.

References: Sajjadi et al., Assessing generative models via precision and recall (2018); Kynkäänniemi et al., Improved
precision and recall metric (2019); Naeem et al., Reliable fidelity and diversity metrics (2020); Alaa et al., How
faithful is your synthetic data? (2022).

Example:
  >>> import jax
  >>> real, fake = jax.random.normal(jax.random.key(0), (2, 500, 4))
  >>> found = jax.jit(neighbourhoods)(real, 0.1 * fake)
  >>> bool(found.precision.value[0] > 0.9), bool(found.recall.value[0] < 0.3)
  (True, True)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Key
from gm_jax.distances import DIRECT, nearest, smallest, split, squared_distance_to
from gm_jax.evaluation.clusters import kmeans
from gm_jax.evaluation.sample_score import SampleScore, check_features, proportion, sample_score

BLOCK_SIZE = 16  # rows of a tile, which with 10,000 columns is 640 KB: about what a processor keeps near
ROUNDING = 16  # squared distances below so many units of rounding of the squares that they come from are 0


class Neighbourhoods(NamedTuple):
  """Scores from one pass over the distances; those with neighbourhoods of K sizes are [K]."""

  precision: SampleScore
  recall: SampleScore
  density: SampleScore
  coverage: SampleScore
  authenticity: SampleScore
  nearest_accuracy: SampleScore
  realism: Array  # [M, K], one for each sample
  authentic: Array  # [M] bool


class _Own(NamedTuple):
  """What the distances within one set say of each of its examples."""

  radii: Array  # [N, K] squared distance to the k-th neighbour
  first: Array  # [N] squared distance to the nearest
  balls: Array  # [N, K] how many others have it among their k nearest
  mutual: Array  # [N] whether it is the nearest of its own nearest


def neighbourhoods(
  real: Array, fake: Array, *, ks: Sequence[int] = (5,), block_size: int = BLOCK_SIZE
) -> Neighbourhoods:
  """Precision, recall, density, coverage, realism, authenticity and nearest-neighbour accuracy.

  Standard errors count both sets, each as independent examples of the share.

  Args:
    real: [N, D] features.
    fake: [M, D].
    ks: sizes of neighbourhoods; 3 is customary for precision and recall, 5 for density and coverage.
    block_size: rows of a tile; memory is a few times that by the larger set.

  Raises:
    ValueError: if a k is not between 1 and the smaller set less one; and see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  n, m = len(real), len(fake)
  if not ks or min(ks) < 1 or max(ks) >= min(n, m):
    raise ValueError(f'ks={tuple(ks)}: give numbers from 1 to {min(n, m) - 1}, one less than the smaller set has')
  centre = real.mean(0)
  real, fake = real - centre, fake - centre
  own_real, own_fake = (_within(x, ks, block_size) for x in (real, fake))
  inside, recalled, from_real, nearest_index, from_fake, realism = _across(
    real, fake, own_real.radii, own_fake.radii, block_size
  )
  k = jnp.asarray(ks, real.dtype)

  precision, recall, coverage = (
    jnp.mean(inside > 0, 0),
    jnp.mean(recalled, 0),
    jnp.mean(from_fake[:, None] <= own_real.radii, 0),
  )
  fresh = jnp.mean(own_real.balls > 0, 0)
  fresh_error = proportion(fresh, n, m)
  unknown = jnp.full_like(fresh, jnp.nan)
  # The mass of a ball of k neighbours has the relative variance 1 / k.
  density_error = lambda balls: jnp.sqrt(jnp.var(balls, 0) / k**2 / m + 1 / (k * n))
  null_coverage = jnp.asarray([perfect_coverage(n, m, one) for one in ks], real.dtype)

  authentic = from_real > own_real.first[nearest_index]
  authenticity, fresh_authenticity = jnp.mean(authentic), 1 - jnp.mean(own_real.mutual)
  right = jnp.concatenate([own_real.first < from_fake, own_fake.first < from_real])
  tied = jnp.concatenate([own_real.first == from_fake, own_fake.first == from_real])
  accuracy = jnp.mean(right + 0.5 * tied)
  chance = jnp.asarray((n * (n - 1) + m * (m - 1)) / ((n + m) * (n + m - 1)))
  return Neighbourhoods(
    sample_score(precision, proportion(precision, n, m), fresh, fresh_error),
    sample_score(recall, proportion(recall, n, m), *((fresh, fresh_error) if n == m else (unknown, unknown))),
    sample_score(jnp.mean(inside, 0) / k, density_error(inside), 1.0, density_error(own_real.balls)),
    sample_score(coverage, proportion(coverage, n, m), null_coverage, proportion(null_coverage, n, m)),
    # Examples that are each other's nearest come in pairs, which doubles the variance of their share.
    sample_score(authenticity, proportion(authenticity, n, m), fresh_authenticity,
                 proportion(fresh_authenticity, m, n / 2)),
    sample_score(accuracy, proportion(accuracy, n + m), chance, proportion(chance, n + m)),
    realism,
    authentic,
  )  # fmt: skip


def perfect_coverage(n: int, m: int, k: int) -> float:
  """The expected coverage of n real examples by m draws from their own distribution.

  A ball is empty if the k nearest among the n - 1 other real examples and the m samples are all real ones.
  """
  real_first = np.prod([(n - 1 - j) / (n - 1 + m - j) for j in range(k)])
  return 1 - float(real_first)


def _squared_to(point: Array) -> Callable[[Array], Array]:
  """Squared distances, of queries, in which what rounding cannot tell from 0 is 0."""
  squared_to = squared_distance_to(point)
  if point.shape[1] <= DIRECT:
    return squared_to
  unit = ROUNDING * jnp.finfo(point.dtype).eps
  squares = jnp.sum(point**2, 1)

  def squared(query):
    found = squared_to(query)
    return jnp.where(found <= unit * (jnp.sum(query**2, 1)[:, None] + squares), 0.0, found)

  return squared


def _index_of(squared: Array, least: Array, index: Array, axis: int) -> Array:
  """The index of the least value along an axis; on a CPU much faster than ``argmin``, which compares pairs."""
  return jnp.min(jnp.where(squared == least, index, jnp.iinfo(index.dtype).max), axis)


def _within(x: Array, ks: Sequence[int], block_size: int) -> _Own:
  """Distances within one set."""
  n, largest = len(x), max(ks)
  chosen = np.asarray(ks) - 1
  squared_to_all = _squared_to(x)

  def block(balls, inputs):
    rows, index = inputs
    squared = jnp.where(index[:, None] == jnp.arange(n), jnp.inf, squared_to_all(rows))
    ranked = smallest(squared, largest)
    radii = ranked[:, chosen]
    reach = jnp.where(index[:, None] >= 0, radii, -1.0)  # what only fills the block has no neighbours
    balls = balls + jnp.stack([jnp.sum(squared <= reach[:, i, None], 0) for i in range(len(ks))], 1)
    return balls, (radii, ranked[:, 0], _index_of(squared, ranked[:, :1], jnp.arange(n), 1))

  blocks = split((x, jnp.arange(n)), block_size, (0.0, -1))
  balls, (radii, first, index) = jax.lax.scan(block, jnp.zeros((n, len(ks)), int), blocks)
  index = index.reshape(-1)[:n]
  return _Own(radii.reshape(-1, len(ks))[:n], first.reshape(-1)[:n], balls, index[index] == jnp.arange(n))


def _across(real: Array, fake: Array, real_radii: Array, fake_radii: Array, block_size: int):
  """Distances between the sets.

  Returns:
    Balls that hold each sample [M, K], whether a real example lies in a ball of a sample [N, K]; squared distance of
    each sample to its nearest real example [M] and the index of that [M], of each real example to its nearest sample
    [N]; realism [M, K].
  """
  n, m = len(real), len(fake)
  num_ks = real_radii.shape[1]
  # Balls of radii above the median are left out of realism: those of outliers would hold anything.
  compact = jnp.where(real_radii <= jnp.median(real_radii, 0), real_radii, 0.0)
  squared_to_fake = _squared_to(fake)

  def block(carry, inputs):
    inside, closest, index, realism = carry
    rows, radii, compact, row_index = inputs
    squared = jnp.where(row_index[:, None] >= 0, squared_to_fake(rows), jnp.inf)
    held = [squared <= radii[:, i, None] for i in range(num_ks)]
    inside = inside + jnp.stack([jnp.sum(one, 0) for one in held], 1)
    recalled = jnp.stack([jnp.any(squared <= fake_radii[:, i], 1) for i in range(num_ks)], 1)
    least = jnp.min(squared, 0)
    index = jnp.where(least < closest, _index_of(squared, least, row_index[:, None], 0), index)
    ratio = jnp.stack([jnp.max(compact[:, i, None] / squared, 0) for i in range(num_ks)], 1)
    carry = inside, jnp.minimum(closest, least), index, jnp.fmax(realism, ratio)
    return carry, (recalled, jnp.min(squared, 1))

  start = (
    jnp.zeros((m, num_ks), int), jnp.full(m, jnp.inf, real.dtype), jnp.zeros(m, int), jnp.zeros((m, num_ks), real.dtype)
  )  # fmt: skip
  blocks = split((real, real_radii, compact, jnp.arange(n)), block_size, (0.0, -1.0, 0.0, -1))
  (inside, closest, index, realism), (recalled, from_fake) = jax.lax.scan(block, start, blocks)
  rows = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n]
  return inside, rows(recalled), closest, index, rows(from_fake), jnp.sqrt(realism)


class Curve(NamedTuple):
  """A precision-recall curve, by rising slope."""

  precision: Array  # [A]
  recall: Array  # [A]


def histogram_curve(real: Array, fake: Array, *, num_slopes: int = 1001) -> Curve:
  """The curve of two histograms over the same cells, for slopes tan(angle) at equal angles.

  Args:
    real: [C] shares.
    fake: [C].
    num_slopes: A.
  """
  slopes = jnp.tan(jnp.linspace(1e-4, jnp.pi / 2 - 1e-4, num_slopes))
  precision = jnp.sum(jnp.minimum(slopes[:, None] * real, fake), 1)
  recall = jnp.sum(jnp.minimum(real, fake / slopes[:, None]), 1)
  return Curve(precision, recall)


def best_f(curve: Curve, beta: float) -> Array:
  """The largest F_beta = (1 + beta^2) P R / (beta^2 P + R) on a curve; beta above 1 asks for recall."""
  total = beta**2 * curve.precision + curve.recall
  product = (1 + beta**2) * curve.precision * curve.recall
  return jnp.max(jnp.where(total > 0, product / jnp.where(total > 0, total, 1.0), 0.0))


class CurveScores(NamedTuple):
  """A curve with the two numbers that sum it up."""

  curve: Curve
  recall: SampleScore  # F_8
  precision: SampleScore  # F_(1/8)


def cluster_curve(
  key: Key,
  real: Array,
  fake: Array,
  *,
  num_clusters: int = 20,
  num_runs: int = 10,
  num_draws: int = 32,
  beta: float = 8.0,
) -> CurveScores:
  """The precision-recall curve over k-means cells of the union, averaged over runs of k-means.

  Both sets are cut to equal numbers, since the cells lean to the larger one. Nulls draw both histograms from that of
  the real examples; errors add the spread of the null to the delta method of multinomial shares, which vanishes there.

  Args:
    key: of k-means and of the draws of the null.
    real: [N, D] features.
    fake: [M, D].
    num_clusters: cells.
    num_runs: of k-means.
    num_draws: of the null in each run.
    beta: F_beta stands for recall, F_(1/beta) for precision.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  num = min(len(real), len(fake))
  shuffle_keys, key = jax.random.split(key, 3)[:2], jax.random.fold_in(key, 1)
  real, fake = (jax.random.permutation(k, x)[:num] for k, x in zip(shuffle_keys, (real, fake), strict=True))
  union = jnp.concatenate([real, fake])

  def scores(p, q):
    curve = histogram_curve(p, q)
    return jnp.stack([best_f(curve, beta), best_f(curve, 1 / beta)])

  def draw(key, p):
    normal = jax.random.normal(key, p.shape) * jnp.sqrt(p)
    drawn = jnp.maximum(p + (normal - p * normal.sum()) / jnp.sqrt(num), 0.0)
    return drawn / drawn.sum()

  def run(key):
    cell_key, null_key = jax.random.split(key)
    cells, _ = nearest(union, kmeans(cell_key, union, num_clusters))
    p, q = (jnp.zeros(num_clusters).at[part].add(1 / num) for part in (cells[:num], cells[num:]))
    slopes = jax.jacobian(scores, argnums=(0, 1))(p, q)
    variance = sum(((s**2) @ h - (s @ h) ** 2) / num for s, h in zip(slopes, (p, q), strict=True))
    null = jax.vmap(lambda k: scores(draw(k[0], p), draw(k[1], p)))(jax.random.split(null_key, (num_draws, 2)))
    error = jnp.sqrt(jnp.maximum(variance, 0.0) + null.var(0))
    return histogram_curve(p, q), scores(p, q), error, null.mean(0), null.std(0)

  curve, *found = jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.map(run, jax.random.split(key, num_runs)))
  recall, precision = (sample_score(*(part[i] for part in found)) for i in (0, 1))
  return CurveScores(curve, recall, precision)
