"""The shapes of kernels: six profiles, radial or multiplied over features, normalised in every dimension.

With |u| the distance from the centre in units of the bandwidth::

  radial kernel     K(u) = k(|u|) / c_D        c_D = 2 pi^(D/2) / Gamma(D/2) * int_0^inf k(r) r^(D-1) dr
  product kernel    K(u) = prod_d k(|u_d|) / c_1

  gaussian  k(r) = exp(-r^2/2)      epanechnikov  k(r) = 1 - r^2     linear  k(r) = 1 - r         the last four
  exponential      exp(-r)          tophat               1           cosine         cos(pi r/2)   only where r < 1

Example:
  >>> round(math.exp(log_normaliser(Kernel('tophat', product=False), 3)), 4)  # the volume of a ball, 4 pi / 3
  4.1888
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key

_PROFILES = {  # log k as a function of r^2
  'gaussian': lambda s: -0.5 * s,
  'epanechnikov': lambda s: _log(1 - s),
  'tophat': lambda s: jnp.where(s < 1, 0.0, -jnp.inf),
  'exponential': lambda s: -_sqrt(s),
  'linear': lambda s: _log(1 - _sqrt(s)),
  'cosine': lambda s: _log(jnp.where(s < 1, jnp.cos(0.5 * jnp.pi * _sqrt(s)), 0.0)),
}
KERNELS = tuple(_PROFILES)
UNBOUNDED = ('gaussian', 'exponential')  # the others are compact: zero beyond a radius of one


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kernel:
  """The shape of a kernel: its profile k(r), and whether it is a product over features or radial."""

  name: str
  product: bool


def log_profile(kernel: Kernel, squared: Array) -> Array:
  """Log k(r) of r^2, minus infinity outside the support of a compact kernel."""
  return _PROFILES[kernel.name](squared)


def log_normaliser(kernel: Kernel, num_features: int) -> float:
  """Log int K(u) du over R^D of the kernel before it is normalised: log c_D, or D log c_1 for a product."""
  if kernel.product:
    return num_features * (math.log(2) + _log_radial(kernel.name, 1))
  d = num_features
  return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d) + _log_radial(kernel.name, d)


def log_variance(kernel: Kernel, num_features: int) -> float:
  """Log of the variance of each feature under the kernel of bandwidth one."""
  d = 1 if kernel.product else num_features
  return _log_radial(kernel.name, d + 2) - _log_radial(kernel.name, d) - math.log(d)


def _log_radial(name: str, n: int) -> float:
  """Log int_0^inf k(r) r^(n-1) dr."""
  if name == 'gaussian':
    return (0.5 * n - 1) * math.log(2) + math.lgamma(0.5 * n)
  if name == 'exponential':
    return math.lgamma(n)
  if name == 'tophat':
    return -math.log(n)
  if name == 'epanechnikov':
    return math.log(2 / n) - math.log(n + 2)
  if name == 'linear':
    return -math.log(n) - math.log(n + 1)
  # The cosine: int_0^1 sin(pi s/2) (1-s)^(n-1) ds, term by term of the sine. Its sum loses no digits for any n, unlike
  # the recursion by parts.
  ratio, series = 1.0, 1.0
  for k in range(1, 20):
    ratio *= -((0.5 * math.pi) ** 2) / ((n + 2 * k) * (n + 2 * k + 1))
    series += ratio
  return math.log(0.5 * math.pi) - math.log(n) - math.log(n + 1) + math.log(series)


def sample_kernel(kernel: Kernel, key: Key, num: int, num_features: int) -> Array:
  """Draws [num, D] from the kernel of bandwidth one."""
  if kernel.name == 'gaussian':
    return jax.random.normal(key, (num, num_features))
  radius_key, direction_key = jax.random.split(key)
  if kernel.product:
    radius = _sample_radius(kernel.name, radius_key, (num, num_features), 1)
    return radius * jax.random.rademacher(direction_key, radius.shape, radius.dtype)
  radius = _sample_radius(kernel.name, radius_key, (num, 1), num_features)
  direction = jax.random.normal(direction_key, (num, num_features))
  return radius * direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)


def _sample_radius(name: str, key: Key, shape: tuple[int, ...], d: int) -> Array:
  """Draws from the density of the radius, k(r) r^(d-1) up to a constant."""
  if name == 'tophat':
    return jax.random.uniform(key, shape) ** (1 / d)
  if name == 'exponential':
    return jax.random.gamma(key, d, shape)
  if name == 'epanechnikov':
    return jnp.sqrt(jax.random.beta(key, 0.5 * d, 2.0, shape))
  if name == 'linear':
    return jax.random.beta(key, d, 2.0, shape)

  def propose(carry):  # the cosine, by rejection from the linear kernel: at least 2 / pi of the proposals are taken
    key, radius, done = carry
    key, beta_key, accept_key = jax.random.split(key, 3)
    new = jax.random.beta(beta_key, d, 2.0, shape)
    ratio = jnp.sinc(0.5 * (1 - new))  # cos(pi r/2) / (1-r) over its greatest value, pi/2
    accept = jax.random.uniform(accept_key, shape) < ratio
    return key, jnp.where(done, radius, new), done | accept

  start = key, jnp.zeros(shape), jnp.zeros(shape, bool)
  return jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), propose, start)[1]


def _log(x: Array) -> Array:
  """Log x, minus infinity where x is not positive, with a gradient of zero there."""
  return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf)


def _sqrt(x: Array) -> Array:
  """The square root, with a gradient of zero at zero."""
  return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)
