"""The Fréchet distance between Gaussians fitted to features, without a matrix root, and right in single precision.

For means m_i and covariances S_i (divided by n_i - 1)::

  d^2 = |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

With R_i the triangular factor of the centred features, S_i = R_i^T R_i / (n_i - 1), the last trace is the nuclear norm
(the sum of singular values) of R_1 R_2^T / sqrt((n_1 - 1)(n_2 - 1)). No covariance is formed, so nothing is squared:
in float32 the textbook formula is wrong by 10 to 50 % on features with a steep spectrum, always to the better side.
Rank-deficient features, and fewer examples than features, need no special care.

``Moments`` are a state (n, mean, R) that can be merged in any order: features stream through, over blocks or devices.

**A perfect sampler does not score 0.** For Gaussian features with the spectrum lambda of S, to first order in 1/n::

  E d^2 = (1/n + 1/m) [sum_i lambda_i + 1/2 sum_ij lambda_i lambda_j (1 + delta_ij) / (lambda_i + lambda_j)]

(a second-order expansion of d^2 about S, with Wishart covariances; it holds down to n = 2 D). Below twice as many
examples as features, ``null`` is NaN and a control of real examples has to take its place.

References: Dowson & Landau, The Fréchet distance between multivariate normal distributions (1982); Heusel et al., GANs
trained by a two time-scale update rule (2017); Chong & Forsyth, Effectively unbiased FID and Inception score (2020).

Example:
  >>> import jax, jax.numpy as jnp
  >>> x = jax.random.normal(jax.random.key(0), (1000, 4))
  >>> score = jax.jit(frechet)(x, x + 3.0)
  >>> round(float(score.value), 3)
  36.0
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.evaluation.sample_score import SampleScore, check_features, sample_score

BLOCK_SIZE = 16_384  # rows factorised at once


class Moments(NamedTuple):
  """First and second moments of features that were seen."""

  n: Array  # [] number of examples
  mean: Array  # [D]
  factor: Array  # [D, D] upper triangular R with R^T R = sum of (x - mean)(x - mean)^T


def moments(features: Array, *, block_size: int = BLOCK_SIZE) -> Moments:
  """The moments of features [N, D], by blocks of ``block_size`` rows."""
  num = len(features)
  num_blocks = -(-num // block_size)
  if num_blocks == 1:
    mean = features.mean(0)
    return Moments(jnp.asarray(num, features.dtype), mean, _triangle(features - mean))
  size = -(-num // num_blocks)
  blocks = jnp.pad(features, [(0, num_blocks * size - num), (0, 0)]).reshape(num_blocks, size, -1)
  present = (jnp.arange(num_blocks * size) < num).reshape(num_blocks, size, 1).astype(features.dtype)

  def add_block(seen, block):
    rows, present = block
    n = present.sum()
    mean = (rows * present).sum(0) / n
    return merge(seen, Moments(n, mean, _triangle((rows - mean) * present))), None

  d = features.shape[1]
  nothing = Moments(jnp.zeros((), features.dtype), jnp.zeros(d, features.dtype), jnp.zeros((d, d), features.dtype))
  return jax.lax.scan(add_block, nothing, (blocks, present))[0]


def merge(first: Moments, second: Moments) -> Moments:
  """The moments of two sets together."""
  n = first.n + second.n
  step = second.mean - first.mean
  between = jnp.sqrt(first.n * second.n / n) * step
  factor = _triangle(jnp.concatenate([first.factor, second.factor, between[None]]))
  return Moments(n, first.mean + step * second.n / n, factor)


def distance(real: Moments, fake: Moments) -> Array:
  """The squared Fréchet distance d^2 of two sets of moments."""
  nuclear = jnp.linalg.svd(_product(_root(real), _root(fake)), compute_uv=False).sum()
  return _assemble(real, fake, nuclear)


def frechet(real: Array, fake: Array, *, block_size: int = BLOCK_SIZE) -> SampleScore:
  """The squared Fréchet distance with its error and its null.

  The standard error joins the variance of the influence functions (with T the map of optimal transport from one
  Gaussian to the other, an example x counts 2 (m_1 - m_2).x + x^T (I - T) x) with that of the null. For a perfect
  sampler the first vanishes, but estimating m and T makes it twice the second, which is taken off.

  Args:
    real: [N, D] features of real examples.
    fake: [M, D] features of samples.
    block_size: rows factorised at once.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  first, second = moments(real, block_size=block_size), moments(fake, block_size=block_size)
  a, b = _root(first), _root(second)
  u, singular, v = jnp.linalg.svd(_product(a, b), full_matrices=False)
  step = first.mean - second.mean
  variance = _influence_variance(real - first.mean, step, b.T @ v.T, singular) / len(real)
  variance += _influence_variance(fake - second.mean, -step, a.T @ u, singular) / len(fake)
  spectrum = _shrunk(jnp.linalg.svd(a, compute_uv=False) ** 2, len(real) - 1)
  null, null_stderr = perfect_sampler(spectrum, len(real), len(fake))
  stderr = jnp.sqrt(jnp.maximum(variance - 2 * null_stderr**2, 0.0) + null_stderr**2)
  if min(len(real), len(fake)) < 2 * real.shape[1]:
    null = null_stderr = jnp.nan
  return sample_score(_assemble(first, second, singular.sum()), stderr, null, null_stderr)


def perfect_sampler(spectrum: Array, n: int, m: int) -> tuple[Array, Array]:
  """Mean and standard deviation of d^2 between n and m draws of one Gaussian, to first order in 1/n and 1/m.

  Args:
    spectrum: [D] eigenvalues of its covariance.
    n: real examples.
    m: samples.
  """
  total = spectrum[:, None] + spectrum
  pairs = jnp.where(total > 0, spectrum[:, None] * spectrum / jnp.where(total > 0, total, 1.0), 0.0)
  rate = 1 / n + 1 / m
  mean = rate * (spectrum.sum() + 0.5 * (pairs.sum() + jnp.trace(pairs)))
  # d^2 is a sum of independent chi-squares: of the means, of the diagonal, and of each pair above it.
  variance = 2 * (spectrum**2).sum() + 0.5 * (spectrum**2).sum() + (pairs**2).sum() - (jnp.diagonal(pairs) ** 2).sum()
  return mean, rate * jnp.sqrt(variance)


def extrapolated(key: Key, real: Array, fake: Array, *, parts: Sequence[int] = (1, 2, 4)) -> SampleScore:
  """The distance at infinitely many examples, by least squares in 1/n over disjoint parts of shuffled examples.

  For each number of parts, real examples and samples are cut into that many pairs of parts, all of which count; the
  mean distances against 1/n are extended to 0, where a perfect sampler scores 0. Parts must hold more examples than
  there are features, or the bias is no longer linear in 1/n.

  Args:
    key: of the shuffle.
    real: [N, D].
    fake: [M, D].
    parts: numbers of parts, at least two different ones.

  Raises:
    ValueError: if fewer than two numbers of parts are given, or a part holds no more examples than features.
  """
  real, fake = check_features(real=real, fake=fake)
  least = min(len(real), len(fake)) // max(parts)
  if len(set(parts)) < 2:
    raise ValueError(f'parts={tuple(parts)}: a line needs two numbers of parts or more')
  if least <= real.shape[1]:
    raise ValueError(
      f'parts={tuple(parts)} leave {least} examples for {real.shape[1]} features: give more examples or fewer parts'
    )
  orders = [jax.random.permutation(k, len(x)) for k, x in zip(jax.random.split(key), (real, fake), strict=True)]
  rates, means, errors = [], [], []
  for num in parts:
    sets = zip((real, fake), orders, strict=True)
    cut = tuple(x[order[: len(x) // num * num]].reshape(num, -1, x.shape[1]) for x, order in sets)
    scores = jax.lax.map(lambda pair: frechet(*pair), cut)
    rates.append(1 / cut[0].shape[1] + 1 / cut[1].shape[1])
    means.append(scores.value.mean())
    errors.append(scores)
  rates = jnp.asarray(rates)
  design = jnp.stack([jnp.ones_like(rates), rates], 1)
  weights = jnp.linalg.pinv(design)[0]  # of the means in the intercept
  # All parts hold the same examples, so the error of the whole carries over; that of the slope is added to it.
  whole = errors[min(range(len(parts)), key=lambda i: parts[i])]
  spread = jnp.sqrt(jnp.sum((weights * jnp.stack([jnp.nan_to_num(e.null_stderr.mean()) for e in errors])) ** 2))
  stderr = jnp.sqrt(whole.stderr.mean() ** 2 + spread**2)
  return sample_score(weights @ jnp.stack(means), stderr, 0.0, jnp.where(spread > 0, spread, jnp.nan))


def _triangle(rows: Array) -> Array:
  """R [D, D] with R^T R = rows^T rows."""
  factor = jnp.linalg.qr(rows, mode='r')
  return jnp.pad(factor, [(0, rows.shape[1] - len(factor)), (0, 0)])


def _root(state: Moments) -> Array:
  """A with A^T A the covariance."""
  return state.factor / jnp.sqrt(state.n - 1)


def _product(a: Array, b: Array) -> Array:
  return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _assemble(real: Moments, fake: Moments, nuclear: Array) -> Array:
  traces = [jnp.sum(_root(state) ** 2) for state in (real, fake)]
  return jnp.maximum(jnp.sum((real.mean - fake.mean) ** 2) + traces[0] + traces[1] - 2 * nuclear, 0.0)


def _shrunk(spectrum: Array, n: int) -> Array:
  """Eigenvalues of a covariance of n degrees of freedom, drawn together until their squares are unbiased.

  Those of a sample lie too far apart, which would make the null too small.
  """
  d, mean = len(spectrum), spectrum.mean()
  squares = jnp.sum(spectrum**2)
  unbiased = n**2 / ((n - 1) * (n + 2)) * (squares - (d * mean) ** 2 / n)
  spread = squares - d * mean**2
  share = jnp.clip((unbiased - d * mean**2) / jnp.where(spread > 0, spread, 1.0), 0.0, 1.0)
  return jnp.maximum(mean + jnp.sqrt(share) * (spectrum - mean), 0.0)


def _influence_variance(centred: Array, step: Array, basis: Array, singular: Array) -> Array:
  """The variance of 2 step.x + x^T (I - T) x with T = basis diag(singular)^+ basis^T."""
  kept = singular > singular.max() * len(singular) * jnp.finfo(singular.dtype).eps
  scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, singular, 1.0)), 0.0)
  moved = jnp.sum((centred @ (basis * scale)) ** 2, 1)
  return jnp.var(2 * centred @ step + jnp.sum(centred**2, 1) - moved)
