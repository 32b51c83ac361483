"""Restricted Boltzmann machines whose visible units are real numbers or categories.

They differ from the binary machine of ``rbm.py`` in what the couplings see of v and in the exponential family of
p(v | h); learning, sampling and log Z are the same.

Example, the log-odds of two states under no coupling:
  >>> import jax, jax.numpy as jnp
  >>> machine = CategoricalRBM(num_visible=1, num_hidden=2, num_states=3)
  >>> params = machine.init(jax.random.key(0), jnp.zeros((1, 1)))['params']
  >>> params = {**params, 'kernel': jnp.zeros((3, 2)), 'visible_bias': jnp.log(jnp.array([[1.0, 2.0, 5.0]]))}
  >>> log_prob = machine.apply({'params': params}, jnp.array([[0], [1], [2]]), method='log_prob')
  >>> [round(p, 3) for p in jnp.exp(log_prob).tolist()]
  [0.125, 0.25, 0.625]
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key, Params
from gm_jax.boltzmann.rbm import RBM, Natural
from gm_jax.likelihoods import sample_categorical


class GaussianRBM(RBM):
  """A machine with real visible units, each of its own learnt variance (Cho, Ilin & Raiko 2011).

  ::

    E(v, h) = sum_i (v_i^2 / 2 - v_i b_i) / s_i^2 - c.h - sum_ij (v_i / s_i^2) W_ij h_j
    p(v_i | h) = Normal(b_i + (W h)_i, s_i^2)

  The sum over all h is a mixture of 2^H Gaussians. Standardise the data first. The natural parameters are
  ``(mean / s^2, 1 / s^2)``.
  """

  def setup(self):
    """Adds the variances."""
    super().setup()
    self.log_variance = self.param('log_variance', nn.initializers.zeros, (self.num_visible,))

  def features(self, v: Array) -> Array:
    """Values over its variance."""
    return v * jnp.exp(-self.log_variance)

  def visible_natural(self, h: Array | None = None) -> Natural:
    """The linear term and the precision of p(v | h)."""
    precision = jnp.exp(-self.log_variance)
    return (super().visible_natural(h) * precision, precision)

  def potential(self, v: Array, natural: Natural) -> Array:
    """Log-density of independent Gaussians, up to their normaliser."""
    linear, precision = natural
    return jnp.sum(v * (linear - 0.5 * precision * v), axis=-1)

  def log_normalizer(self, natural: Natural) -> Array:
    """Log of the integral of ``exp(potential)``."""
    linear, precision = natural
    return 0.5 * jnp.sum(linear**2 / precision + jnp.log(2 * jnp.pi / precision), axis=-1)

  def natural_mean(self, natural: Natural) -> Array:
    """The means."""
    return natural[0] / natural[1]

  def natural_sample(self, key: Key, natural: Natural) -> Array:
    """A draw of independent Gaussians."""
    linear, precision = natural
    return linear / precision + jax.random.normal(key, linear.shape, linear.dtype) / jnp.sqrt(precision)

  def marginals(self, x: Array) -> Params:
    """Mean and variance of the data."""
    x = x.reshape(-1, self.num_visible)
    return {'visible_bias': x.mean(0), 'log_variance': jnp.log(x.var(0) + 1e-6)}

  def _visible_bits(self) -> float:
    return math.inf

  def _site_tables(self):
    raise ValueError('pseudo-likelihood sums over the states of a unit, and a GaussianRBM has a continuum of them')


class CategoricalRBM(RBM):
  """A machine whose visible units take one of K states: softmax units, a Potts machine.

  With one-hot v_ik and couplings W_ikj (Salakhutdinov, Mnih & Hinton 2007)::

    E(v, h) = - sum_ik v_ik b_ik - c.h - sum_ikj v_ik W_ikj h_j
    p(v_i = k | h) = softmax_k(b_ik + sum_j W_ikj h_j)

  Data are integers ``[..., D]`` in 0..K-1; means and reconstructions are probabilities ``[..., D, K]``.

  Attributes:
    num_states: K, at least 2.
  """

  num_states: int = 2

  def __post_init__(self):
    if self.num_states < 2:
      raise ValueError(f'num_states={self.num_states}: a categorical unit needs 2 states or more')
    super().__post_init__()

  @property
  def num_features(self) -> int:
    """One per state of each unit."""
    return self.num_visible * self.num_states

  def _bias_shape(self) -> tuple[int, ...]:
    return (self.num_visible, self.num_states)

  def _one_hot(self, v: Array) -> Array:
    return jax.nn.one_hot(v.astype(jnp.int32), self.num_states)

  def features(self, v: Array) -> Array:
    """One-hot states, flattened."""
    return self._one_hot(v).reshape(*v.shape[:-1], self.num_features)

  def visible_natural(self, h: Array | None = None) -> Natural:
    """Logits ``[..., D, K]``."""
    if h is None:
      return self.visible_bias
    return (h @ self.kernel.T).reshape(*h.shape[:-1], *self._bias_shape()) + self.visible_bias

  def potential(self, v: Array, natural: Natural) -> Array:
    """Log-probability of independent categories, up to their normaliser."""
    return jnp.sum(self._one_hot(v) * natural, axis=(-2, -1))

  def log_normalizer(self, natural: Natural) -> Array:
    """Log of the product over units of the sum over states."""
    return jnp.sum(jax.nn.logsumexp(natural, axis=-1), axis=-1)

  def natural_mean(self, natural: Natural) -> Array:
    """Probabilities of the states."""
    return nn.softmax(natural)

  def natural_sample(self, key: Key, natural: Natural) -> Array:
    """A draw of independent categories."""
    return sample_categorical(key, natural)

  def marginals(self, x: Array) -> Params:
    """Log-frequencies of the states (one count added), of mean zero per unit."""
    counts = self._one_hot(x.reshape(-1, self.num_visible)).sum(0) + 1
    return {'visible_bias': jnp.log(counts) - jnp.log(counts).mean(-1, keepdims=True)}

  def _num_states(self) -> int:
    return self.num_states

  def _site_tables(self) -> tuple[Array, Array]:
    return self.kernel.reshape(self.num_visible, self.num_states, self.num_hidden), self.visible_bias
