"""Scalar maps from noise to data whose parameters are outputs of a network; what couplings and MAF transform x_d by.

Each is a callable ``[..., size] -> distrax bijector of scalars``, and the identity where the outputs are zero.
"""

from dataclasses import dataclass

import distrax
import jax.numpy as jnp

from gm_jax.base import Array


def by_dimension(outputs: Array, num_dimensions: int) -> Array:
  """The outputs of a network as what each dimension is transformed by: ``[..., size * D] -> [..., D, size]``.

  Outputs of one kind lie side by side, so that what is made of them runs over neighbours in memory.
  """
  return jnp.swapaxes(outputs.reshape(*outputs.shape[:-1], -1, num_dimensions), -1, -2)


@dataclass(frozen=True)
class Additive:
  """x = z + shift (NICE)."""

  size: int = 1

  def __call__(self, outputs: Array) -> distrax.Bijector:
    """The map."""
    return distrax.ScalarAffine(outputs[..., 0], jnp.ones_like(outputs[..., 0]))


@dataclass(frozen=True)
class Affine:
  """x = z exp(log_scale) + shift, with a log-scale that is bounded softly: bound tanh(output / bound).

  Attributes:
    bound: of the log-scale.
    size: 2, the shift and the log-scale.
  """

  bound: float = 5.0
  size: int = 2

  def __post_init__(self):
    if not self.bound > 0:
      raise ValueError(f'bound={self.bound}: give a positive bound of the log-scale')

  def __call__(self, outputs: Array) -> distrax.Bijector:
    """The map."""
    return distrax.ScalarAffine(outputs[..., 0], log_scale=self.bound * jnp.tanh(outputs[..., 1] / self.bound))


AFFINE = Affine()


@dataclass(frozen=True)
class Spline:
  """A monotonic rational-quadratic spline within [-bound, bound], the identity beyond (Durkan et al. 2019).

  Attributes:
    num_bins: K.
    bound: ends of the spline.
  """

  num_bins: int = 8
  bound: float = 5.0

  def __post_init__(self):
    if self.num_bins < 1 or not self.bound > 0:
      raise ValueError(f'num_bins={self.num_bins}, bound={self.bound}: give 1 bin or more and a positive bound')

  @property
  def size(self) -> int:
    """K widths, K heights, K + 1 slopes."""
    return 3 * self.num_bins + 1

  def __call__(self, outputs: Array) -> distrax.Bijector:
    """The map."""
    return distrax.RationalQuadraticSpline(outputs, -self.bound, self.bound, boundary_slopes='identity')
