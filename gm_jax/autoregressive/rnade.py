r"""RNADE: the real-valued neural autoregressive density estimator.

The chain rule over an ordering o of the D dimensions, with a mixture of K components for each conditional (Uria, Murray
and Larochelle, "RNADE: the real-valued neural autoregressive density-estimator", 2013)::

  p(x)    = prod_d p(x_d | x_<d)
  a_1     = c,    a_{d+1} = a_d + x_d W_d            one vector of H pre-activations, updated and never made anew
  h_d     = relu(rho_d a_d)                          rho_d is learnt: a sum of d terms grows with d
  theta_d = h_d V_d + b_d                            K log-weights, K locations, K log-scales
  p(x_d | x_<d) = sum_k alpha_dk N(x_d; mu_dk, sigma_dk)      or Laplace densities

All D conditionals of an example cost O(D H K), and so does a sample: it is one walk through the same recursion, which
draws x_d where the density reads it.

More than one hidden layer is our extension of the fixed-order model: each h_d goes through further dense layers, whose
weights all conditionals share, before V_d. It costs O(D H^2). (The published deep RNADE is another model: trained
over all orderings, it sees masked inputs and runs the whole network anew for every dimension.)

Give it standardised data: the components start spread over a few units around zero. Values that repeat exactly, as in
quantised tables, let a component shrink onto them without end; the ``min_scale`` of the head is what stops it.

Example, two clusters of which the second coordinate is the first with the sign turned:
  >>> import jax, optax
  >>> from gm_jax.base import Batch, pure
  >>> from gm_jax.training.rules import descent, likelihood_loss
  >>> side = jax.numpy.tile(jax.numpy.array([[1.0, -1.0], [-1.0, 1.0]]), (50, 1))
  >>> x = side + 0.1 * jax.random.normal(jax.random.key(0), side.shape)
  >>> model = pure(RNADE(num_dimensions=2, hidden_sizes=(16,), head=MixtureOfGaussians(2)))
  >>> algorithm = descent(model.init, likelihood_loss(model.log_prob), optax.adam(0.03))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < -0.8)  # the truth has -1.07 nats; independent coordinates cannot get below -0.38
  True
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Key, context_features
from gm_jax.likelihoods import Head, MixtureOfGaussians
from gm_jax.nn.masked import check_ordering


def _rising_rescaling(key, shape):
  """rho_d = 1 / sqrt(d): pre-activations of standardised data keep one scale along the ordering."""
  del key
  return jnp.arange(1, shape[0] + 1, dtype=jnp.float32) ** -0.5


class RNADE(nn.Module):
  """A density over ``[..., D]`` real numbers.

  Attributes:
    num_dimensions: D.
    hidden_sizes: H, and the units of further layers, if any.
    head: what a conditional is; ``MixtureOfGaussians`` and ``MixtureOfLaplaces`` are the paper's.
    ordering: ``ordering[t]`` is the dimension that comes t-th; 0, 1, ... if not given.
    context_size: C, of what x is conditioned on; it adds to c. 0 for a model of p(x) alone.
  """

  num_dimensions: int
  hidden_sizes: Sequence[int] = (50,)
  head: Head = MixtureOfGaussians(10)
  ordering: Sequence[int] | None = None
  context_size: int = 0

  def __post_init__(self):
    if self.num_dimensions < 1:
      raise ValueError(f'num_dimensions={self.num_dimensions}: must be 1 or more')
    if not len(self.hidden_sizes) or min(self.hidden_sizes) < 1:
      raise ValueError(f'hidden_sizes={tuple(self.hidden_sizes)}: give one layer or more, of 1 unit or more each')
    if self.ordering is not None:
      check_ordering(self.ordering, self.num_dimensions)
    super().__post_init__()

  @property
  def order(self) -> np.ndarray:
    """The ordering as an array, ``[D]``."""
    return np.arange(self.num_dimensions) if self.ordering is None else np.asarray(self.ordering)

  def setup(self):
    """Rows of the recursion and of the heads are those of the dimensions, rescalings those of places in the order."""
    num, sizes = self.num_dimensions, tuple(self.hidden_sizes)
    dense, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
    self.kernel = self.param('kernel', dense, (num, sizes[0]))
    self.hidden_bias = self.param('hidden_bias', zeros, (sizes[0],))
    self.rescaling = self.param('rescaling', _rising_rescaling, (num,))
    self.layers = [
      (self.param(f'kernel_{i}', dense, (sizes[i - 1], sizes[i])), self.param(f'bias_{i}', zeros, (sizes[i],)))
      for i in range(1, len(sizes))
    ]
    self.output_kernel = self.param('output_kernel', nn.initializers.normal(0.01), (num, sizes[-1], self.head.size))
    self.output_bias = self.param('output_bias', nn.initializers.normal(1.0), (num, self.head.size))
    if self.context_size:
      self.context_kernel = self.param('context_kernel', dense, (self.context_size, sizes[0]))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The same as ``log_prob``."""
    return self.log_prob(x, context=context)

  def _walk(self, choose, inputs, batch_shape: tuple[int, ...], context: Array | None) -> tuple[Array, Array]:
    """The recursion, one dimension after the other.

    Args:
      choose: ``(outputs [..., size], input) -> x_d [...]``: the value that goes on into later conditionals.
      inputs: a tree with an entry for each dimension, in the ordering, along the first axis.
      batch_shape: of the examples.
      context: of the examples.

    Returns:
      x ``[..., D]`` and the outputs for each conditional ``[..., D, size]``.
    """
    features = context_features(context, self.context_size, batch_shape)
    start = self.hidden_bias if features is None else self.hidden_bias + features @ self.context_kernel
    layers, order = self.layers, self.order

    def step(activation, place):
      row, rescaling, output_kernel, output_bias, given = place
      hidden = nn.relu(rescaling * activation)
      for kernel, bias in layers:
        hidden = nn.relu(hidden @ kernel + bias)
      outputs = hidden @ output_kernel + output_bias
      value = choose(outputs, given)
      return activation + value[..., None] * row, (value, outputs)

    places = (self.kernel[order], self.rescaling, self.output_kernel[order], self.output_bias[order], inputs)
    start = jnp.broadcast_to(start, (*batch_shape, start.shape[-1]))
    _, (values, outputs) = jax.lax.scan(step, start, places)
    place = np.argsort(order)
    return jnp.moveaxis(values[place], 0, -1), jnp.moveaxis(outputs[place], 0, -2)

  def _in_order(self, x: Array) -> Array:
    """``[..., D] -> [D, ...]``, in the ordering."""
    x = jnp.asarray(x, self.kernel.dtype)
    if not x.ndim or x.shape[-1] != self.num_dimensions:
      raise ValueError(f'x has shape {x.shape}: examples are vectors of num_dimensions={self.num_dimensions}')
    return jnp.moveaxis(x, -1, 0)[self.order]

  def conditionals(self, x: Array, *, context: Array | None = None) -> Array:
    """What the head makes p(x_d | x_<d) of, for every d: ``[..., D] -> [..., D, size]``."""
    values = self._in_order(x)
    return self._walk(lambda outputs, value: value, values, values.shape[1:], context)[1]

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """The exact log-density in nats, ``[..., D] -> [...]``.

    Raises:
      ValueError: if ``x`` has another number of dimensions, or ``context`` does not fit.
    """
    return self.head.log_prob(self.conditionals(x, context=context), jnp.asarray(x, self.kernel.dtype)).sum(-1)

  def sample(self, key: Key, num: int, *, context: Array | None = None) -> Array:
    """Exact independent samples ``[num, D]``, in one walk."""
    keys = jax.random.split(key, self.num_dimensions)
    return self._walk(lambda outputs, key: self.head.sample(key, outputs), keys, (num,), context)[0]

  def complete(self, key: Key, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws what is not observed given what is, exactly, where the observed dimensions come first in the ordering.

    Args:
      key: of the draw.
      x: ``[..., D]``; values that are not observed do not matter.
      observed: ``[D]`` booleans, known when the program is compiled.
      context: of the examples.

    Raises:
      ValueError: if an observed dimension comes after one that is not: another ordering is needed for that.
    """
    observed = np.asarray(observed, bool)
    if observed.shape != (self.num_dimensions,):
      raise ValueError(f'observed has shape {observed.shape}: give one boolean for each of {self.num_dimensions}')
    if (np.diff(observed[self.order].astype(int)) > 0).any():
      raise ValueError(
        f'observed={np.flatnonzero(observed).tolist()} does not come first in the ordering {self.order.tolist()}: '
        'only a beginning of the ordering can be conditioned on exactly'
      )
    values = self._in_order(x)
    inputs = (jax.random.split(key, self.num_dimensions), values, observed[self.order])

    def choose(outputs, given):
      key, value, is_observed = given
      return jnp.where(is_observed, value, self.head.sample(key, outputs))

    return self._walk(choose, inputs, values.shape[1:], context)[0]
