"""Factor analysis and probabilistic PCA as one linear-Gaussian model, learnt by EM, with missing values.

    z ~ N(0, I_Q),    x = W z + mu + e,    e ~ N(0, Psi),    hence    x ~ N(mu, W W^T + Psi).

``Psi`` is diagonal in factor analysis and ``sigma^2 I`` in probabilistic PCA. With B = W^T Psi^-1 and M = I + B W,

    z | x ~ N(M^-1 B (x - mu), M^-1).

What is missing leaves the sums over dimensions, and everything stays exact: M then differs between examples.

References:
  Rubin & Thayer (1982), EM algorithms for ML factor analysis; Tipping & Bishop (1999), Probabilistic principal
  component analysis; Ghahramani & Hinton (1997), The EM algorithm for mixtures of factor analyzers.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.base import Batch
  >>> from gm_jax.density import factor_analysis
  >>> from gm_jax.training.rules import expectation_maximization
  >>> key = jax.random.key(0)
  >>> x = jax.random.normal(key, (500, 1)) * jnp.array([1.0, 2.0, -1.0, 0.5]) + 3
  >>> x = x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)
  >>> one_factor = factor_analysis.FactorAnalysis(num_factors=1)
  >>> em = expectation_maximization(one_factor.init, one_factor.e_step, one_factor.m_step)
  >>> state, step = em.init(key, Batch(x)), jax.jit(em.step)
  >>> for _ in range(20):
  ...   state, metrics = step(key, state, Batch(x))
  >>> [f'{abs(w):.1f}' for w in state.params.loadings[:, 0]]
  ['1.0', '2.0', '1.0', '0.5']
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from gm_jax.base import Array, Batch, Key, Model, refuse_context
from gm_jax.density import missing

LOG_2_PI = math.log(2 * math.pi)
SMALLEST_MASS = 1e-12  # a dimension observed in less than this share of the data keeps its parameters


class Factors(NamedTuple):
  """Parameters of D dimensions and Q factors."""

  origin: Array  # [D], a point amid the data
  offset: Array  # [D]; the mean is origin + offset
  loadings: Array  # [D, Q], W
  noise_scale: Array  # [D] in factor analysis, [] in probabilistic PCA: deviations


class Posterior(NamedTuple):
  """Of the factors, given the observed values."""

  mean: Array  # [N, Q]
  factor: Array  # [Q, Q] or [N, Q, Q], lower Cholesky factor of the posterior's precision


def posterior(params: Factors, x: Array) -> Posterior:
  """p(z | x) for examples ``[N, D]`` without gaps."""
  centred = x - params.origin - params.offset
  scaled = params.loadings / _noise_variance(params)[:, None]
  factor = jnp.linalg.cholesky(jnp.eye(scaled.shape[-1]) + scaled.T @ params.loadings)
  return Posterior(cho_solve((factor, True), (centred @ scaled).T).T, factor)


def posterior_with_gaps(params: Factors, x: Array, observed: Array) -> Posterior:
  """p(z | x_observed) for examples ``[N, D]`` and their mask of 0 and 1."""
  centred = observed * (x - params.origin - params.offset)
  scaled = params.loadings / _noise_variance(params)[:, None]
  outer = (scaled[:, :, None] * params.loadings[:, None, :]).reshape(len(scaled), -1)
  num_factors = scaled.shape[-1]
  precision = jnp.eye(num_factors) + (observed @ outer).reshape(-1, num_factors, num_factors)
  factor = jnp.linalg.cholesky(precision)
  return Posterior(cho_solve((factor, True), (centred @ scaled)[..., None])[..., 0], factor)


def log_prob(params: Factors, x: Array) -> Array:
  """Log p(x) of the observed values of ``[N, D]``, in nats."""
  return missing.choose(x, lambda x: log_prob_of(params, x, None), lambda *gappy: log_prob_of(params, *gappy))


def log_prob_of(params: Factors, x: Array, observed: Array | None) -> Array:
  """``log_prob`` where it is known whether there are gaps: then ``observed`` is a mask, and 0 stands for NaN in ``x``.

  The Mahalanobis distance is taken as ``|x - mu - W z|^2 / psi + |z|^2`` at the posterior mean z. That is the same by
  the identity of Woodbury, but a sum of squares where that is a difference, and float32 needs it so.
  """
  variance = _noise_variance(params)
  log_variance = jnp.log(variance)
  if observed is None:
    found, log_det, dim = posterior(params, x), log_variance.sum(), x.shape[-1]
  else:
    found, log_det, dim = posterior_with_gaps(params, x, observed), observed @ log_variance, observed.sum(-1)
  residual = x - params.origin - params.offset - found.mean @ params.loadings.T
  residual = residual if observed is None else observed * residual
  distance = (residual**2 / variance).sum(-1) + (found.mean**2).sum(-1)
  log_det += 2 * jnp.log(jnp.diagonal(found.factor, axis1=-2, axis2=-1)).sum(-1)
  return -0.5 * (distance + log_det + dim * LOG_2_PI)


def statistics(params: Factors, x: Array, weights: Array):
  """``statistics_of`` for data that may have gaps."""
  return missing.choose(
    x, lambda x: statistics_of(params, x, None, weights), lambda *gappy: statistics_of(params, *gappy, weights)
  )


def statistics_of(params: Factors, x: Array, observed: Array | None, weights: Array):
  """Sums of what the regression of each dimension on ``u = (z, 1)`` needs, over the examples where it was observed.

  Args:
    params: current.
    x: ``[N, D]``, with 0 for what is missing.
    observed: ``[N, D]`` of 0 and 1, or ``None`` where nothing is missing.
    weights: ``[N]``.

  Returns:
    Sums of E[u u^T] ``[D, Q+1, Q+1]``, x E[u] ``[D, Q+1]`` and x^2 ``[D]``, x counted from the origin; and the sum of
    E[u u^T] over all examples ``[Q+1, Q+1]``.
  """
  centred = x - params.origin
  if observed is None:
    mean, factor = posterior(params, x)
    u = _with_one(mean)
    factors = (weights[:, None] * u).T @ u + weights.sum() * _padded(_inverse(factor))
    second = jnp.broadcast_to(factors, (x.shape[-1], *factors.shape))
  else:
    mean, factor = posterior_with_gaps(params, x, observed)
    u = _with_one(mean)
    each = u[:, :, None] * u[:, None, :] + _padded(_inverse(factor))
    factors = jnp.tensordot(weights, each, 1)
    second = jnp.tensordot((weights[:, None] * observed).T, each, 1)
    centred = observed * centred
  return second, (weights[:, None] * centred).T @ u, weights @ centred**2, factors


def maximize(params: Factors, statistics, *, floor: float, prior: float = 0.0, prior_variance: float = 1.0) -> Factors:
  """Each dimension's weighted regression on the factors, and the variance of its residual.

  The factors are then rescaled to have mean 0 and covariance I over the data, which EM alone would take very many steps
  to reach where the noise is small (parameter-expanded EM: Liu, Rubin & Wu 1998; the likelihood never falls).

  Args:
    params: current; kept for what was never observed.
    statistics: as from ``statistics``.
    floor: least noise variance.
    prior: weight of pseudo-examples with ``prior_variance`` among the residuals, as the statistics weigh examples.
    prior_variance: see ``prior``.
  """
  second, cross, square, factors = statistics
  count = second[:, -1, -1]
  alive = count > SMALLEST_MASS
  count = jnp.maximum(count, SMALLEST_MASS)
  second, cross, square = second / count[:, None, None], cross / count[:, None], square / count
  size = second.shape[-1]
  # One example in a component leaves the regression undetermined but for rounding: a ridge of that size decides.
  ridge = size * jnp.finfo(second.dtype).eps * jnp.eye(size)
  factor = jnp.linalg.cholesky(jnp.where(alive[:, None, None], second * (1 + ridge), jnp.eye(size)))
  joint = cho_solve((factor, True), cross[..., None])[..., 0]
  residual = count * jnp.maximum(square - (joint * cross).sum(-1), 0) + prior * prior_variance
  count = count + prior
  if params.noise_scale.ndim:
    variance, kept = residual / count, alive
  else:
    variance, kept = residual.sum() / count.sum(), jnp.any(alive)
  offset = jnp.where(alive, joint[:, -1], params.offset)
  loadings = jnp.where(alive[:, None], joint[:, :-1], params.loadings)
  mass = factors[-1, -1]
  factors = jnp.where(mass > SMALLEST_MASS, factors / jnp.maximum(mass, SMALLEST_MASS), jnp.eye(size))
  centre = jnp.where(mass > SMALLEST_MASS, factors[-1, :-1], 0)
  spread = factors[:-1, :-1] - jnp.outer(centre, centre)
  spread = jnp.linalg.cholesky(spread * (1 + ridge[:-1, :-1]))
  return Factors(
    params.origin,
    offset + loadings @ centre,
    loadings @ spread,
    jnp.where(kept, jnp.sqrt(jnp.maximum(variance, floor)), params.noise_scale),
  )


def sample(params: Factors, key: Key, num: int) -> Array:
  """``[num, D]``."""
  factor_key, key = jax.random.split(key)
  z = jax.random.normal(factor_key, (num, params.loadings.shape[-1]))
  return decode(params, z) + params.noise_scale * jax.random.normal(key, (num, len(params.loadings)))


def decode(params: Factors, z: Array) -> Array:
  """W z + mu, ``[..., Q] -> [..., D]``."""
  return params.origin + params.offset + z @ params.loadings.T


def complete(params: Factors, key: Key, x: Array) -> Array:
  """Draws the missing values of ``[N, D]`` given the others: factors from their posterior, then the noise."""
  factor_key, key = jax.random.split(key)
  mean, factor = posterior_with_gaps(params, *missing.split(x))
  noise = jax.random.normal(factor_key, (*mean.shape, 1))
  z = mean + solve_triangular(factor, noise, lower=True, trans=1)[..., 0]
  return jnp.where(jnp.isnan(x), decode(params, z) + params.noise_scale * jax.random.normal(key, x.shape), x)


def start(key: Key, x: Array, num_factors: int, *, isotropic: bool, floor: float) -> tuple[Array, Array, Array]:
  """Origin ``[D]``, loadings ``[D, Q]`` and noise scale to begin with.

  The loadings are random sums of centred examples, so that they already lie where the data vary; the noise has half of
  the variance of the data.
  """
  origin, variance = missing.column_moments(x)
  variance = jnp.maximum(variance, floor)
  filled, observed = missing.split(x)
  draws = jax.random.normal(key, (len(x), num_factors)) / math.sqrt(2 * len(x) * num_factors)
  loadings = (observed * (filled - origin)).T @ draws
  return origin, loadings, jnp.sqrt(0.5 * (variance.mean() if isotropic else variance))


@dataclasses.dataclass(frozen=True)
class FactorAnalysis:
  """One linear-Gaussian model of vectors ``[D]``.

  Attributes:
    num_factors: Q, from 1 to D - 1.
    isotropic: one noise variance for all dimensions, which makes it probabilistic PCA.
    floor: least noise variance, in squared units of the data.

  Raises:
    ValueError: for an argument out of range; from ``init`` if there are not more dimensions than factors.
  """

  num_factors: int
  isotropic: bool = False
  floor: float = 1e-6

  def __post_init__(self):
    if self.num_factors < 1:
      raise ValueError(f'num_factors={self.num_factors}: at least 1 is needed')
    if self.floor <= 0:
      raise ValueError(f'floor={self.floor}: a variance must be positive')

  def init(self, key: Key, batch: Batch) -> Factors:
    """Loadings that are random sums of examples, and half the variance of the data as noise."""
    x = batch.x
    if x.ndim != 2 or self.num_factors >= x.shape[-1]:
      raise ValueError(
        f'num_factors={self.num_factors} for a batch of shape {x.shape}: give [N, D] with D above num_factors'
      )
    origin, loadings, noise_scale = start(key, x, self.num_factors, isotropic=self.isotropic, floor=self.floor)
    return Factors(origin, jnp.zeros_like(origin), loadings, noise_scale)

  def e_step(self, params: Factors, batch: Batch):
    """Means over examples of the statistics and of log p(x); ``batch.context`` weighs the examples."""
    x = batch.x
    weights = jnp.ones(len(x)) if batch.context is None else batch.context
    with jax.default_matmul_precision('highest'):
      total = statistics(params, x, weights), weights @ log_prob(params, x)
    return jax.tree.map(lambda leaf: leaf / len(x), total)

  def m_step(self, params: Factors, statistics) -> Factors:
    """See ``maximize``."""
    with jax.default_matmul_precision('highest'):
      return maximize(params, statistics, floor=self.floor)

  def model(self) -> Model:
    """Under the names of the contract; ``encode`` gives the posterior mean of the factors."""
    return Model(self.init, _log_prob, sample=_sample, encode=_encode, decode=_decode, complete=_complete)


def _log_prob(params, x, *, context=None):
  refuse_context(context)
  with jax.default_matmul_precision('highest'):
    return log_prob(params, x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])


def _sample(params, key, num, *, context=None):
  refuse_context(context)
  return sample(params, key, num)


def _encode(params, x, *, context=None):
  refuse_context(context)
  rows = x.reshape(-1, x.shape[-1])
  with jax.default_matmul_precision('highest'):
    mean = missing.choose(
      rows,
      lambda rows: posterior(params, rows).mean,
      lambda rows, observed: posterior_with_gaps(params, rows, observed).mean,
    )
  return mean.reshape(*x.shape[:-1], -1)


def _decode(params, z, *, context=None):
  refuse_context(context)
  return decode(params, z)


def _complete(params, key, x, observed, *, context=None):
  refuse_context(context)
  gappy = jnp.where(observed, x, jnp.nan).reshape(-1, x.shape[-1])
  return complete(params, key, gappy).reshape(x.shape)


def _noise_variance(params: Factors) -> Array:
  """``[D]``."""
  return jnp.broadcast_to(params.noise_scale**2, params.offset.shape)


def _with_one(z: Array) -> Array:
  return jnp.concatenate([z, jnp.ones_like(z[..., :1])], axis=-1)


def _padded(covariance: Array) -> Array:
  """With a row and a column of zeros for the constant."""
  return jnp.pad(covariance, [(0, 0)] * (covariance.ndim - 2) + [(0, 1), (0, 1)])


def _inverse(factor: Array) -> Array:
  """Of a positive matrix given by its lower Cholesky factor, ``[..., Q, Q]``."""
  return cho_solve((factor, True), jnp.broadcast_to(jnp.eye(factor.shape[-1]), factor.shape))
