"""Coupling layers of vectors: one half of the dimensions stays and says how the other half is transformed.

  z_a = x_a        z_b = t(x_b; g(x_a))^-1

Laurent Dinh, David Krueger & Yoshua Bengio (2015), NICE; Dinh, Sohl-Dickstein & Bengio (2017), Real NVP.
"""

from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array
from gm_jax.flows import bijectors, normalisation
from gm_jax.flows.layers import Constant, Layer, Sequential
from gm_jax.flows.scalar import AFFINE, by_dimension
from gm_jax.nn.mlp import MLP


class Coupling(Layer):
  """The first half of the dimensions stays, the others are transformed.

  Attributes:
    num_dimensions: D, 2 or more. If it is odd, the half that stays is the smaller one, so that the middle, which
      a reversal leaves where it is, is always transformed.
    transform: of a dimension; see ``scalar``.
    hidden_sizes: of the network.
    activation: of the network.
  """

  num_dimensions: int
  transform: Callable = AFFINE
  hidden_sizes: Sequence[int] = (100, 100)
  activation: Callable[[Array], Array] = nn.relu

  def __post_init__(self):
    check_num_dimensions(self.num_dimensions)
    super().__post_init__()

  def setup(self):
    """The network, which starts at zero, where transforms are the identity."""
    num_outputs = (self.num_dimensions + 1) // 2 * self.transform.size
    self.network = MLP(self.hidden_sizes, num_outputs, self.activation, output_init=nn.initializers.zeros)

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    kept_size = self.num_dimensions // 2

    def conditioner(kept):
      inputs = kept if context is None else jnp.concatenate([kept, context], axis=-1)
      return by_dimension(self.network(inputs), self.num_dimensions - kept_size)

    return distrax.SplitCoupling(kept_size, 1, conditioner, self.transform)


def step(layer: nn.Module, num_dimensions: int, batch_norm: bool) -> Sequential:
  """A layer of a stack that changes roles from one layer to the next, by the reversal of the dimensions.

  From the data: the layer itself, batch normalisation if asked for, the reversal. The reversal is there once in each
  step, so the orders of two neighbours really differ.
  """
  middle = [normalisation.BatchNorm(num_dimensions)] if batch_norm else []
  return Sequential([Constant(bijectors.Flip()), *middle, layer])


def check_num_dimensions(num_dimensions: int) -> None:
  """Refuses data that a coupling cannot divide.

  Raises:
    ValueError: if there are fewer than two dimensions.
  """
  if num_dimensions < 2:
    raise ValueError(f'num_dimensions={num_dimensions}: a coupling needs 2 or more, one of which stays')
