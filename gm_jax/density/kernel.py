"""Kernel density estimation: the naive estimator, the Parzen window, and kernels of six shapes in any dimension.

With points x_i of weights w_i that sum to one, a bandwidth B (a diagonal or a full matrix), a scale s_i per point, and
a kernel K that integrates to one (``kernel_shapes.py``)::

  p(x) = sum_i w_i K(B^-1 (x - x_i) / s_i) / (|B| s_i^D)

A bandwidth is the standard deviation of a Gaussian kernel and the radius of the support of a compact one.

The density is summed in log space, in tiles of ``block_size`` queries by ``block_size`` points, so memory grows with
the number of points and not with that of pairs, and nothing underflows. Up to 8 features the squared distances are
exact to rounding; above that they are expanded about the mean of the points into one matrix product, with an error of
log p of about the float's precision times the largest |B^-1 x|^2 (measured in 64 dimensions in the tests).

References: Silverman, Density Estimation for Statistics and Data Analysis (1986); Scott, Multivariate Density
Estimation (1992).

Example:
  >>> import jax, jax.numpy as jnp
  >>> points = jax.random.normal(jax.random.key(0), (500, 2)) * jnp.array([1.0, 10.0])
  >>> estimator = fit(points, 'scott', kernel='epanechnikov')
  >>> jax.jit(log_prob)(estimator, jnp.zeros((3, 2))).shape
  (3,)

The bandwidth is what can be learnt, here by descent on the leave-one-out likelihood (``bandwidth.py`` does it better):

  >>> estimator = fit(points, 1.0)
  >>> loss = lambda log_bandwidth: -leave_one_out(estimator._replace(bandwidth=jnp.exp(log_bandwidth))).mean()
  >>> log_bandwidth, step = jnp.zeros(2), jax.jit(lambda b: b - 0.5 * jax.grad(loss)(b))
  >>> for _ in range(100):
  ...   log_bandwidth = step(log_bandwidth)
  >>> bool(loss(log_bandwidth) < loss(jnp.log(scott(points))))
  True
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key, Model, refuse_context
from gm_jax.density.gaussian import floored_cholesky
from gm_jax.density.kernel_shapes import KERNELS, Kernel, log_normaliser, log_profile, log_variance, sample_kernel
from gm_jax.distances import BLOCK_SIZE, check_points, check_positive, check_queries, split, squared_distance


class KernelDensity(NamedTuple):
  """A kernel density estimate."""

  points: Array  # [N, D]
  log_weights: Array  # [N], their exponentials sum to one
  bandwidth: Array  # [D], or [D, D] for a full one
  log_scales: Array | None  # [N], log s_i of an adaptive estimate
  kernel: Kernel  # not an array: part of the structure of this tree


def fit(
  points: Array,
  bandwidth: str | float | Array = 'scott',
  *,
  kernel: str = 'gaussian',
  product: bool = False,
  weights: Array | None = None,
) -> KernelDensity:
  """A kernel at each point.

  Args:
    points: x_i [N, D].
    bandwidth: a number, one per feature [D], or a full matrix B [D, D]: the kernel of a Gaussian then has covariance
      B B^T, so give the Cholesky factor of a covariance. Or a rule, ``'scott'`` or ``'silverman'``; a rule is meant for
      the Gaussian, and for another kernel it is divided by the standard deviation of that kernel.
    kernel: one of ``KERNELS``.
    product: multiply k over the features instead of taking k of the distance.
    weights: [N], not negative, of any sum; equal if ``None``.

  Raises:
    ValueError: if ``kernel`` or the rule is unknown, a bandwidth is not positive, or shapes disagree.
  """
  points = check_points(points)
  weights = _normalised(weights, points)
  num_features = points.shape[1]
  if kernel not in KERNELS:
    raise ValueError(f'kernel={kernel!r}: give one of {", ".join(KERNELS)}')
  shape = Kernel(kernel, product and kernel != 'gaussian')  # a product of Gaussians is radial, and radial is faster
  if isinstance(bandwidth, str):
    if bandwidth not in ('scott', 'silverman'):
      raise ValueError(f'bandwidth={bandwidth!r}: give a rule, scott or silverman, or a number or an array')
    rule = scott if bandwidth == 'scott' else silverman
    bandwidth = rule(points, weights) / math.exp(0.5 * log_variance(shape, num_features))
  bandwidth = _check_bandwidth(bandwidth, num_features).astype(points.dtype)
  return KernelDensity(points, jnp.log(weights), bandwidth, None, shape)


def naive(points: Array, half_width: float | Array) -> KernelDensity:
  """The naive estimator: the share of points in the centred box |x_i - x| < h, over its volume (2 h)^D.

  Args:
    points: x_i [N, D].
    half_width: h, one number or one per feature.

  Raises:
    ValueError: as ``fit``.
  """
  return fit(points, half_width, kernel='tophat', product=True)


def parzen_window(points: Array, edge: float | Array) -> KernelDensity:
  """Parzen's window: the share of points in the hypercube of edge h centred at x, over its volume h^D.

  Args:
    points: x_i [N, D].
    edge: h, one number or one per feature.

  Raises:
    ValueError: as ``fit``.
  """
  return naive(points, 0.5 * jnp.asarray(edge))


def model(bandwidth: str | float | Array = 'scott', *, kernel: str = 'gaussian', product: bool = False) -> Model:
  """Kernel density estimation as a ``Model``: ``init(key, batch)`` is ``fit`` of the batch."""
  return Model(
    init=lambda key, batch: fit(batch.x, bandwidth, kernel=kernel, product=product), log_prob=log_prob, sample=sample
  )


def log_prob(
  estimator: KernelDensity, x: Array, *, block_size: int = BLOCK_SIZE, context: Array | None = None
) -> Array:
  """Log p(x) in nats, [..., D] to [...]; minus infinity outside the support of a compact kernel.

  Args:
    estimator: from ``fit``.
    x: queries.
    block_size: queries and points per tile; memory is a few times its square.
    context: must be None.

  Raises:
    ValueError: if x has another number of features than the points, ``block_size`` is below 1, or there is a context.
  """
  refuse_context(context)
  queries = check_queries(x, estimator.points)
  return _log_sum(estimator, queries, block_size).reshape(jnp.shape(x)[:-1])


def leave_one_out(estimator: KernelDensity, index: Array | None = None, *, block_size: int = BLOCK_SIZE) -> Array:
  """Log p_-i(x_i): the density of a point under the estimate from the others, in closed form.

  p_-i(x_i) = sum_{j != i} w_j K_j(x_i) / (1 - w_i). For a compact kernel it is minus infinity at a lonely point.

  Args:
    estimator: from ``fit``.
    index: integers [M], the points to leave out, each in its turn; all if ``None``.
    block_size: as in ``log_prob``.

  Returns:
    [M], or [N] for all, in nats.

  Raises:
    ValueError: if there is but one point.
  """
  num = len(estimator.points)
  if num < 2:
    raise ValueError('estimator has 1 point: leaving one out needs 2 or more')
  index = jnp.arange(num) if index is None else jnp.asarray(index)
  log_sum = _log_sum(estimator, estimator.points[index], block_size, left_out=index)
  return log_sum - jnp.log1p(-jnp.exp(estimator.log_weights[index]))


def sample(estimator: KernelDensity, key: Key, num: int, *, context: Array | None = None) -> Array:
  """``num`` draws [num, D]: a point by its weight, and a step from it by the kernel."""
  refuse_context(context)
  choice_key, step_key = jax.random.split(key)
  index = jax.random.categorical(choice_key, estimator.log_weights, shape=(num,))
  step = sample_kernel(estimator.kernel, step_key, num, estimator.points.shape[1]).astype(estimator.points.dtype)
  if estimator.log_scales is not None:
    step = step * jnp.exp(estimator.log_scales[index])[:, None]
  full = estimator.bandwidth.ndim == 2
  return estimator.points[index] + (step @ estimator.bandwidth.T if full else step * estimator.bandwidth)


def scott(points: Array, weights: Array | None = None, *, full: bool = False) -> Array:
  """Scott's rule: n^(-1/(D+4)) times the standard deviation, with n = 1 / sum w_i^2 the effective number of points.

  Args:
    points: [N, D].
    weights: [N], equal if ``None``.
    full: give a triangular matrix [D, D] with the covariance times n^(-2/(D+4)) as its square, instead of a bandwidth
      per feature.

  Returns:
    The bandwidth [D] or [D, D], in the units of the data. A feature that does not vary, or a direction of a singular
    covariance, counts as of 1e-3 of the largest standard deviation of a feature (as of 1e-3 if none varies).

  Raises:
    ValueError: if points or weights have another shape, or a weight is negative.
  """
  points = check_points(points)
  weights = _normalised(weights, points)
  concentration = jnp.sum(weights**2)
  centred = points - weights @ points
  unbiased = weights / jnp.maximum(1 - concentration, jnp.finfo(points.dtype).eps)
  variance = unbiased @ centred**2
  least = 1e-6 * jnp.where(jnp.max(variance) > 0, jnp.max(variance), 1.0)
  if full:
    spread = floored_cholesky((unbiased[:, None] * centred).T @ centred, least)
  else:
    spread = jnp.sqrt(jnp.maximum(variance, least))
  return spread * concentration ** (1 / (points.shape[1] + 4))


def silverman(points: Array, weights: Array | None = None, *, full: bool = False) -> Array:
  """Silverman's rule: Scott's times (4 / (D + 2))^(1/(D+4)), which is best for a Gaussian; arguments as ``scott``."""
  num_features = check_points(points).shape[1]
  return scott(points, weights, full=full) * (4 / (num_features + 2)) ** (1 / (num_features + 4))


def _log_sum(estimator: KernelDensity, queries: Array, block_size: int, left_out: Array | None = None) -> Array:
  """Log sum_i w_i K_i(x) of queries [Q, D], each without the term of one point [Q] if these are given."""
  kernel, log_scales = estimator.kernel, estimator.log_scales
  num_features = estimator.points.shape[1]
  centre = jnp.exp(estimator.log_weights) @ estimator.points
  points, log_det = _whiten(estimator.bandwidth, estimator.points - centre)
  whitened, _ = _whiten(estimator.bandwidth, queries - centre)
  offsets = estimator.log_weights - log_det - log_normaliser(kernel, num_features)
  inverse = jnp.ones_like(offsets)
  if log_scales is not None:
    offsets, inverse = offsets - num_features * log_scales, jnp.exp(-2 * log_scales)
  point_blocks = split((points, offsets, inverse, jnp.arange(len(points))), block_size, (0.0, -jnp.inf, 1.0, -1))
  missing = jnp.full(len(whitened), -2) if left_out is None else left_out
  query_blocks = split((whitened, missing), block_size, (0.0, -2))

  # Points in the outer loop, queries in the inner: XLA on a CPU then keeps the block of points in place and its
  # distances are vectorised; the other way round takes twice as long.
  def add_points(total, block):
    point, offset, inverse, index = block

    @jax.checkpoint  # the gradient computes a tile again: kept, the tiles would be the whole matrix
    def tile(query_block):
      query, missing = query_block
      log_terms = offset + _log_kernel(kernel, query, point, None if log_scales is None else inverse)
      if left_out is not None:
        log_terms = jnp.where(missing[:, None] == index, -jnp.inf, log_terms)
      return jax.nn.logsumexp(log_terms, axis=1)

    return jnp.logaddexp(total, jax.lax.map(tile, query_blocks)), None

  start = jnp.full(query_blocks[1].shape, -jnp.inf, queries.dtype)
  return jax.lax.scan(add_points, start, point_blocks)[0].reshape(-1)[: len(queries)]


def _log_kernel(kernel: Kernel, query: Array, point: Array, inverse: Array | None) -> Array:
  """Log of the kernel, not normalised, between queries [Q, D] and points [P, D] of inverse squared scales [P]."""

  def profile(squared):
    return log_profile(kernel, squared if inverse is None else squared * inverse)

  if not kernel.product:
    return profile(squared_distance(query, point))

  def add_feature(total, columns):
    return total + profile((columns[0][:, None] - columns[1]) ** 2), None

  return jax.lax.scan(add_feature, jnp.zeros((len(query), len(point)), query.dtype), (query.T, point.T))[0]


def _whiten(bandwidth: Array, x: Array) -> tuple[Array, Array]:
  """B^-1 x of rows x [N, D], and log |det B|."""
  if bandwidth.ndim == 1:
    return x / bandwidth, jnp.sum(jnp.log(bandwidth))
  return jnp.linalg.solve(bandwidth, x.T).T, jnp.linalg.slogdet(bandwidth)[1]


def _normalised(weights: Array | None, points: Array) -> Array:
  """Weights [N] that sum to one."""
  num = len(points)
  if weights is None:
    return jnp.full(num, 1 / num, points.dtype)
  weights = jnp.asarray(weights, points.dtype)
  if weights.shape != (num,):
    raise ValueError(f'weights of shape {weights.shape}: {num} points need weights of shape [{num}]')
  if not isinstance(weights, jax.core.Tracer) and not (jnp.all(weights >= 0) and jnp.sum(weights) > 0):
    raise ValueError(f'weights with least {weights.min()} and sum {weights.sum()}: none may be negative, nor all zero')
  return weights / jnp.sum(weights)


def _check_bandwidth(bandwidth: float | Array, num_features: int) -> Array:
  """The bandwidth as [D] or [D, D]."""
  bandwidth = jnp.asarray(bandwidth)
  if bandwidth.shape == (num_features, num_features):
    if not isinstance(bandwidth, jax.core.Tracer) and not jnp.isfinite(jnp.linalg.slogdet(bandwidth)[1]):
      raise ValueError('bandwidth is a singular matrix: give an invertible one, such as scott(points, full=True)')
    return bandwidth
  if bandwidth.shape not in ((), (num_features,)):
    d = num_features
    raise ValueError(f'bandwidth of shape {bandwidth.shape}: give a number, [{d}] or [{d}, {d}]')
  return jnp.broadcast_to(check_positive('bandwidth', bandwidth), (num_features,))
