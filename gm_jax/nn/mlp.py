"""Fully connected networks."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from gm_jax.base import Array


class MLP(nn.Module):
  """Dense layers with a nonlinearity between them and none behind the last: ``[..., D] -> [..., num_outputs]``.

  Attributes:
    hidden_sizes: units of each hidden layer; none makes the network one affine map.
    num_outputs: units of the last layer.
    activation: the nonlinearity.
    kernel_init: of all layers; the last one takes ``output_init`` if given (zeros start a network as a constant).
    output_init: see above.
  """

  hidden_sizes: Sequence[int]
  num_outputs: int
  activation: Callable[[Array], Array] = nn.relu
  kernel_init: Callable = nn.initializers.lecun_normal()
  output_init: Callable | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The outputs, ``[..., num_outputs]``."""
    for size in self.hidden_sizes:
      x = self.activation(nn.Dense(size, kernel_init=self.kernel_init)(x))
    return nn.Dense(self.num_outputs, kernel_init=self.output_init or self.kernel_init)(x)
