"""The hierarchical variational autoencoder that infers from the top down, as deep as one likes.

L layers of latent variables, z_L on top, each given all above it; the encoder walks up once, and inference then walks
down through the very states that generation walks through (Sonderby et al. 2016; Kingma et al. 2016; Child 2021)::

  p(x, z) = p(x | z_1..L) prod_l p(z_l | z_>l)         q(z | x) = prod_l q(z_l | x, z_>l)
  log p(x) >= E_q[log p(x | z)] - sum_l E_q[KL(q(z_l | x, z_>l) || p(z_l | z_>l))]

  up:      a_0 = A x,              a_l = a_(l-1) + f_l(a_(l-1))
  down:    h_L = a learnt vector,  (p_l, c_l) = g_l(h_l),   q_l = r_l(h_l, a_l),   z_l ~ q_l or p_l
           h'  = h_l + c_l + B_l z_l,     h_(l-1) = h' + s_l(h'),     p(x | z) from C h_0

All distributions of z are diagonal Gaussians whose KL is a formula. f, g, r and s are networks of one hidden layer, of
the same shape for all l: both walks are scans over stacked parameters, so that a model of fifty layers compiles as fast
as one of two. Residual branches start smaller by 1/sqrt(L), and q_l = p_l = N(0, I) at the start.

Example:
  >>> import jax, optax
  >>> from gm_jax.autoencoders import hierarchical, vae
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = hierarchical.HierarchicalVAE(num_visible=4, num_latents=1, num_layers=3, width=16)
  >>> algorithm = descent(*vae.objective(model), optax.adam(0.03))
  >>> state, step = jax.jit(algorithm.init)(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['elbo'] > -1.2)  # two patterns have log 1/2 = -0.69 each; before learning it was 4 log 1/2 = -2.77
  True
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoencoders import latents
from gm_jax.autoencoders.latent_variables import ModelWithTerms, Terms, join
from gm_jax.autoencoders.vae import BERNOULLI
from gm_jax.base import Array, Key, refuse_context
from gm_jax.likelihoods import Head
from gm_jax.nn.mlp import MLP


class UpwardBlock(nn.Module):
  """A residual block of the encoder."""

  width: int
  depth: int
  activation: Callable

  @nn.compact
  def __call__(self, a: Array, _) -> tuple[Array, Array]:
    """The activations above, twice: to go on with, and to keep."""
    a = a + MLP((self.width,), self.width, self.activation, output_init=_small(self.depth))(self.activation(a))
    return a, a


class DownwardBlock(nn.Module):
  """A layer of latent variables with its prior, its posterior, and its part in the state h."""

  num_latents: int
  width: int
  depth: int
  activation: Callable

  def setup(self):
    """The four networks of a layer."""
    network = lambda num_outputs, init: MLP((self.width,), num_outputs, self.activation, output_init=init)
    self.prior = network(2 * self.num_latents + self.width, nn.initializers.zeros)
    self.posterior = network(2 * self.num_latents, nn.initializers.zeros)
    self.insert = nn.Dense(self.width, kernel_init=_small(self.depth))
    self.residual = network(self.width, _small(self.depth))

  def _prior(self, h):
    outputs, features = jnp.split(self.prior(h), (2 * self.num_latents,), axis=-1)
    return latents.Diagonal()(outputs), h + features

  def _posterior(self, h, a):
    return latents.Diagonal()(self.posterior(join(h, a)))

  def _below(self, h, z):
    h = h + self.insert(z)
    return h + self.residual(h)

  def infer(self, h: Array, inputs: tuple) -> tuple[Array, tuple]:
    """From ``(a, key)`` the state below, and ``(z, log q, log p, KL)``; without a key z is the mean of q."""
    a, key = inputs
    q, (p, above) = self._posterior(h, a), self._prior(h)
    z = q.mean if key is None else q.sample_and_log_prob(key, 1)[0][0]
    return self._below(above, z), (z, q.log_prob(z), p.log_prob(z), latents.divergence(q, p).sum(-1))

  def score(self, h: Array, inputs: tuple) -> tuple[Array, tuple]:
    """From ``(a, z)`` the state below, and ``(log q, log p)``; without a there is no log q."""
    a, z = inputs
    p, above = self._prior(h)
    log_q = None if a is None else self._posterior(h, a).log_prob(z)
    return self._below(above, z), (log_q, p.log_prob(z))

  def generate(self, h: Array, inputs: tuple) -> tuple[Array, Array]:
    """From ``(key, z, keep)`` the state below, and a draw of p in place of z unless it is to be kept."""
    key, z, keep = inputs
    p, above = self._prior(h)
    z = jnp.where(keep, z, p.sample_and_log_prob(key, 1)[0][0])
    return self._below(above, z), z


class HierarchicalVAE(ModelWithTerms):
  """A hierarchical VAE of x in D dimensions; z is ``[..., L M]``, layer by layer from the top.

  Attributes:
    num_visible: D.
    num_latents: M, of each layer.
    num_layers: L.
    width: units of the states and of all hidden layers.
    head: the distribution of one dimension of x given its outputs.
    activation: of the hidden layers.
    gibbs_steps: sweeps of ``complete``.
  """

  num_visible: int
  num_latents: int
  num_layers: int
  width: int = 200
  head: Head = BERNOULLI
  activation: Callable = nn.silu
  gibbs_steps: int = 100

  def __post_init__(self):
    for name in ('num_visible', 'num_latents', 'num_layers', 'width', 'gibbs_steps'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: must be 1 or more')
    super().__post_init__()

  def setup(self):
    """The two walks, and what lies before and behind them."""
    stacked = {'variable_axes': {'params': 0}, 'split_rngs': {'params': True}, 'length': self.num_layers}
    shape = (self.width, self.num_layers, self.activation)
    self.first = nn.Dense(self.width)
    self.up = nn.scan(UpwardBlock, **stacked)(*shape)
    self.down = nn.scan(DownwardBlock, methods=['infer', 'score', 'generate'], **stacked)(self.num_latents, *shape)
    self.top = self.param('top', nn.initializers.normal(1.0), (self.width,))
    self.last = nn.Dense(self.num_visible * self.head.size)

  # The walks.

  def _ascend(self, x: Array, context) -> Array:
    """The encoder's activations ``[L, ..., width]``, those for the top layer first."""
    refuse_context(context)
    levels = getattr(self.head, 'levels', None) or getattr(self.head, 'num_classes', None)
    return self.up(self.first(x if levels is None else 2 * x / (levels - 1) - 1), None)[1][::-1]

  def _start(self, batch_shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(self.top, (*batch_shape, self.width))

  def _infer(self, key: Key | None, x: Array, num: int, context):
    """The last state of ``num`` inferences, and what ``DownwardBlock.infer`` puts out, ``[L, num, ...]`` each."""
    keys = None if key is None else jax.random.split(key, self.num_layers)
    return self.down.infer(self._start((num, *x.shape[:-1])), (self._ascend(x, context), keys))

  def _split(self, z: Array) -> Array:
    return jnp.moveaxis(z.reshape(*z.shape[:-1], self.num_layers, self.num_latents), -2, 0)

  def _join(self, z: Array) -> Array:
    return jnp.moveaxis(z, 0, -2).reshape(*z.shape[1:-1], -1)

  def _read(self, h: Array) -> Array:
    outputs = self.last(self.activation(h))
    return outputs.reshape(*outputs.shape[:-1], self.num_visible, self.head.size)

  # The pieces of a model with latent variables.

  def propose(self, key: Key, x: Array, num: int, *, context=None) -> tuple[Array, Array]:
    """Draws of q(z | x), ``[num, ..., L M]``, with their log q(z | x), ``[num, ...]``."""
    z, log_q, *_ = self._infer(key, x, num, context)[1]
    return self._join(z), log_q.sum(0)

  def log_posterior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log q(z | x) in nats: ``[..., D], [num, ..., L M] -> [num, ...]``."""
    return self.down.score(self._start(z.shape[:-1]), (self._ascend(x, context), self._split(z)))[1][0].sum(0)

  def _descend(self, z: Array, context) -> tuple[Array, Array]:
    """What the head makes p(x | z) from, and log p(z)."""
    refuse_context(context)
    h, (_, log_p) = self.down.score(self._start(z.shape[:-1]), (None, self._split(z)))
    return self._read(h), log_p.sum(0)

  def _outputs(self, z, context, batch_shape):
    return self._descend(z, context)[0]

  def log_prior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(z) in nats: ``[..., D], [num, ..., L M] -> [num, ...]``."""
    return self._descend(z, context)[1]

  def log_joint(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(x, z) in nats, in one walk: ``[..., D], [num, ..., L M] -> [num, ...]``."""
    outputs, log_prior = self._descend(z, context)
    return self._log_likelihood(outputs, x) + log_prior

  def sample_prior(self, key: Key, num: int, *, context=None) -> Array:
    """Draws of p(z), ``[num, L M]``."""
    return self.resample(key, jnp.zeros((num, self.num_layers * self.num_latents)), 0, context=context)

  def resample(self, key: Key, z: Array, num_kept: int, *, context=None) -> Array:
    """Keeps the upper ``num_kept`` layers of z, and draws those below given them: ``[..., L M] -> [..., L M]``."""
    refuse_context(context)
    if not 0 <= num_kept <= self.num_layers:
      raise ValueError(f'num_kept={num_kept}: the model has {self.num_layers} layers')
    keys, keep = jax.random.split(key, self.num_layers), jnp.arange(self.num_layers) < num_kept
    return self._join(self.down.generate(self._start(z.shape[:-1]), (keys, self._split(z), keep))[1])

  # The bound and the code.

  def terms(self, key: Key, x: Array, *, context=None, estimator: str = 'analytic') -> Terms:
    """The terms of the ELBO at one draw of z; ``divergence`` is ``[..., L]``, one KL for each layer from the top.

    Args:
      key: of the draw.
      x: ``[..., D]``.
      context: must be None.
      estimator: of each KL: ``'analytic'`` given the layers above, or ``'sampled'``, log q - log p at the draw.

    Raises:
      ValueError: for another estimator.
    """
    if estimator not in ('analytic', 'sampled'):
      raise ValueError(f"estimator={estimator!r}: give 'analytic' or 'sampled'; iwae.objective has gradient='dreg'")
    h, (_, log_q, log_p, divergence) = self._infer(key, x, 1, context)
    divergence = divergence if estimator == 'analytic' else log_q - log_p
    return Terms(self._log_likelihood(self._read(h), x)[0], jnp.moveaxis(divergence[:, 0], 0, -1))

  def encode(self, x: Array, *, context=None) -> Array:
    """The means of q going down, each given the means above it: ``[..., D] -> [..., L M]``."""
    return self._join(self._infer(None, x, 1, context)[1][0])[0]


def _small(depth: int) -> Callable:
  """Kernels smaller by 1/sqrt(depth), so that the sum of all branches starts no larger than one of them."""
  return nn.initializers.variance_scaling(1.0 / depth, 'fan_in', 'truncated_normal')
