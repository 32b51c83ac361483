"""NADE, the neural autoregressive distribution estimator (Larochelle & Murray 2011).

The dimensions come in an ordering, and one network with shared weights gives all conditionals::

  p(x) = prod_d p(x_d | x_<d)          h_d = sigmoid(a_d)          p(x_d | x_<d) = head(b_d + V_d h_d)
  a_1  = c                             a_{d+1} = a_d + W_d x_d

Because a_{d+1} differs from a_d by one column of W only, all D conditionals cost O(D H) and not O(D^2 H). Here x_d is
one bit, or one of K classes as a one-hot vector; the weights of the two sides may be tied, V = W.

The gradient is one sweep *backwards*: a_{D+1} = c + W x is a single product, and columns are taken off again. With
g_d = d log p(x_d | x_<d) / d outputs_d, known as soon as h_d is, and the sum S_d over all later dimensions of
dlog p / da, the sweep gathers ::

  dV_d = g_d h_d^T        dW_d = S_d x_d^T        S_{d-1} = S_d + (V_d^T g_d) h_d (1 - h_d)

so that value and gradient come out together, no h_d is computed twice, and nothing of size D H per example is kept.

Most of the time would go into D H exponentials. But x_d is 0 or 1, so exp(-a) changes by factors that depend on the
weights alone, exp(-a_d) = exp(-a_{d+1}) (1 - x_d + x_d exp(W_d)), and is taken anew only where they could have led out
of the range of floats: every 32 dimensions, or sooner if weights are large (``benchmarks/nade.py`` has the times).

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.autoregressive import nade
  >>> from gm_jax.base import Batch, bind, pure
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = nade.NADE(num_dimensions=4, num_hidden=8)
  >>> algorithm = descent(pure(model).init, nade.loss(model), optax.adam(0.1))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(100):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(pure(model).log_prob(state.params, x).mean() > -0.75)  # two patterns: log 1/2 = -0.69 at best
  True
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Extra, Key, Loss, bind, context_features
from gm_jax.likelihoods import Bernoulli, Categorical
from gm_jax.nn.masked import check_ordering

MAX_FACTORS = 32  # of exp(-a) between two exponentials, each with its rounding error
MAX_DRIFT = 60.0  # of a pre-activation between two exponentials, see ``_anew``


class Weights(NamedTuple):
  """What the recursion reads, the dimensions in their ordering: F inputs and O outputs for each of them."""

  kernel: Array  # W [D, F, H]
  output_kernel: Array  # V [D, O, H]
  output_bias: Array  # b [B, D, O], one row per example because a context may move it
  start: Array  # c [B, H]


class NADE(nn.Module):
  """NADE over D bits or D categorical variables.

  Attributes:
    num_dimensions: D.
    num_hidden: H.
    head: ``Bernoulli()``, or ``Categorical(K)`` for classes 0 ... K - 1.
    ordering: ``ordering[t]`` is the dimension that comes t-th; 0, 1, ... if None.
    tied: whether V = W.
    context_size: of the features, or number of the labels, that x is conditioned on; 0 for none.
  """

  num_dimensions: int
  num_hidden: int
  head: Bernoulli | Categorical = Bernoulli()
  ordering: Sequence[int] | None = None
  tied: bool = False
  context_size: int = 0

  def __post_init__(self):
    for name in ('num_dimensions', 'num_hidden'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: must be 1 or more')
    if not isinstance(self.head, Bernoulli | Categorical):
      raise ValueError(f'head={self.head!r}: NADE is for bits or classes, so give Bernoulli() or Categorical(K)')
    if self.ordering is not None:
      check_ordering(self.ordering, self.num_dimensions)
    super().__post_init__()

  def setup(self):
    """Weights and biases of both sides, and those of the context."""
    dimensions, hidden, outputs = self.num_dimensions, self.num_hidden, self.head.size
    normal, zeros = nn.initializers.normal, nn.initializers.zeros
    shape = (dimensions, outputs, hidden)
    self.kernel = self.param('kernel', normal(1 / math.sqrt(dimensions)), shape)
    if not self.tied:
      self.output_kernel = self.param('output_kernel', normal(1 / math.sqrt(hidden)), shape)
    self.hidden_bias = self.param('hidden_bias', zeros, (hidden,))
    self.output_bias = self.param('output_bias', zeros, (dimensions, outputs))
    if self.context_size:
      small = normal(0.01)
      self.context_kernel = self.param('context_kernel', small, (self.context_size, hidden))
      self.context_output_kernel = self.param('context_output_kernel', small, (self.context_size, dimensions, outputs))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The log-probability; touches every parameter."""
    return self.log_prob(x, context=context)

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """The exact log p(x) in nats: ``[..., D] -> [...]``. Of reverse mode there are derivatives in the parameters only.

    Raises:
      ValueError: if x does not have D dimensions, or the context is not what the model takes.
    """
    weights = self._weights(x.shape[:-1], context)
    return _log_prob(self.head, weights, self._ordered(x)).reshape(x.shape[:-1])

  def mean_log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """The mean of ``log_prob`` over all examples; its gradient costs one sweep, that of ``log_prob`` another one."""
    return _mean_log_prob(self.head, self._weights(x.shape[:-1], context), self._ordered(x))

  def conditionals(self, x: Array, *, context: Array | None = None) -> Array:
    """What p(x_d | x_<d) is made of, the raw outputs of the head: ``[..., D] -> [..., D, O]``."""
    values = self._ordered(x)
    _, outputs = _walk(self.head, self._weights(x.shape[:-1], context), lambda _, x: x, values.T)
    return outputs[:, self._places()].reshape(*x.shape, self.head.size)

  def sample(self, key: Key, num: int, *, context: Array | None = None) -> Array:
    """``[num, D]`` exact draws, at the cost of one pass; a context has one row for each."""
    return self._draw(key, self._weights((num,), context), jnp.zeros((num, self.num_dimensions)), False)

  def complete(self, key: Key, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws the last dimensions of the ordering given the first ones, exactly.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean ``[D]``, known before compilation.
      context: for each example.

    Raises:
      ValueError: if an observed dimension comes after one that is not: NADE knows p(x_d | x_<d) only. ``DeepNADE``
        completes any part.
    """
    observed = np.broadcast_to(np.asarray(observed, bool), (self.num_dimensions,))[self._order()]
    if (observed[1:] > observed[:-1]).any():
      raise ValueError(
        'observed has a dimension that comes later in the ordering than one that is not observed: give the first '
        'dimensions of the ordering, or use DeepNADE, which completes any part'
      )
    completed = self._draw(key, self._weights(x.shape[:-1], context), self._ordered(x), observed)
    return completed.reshape(x.shape)

  def encode(self, x: Array, *, context: Array | None = None) -> Array:
    """The hidden units after all of x has been seen: ``[..., D] -> [..., H]``."""
    weights = self._weights(x.shape[:-1], context)
    seen = one_hot_inputs(self.head, self._ordered(x))
    hidden = nn.sigmoid(weights.start + jnp.einsum('bdf,dfh->bh', seen, weights.kernel))
    return hidden.reshape(*x.shape[:-1], self.num_hidden)

  def _draw(self, key, weights, values, observed):
    keys = jax.random.split(key, self.num_dimensions)
    given = jnp.broadcast_to(jnp.asarray(observed), (self.num_dimensions,))
    choose = lambda outputs, now: jnp.where(now[1], now[2], self.head.sample(now[0], outputs))
    drawn, _ = _walk(self.head, weights, choose, (keys, given, values.T))
    return drawn[:, self._places()]

  def _order(self) -> np.ndarray:
    return np.arange(self.num_dimensions) if self.ordering is None else np.asarray(self.ordering)

  def _places(self):
    """Indices that bring what stands in the ordering back; a slice where nothing has to move."""
    return slice(None) if self.ordering is None else np.argsort(self._order())

  def _ordered(self, x: Array) -> Array:
    """Examples as float rows with the dimensions in their ordering: ``[..., D] -> [B, D]``."""
    if x.shape[-1:] != (self.num_dimensions,):
      raise ValueError(f'x has shape {x.shape}: its last axis must be num_dimensions={self.num_dimensions}')
    x = jnp.asarray(x, jnp.float32).reshape(-1, self.num_dimensions)
    return x if self.ordering is None else x[:, self._order()]

  def _weights(self, batch_shape: tuple[int, ...], context: Array | None) -> Weights:
    features = context_features(context, self.context_size, batch_shape)
    output_kernel = self.kernel if self.tied else self.output_kernel
    start, output_bias = self.hidden_bias, self.output_bias
    if features is not None:
      features = features.reshape(-1, self.context_size)
      start = start + features @ self.context_kernel
      output_bias = output_bias + jnp.tensordot(features, self.context_output_kernel, 1)
    num = math.prod(batch_shape)
    start = jnp.broadcast_to(start, (num, self.num_hidden))
    output_bias = jnp.broadcast_to(output_bias, (num, *self.output_bias.shape))
    if self.ordering is None:
      return Weights(self.kernel, output_kernel, output_bias, start)
    order = self._order()
    return Weights(self.kernel[order], output_kernel[order], output_bias[:, order], start)


def loss(module: NADE) -> Loss:
  """Maximum likelihood for ``descent``: the mean of -log p(x) in nats, with value and gradient in one sweep."""
  mean_log_prob = bind(module, 'mean_log_prob')

  def minus_mean(params, key, batch, state):
    del key, state
    kwargs = {} if batch.context is None else {'context': batch.context}
    return -mean_log_prob(params, batch.x, **kwargs), Extra()

  return minus_mean


def one_hot_inputs(head, x: Array) -> Array:
  """What W sees of x: the bit itself, or the class as a one-hot vector: ``[...] -> [..., F]``."""
  return x[..., None] if isinstance(head, Bernoulli) else jax.nn.one_hot(x.astype(jnp.int32), head.size)


def _walk(head, weights: Weights, choose, inputs) -> tuple[Array, Array]:
  """The recursion forwards, where x_d is what ``choose(outputs_d, inputs_d)`` makes of its conditional.

  Args:
    head: of the outputs.
    weights: of the recursion.
    choose: ``(outputs [B, O], inputs of this dimension) -> x_d [B]``.
    inputs: a tree of arrays ``[D, ...]`` that is read one by one.

  Returns:
    The chosen x ``[B, D]`` and the outputs ``[B, D, O]``.
  """

  def step(a, now):
    w, v, b, given = now
    outputs = nn.sigmoid(a) @ v.T + b
    x = choose(outputs, given)
    return a + one_hot_inputs(head, x) @ w, (x, outputs)

  per_dimension = (weights.kernel, weights.output_kernel, jnp.swapaxes(weights.output_bias, 0, 1), inputs)
  _, (x, outputs) = jax.lax.scan(step, weights.start, per_dimension)
  return x.T, jnp.swapaxes(outputs, 0, 1)


def _sweep(head, weights: Weights, x: Array, importance: Array) -> tuple[Array, Weights]:
  """Log p(x) ``[B]``, and the gradient of ``sum_b importance_b log p(x_b)``, in one sweep from the last dimension."""

  def step(carry, now):
    a, e, later = carry
    w, factor, v, b, x, anew = now
    seen = one_hot_inputs(head, x)
    kernel_gradient = seen.T @ later
    a = a - seen @ w
    e = jax.lax.cond(anew, lambda: jnp.exp(-a), lambda: e * (1 - seen.sum(-1, keepdims=True) + seen @ factor))
    h = 1 / (1 + e)
    log_prob, pull = jax.vjp(lambda outputs: head.log_prob(outputs, x), h @ v.T + b)
    (g,) = pull(importance)
    later = later + (g @ v) * (h * (1 - h))
    return (a, e, later), (log_prob, kernel_gradient, g.T @ h, g)

  kernel, output_bias = weights.kernel, jnp.swapaxes(weights.output_bias, 0, 1)
  per_dimension = (kernel, jnp.exp(kernel), weights.output_kernel, output_bias, x.T, _anew(kernel))
  a = weights.start + jnp.einsum('bdf,dfh->bh', one_hot_inputs(head, x), kernel)
  begin = (a, jnp.exp(-a), jnp.zeros_like(a))
  (_, _, later), (log_prob, *gradients, g) = jax.lax.scan(step, begin, per_dimension, reverse=True)
  return log_prob.sum(0), Weights(*gradients, jnp.swapaxes(g, 0, 1), later)


def _anew(kernel: Array) -> Array:
  """Where the sweep takes exp(-a) anew, ``[D]``: no pre-activation moves by ``MAX_DRIFT`` between two such dimensions.

  Where exp(-a) overflows or vanishes it stays so until it is taken anew; but then |a| > 87 there, so |a| > 27 all the
  way, where the sigmoid is 0 or 1 to the precision of float32.
  """
  drift = jnp.cumsum(jnp.abs(kernel).max((1, 2))[::-1] + MAX_DRIFT / MAX_FACTORS)
  interval = jnp.floor(drift / MAX_DRIFT)
  return jnp.diff(interval, prepend=0)[::-1] > 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_prob(head, weights: Weights, x: Array) -> Array:
  """Log p(x) of examples in the ordering, ``[B, D] -> [B]``."""
  return _sweep(head, weights, x, jnp.zeros(len(x)))[0]


def _log_prob_backward(head, residuals, importance):
  weights, x = residuals
  return _sweep(head, weights, x, importance)[1], jnp.zeros_like(x)


_log_prob.defvjp(lambda head, weights, x: (_log_prob(head, weights, x), (weights, x)), _log_prob_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_log_prob(head, weights: Weights, x: Array) -> Array:
  """The mean of log p(x) over the examples."""
  return _log_prob(head, weights, x).mean()


def _mean_log_prob_forward(head, weights, x):
  log_prob, gradient = _sweep(head, weights, x, jnp.full(len(x), 1 / len(x)))
  return log_prob.mean(), (gradient, jnp.zeros_like(x))


def _mean_log_prob_backward(head, residuals, scale):
  del head
  return jax.tree.map(lambda leaf: scale * leaf, residuals)


_mean_log_prob.defvjp(_mean_log_prob_forward, _mean_log_prob_backward)
