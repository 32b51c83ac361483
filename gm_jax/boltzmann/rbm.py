"""The restricted Boltzmann machine: visible and hidden units, and couplings between the two kinds only.

With binary visible units v and binary hidden units h (Smolensky 1986; Hinton 2002)::

  E(v, h) = - b.v - c.h - v.W h                      p(v, h) = exp(-E(v, h)) / Z
  F(v)    = - b.v - sum_j softplus(c_j + (v.W)_j)    p(v)    = exp(-F(v)) / Z
  p(h_j = 1 | v) = sigmoid(c_j + (v.W)_j)            p(v_i = 1 | h) = sigmoid(b_i + (W h)_i)

Other visible units change what W sees and the conditional p(v | h), nothing else: real values with a learnt variance
per unit or one of K states (``GaussianRBM`` and ``CategoricalRBM`` in ``visible.py``). All are exponential families:
given h, unit i has the natural parameters ``visible_natural(h)``, and those of two machines can be mixed, which is the
path that annealing and tempering walk.

How it learns is told in ``contrastive.py``, what log Z is in ``partition.py``.

Example, contrastive divergence in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.boltzmann import contrastive, rbm
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> machine = rbm.RBM(num_visible=4, num_hidden=2)
  >>> algorithm = descent(*contrastive.objective(machine, contrastive.divergence(num_steps=1)), optax.sgd(1.0))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> log_prob = machine.apply({'params': state.params}, x, method='log_prob').mean()
  >>> bool(log_prob > -1.0)  # two patterns have log 1/2 = -0.69 each; before learning it was 4 log 1/2 = -2.77
  True
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key, Model, Params, pure, refuse_context
from gm_jax.boltzmann import gibbs, partition
from gm_jax.likelihoods import sample_bernoulli, softplus

Natural = Any  # natural parameters of independent visible units: an array, or a tree of arrays


class RBM(nn.Module):
  """A restricted Boltzmann machine with binary visible and binary hidden units.

  Attributes:
    num_visible: D.
    num_hidden: H.
    burn_in: sweeps of block Gibbs from an independent start before ``sample`` and ``complete`` take what the chains
      hold. Where chains mix slowly this is not enough for exact samples: continue the chains of training instead.
    kernel_scale: standard deviation of the couplings at the start.
  """

  num_visible: int
  num_hidden: int
  burn_in: int = 1000
  kernel_scale: float = 0.01

  def __post_init__(self):
    for name in ('num_visible', 'num_hidden', 'burn_in'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: must be 1 or more')
    super().__post_init__()

  @property
  def num_features(self) -> int:
    """How many numbers of v the couplings see."""
    return self.num_visible

  def setup(self):
    """Couplings and biases."""
    normal = nn.initializers.normal(self.kernel_scale)
    self.kernel = self.param('kernel', normal, (self.num_features, self.num_hidden))
    self.visible_bias = self.param('visible_bias', nn.initializers.zeros, self._bias_shape())
    self.hidden_bias = self.param('hidden_bias', nn.initializers.zeros, (self.num_hidden,))

  def __call__(self, x: Array, *, context=None) -> Array:
    """The free energy; touches every parameter."""
    return self.energy(x, context=context)

  # The visible units, as an exponential family. Other kinds override these.

  def _bias_shape(self) -> tuple[int, ...]:
    return (self.num_visible,)

  def features(self, v: Array) -> Array:
    """What the couplings see of v: ``[..., D] -> [..., num_features]``."""
    return v

  def visible_natural(self, h: Array | None = None) -> Natural:
    """Natural parameters of p(v | h), here log-odds ``[..., D]``; without h those at h = 0."""
    return self.visible_bias if h is None else h @ self.kernel.T + self.visible_bias

  def potential(self, v: Array, natural: Natural) -> Array:
    """Log-probability of v under independent units, up to their normaliser: ``[...]``."""
    return jnp.sum(v * natural, axis=-1)

  def log_normalizer(self, natural: Natural) -> Array:
    """The log of what ``exp(potential)`` sums or integrates to over all v: ``[...]``."""
    return jnp.sum(softplus(natural), axis=-1)

  def natural_mean(self, natural: Natural) -> Array:
    """The mean of independent units."""
    return nn.sigmoid(natural)

  def natural_sample(self, key: Key, natural: Natural) -> Array:
    """A draw of independent units."""
    return sample_bernoulli(key, natural)

  def marginals(self, x: Array) -> Params:
    """The parameters that say, without any coupling, how often each unit is on in the data (one count added)."""
    x = x.reshape(-1, self.num_visible)
    on = (x.sum(0) + 1) / (len(x) + 2)
    return {'visible_bias': jnp.log(on) - jnp.log1p(-on)}

  # Energies.

  def joint_energy(self, v: Array, h: Array) -> Array:
    """E(v, h) in nats: ``[..., D], [..., H] -> [...]``."""
    coupling = jnp.sum((self.features(v) @ self.kernel) * h, axis=-1)
    return -self.potential(v, self.visible_natural()) - h @ self.hidden_bias - coupling

  def hidden_logits(self, v: Array) -> Array:
    """Log-odds of p(h | v): ``[..., D] -> [..., H]``."""
    return self.features(v) @ self.kernel + self.hidden_bias

  def free_energy(self, v: Array, logits: Array | None = None) -> Array:
    """F(v) = -log sum_h exp(-E(v, h)) in nats: ``[..., D] -> [...]``; ``logits`` are v's hidden ones if at hand."""
    logits = self.hidden_logits(v) if logits is None else logits
    return -self.potential(v, self.visible_natural()) - jnp.sum(softplus(logits), axis=-1)

  def energy(self, x: Array, *, context=None) -> Array:
    """-log p(x) up to the constant log Z: the free energy in nats, ``[..., D] -> [...]``."""
    self._check(x, context)
    return self.free_energy(x)

  def log_partition(self) -> Array:
    """The exact log Z in nats, by going through all states of the smaller side.

    Raises:
      ValueError: if that side has more than 2^20 states; estimate log Z then (``partition.bracket``).
    """
    if self.num_hidden <= self._visible_bits():
      return partition.log_sum_over_states(self._log_hidden_weight, self.num_hidden)
    return partition.log_sum_over_states(lambda v: -self.free_energy(v), self.num_visible, self._num_states())

  def _log_hidden_weight(self, h: Array) -> Array:
    """The log of sum_v exp(-E(v, h))."""
    return h @ self.hidden_bias + self.log_normalizer(self.visible_natural(h))

  @property
  def tractable(self) -> bool:
    """Whether ``log_partition`` can be had."""
    return min(self.num_hidden, self._visible_bits()) <= partition.MAX_BITS

  def _num_states(self) -> int:
    return 2

  def _visible_bits(self) -> float:
    """The logarithm to base 2 of the number of visible states."""
    return self.num_visible * math.log2(self._num_states())

  def log_prob(self, x: Array, *, context=None) -> Array:
    """The exact log p(x) in nats: ``[..., D] -> [...]``. Raises ValueError where ``log_partition`` does."""
    return -self.energy(x, context=context) - self.log_partition()

  # Conditionals.

  def hidden_mean(self, v: Array) -> Array:
    """p(h_j = 1 | v): ``[..., H]``."""
    return nn.sigmoid(self.hidden_logits(v))

  def sample_hidden(self, key: Key, v: Array) -> Array:
    """A draw of h given v."""
    return sample_bernoulli(key, self.hidden_logits(v))

  def visible_mean(self, h: Array) -> Array:
    """E[v | h]: ``[..., D]``, or probabilities ``[..., D, K]`` for categorical units."""
    return self.natural_mean(self.visible_natural(h))

  def sample_visible(self, key: Key, h: Array) -> Array:
    """A draw of v given h."""
    return self.natural_sample(key, self.visible_natural(h))

  def reconstruct(self, x: Array) -> Array:
    """Mean-field reconstruction: the visible means given the hidden means given x."""
    return self.visible_mean(self.hidden_mean(x))

  def encode(self, x: Array, *, context=None) -> Array:
    """The representation of x: the hidden means ``[..., H]``."""
    self._check(x, context)
    return self.hidden_mean(x)

  def decode(self, z: Array, *, context=None) -> Array:
    """The visible means of hidden states or means ``[..., H]``."""
    refuse_context(context)
    return self.visible_mean(z)

  # Sampling.

  def start(self, key: Key, num: int) -> Array:
    """``[num, D]`` draws from the independent units of h = 0, where chains begin."""
    natural = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), self.visible_natural())
    return self.natural_sample(key, natural)

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` ends of independent chains after ``burn_in`` sweeps."""
    refuse_context(context)
    start_key, chain_key = jax.random.split(key)
    return gibbs.block_gibbs(*self._draws(), chain_key, self.start(start_key, num), self.burn_in)

  def complete(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """Draws the units of x that are not ``observed`` given those that are, by ``burn_in`` sweeps of clamped Gibbs.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean, broadcastable to x.
      context: must be None.
    """
    self._check(x, context)
    start_key, chain_key = jax.random.split(key)
    start = self.start(start_key, x[..., 0].size).reshape(x.shape)
    start = jnp.where(observed, x, start)
    return gibbs.block_gibbs(*self._draws(), chain_key, start, self.burn_in, observed=observed)

  def _draws(self):
    """The two conditional draws as pure functions, for use inside a scan."""
    machine, variables = self.unbind()
    return (
      lambda key, v: machine.apply(variables, key, v, method='sample_hidden'),
      lambda key, h: machine.apply(variables, key, h, method='sample_visible'),
    )

  # Pseudo-likelihood.

  def pseudo_log_prob(self, x: Array) -> Array:
    """Exact log pseudo-likelihood sum_i log p(x_i | the others) in nats: ``[..., D] -> [...]``; costs D * H."""
    logits, states, (kernel, bias) = self.hidden_logits(x), x.astype(jnp.int32), self._site_tables()

    def site(total, i):
      return total + _site_log_prob(logits, kernel[i], bias[i], states[..., i]), None

    return jax.lax.scan(site, jnp.zeros(x.shape[:-1]), jnp.arange(self.num_visible))[0]

  def pseudo_log_prob_estimate(self, key: Key, x: Array) -> Array:
    """A stochastic stand-in: D times the term of one unit drawn per example; unbiased, and far cheaper."""
    (kernel, bias), states = self._site_tables(), x.astype(jnp.int32)
    i = jax.random.randint(key, x.shape[:-1], 0, self.num_visible)
    state = jnp.take_along_axis(states, i[..., None], axis=-1)[..., 0]
    return self.num_visible * _site_log_prob(self.hidden_logits(x), kernel[i], bias[i], state)

  def _site_tables(self) -> tuple[Array, Array]:
    """Couplings ``[D, K, H]`` and biases ``[D, K]`` of each state of each unit."""
    zeros = jnp.zeros_like
    kernel = jnp.stack([zeros(self.kernel), self.kernel], axis=1)
    return kernel, jnp.stack([zeros(self.visible_bias), self.visible_bias], axis=1)

  def _check(self, x: Array, context):
    refuse_context(context)
    if x.shape[-1] != self.num_visible:
      raise ValueError(f'x.shape={x.shape}: the last axis must be num_visible={self.num_visible}; flatten images first')


def data_init(machine: RBM, x: Array | None = None):
  """An ``init`` of small random couplings, and visible biases that give the marginals of the data (Hinton 2012).

  Args:
    machine: the module.
    x: training data ``[N, D]`` to count; without it the batch given to ``init`` is counted.

  Returns:
    ``(key, batch) -> params``.
  """
  counted = None if x is None else machine.marginals(jnp.asarray(x))

  def init(key, batch):
    params = machine.init(key, batch.x)['params']
    return {**params, **(machine.marginals(batch.x) if counted is None else counted)}

  return init


def as_model(machine: RBM) -> Model:
  """``pure(machine)``, without ``log_prob`` where both sides are too large to be summed over."""
  model = pure(machine)._replace(init=data_init(machine))
  return model if machine.tractable else model._replace(log_prob=None)


def _site_log_prob(logits: Array, kernel: Array, bias: Array, state: Array) -> Array:
  """One term of the pseudo-likelihood, from hidden logits ``[..., H]`` and tables ``[..., K, H]``, ``[..., K]``."""
  index = jnp.broadcast_to(state[..., None, None], (*state.shape, 1, kernel.shape[-1]))
  kernel, bias = (jnp.broadcast_to(leaf, (*state.shape, *leaf.shape[-n:])) for leaf, n in ((kernel, 2), (bias, 1)))
  without = logits[..., None, :] - jnp.take_along_axis(kernel, index, axis=-2)
  log_weights = bias + jnp.sum(softplus(without + kernel), axis=-1)
  return jnp.take_along_axis(nn.log_softmax(log_weights), state[..., None], axis=-1)[..., 0]
