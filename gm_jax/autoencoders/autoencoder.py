"""The autoencoder: a network that squeezes x through a code, and one that rebuilds it.

  z = f(x),    x^ = g(z),    loss = mean |x - x^|^2, or the Bernoulli cross-entropy of x under sigmoid(g(z))

A linear f and g of M units under squared error span the subspace of the first M principal components (Bourlard & Kamp
1988; Baldi & Hornik 1989). The denoising autoencoder (Vincent et al. 2008) sees a corrupted x and rebuilds the clean
one. No density is learnt: these models have codes and reconstructions, and no ``log_prob``, ``bound`` or ``sample``.

Example:
  >>> import jax, optax
  >>> from gm_jax.autoencoders import autoencoder
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> x = jax.random.normal(jax.random.key(0), (200, 1)) * jax.numpy.array([1.0, -1.0, 0.5])
  >>> module = autoencoder.mlp(num_visible=3, num_latents=1, hidden_sizes=())
  >>> algorithm = descent(*autoencoder.objective(module), optax.adam(0.05))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.01)  # data on a line are rebuilt from one number
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Extra, Key, Loss, bind, pure, refuse_context
from gm_jax.likelihoods import Bernoulli
from gm_jax.nn.mlp import MLP

RECONSTRUCTIONS = ('squared', 'bernoulli')
Corruption = Callable[[Key, Array], Array]


class Autoencoder(nn.Module):
  """An encoder and a decoder.

  Attributes:
    encoder: module from x ``[..., D]`` to codes ``[..., M]``.
    decoder: module from codes to ``[..., D]``: the reconstruction, or its log-odds.
    reconstruction: ``'squared'`` error, or ``'bernoulli'`` cross-entropy for x in [0, 1].
  """

  encoder: nn.Module
  decoder: nn.Module
  reconstruction: str = 'squared'

  def __post_init__(self):
    if self.reconstruction not in RECONSTRUCTIONS:
      raise ValueError(f'reconstruction={self.reconstruction!r}: give one of {", ".join(map(repr, RECONSTRUCTIONS))}')
    super().__post_init__()

  def __call__(self, x: Array, *, context=None) -> Array:
    """The reconstruction error; touches every parameter."""
    refuse_context(context)
    return self.error(x, x)

  def encode(self, x: Array, *, context=None) -> Array:
    """The code: ``[..., D] -> [..., M]``."""
    refuse_context(context)
    return self.encoder(x)

  def decode(self, z: Array, *, context=None) -> Array:
    """The reconstruction: ``[..., M] -> [..., D]``."""
    refuse_context(context)
    outputs = self.decoder(z)
    return nn.sigmoid(outputs) if self.reconstruction == 'bernoulli' else outputs

  def error(self, seen: Array, x: Array) -> Array:
    """How far the reconstruction from ``seen`` is from x, summed over dimensions: ``[..., D], [..., D] -> [...]``."""
    outputs = self.decoder(self.encoder(seen))
    if outputs.shape[-1] != x.shape[-1]:
      raise ValueError(f'x.shape={x.shape}: the decoder has {outputs.shape[-1]} outputs; flatten images first')
    if self.reconstruction == 'bernoulli':
      return -Bernoulli().log_prob(outputs[..., None], x).sum(-1)
    return ((outputs - x) ** 2).sum(-1)


def objective(module: Autoencoder, corruption: Corruption | None = None) -> tuple[Callable, Loss]:
  """``init`` and ``loss`` for ``descent``: the mean error of rebuilding x from x, or from a corrupted x.

  Args:
    module: the autoencoder.
    corruption: ``(key, x) -> x``, such as ``masking(0.3)``; None for the plain autoencoder.
  """
  error = bind(module, 'error')

  def loss(params, key, batch, state):
    del state
    refuse_context(batch.context)
    seen = batch.x if corruption is None else corruption(key, batch.x)
    return error(params, seen, batch.x).mean(), Extra()

  return pure(module).init, loss


def masking(rate: float) -> Corruption:
  """Each dimension is set to zero with probability ``rate``."""
  _check_rate(rate)
  return lambda key, x: jnp.where(jax.random.bernoulli(key, rate, x.shape), 0, x)


def salt_and_pepper(rate: float) -> Corruption:
  """Each dimension is set to 0 or 1, evenly, with probability ``rate``."""
  _check_rate(rate)

  def corrupt(key, x):
    uniform = jax.random.uniform(key, x.shape)
    return jnp.where(uniform < rate, (uniform < rate / 2).astype(x.dtype), x)

  return corrupt


def gaussian_noise(scale: float) -> Corruption:
  """Gaussian noise of standard deviation ``scale`` is added."""
  if not scale >= 0:
    raise ValueError(f'scale={scale}: a standard deviation is 0 or more')
  return lambda key, x: x + scale * jax.random.normal(key, x.shape, x.dtype)


def mlp(
  num_visible: int,
  num_latents: int,
  hidden_sizes: Sequence[int] = (300,),
  *,
  activation: Callable = nn.relu,
  reconstruction: str = 'squared',
) -> Autoencoder:
  """An autoencoder of fully connected networks, mirrored; without hidden layers it is linear."""
  encoder = MLP(hidden_sizes, num_latents, activation)
  return Autoencoder(encoder, MLP(hidden_sizes[::-1], num_visible, activation), reconstruction)


def _check_rate(rate: float) -> None:
  if not 0 <= rate <= 1:
    raise ValueError(f'rate={rate}: a probability lies between 0 and 1')
