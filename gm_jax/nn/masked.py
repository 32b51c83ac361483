"""Layers that see a part of their input only, and the masks that make a network autoregressive.

Unit k of a layer bears a *degree* m(k): how many inputs of the ordering it may depend on (Germain et al. 2015, "MADE").
Input d has its place 1..D in the ordering as its degree; a hidden unit sees units of degree at most its own; the output
for dimension d sees units of a degree strictly below d's. A path from input i to output d then has to climb from a
degree of at least i to one below d, so there is none unless i comes before d.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array


def check_ordering(ordering, num_dimensions: int) -> np.ndarray:
  """An ordering as an integer array: ``ordering[t]`` is the dimension that comes t-th.

  Raises:
    ValueError: if it is no permutation of ``range(num_dimensions)``.
  """
  ordering = np.asarray(ordering)
  if ordering.shape != (num_dimensions,) or not np.array_equal(np.sort(ordering), np.arange(num_dimensions)):
    raise ValueError(f'ordering={ordering.tolist()!r} is no permutation of 0, ..., {num_dimensions - 1}')
  return ordering.astype(np.int32)


def input_degrees(ordering: Array) -> Array:
  """The degree of each input, 1..D: its place in the ordering (``[D] -> [D]``)."""
  return jnp.argsort(ordering) + 1


def even_degrees(num_units: int, num_dimensions: int, *, reach_all: bool = True) -> np.ndarray:
  """Degrees 1..D-1 of a hidden layer, as evenly spread as can be, in rising order: ``[num_units]``.

  Args:
    num_units: of the layer.
    num_dimensions: D.
    reach_all: whether each degree must be there.

  Raises:
    ValueError: if the layer is too narrow to bear every degree that must be there.
  """
  if reach_all and num_units < num_dimensions - 1:
    raise ValueError(
      f'a hidden layer of {num_units} units cannot bear each of the degrees 1, ..., {num_dimensions - 1}: '
      f'give it {num_dimensions - 1} units or more'
    )
  return (1 + np.arange(num_units) * max(num_dimensions - 1, 1) // num_units).astype(np.int32)


def hidden_mask(degrees_in: Array, degrees_out: Array) -> Array:
  """Which inputs a hidden unit sees, those of a degree at most its own: booleans ``[num_in, num_out]``."""
  return degrees_in[:, None] <= degrees_out[None, :]


def output_mask(degrees_in: Array, degrees_out: Array) -> Array:
  """Which hidden units (or inputs) an output sees, those of a degree below its own: ``[num_in, num_out]``."""
  return degrees_in[:, None] < degrees_out[None, :]


class MaskedDense(nn.Module):
  """A dense layer whose kernel is multiplied by a mask: ``x @ (kernel * mask) + bias``.

  The mask is an argument of the call, so that the same weights can serve many masks, also under ``vmap``. The stored
  kernel is never changed by a mask.

  Attributes:
    num_outputs: units of the layer.
    use_bias: whether a bias is added.
    kernel_init: of the kernel.
  """

  num_outputs: int
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array, mask: Array) -> Array:
    """``[..., num_in] -> [..., num_outputs]``; the mask is ``[num_in, num_outputs]``."""
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.num_outputs))
    y = x @ (kernel * mask)
    return y + self.param('bias', nn.initializers.zeros, (self.num_outputs,)) if self.use_bias else y
