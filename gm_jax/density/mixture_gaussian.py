"""Gaussian components of a mixture: full, tied, diagonal and spherical covariances, with missing values.

    log p_k(x) = -1/2 |L_k^-1 (x - mu_k)|^2 - log det L_k - D/2 log 2 pi,    L_k L_k^T = Sigma_k.

Squares in float32 lose what is small beside the distance to zero; so means are kept as offsets from an ``origin`` amid
the data, about which the second moments are taken too.

With missing values the E-step adds, as it must, the conditional covariance of what is missing to the outer product of
its conditional mean (Ghahramani & Jordan 1994). Where covariances are diagonal, means and variances are those of the
observed values, weighted by responsibility: the same fixed points with fewer steps.

The floor: a covariance is kept from collapsing by holding every variance at or above ``floor`` and the eigenvalues of
the correlation matrix at or above D times the float's epsilon. Above the floor the M-step is exactly maximum
likelihood; nothing is added to a healthy covariance.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from gm_jax.base import Array, Key
from gm_jax.density import missing

LOG_2_PI = math.log(2 * math.pi)
SMALLEST_MASS = 1e-12  # a component with less than this share of the data keeps its parameters


class Gaussians(NamedTuple):
  """Of K components in D dimensions."""

  origin: Array  # [D]
  offsets: Array  # [K, D]; means are origin + offsets
  scale: Array  # full [K, D, D] and tied [D, D]: lower Cholesky factors; diagonal [K, D] and spherical [K]: deviations


@dataclasses.dataclass(frozen=True)
class _Gaussian:
  """What the four kinds share.

  Attributes:
    floor: least variance, in squared units of the data.
    prior: weight of the prior on each covariance (inverse Wishart), in pseudo-examples per component and per example
      of the data; they lie around the component's own mean.
    prior_variance: variance of those pseudo-examples, in squared units of the data.
  """

  floor: float = 1e-6
  prior: float = 0.0
  prior_variance: float = 1.0
  missing = math.nan

  def __post_init__(self):
    for name, low in (('floor', 0), ('prior_variance', 0)):
      if getattr(self, name) <= low:
        raise ValueError(f'{name}={getattr(self, name)}: a variance must be positive')
    if self.prior < 0:
      raise ValueError(f'prior={self.prior}: pseudo-examples cannot be negative')

  def data(self, x: Array) -> Array:
    """Examples as floats."""
    return missing.as_floats(x)

  def features(self, x: Array) -> Array:
    """Columns in units of their deviations, gaps filled with the mean."""
    return missing.standardised_columns(x, self.floor)

  def start(self, key: Key, x: Array, rows: Array) -> Gaussians:
    """Means at the given rows; each component as wide as all the data."""
    del key
    origin, variance = missing.column_moments(x)
    filled, observed = missing.split(x)
    centred = observed * (filled - origin)
    return Gaussians(origin, centred[rows], self._start_scale(centred, variance, len(rows)))

  def mean(self, components: Gaussians) -> Array:
    """``[K, D]``."""
    return components.origin + components.offsets


class Full(_Gaussian):
  """A covariance matrix for each component; ``scale`` is its lower Cholesky factor ``[K, D, D]``."""

  def _start_scale(self, centred, variance, num):
    scale = _factor(_covariance(centred, variance), self.floor)
    return jnp.broadcast_to(scale, (num, *scale.shape))

  def log_prob(self, components: Gaussians, x: Array, observed: Array | None) -> Array:
    """``[N, K]``."""
    x = x - components.origin
    return _dense_log_prob(components, x) if observed is None else _gappy_log_prob(components, x, observed)

  def statistics(self, components: Gaussians, x: Array, observed: Array | None, responsibilities: Array):
    """Sums of r E[x] ``[K, D]`` and r E[x x^T] ``[K, D, D]``, x counted from the origin."""
    x = x - components.origin
    if observed is not None:
      return _gappy_moments(components, x, observed, responsibilities)
    # One product of [K D, N] and [N, D]: a batch of K small ones takes twice as long.
    weighted = responsibilities.T[:, None, :] * x.T
    second = weighted.reshape(-1, len(x)) @ x
    return responsibilities.T @ x, second.reshape(*weighted.shape[:2], x.shape[-1])

  def maximize(self, components: Gaussians, statistics, mass: Array) -> Gaussians:
    """Weighted means and covariances."""
    first, second = statistics
    alive = mass > SMALLEST_MASS
    offsets = jnp.where(alive[:, None], first / _positive(mass)[:, None], components.offsets)
    scatter = second - mass[:, None, None] * offsets[:, :, None] * offsets[:, None, :]
    scatter += self.prior * self.prior_variance * jnp.eye(offsets.shape[-1])
    scale = _factor(scatter / _positive(mass + self.prior)[:, None, None], self.floor)
    return components._replace(
      offsets=offsets, scale=jnp.where(alive[:, None, None] | (self.prior > 0), scale, components.scale)
    )

  def log_prior(self, components: Gaussians) -> Array:
    """Of all covariances."""
    inverse = _inverse(components.scale)
    trace = self.prior_variance * (inverse**2).sum()
    return -self.prior * (0.5 * trace + _log_det(components.scale).sum())

  def sample(self, components: Gaussians, key: Key, which: Array) -> Array:
    """Mu + L times standard normal noise."""
    noise = jax.random.normal(key, (*which.shape, components.offsets.shape[-1]))
    scale = jnp.tril(components.scale)[which]
    return self.mean(components)[which] + jnp.einsum('nij,nj->ni', scale, noise)

  def complete(self, components: Gaussians, key: Key, x: Array, which: Array) -> Array:
    """A joint draw, moved by the regression of the missing on the observed: an exact draw from the conditional."""
    draw = self.sample(components, key, which)
    filled, observed = missing.split(x)
    scale = jnp.tril(components.scale)[which]
    covariance = scale @ scale.mT
    shift = jax.vmap(_regress)(covariance, observed * (filled - draw), observed)[0]
    return jnp.where(observed > 0, x, draw + shift)

  def num_parameters(self, components: Gaussians) -> int:
    """K means and K symmetric matrices."""
    num, dim = components.offsets.shape
    return num * (dim + dim * (dim + 1) // 2)


class Tied(Full):
  """One covariance matrix for all components; ``scale`` is its lower Cholesky factor ``[D, D]``."""

  def _start_scale(self, centred, variance, num):
    del num
    return _factor(_covariance(centred, variance), self.floor)

  def log_prob(self, components: Gaussians, x: Array, observed: Array | None) -> Array:
    """``[N, K]``."""
    x = x - components.origin
    if observed is not None:
      return _gappy_log_prob(_untie(components), x, observed)
    inverse = _inverse(components.scale)
    distances = (((x @ inverse.T)[:, None] - components.offsets @ inverse.T) ** 2).sum(-1)
    return -0.5 * distances - _log_det(components.scale) - 0.5 * x.shape[-1] * LOG_2_PI

  def statistics(self, components: Gaussians, x: Array, observed: Array | None, responsibilities: Array):
    """Sums of r E[x] ``[K, D]`` and, over all components, of r E[x x^T] ``[D, D]``."""
    x = x - components.origin
    if observed is not None:
      first, second = _gappy_moments(_untie(components), x, observed, responsibilities)
      return first, second.sum(0)
    return responsibilities.T @ x, (responsibilities.sum(1, keepdims=True) * x).T @ x

  def maximize(self, components: Gaussians, statistics, mass: Array) -> Gaussians:
    """Weighted means and the pooled covariance within components; the prior counts once per component."""
    first, second = statistics
    alive = mass > SMALLEST_MASS
    offsets = jnp.where(alive[:, None], first / _positive(mass)[:, None], components.offsets)
    prior = len(mass) * self.prior
    scatter = second - (mass[:, None] * offsets).T @ offsets + prior * self.prior_variance * jnp.eye(len(second))
    return components._replace(offsets=offsets, scale=_factor(scatter / _positive(mass.sum() + prior), self.floor))

  def log_prior(self, components: Gaussians) -> Array:
    """Of the one covariance, with the pseudo-examples of all components."""
    return len(components.offsets) * super().log_prior(components)

  def sample(self, components: Gaussians, key: Key, which: Array) -> Array:
    """Mu + L times standard normal noise."""
    return super().sample(_untie(components), key, which)

  def complete(self, components: Gaussians, key: Key, x: Array, which: Array) -> Array:
    """As for full covariances."""
    return Full.complete(self, _untie(components), key, x, which)

  def num_parameters(self, components: Gaussians) -> int:
    """K means and one symmetric matrix."""
    num, dim = components.offsets.shape
    return num * dim + dim * (dim + 1) // 2


class Diagonal(_Gaussian):
  """Independent dimensions within a component; ``scale`` holds the deviations ``[K, D]``."""

  def _start_scale(self, centred, variance, num):
    del centred
    scale = jnp.sqrt(jnp.maximum(variance, self.floor))
    return jnp.broadcast_to(scale, (num, *scale.shape))

  def _deviations(self, components: Gaussians) -> Array:
    """``[K, D]``."""
    return components.scale

  def log_prob(self, components: Gaussians, x: Array, observed: Array | None) -> Array:
    """``[N, K]``; from differences and not from a product of squares, which would cancel in float32."""
    scale = self._deviations(components)
    whitened = ((x - components.origin)[:, None] - components.offsets) / scale
    terms = 0.5 * (whitened**2 + LOG_2_PI) + jnp.log(jnp.abs(scale))
    return -(terms if observed is None else observed[:, None] * terms).sum(-1)

  def statistics(self, components: Gaussians, x: Array, observed: Array | None, responsibilities: Array):
    """Sums over the observed values of r, r x and r x^2, each ``[K, D]``, x counted from the origin."""
    observed = jnp.ones_like(x) if observed is None else observed
    x = observed * (x - components.origin)
    return responsibilities.T @ observed, responsibilities.T @ x, responsibilities.T @ x**2

  def maximize(self, components: Gaussians, statistics, mass: Array) -> Gaussians:
    """Weighted means and variances of the observed values."""
    del mass
    count, first, second = statistics
    alive = count > SMALLEST_MASS
    offsets = jnp.where(alive, first / _positive(count), components.offsets)
    scatter = jnp.maximum(second - count * offsets**2, 0)
    return components._replace(offsets=offsets, scale=self._scale(components.scale, scatter, count))

  def _scale(self, old, scatter, count):
    variance = (scatter + self.prior * self.prior_variance) / _positive(count + self.prior)
    return jnp.where(count + self.prior > SMALLEST_MASS, jnp.sqrt(jnp.maximum(variance, self.floor)), old)

  def log_prior(self, components: Gaussians) -> Array:
    """Of all variances."""
    scale = self._deviations(components)
    return -self.prior * (0.5 * self.prior_variance / scale**2 + jnp.log(jnp.abs(scale))).sum()

  def sample(self, components: Gaussians, key: Key, which: Array) -> Array:
    """Mu + sigma times standard normal noise."""
    noise = jax.random.normal(key, (*which.shape, components.offsets.shape[-1]))
    return self.mean(components)[which] + self._deviations(components)[which] * noise

  def complete(self, components: Gaussians, key: Key, x: Array, which: Array) -> Array:
    """Within a component the missing do not depend on the observed."""
    return jnp.where(jnp.isnan(x), self.sample(components, key, which), x)

  def num_parameters(self, components: Gaussians) -> int:
    """K means and the variances."""
    return components.offsets.size + components.scale.size


class Spherical(Diagonal):
  """One variance for all dimensions of a component; ``scale`` holds the deviations ``[K]``."""

  def _start_scale(self, centred, variance, num):
    del centred
    return jnp.full(num, jnp.sqrt(jnp.maximum(variance.mean(), self.floor)))

  def _deviations(self, components: Gaussians) -> Array:
    return jnp.broadcast_to(components.scale[:, None], components.offsets.shape)

  def _scale(self, old, scatter, count):
    prior = self.prior * scatter.shape[-1]
    count = count.sum(-1) + prior
    variance = (scatter.sum(-1) + prior * self.prior_variance) / _positive(count)
    return jnp.where(count > SMALLEST_MASS, jnp.sqrt(jnp.maximum(variance, self.floor)), old)


def _dense_log_prob(components: Gaussians, x: Array) -> Array:
  """Whitens all examples by all components in one matrix product."""
  inverse = _inverse(components.scale)
  centres = jnp.einsum('kij,kj->ki', inverse, components.offsets)
  whitened = jnp.einsum('nj,kij->kni', x, inverse) - centres[:, None]
  return -0.5 * (whitened**2).sum(-1).T - _log_det(components.scale) - 0.5 * x.shape[-1] * LOG_2_PI


def _regress(covariance: Array, difference: Array, observed: Array) -> tuple[Array, Array, Array]:
  """Of one example: what the observed differences tell of all values.

  Rows and columns of what is missing are replaced by those of the identity, so that one Cholesky factor of fixed shape
  serves every pattern of gaps.

  Args:
    covariance: ``[D, D]``.
    difference: ``[D]``, observed value less mean, and 0 where missing.
    observed: ``[D]`` of 0 and 1.

  Returns:
    Expected difference ``[D]``, the factor ``[D, D]`` and the whitened differences ``[D]``.
  """
  masked = covariance * observed * observed[:, None] + jnp.diag(1 - observed)
  factor = jnp.linalg.cholesky(masked)
  whitened = solve_triangular(factor, difference, lower=True)
  precise = solve_triangular(factor, whitened, lower=True, trans=1)
  return covariance @ (observed * precise), factor, whitened


def _gappy_log_prob(components: Gaussians, x: Array, observed: Array) -> Array:
  """The marginal of the observed values, component by component."""

  def one(component):
    offset, scale = component
    scale = jnp.tril(scale)
    _, factors, whitened = jax.vmap(_regress, (None, 0, 0))(scale @ scale.T, observed * (x - offset), observed)
    return -0.5 * (whitened**2).sum(-1) - _log_det(factors) - 0.5 * observed.sum(-1) * LOG_2_PI

  return jax.lax.map(one, (components.offsets, components.scale)).T


def _gappy_moments(components: Gaussians, x: Array, observed: Array, responsibilities: Array) -> tuple[Array, Array]:
  """Sums of r E[x] and r E[x x^T] given the observed values, component by component."""

  def one(component):
    offset, scale, shares = component
    scale = jnp.tril(scale)
    covariance = scale @ scale.T
    shift, factors, _ = jax.vmap(_regress, (None, 0, 0))(covariance, observed * (x - offset), observed)
    expected = jnp.where(observed > 0, x, offset + shift)
    explained = solve_triangular(factors, observed[:, :, None] * covariance, lower=True)
    left = (covariance - explained.mT @ explained) * (1 - observed)[:, None] * (1 - observed)[:, :, None]
    return shares @ expected, (shares[:, None] * expected).T @ expected + jnp.tensordot(shares, left, 1)

  return jax.lax.map(one, (components.offsets, components.scale, responsibilities.T))


def _covariance(centred: Array, variance: Array) -> Array:
  """Of centred data with zeros for gaps; the diagonal is that of the observed values."""
  covariance = centred.T @ centred / len(centred)
  deviations = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), jnp.finfo(covariance.dtype).tiny))
  correlation = covariance / deviations / deviations[:, None]
  return jnp.sqrt(variance) * jnp.sqrt(variance)[:, None] * correlation


def _factor(covariance: Array, floor: float) -> Array:
  """Lower Cholesky factors of ``[..., D, D]``, raised to the floor where they are below it."""
  dim = covariance.shape[-1]
  tolerance = dim * jnp.finfo(covariance.dtype).eps
  variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
  deviations = jnp.sqrt(jnp.maximum(variance, floor))
  correlation = covariance / deviations[..., None] / deviations[..., None, :]
  correlation = correlation * (1 - jnp.eye(dim)) + jnp.eye(dim)
  healthy = jnp.all(jnp.isfinite(jnp.linalg.cholesky(correlation - tolerance * jnp.eye(dim))))

  def raised():
    values, vectors = jnp.linalg.eigh(correlation)
    return (vectors * jnp.maximum(values, 2 * tolerance)[..., None, :]) @ vectors.mT

  return deviations[..., None] * jnp.linalg.cholesky(jax.lax.cond(healthy, lambda: correlation, raised))


def _inverse(scale: Array) -> Array:
  """Of lower triangular factors ``[..., D, D]``."""
  return solve_triangular(scale, jnp.broadcast_to(jnp.eye(scale.shape[-1]), scale.shape), lower=True)


def _log_det(scale: Array) -> Array:
  """Log of the absolute determinant of triangular factors, ``[..., D, D] -> [...]``."""
  return jnp.log(jnp.abs(jnp.diagonal(scale, axis1=-2, axis2=-1))).sum(-1)


def _positive(mass: Array) -> Array:
  return jnp.maximum(mass, SMALLEST_MASS)


def _untie(components: Gaussians) -> Gaussians:
  """The shared factor, once for each component."""
  num, dim = components.offsets.shape
  return components._replace(scale=jnp.broadcast_to(components.scale, (num, dim, dim)))
