"""The bijectors that distrax lacks; from noise (or the nearer end of it) to data, unless said otherwise.

``Logit``, ``Squeeze``, ``Permutation``, ``Flip``, ``Reshape``, the invertible 1x1 convolution ``ChannelMixing``,
``Planar`` and ``Radial``; ``MaskedAutoregressive`` has a file of its own. Couplings, splines, affine maps, chains and
inverses are distrax's.
"""

import math

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array


class Logit(distrax.Bijector):
  """Maps (0, 1) to the real line: y = logit(alpha + (1 - 2 alpha) x), elementwise (Dinh et al. 2017).

  Maps the interval from alpha' to 1 - alpha' that reaches a little beyond [0, 1], so the ends are finite if alpha > 0.
  """

  def __init__(self, alpha: float = 0.0):
    """The map.

    Args:
      alpha: keeps x away from the ends; 0 <= alpha < 1/2.

    Raises:
      ValueError: for another alpha.
    """
    if not 0 <= alpha < 0.5:
      raise ValueError(f'alpha={alpha}: give 0 <= alpha < 0.5')
    super().__init__(event_ndims_in=0)
    self._alpha, self._log_range = alpha, math.log1p(-2 * alpha)

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """Log-odds, and the log of their derivative."""
    # 1 - s is taken from 1 - x, which is exact near 1 where subtracting s would lose digits.
    width = 1 - 2 * self._alpha
    log_s, log_rest = jnp.log(self._alpha + width * x), jnp.log(self._alpha + width * (1 - x))
    return log_s - log_rest, self._log_range - log_s - log_rest

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """Back to x = (sigmoid(y) - alpha) / (1 - 2 alpha)."""
    log_derivative = jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y) - self._log_range
    return (jax.nn.sigmoid(y) - self._alpha) / (1 - 2 * self._alpha), log_derivative


class _Rearrangement(distrax.Bijector):
  """Moves entries about and changes none, so that the log-det is 0."""

  def __init__(self, event_ndims_in: int, event_ndims_out: int | None = None):
    super().__init__(event_ndims_in, event_ndims_out, is_constant_jacobian=True)

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """The entries in their new places, and zeros."""
    return self._move(x), jnp.zeros(x.shape[: x.ndim - self.event_ndims_in], x.dtype)

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """The entries in their old places, and zeros."""
    return self._move_back(y), jnp.zeros(y.shape[: y.ndim - self.event_ndims_out], y.dtype)


class Squeeze(_Rearrangement):
  """Blocks of 2 x 2 pixels become channels: ``[..., H, W, C] -> [..., H/2, W/2, 4 C]``; from data towards noise."""

  def __init__(self):
    """The map."""
    super().__init__(3)

  def _move(self, x):
    *batch, height, width, channels = x.shape
    if height % 2 or width % 2:
      raise ValueError(f'images of {height} x {width} pixels cannot be squeezed: height and width must be even')
    x = x.reshape(*batch, height // 2, 2, width // 2, 2, channels)
    return jnp.moveaxis(x, -4, -3).reshape(*batch, height // 2, width // 2, 4 * channels)

  def _move_back(self, y):
    *batch, height, width, channels = y.shape
    y = jnp.moveaxis(y.reshape(*batch, height, width, 2, 2, channels // 4), -3, -4)
    return y.reshape(*batch, 2 * height, 2 * width, channels // 4)


class Reshape(_Rearrangement):
  """Vectors as arrays of another shape."""

  def __init__(self, shape: tuple[int, ...]):
    """The map ``[..., D] -> [..., *shape]``."""
    super().__init__(1, len(shape))
    self._shape = shape

  def _move(self, x):
    return x.reshape(*x.shape[:-1], *self._shape)

  def _move_back(self, y):
    return y.reshape(*y.shape[: y.ndim - len(self._shape)], math.prod(self._shape))


class Flip(_Rearrangement):
  """The last axis in reverse order."""

  def __init__(self):
    """The map."""
    super().__init__(1)

  def _move(self, x):
    return jnp.flip(x, axis=-1)

  _move_back = _move


class Permutation(_Rearrangement):
  """The last axis in another order: y[..., i] = x[..., order[i]]."""

  def __init__(self, order):
    """The map.

    Raises:
      ValueError: if ``order`` is no permutation.
    """
    super().__init__(1)
    order = np.asarray(order)
    if not np.array_equal(np.sort(order), np.arange(order.size)):
      raise ValueError(f'order={order.tolist()!r} is no permutation of 0, ..., {order.size - 1}')
    self._order, self._inverse = order, np.argsort(order)

  def _move(self, x):
    return x[..., self._order]

  def _move_back(self, y):
    return y[..., self._inverse]


class ChannelMixing(distrax.Bijector):
  """The invertible 1x1 convolution y = W x on the channels of each pixel (Kingma & Dhariwal 2018)."""

  def __init__(self, matrix: Array, inverse: Array, log_det: Array):
    """The map.

    Args:
      matrix: W, ``[C, C]``.
      inverse: of W.
      log_det: log |det W|.
    """
    super().__init__(event_ndims_in=3, is_constant_jacobian=True)
    self._matrix, self._inverse, self._log_det = matrix, inverse, log_det

  @classmethod
  def direct(cls, matrix: Array) -> 'ChannelMixing':
    """From W itself, by an inverse and a determinant."""
    return cls(matrix, jnp.linalg.inv(matrix), jnp.linalg.slogdet(matrix)[1])

  @classmethod
  def factored(cls, permutation: Array, lower: Array, upper: Array, log_diagonal: Array, sign: Array):
    """W = P L (U + diag(sign exp(log_diagonal))): L unit lower, U strictly upper triangular; log |det W| is a sum."""
    lower = jnp.tril(lower, -1) + jnp.eye(len(lower))
    upper = jnp.triu(upper, 1) + jnp.diag(sign * jnp.exp(log_diagonal))
    solve = jax.scipy.linalg.solve_triangular
    inverse = solve(upper, solve(lower, permutation.T, lower=True, unit_diagonal=True))
    return cls(permutation @ lower @ upper, inverse, jnp.sum(log_diagonal))

  def _total(self, x):
    return jnp.broadcast_to(x.shape[-3] * x.shape[-2] * self._log_det, x.shape[:-3])

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """W x, and H W log |det W|."""
    return x @ self._matrix.T, self._total(x)

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """W^-1 y, and its log-det."""
    return y @ self._inverse.T, -self._total(y)


class Planar(distrax.Bijector):
  """x = z + u tanh(w^T z + b), with u moved so that w^T u > -1, which makes it invertible (Rezende & Mohamed 2015)."""

  def __init__(self, w: Array, u: Array, b: Array):
    """The map, with ``w`` and ``u`` ``[..., D]`` and ``b`` ``[...]``.

    u' = u + (softplus(w^T u) - 1 - w^T u) w / |w|^2.
    """
    super().__init__(event_ndims_in=1)
    product = jnp.sum(w * u, axis=-1)
    self._w, self._b = w, b
    self._product = jax.nn.softplus(product) - 1  # w^T u', above -1
    self._u = u + ((self._product - product) / (jnp.sum(w**2, axis=-1) + 1e-12))[..., None] * w

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """With log |det| = log(1 + w^T u' (1 - tanh^2))."""
    value = jnp.tanh(jnp.sum(self._w * x, axis=-1) + self._b)
    return x + value[..., None] * self._u, jnp.log1p(self._product * (1 - value**2))

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """By bisection for a = w^T z, of which w^T x = a + w^T u' tanh(a + b) is a rising function."""
    target, width = jnp.sum(self._w * y, axis=-1), jnp.abs(self._product)

    def halve(_, ends):
      middle = (ends[0] + ends[1]) / 2
      below = middle + self._product * jnp.tanh(middle + self._b) < target
      return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, high = jax.lax.fori_loop(0, 40, halve, (target - width, target + width))
    # One step of Newton's method makes the root differentiable: its derivative is that of the implicit function.
    a = jax.lax.stop_gradient((low + high) / 2)
    value = jnp.tanh(a + self._b)
    a = a - (a + self._product * value - target) / (1 + self._product * (1 - value**2))
    value = jnp.tanh(a + self._b)
    return y - value[..., None] * self._u, -jnp.log1p(self._product * (1 - value**2))


class Radial(distrax.Bijector):
  """x = z + beta' (z - c) / (alpha' + r) with r = |z - c|, contracting or expanding around c (Rezende & Mohamed 2015).

  alpha' = softplus(alpha), beta' = softplus(beta) - alpha' > -alpha', which makes it invertible.
  """

  def __init__(self, centre: Array, alpha: Array, beta: Array):
    """The map, with ``centre`` ``[..., D]`` and ``alpha`` and ``beta`` ``[...]``."""
    super().__init__(event_ndims_in=1)
    self._centre, self._alpha = centre, jax.nn.softplus(alpha)
    self._beta = jax.nn.softplus(beta) - self._alpha

  def _log_det(self, r, num_dimensions):
    h = 1 / (self._alpha + r)
    return (num_dimensions - 1) * jnp.log1p(self._beta * h) + jnp.log1p(self._alpha * self._beta * h**2)

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """With log |det| = (D - 1) log(1 + beta h) + log(1 + alpha beta h^2) with h = 1 / (alpha + r)."""
    difference = x - self._centre
    r = _norm(difference)
    factor = 1 + self._beta / (self._alpha + r)
    return self._centre + factor[..., None] * difference, self._log_det(r, x.shape[-1])

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """By the quadratic equation of r: |x - c| = r (1 + beta / (alpha + r))."""
    difference = y - self._centre
    distance = _norm(difference)
    half = (self._alpha + self._beta - distance) / 2
    root = jnp.sqrt(half**2 + self._alpha * distance)
    # r = root - half, written so that nothing cancels.
    r = jnp.where(half > 0, self._alpha * distance / (root + jnp.abs(half)), root - half)
    factor = 1 / (1 + self._beta / (self._alpha + r))
    return self._centre + factor[..., None] * difference, -self._log_det(r, y.shape[-1])


def _norm(x):
  """The length of vectors, with a derivative of 0 at 0."""
  square = jnp.sum(x**2, axis=-1)
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
