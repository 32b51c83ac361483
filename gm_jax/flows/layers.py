"""Layers of flows: invertible maps from noise to data with parameters, and how they are put together.

A *layer* is a Flax module that answers ``forward_and_log_det`` (from noise to data) and ``inverse_and_log_det`` (from
data to noise), as a distrax bijector does; most of them make such a bijector out of their parameters. The log-det is
that of the map that was asked for, in nats per example.

Layers compose: ``Sequential`` of different ones, ``Scanned`` for many of one kind with stacked parameters, whose
program is as long as that of one layer however deep the stack, ``Inverted`` for the other direction.
"""

from collections.abc import Sequence

import distrax
import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array, bind


class Layer(nn.Module):
  """A layer that is a distrax bijector; subclasses give ``bijector``.

  The methods take ``context``, the features ``[..., C]`` of each example or None, as the last argument.
  """

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    raise NotImplementedError

  def forward_and_log_det(self, z: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From noise to data, and log |det dx/dz|."""
    return self.bijector(context).forward_and_log_det(z)

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise, and log |det dz/dx|."""
    return self.bijector(context).inverse_and_log_det(x)

  def forward(self, z: Array, context: Array | None = None) -> Array:
    """From noise to data alone, which spares an autoregressive layer one pass."""
    return self.bijector(context).forward(z)

  def path(self, z: Array, context: Array | None = None) -> list[Array]:
    """What noise becomes on its way: the output of each of the layers that this one is made of, data last."""
    return [self.forward(z, context)]

  def path_back(self, x: Array, context: Array | None = None) -> list[Array]:
    """What data become on their way to the noise, which is last."""
    return [self.inverse_and_log_det(x, context)[0]]


class Constant(Layer):
  """A bijector without parameters as a layer.

  Attributes:
    map: the distrax bijector.
  """

  map: distrax.Bijector

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The bijector."""
    return self.map


class Sequential(Layer):
  """Layers one after the other; the first is the nearest to the noise."""

  layers: Sequence[nn.Module]

  def forward_and_log_det(self, z: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From noise to data, and log |det dx/dz|."""
    total = 0.0
    for layer in self.layers:
      z, log_det = layer.forward_and_log_det(z, context)
      total = total + log_det
    return z, total

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise, and log |det dz/dx|."""
    total = 0.0
    for layer in reversed(self.layers):
      x, log_det = layer.inverse_and_log_det(x, context)
      total = total + log_det
    return x, total

  def forward(self, z: Array, context: Array | None = None) -> Array:
    """From noise to data alone."""
    for layer in self.layers:
      z = layer.forward(z, context)
    return z

  def path(self, z: Array, context: Array | None = None) -> list[Array]:
    """The output of each layer; those of a stack are shown one by one."""
    way = []
    for layer in self.layers:
      way += layer.path(z if not way else way[-1], context)
    return way

  def path_back(self, x: Array, context: Array | None = None) -> list[Array]:
    """What each layer makes of data, the noise last."""
    way = []
    for layer in reversed(self.layers):
      way += layer.path_back(x if not way else way[-1], context)
    return way


class Scanned(Layer):
  """``num_layers`` layers of one kind, each with its own parameters, run by one scan.

  Variables are stacked along a first axis, first the layer that is the nearest to the noise. Initialisation runs from
  the data to the noise, so a layer that starts from statistics of its input sees the output of those before it.

  Attributes:
    layer: the kind; keeps the shape of what goes through.
    num_layers: how many.
    event_ndims: axes of an example.
  """

  layer: nn.Module
  num_layers: int
  event_ndims: int = 1

  def __post_init__(self):
    if self.num_layers < 1:
      raise ValueError(f'num_layers={self.num_layers}: a stack has 1 layer or more')
    super().__post_init__()

  def _scan(self, step, carry, context, reverse=False):
    scan = nn.scan(
      step, variable_axes={'params': 0, 'stats': 0}, split_rngs={'params': True}, in_axes=nn.broadcast,
      length=self.num_layers, reverse=reverse,
    )  # fmt: skip
    return scan(self.layer, carry, context)

  def _start(self, x):
    return x, jnp.zeros(x.shape[: x.ndim - self.event_ndims], x.dtype)

  def forward_and_log_det(self, z: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From noise to data, and log |det dx/dz|."""

    def step(layer, carry, context):
      x, log_det = layer.forward_and_log_det(carry[0], context)
      return (x, carry[1] + log_det), None

    return self._scan(step, self._start(z), context)[0]

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise, and log |det dz/dx|."""

    def step(layer, carry, context):
      z, log_det = layer.inverse_and_log_det(carry[0], context)
      return (z, carry[1] + log_det), None

    return self._scan(step, self._start(x), context, reverse=True)[0]

  def forward(self, z: Array, context: Array | None = None) -> Array:
    """From noise to data alone."""
    return self._scan(lambda layer, z, context: (layer.forward(z, context), None), z, context)[0]

  def path(self, z: Array, context: Array | None = None) -> list[Array]:
    """The output of each layer."""

    def step(layer, z, context):
      x = layer.forward(z, context)
      return x, x

    return list(self._scan(step, z, context)[1])

  def path_back(self, x: Array, context: Array | None = None) -> list[Array]:
    """What each layer makes of data, the noise last."""

    def step(layer, x, context):
      z = layer.inverse_and_log_det(x, context)[0]
      return z, z

    return list(self._scan(step, x, context, reverse=True)[1])[::-1]


class Inverted(Layer):
  """A layer the other way round, with the same variables: its ``forward`` is the layer's inverse."""

  original: nn.Module

  def setup(self):
    """Variables stay where the original has them."""
    nn.share_scope(self, self.original)

  def forward_and_log_det(self, z: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From noise to data, and log |det dx/dz|."""
    return self.original.inverse_and_log_det(z, context)

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise, and log |det dz/dx|."""
    return self.original.forward_and_log_det(x, context)

  def forward(self, z: Array, context: Array | None = None) -> Array:
    """From noise to data alone."""
    return self.original.inverse_and_log_det(z, context)[0]

  def path(self, z: Array, context: Array | None = None) -> list[Array]:
    """The layers of the original, backwards."""
    return self.original.path_back(z, context)

  def path_back(self, x: Array, context: Array | None = None) -> list[Array]:
    """The layers of the original, forwards."""
    return self.original.path(x, context)


class Bound(distrax.Bijector):
  """A layer or a flow with its variables, as a distrax bijector."""

  def __init__(self, module: nn.Module, variables, event_ndims: int = 1, **kwargs):
    """A bijector from noise to data.

    Args:
      module: a layer or a flow.
      variables: parameters, or ``Variables``.
      event_ndims: axes of an example.
      **kwargs: of the module's methods, such as ``context``.
    """
    super().__init__(event_ndims_in=event_ndims)
    self._call = lambda method, x: bind(module, method)(variables, x, **kwargs)

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """From noise to data, and its log-det."""
    return self._call('forward_and_log_det', x)

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """From data to noise, and its log-det."""
    return self._call('inverse_and_log_det', y)
