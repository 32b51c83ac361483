"""Masked autoregressive maps: one pass of a masked network from data to noise, a few passes back.

``MaskedAutoregressive`` is the bijector, ``MaskedNetwork`` the conditioner (MADE's masks, ``gm_jax/nn/masked.py``),
``Autoregressive`` the layer made of both, ``AutoregressiveMixture`` a density of noise that is a MADE itself.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Key
from gm_jax.flows.layers import Layer
from gm_jax.flows.scalar import AFFINE, by_dimension
from gm_jax.likelihoods import Head, MixtureOfGaussians
from gm_jax.nn import masked

_FARTHEST = 1e15  # where an iteration is held, for what is farther has no digits left


class Solution(NamedTuple):
  """Data of an autoregressive map, and how they were found."""

  x: Array  # [..., D]
  num_passes: Array  # [] passes of the conditioner
  residual: Array  # [] the greatest change |x_k+1 - x_k| / (1 + |x_k+1|) that the last pass still made


class MaskedAutoregressive(distrax.Bijector):
  """x_d = t(z_d; h_d(x_1, ..., x_d-1)) for a scalar bijector t and a masked network h (Papamakarios et al. 2017).

  From data to noise it takes one pass of the network. The other way the naive loop takes D passes, one for each
  dimension. Here all dimensions are iterated at once, x <- t(z; h(x)): after k passes the first k of them are exact, so
  D passes are always enough, and a handful of them is where the dependence on what came before is mild (Song, Meng,
  Liao & Ermon 2021, "Accelerating feedforward computation via parallel nonlinear equation solving"). Derivatives are
  those of the implicit function theorem, and not taken through the passes.
  """

  def __init__(self, conditioner: Callable, bijector: Callable, *, tolerance: float = 1e-5):
    """The map.

    Args:
      conditioner: ``[..., D] -> [..., D, P]``, where what belongs to dimension d depends on earlier ones only; a pure
        function.
      bijector: ``[..., D, P] ->`` a scalar distrax bijector from z_d to x_d.
      tolerance: of the residual.
    """
    super().__init__(event_ndims_in=1)
    self._conditioner, self._bijector, self._tolerance = conditioner, bijector, tolerance

  def solve(self, z: Array) -> Solution:
    """From noise to data, ``[..., D] -> Solution``."""

    def iterate(function, start, limit):
      def more(state):
        _, num_passes, residual = state
        return (num_passes < limit) & (residual > self._tolerance)  # false for NaN: no pass will mend it

      def step(state):
        x, num_passes, _ = state
        # What is not settled yet may overshoot; an infinity times a masked weight would spoil what is.
        new = jnp.clip(function(x), -_FARTHEST, _FARTHEST)
        return new, num_passes + 1, jnp.max(jnp.abs(new - x) / (1 + jnp.abs(new)))

      start_of_count = jnp.zeros((), start.dtype)  # a float: the rule of ``custom_root`` has no tangent for integers
      return jax.lax.while_loop(more, step, (start, start_of_count, start_of_count + jnp.inf))

    def solve(difference, start):
      x, *found = iterate(lambda x: x - difference(x), start, z.shape[-1] + 1)
      return x, tuple(found)

    def solve_linear(matvec, b):  # the matrix is 1 - N with N strictly triangular, so that N^D = 0
      return iterate(lambda t: t - matvec(t) + b, b, z.shape[-1])[0]

    def tangent_solve(matvec, b):
      return jax.lax.custom_linear_solve(matvec, b, solve_linear, solve_linear)

    change = lambda x: x - self._bijector(self._conditioner(x)).forward(z)
    x, (num_passes, residual) = jax.lax.custom_root(change, z, solve, tangent_solve, has_aux=True)
    return Solution(x, num_passes.astype(jnp.int32), residual)

  def forward(self, x: Array) -> Array:
    """From noise to data."""
    return self.solve(x).x

  def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
    """From noise to data, and the log-det there, which takes one pass more."""
    y = self.solve(x).x
    return y, -self.inverse_and_log_det(y)[1]

  def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
    """From data to noise in one pass."""
    z, log_det = self._bijector(self._conditioner(y)).inverse_and_log_det(y)
    return z, jnp.sum(log_det, axis=-1)


class MaskedNetwork(nn.Module):
  """Outputs for each dimension that depend on earlier dimensions only, in their natural order.

  Attributes:
    num_dimensions: D.
    hidden_sizes: units of each layer, D - 1 or more, so that each dimension reaches all later ones.
    num_outputs: P, of each dimension.
    activation: behind each hidden layer.
    output_init: of the last layer; zeros start the network as a constant.
  """

  num_dimensions: int
  hidden_sizes: Sequence[int]
  num_outputs: int
  activation: Callable[[Array], Array] = nn.relu
  output_init: Callable = nn.initializers.zeros

  def __post_init__(self):
    _check_hidden_sizes(self.num_dimensions, self.hidden_sizes)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None) -> Array:
    """``[..., D], [..., C] -> [..., D, P]``; the context is joined to every layer."""
    inputs = np.arange(self.num_dimensions) + 1
    degrees = [inputs, *(masked.even_degrees(size, self.num_dimensions) for size in self.hidden_sizes)]
    masks = [masked.hidden_mask(below, own) for below, own in itertools.pairwise(degrees)]
    h = x
    for size, mask in zip(self.hidden_sizes, masks, strict=True):
      h = self.activation(self._joined(masked.MaskedDense(size)(h, mask), context))
    last = masked.output_mask(degrees[-1], np.tile(inputs, self.num_outputs))
    output = masked.MaskedDense(self.num_dimensions * self.num_outputs, kernel_init=self.output_init)
    return by_dimension(self._joined(output(h, last), context), self.num_dimensions)

  def _joined(self, h, context):
    return h if context is None else h + nn.Dense(h.shape[-1], use_bias=False)(context)


class Autoregressive(Layer):
  """A masked autoregressive layer in the natural order.

  Attributes:
    num_dimensions: D.
    hidden_sizes: of the masked network.
    transform: of each dimension given the earlier ones; see ``scalar``.
    activation: of the network.
    tolerance: of the iteration from noise to data.
  """

  num_dimensions: int
  hidden_sizes: Sequence[int] = (100, 100)
  transform: Callable = AFFINE
  activation: Callable[[Array], Array] = nn.relu
  tolerance: float = 1e-5

  def __post_init__(self):
    _check_hidden_sizes(self.num_dimensions, self.hidden_sizes)
    super().__post_init__()

  def setup(self):
    """The network."""
    self.network = MaskedNetwork(self.num_dimensions, self.hidden_sizes, self.transform.size, self.activation)

  def bijector(self, context: Array | None = None) -> MaskedAutoregressive:
    """The map from noise to data."""
    if self.is_initializing():
      self.network(jnp.zeros(self.num_dimensions), None if context is None else jnp.zeros(context.shape[-1:]))
    network, variables = self.network.unbind()  # an iteration takes a pure function
    conditioner = lambda x: network.apply(variables, x, context)
    return MaskedAutoregressive(conditioner, self.transform, tolerance=self.tolerance)


class AutoregressiveMixture(nn.Module):
  """A density of noise: each dimension is a mixture of Gaussians given the earlier ones (MADE MoG).

  Attributes:
    num_dimensions: D.
    hidden_sizes: of the masked network.
    num_components: Gaussians of each dimension.
  """

  num_dimensions: int
  hidden_sizes: Sequence[int] = (100, 100)
  num_components: int = 10

  def setup(self):
    """The network, whose outputs start at random, for equal components would stay equal."""
    self.head: Head = MixtureOfGaussians(self.num_components)
    self.network = MaskedNetwork(
      self.num_dimensions, self.hidden_sizes, self.head.size, output_init=nn.initializers.normal(0.1)
    )
    self.spread = self.param('spread', nn.initializers.normal(1.0), (self.num_dimensions, self.num_components))

  def _outputs(self, z, context):
    outputs = self.network(z, context)
    locations = slice(self.num_components, 2 * self.num_components)
    return outputs.at[..., locations].add(self.spread)

  def log_prob(self, z: Array, context: Array | None = None) -> Array:
    """Nats: ``[..., D] -> [...]``."""
    return jnp.sum(self.head.log_prob(self._outputs(z, context), z), axis=-1)

  def sample(self, key: Key, num: int, context: Array | None = None) -> Array:
    """``[num, D]``, by D passes of the network."""
    module, variables = self.unbind()

    def draw(z, inputs):
      key, dimension = inputs
      outputs = module.apply(variables, z, context, method='_outputs')
      return jnp.where(jnp.arange(self.num_dimensions) == dimension, self.head.sample(key, outputs), z), None

    steps = (jax.random.split(key, self.num_dimensions), jnp.arange(self.num_dimensions))
    return jax.lax.scan(draw, jnp.zeros((num, self.num_dimensions)), steps)[0]


def _check_hidden_sizes(num_dimensions, hidden_sizes):
  if not hidden_sizes:
    raise ValueError('hidden_sizes is empty: a masked network has 1 hidden layer or more')
  for size in hidden_sizes:
    masked.even_degrees(size, num_dimensions)
