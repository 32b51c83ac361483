"""Networks without sharing: the fully visible sigmoid belief net, and a network of its own for each conditional.

The simplest way to spell out ``p(x) = prod_d p(x_d | x_<d)`` over binary dimensions is a logistic regression for each
conditional (Neal 1992; Frey, Hinton & Dayan 1996), which makes one triangular matrix of weights::

  p(x_d = 1 | x_<d) = sigmoid(b_d + sum_(i<d) W_id x_i)

A hidden layer for each conditional (after Bengio & Bengio 2000) sees interactions, too, but has D^2 H weights, since
nothing is shared; NADE and MADE are what came of sharing them::

  h_d = g(c_d + A_d x_<d)      p(x_d = 1 | x_<d) = sigmoid(b_d + v_d.h_d)

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.autoregressive import fvsbn
  >>> from gm_jax.base import Batch, pure
  >>> from gm_jax.training.rules import descent, likelihood_loss
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = pure(fvsbn.FVSBN(num_dimensions=4))
  >>> algorithm = descent(model.init, likelihood_loss(model.log_prob), optax.adam(0.1))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.75)  # two patterns have -log 1/2 = 0.69 each
  True
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.autoregressive import ancestral
from gm_jax.base import Array, Key, context_features
from gm_jax.likelihoods import Bernoulli
from gm_jax.nn import masked


class FVSBN(nn.Module):
  """The fully visible sigmoid belief net.

  Attributes:
    num_dimensions: D.
    ordering: ``ordering[t]`` comes t-th; the natural one if None.
    context_size: number of features or classes that the model is conditioned on; 0 for none.
  """

  num_dimensions: int
  ordering: Sequence[int] | None = None
  context_size: int = 0

  head: ClassVar[Bernoulli] = Bernoulli()

  def __post_init__(self):
    if self.num_dimensions < 1:
      raise ValueError(f'num_dimensions={self.num_dimensions}: must be 1 or more')
    if self.ordering is not None:
      masked.check_ordering(self.ordering, self.num_dimensions)
    super().__post_init__()

  def setup(self):
    """Regression weights ``[input, output]``, of which the mask leaves a triangle."""
    size = self.num_dimensions
    self.kernel = self.param('kernel', nn.initializers.normal(0.01), (size, size))
    self.bias = self.param('bias', nn.initializers.zeros, (size,))
    if self.context_size:
      self.context_kernel = self.param('context_kernel', nn.initializers.normal(0.01), (self.context_size, size))

  @property
  def _order(self) -> np.ndarray:
    return np.arange(self.num_dimensions) if self.ordering is None else np.asarray(self.ordering)

  @property
  def mask(self) -> np.ndarray:
    """``[input, output]``: which dimensions come before which."""
    place = np.argsort(self._order)
    return masked.output_mask(place, place)

  def __call__(self, x: Array, *, context=None) -> Array:
    """The log-probability; touches every parameter."""
    return self.log_prob(x, context=context)

  def conditionals(self, x: Array, *, context=None) -> Array:
    """Log-odds of each dimension given the earlier ones: ``[..., D] -> [..., D, 1]``."""
    if x.shape[-1] != self.num_dimensions:
      raise ValueError(f'x.shape={x.shape}: the last axis must be num_dimensions={self.num_dimensions}')
    return self._logits(x, context_features(context, self.context_size, x.shape[:-1]))[..., None]

  def _logits(self, x, c):
    logits = x @ (self.kernel * self.mask) + self.bias
    return logits if c is None else logits + c @ self.context_kernel

  def _conditional(self) -> Callable:
    """``(x [D], context or None, dimension) -> [1]``, where x is zero in the dimensions that are not yet known."""
    kernel, bias = jnp.asarray(self.kernel).T, jnp.asarray(self.bias)
    context_kernel = jnp.asarray(self.context_kernel).T if self.context_size else None

    def logit(x, c, d):
      logit = kernel[d] @ x + bias[d]
      return (logit if c is None else logit + context_kernel[d] @ c)[None]

    return logit

  def log_prob(self, x: Array, *, context=None) -> Array:
    """The exact log p(x) in nats: ``[..., D] -> [...]``."""
    return jnp.sum(self.head.log_prob(self.conditionals(x, context=context), x), axis=-1)

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` exact samples, for the arithmetic of one pass."""
    return self._draw(jax.random.split(key, num), context_features(context, self.context_size, (num,)))

  def complete(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """Draws each dimension of x that is not ``observed`` given those before it in the ordering.

    That is the exact conditional if the observed dimensions come first; later ones are not looked ahead to.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean, broadcastable to x.
      context: see ``base.context_features``.
    """
    c = context_features(context, self.context_size, x.shape[:-1])
    rows = lambda leaf: None if leaf is None else leaf.reshape(-1, leaf.shape[-1])
    given = (c, x, jnp.broadcast_to(observed, x.shape))
    return self._draw(jax.random.split(key, x[..., 0].size), *map(rows, given)).reshape(x.shape)

  def _draw(self, keys, c, x=None, observed=None):
    logits, order = self._conditional(), self._order

    def one(key, c, x, observed):
      conditional = lambda known, t, d: (known, logits(known, c, d))
      absorb = lambda known, d, value: known.at[d].set(value)
      start = jnp.zeros(self.num_dimensions)
      return ancestral.draw(key, self.head, order, start, conditional, absorb, x, observed)[0]

    return jax.vmap(one)(keys, c, x, observed)


class SeparateMLPs(FVSBN):
  """A network of one hidden layer for each conditional, nothing shared: ``D^2 num_hidden`` weights.

  Attributes:
    num_hidden: H, hidden units of each conditional.
    activation: g.
  """

  num_hidden: int = 8
  activation: Callable[[Array], Array] = jnp.tanh

  def __post_init__(self):
    if self.num_hidden < 1:
      raise ValueError(f'num_hidden={self.num_hidden}: must be 1 or more')
    super().__post_init__()

  def setup(self):
    """Hidden weights ``[output, input, H]``, and readouts ``[output, H]``."""
    shape = (self.num_dimensions, self.num_hidden)
    normal = nn.initializers.normal
    self.hidden_kernel = self.param('hidden_kernel', normal(self.num_dimensions**-0.5), (self.num_dimensions, *shape))
    self.hidden_bias = self.param('hidden_bias', nn.initializers.zeros, shape)
    self.readout = self.param('readout', normal(self.num_hidden**-0.5), shape)
    self.bias = self.param('bias', nn.initializers.zeros, (self.num_dimensions,))
    if self.context_size:
      self.context_kernel = self.param('context_kernel', normal(self.context_size**-0.5), (self.context_size, *shape))

  def _logits(self, x, c):
    kernel = self.hidden_kernel * self.mask.T[..., None]
    hidden = jnp.einsum('...i,dih->...dh', x, kernel) + self.hidden_bias
    hidden = hidden if c is None else hidden + jnp.einsum('...c,cdh->...dh', c, self.context_kernel)
    return jnp.sum(self.activation(hidden) * self.readout, axis=-1) + self.bias

  def _conditional(self):
    parts = (self.hidden_kernel, self.hidden_bias, self.readout, self.bias)
    kernel, hidden_bias, readout, bias = map(jnp.asarray, parts)
    context_kernel = jnp.swapaxes(self.context_kernel, 0, 1) if self.context_size else None

    def logit(x, c, d):
      hidden = x @ kernel[d] + hidden_bias[d]
      hidden = hidden if c is None else hidden + c @ context_kernel[d]
      return (self.activation(hidden) @ readout[d] + bias[d])[None]

    return logit
