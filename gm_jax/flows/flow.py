"""Normalising flows: noise pushed through an invertible map, whose density is known by change of variables.

With the map x = f(z) from noise to data and the density p_Z of the noise::

  log p(x) = log p_Z(f^-1(x)) + log |det d f^-1(x) / dx|

Every flow is the one module of this file around layers of its own (``gm_jax/flows/layers.py``); the formula stands in
``Flow.log_prob`` and nowhere else. Vectors go in and out; flows of images reshape within.

Rezende & Mohamed (2015), Variational inference with normalizing flows; Papamakarios et al. (2021), Normalizing flows
for probabilistic modeling and inference.
"""

from collections.abc import Callable

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Extra, Key, Loss, context_features, pure
from gm_jax.flows import layers


class Noise(nn.Module):
  """Independent noise of one kind.

  Attributes:
    num_dimensions: D.
    kind: ``'normal'`` or ``'logistic'``.
  """

  num_dimensions: int
  kind: str = 'normal'

  def __post_init__(self):
    if self.kind not in ('normal', 'logistic'):
      raise ValueError(f"kind={self.kind!r}: noise is 'normal' or 'logistic'")
    super().__post_init__()

  def _distribution(self):
    return {'normal': distrax.Normal, 'logistic': distrax.Logistic}[self.kind](0.0, 1.0)

  def log_prob(self, z: Array, context: Array | None = None) -> Array:
    """Nats: ``[..., D] -> [...]``."""
    return jnp.sum(self._distribution().log_prob(z), axis=-1)

  def sample(self, key: Key, num: int, context: Array | None = None) -> Array:
    """``[num, D]``."""
    return self._distribution().sample(seed=key, sample_shape=(num, self.num_dimensions))


class Flow(nn.Module):
  """A density by change of variables.

  Inversion needs the digits of float32: half precision is refused, for it loses the data (see ``residual``).

  Attributes:
    num_dimensions: D.
    layers: the map from noise to data; a layer of vectors.
    base: the density of the noise, with ``log_prob(z, context)`` and ``sample(key, num, context)``; standard normal if
      None.
    context_size: number of features or classes that the flow is conditioned on; 0 for none.
  """

  num_dimensions: int
  layers: nn.Module
  base: nn.Module | None = None
  context_size: int = 0

  def setup(self):
    """The density of the noise."""
    self.noise = Noise(self.num_dimensions) if self.base is None else self.base

  def __call__(self, x: Array, *, context=None) -> Array:
    """The log-density; touches every parameter."""
    return self.log_prob(x, context=context)

  # The map.

  def forward_and_log_det(self, z: Array, *, context=None) -> tuple[Array, Array]:
    """From noise to data, and log |det dx/dz| in nats: ``[..., D] -> [..., D], [...]``."""
    z, c = self._checked('z', z, context)
    return self.layers.forward_and_log_det(z, c)

  def inverse_and_log_det(self, x: Array, *, context=None) -> tuple[Array, Array]:
    """From data to noise, and log |det dz/dx| in nats: ``[..., D] -> [..., D], [...]``."""
    x, c = self._checked('x', x, context)
    return self.layers.inverse_and_log_det(x, c)

  def forward(self, z: Array, *, context=None) -> Array:
    """From noise to data: ``[..., D] -> [..., D]``."""
    z, c = self._checked('z', z, context)
    return self.layers.forward(z, c)

  def inverse(self, x: Array, *, context=None) -> Array:
    """From data to noise: ``[..., D] -> [..., D]``."""
    return self.inverse_and_log_det(x, context=context)[0]

  def path(self, z: Array, *, context=None) -> list[Array]:
    """What noise becomes layer by layer, data last: ``[..., D]`` each."""
    z, c = self._checked('z', z, context)
    return self.layers.path(z, c)

  def encode(self, x: Array, *, context=None) -> Array:
    """The noise that x comes from, which is its code."""
    return self.inverse(x, context=context)

  def decode(self, z: Array, *, context=None) -> Array:
    """The x that comes from a code."""
    return self.forward(z, context=context)

  def _checked(self, name, value, context):
    if value.shape[-1:] != (self.num_dimensions,):
      raise ValueError(f'{name}.shape={value.shape}: the last axis must have {self.num_dimensions} dimensions')
    if jnp.issubdtype(value.dtype, jnp.floating) and jnp.finfo(value.dtype).bits < 32:
      raise ValueError(f'{name}.dtype={value.dtype}: a flow is inverted exactly, which takes float32 or float64')
    features = context_features(context, self.context_size, value.shape[:-1])
    return jnp.asarray(value, jnp.promote_types(value.dtype, jnp.float32)), features

  # The density.

  def log_prob(self, x: Array, *, context=None) -> Array:
    """The exact log p(x) in nats: ``[..., D] -> [...]``."""
    z, log_det = self.inverse_and_log_det(x, context=context)
    return self.noise.log_prob(z, context_features(context, self.context_size, x.shape[:-1])) + log_det

  def sample(self, key: Key, num: int, *, context=None, temperature: float = 1.0) -> Array:
    """``[num, D]`` samples; with a context, one for each of its ``num`` rows.

    Args:
      key: a key.
      num: of samples.
      context: see ``base.context_features``.
      temperature: the noise is multiplied by it; 1 samples the density itself.
    """
    return self.forward(temperature * self.draw_noise(key, num, context=context), context=context)

  def sample_and_log_prob(self, key: Key, num: int, *, context=None) -> tuple[Array, Array]:
    """``[num, D]`` samples and their log-densities ``[num]``, differentiable, from the map from noise to data alone."""
    z = self.draw_noise(key, num, context=context)
    x, log_det = self.forward_and_log_det(z, context=context)
    return x, self.noise.log_prob(z, context_features(context, self.context_size, (num,))) - log_det

  def draw_noise(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` draws of the noise."""
    return self.noise.sample(key, num, context_features(context, self.context_size, (num,)))

  def residual(self, x: Array, *, context=None) -> Array:
    """How well x is inverted: the greatest |x - f(f^-1(x))| / (1 + |x|) of its dimensions, ``[..., D] -> [...]``.

    Not a number where the way there or back leaves the range of the numbers. Heavy tails and great depth cost digits;
    what has no small residual is no value to rely on.
    """
    back = self.forward(self.inverse(x, context=context), context=context)
    return jnp.max(jnp.abs(back - x) / (1 + jnp.abs(x)), axis=-1)


def bijector(module: Flow) -> Callable:
  """``(params, *, context=None) -> bijector``: a flow as a distrax bijector from noise to data."""
  return lambda params, *, context=None: layers.Bound(module, params, context=context)


def objective(module: Flow) -> tuple[Callable, Loss]:
  """Initialisation and loss for ``descent``: -log p(x) in nats per example.

  In a step of learning the running statistics of the layers are updated, which is how batch normalisation knows that
  it is to use those of the batch.
  """
  return maximising(module, lambda module, key, batch: module.log_prob(batch.x, context=batch.context))


def maximising(module: nn.Module, value: Callable) -> tuple[Callable, Loss]:
  """Initialisation and loss of a module of flows: minus the mean of ``value(module, key, batch)``, ``[B]``."""

  def loss(params, key, batch, state):
    values, updated = module.apply({'params': params, **state.stats}, key, batch, method=value, mutable=['stats'])
    return -jnp.mean(values), Extra(stats={**state.stats, **updated})

  return pure(module).init, loss


def interpolate(module: Flow, params, first: Array, last: Array, num: int, *, context=None) -> Array:
  """Data on the way from one example to another, straight through the noise: ``[D], [D] -> [num, D]``.

  Args:
    module: the flow.
    params: its variables.
    first: where it begins.
    last: where it ends.
    num: of points, both ends among them.
    context: one for all points, without a batch axis.
  """
  map_ = bijector(module)(params, context=context)
  ends = [map_.inverse(end) for end in (first, last)]
  weights = jnp.linspace(0, 1, num)[:, None]
  return jax.vmap(map_.forward)((1 - weights) * ends[0] + weights * ends[1])


def shift_attribute(module: Flow, params, x: Array, positive: Array, negative: Array, amount: Array) -> Array:
  """Moves an example along an attribute: its code plus ``amount`` times the difference of mean codes.

  Args:
    module: a flow without a context.
    params: its variables.
    x: ``[D]``, the example.
    positive: ``[N, D]`` examples that have the attribute.
    negative: ``[M, D]`` examples that lack it.
    amount: ``[K]``, how far to go.

  Returns:
    ``[K, D]``.
  """
  map_ = bijector(module)(params)
  direction = map_.inverse(positive).mean(0) - map_.inverse(negative).mean(0)
  return map_.forward(map_.inverse(x) + amount[:, None] * direction)
