"""The conditional variational autoencoder: p(x | y) with a learnt prior p(z | y) (Sohn, Lee & Yan 2015).

::

  p(x | y) = integral of p(z | y) p(x | z, y) dz
  log p(x | y) >= E_q[log p(x | z, y)] - KL(q(z | x, y) || p(z | y))                    L_CVAE
  log p(x | y) >= E_p(z | y)[log p(x | z, y)]                                           L_GSNN

All three networks see the condition y, which stands in the place of ``context``. (A ``vae.VAE`` with a ``context_size``
has the prior p(z) for every y; then z cannot tell what y leaves open from what it settles.) At test time there is no x
to infer z from: z comes from p(z | y), as in the Gaussian stochastic network that L_GSNN trains. The hybrid objective
alpha L_CVAE + (1 - alpha) L_GSNN closes that gap. For alpha below 1 it is a looser bound on log p(x | y).

Example, x copies y or its opposite:
  >>> import jax, optax
  >>> from gm_jax.autoencoders import conditional
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> y = jax.random.bernoulli(jax.random.key(0), 0.5, (100, 3)).astype('float32')
  >>> x = jax.numpy.where(jax.numpy.arange(100)[:, None] % 2, y, 1 - y)
  >>> model = conditional.mlp(num_visible=3, num_latents=1, context_size=3, hidden_sizes=(16,))
  >>> algorithm = descent(*conditional.objective(model), optax.adam(0.03))
  >>> state, step = jax.jit(algorithm.init)(jax.random.key(0), Batch(x, y)), jax.jit(algorithm.step)
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x, y))
  >>> bool(metrics['elbo'] > -1.2)  # given y there are two patterns, log 1/2 = -0.69; without learning 3 log 1/2
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.autoencoders import latents, vae
from gm_jax.base import Array, Key, Loss, bind, context_features
from gm_jax.likelihoods import Head
from gm_jax.nn.mlp import MLP


class ConditionalVAE(vae.VAE):
  """A variational autoencoder of p(x | y) whose prior is a network of y.

  Attributes (beside those of ``vae.VAE``):
    prior_network: module from the context's features to ``2 M`` outputs: means, then log standard deviations.
  """

  prior_network: nn.Module | None = None

  def __post_init__(self):
    if self.context_size < 1:
      raise ValueError(f'context_size={self.context_size}: a conditional model is given 1 feature or more')
    if self.prior is not None or self.prior_network is None:
      raise ValueError('a ConditionalVAE has a prior_network in place of a prior')
    super().__post_init__()

  def _prior(self, context, batch_shape) -> latents.DiagonalGaussian:
    return latents.Diagonal()(self.prior_network(context_features(context, self.context_size, batch_shape)))

  def prior_distribution(self):
    """There is none without a condition."""
    raise ValueError('the prior of a ConditionalVAE is p(z | context): ask for prior_given(x, context=...)')

  def prior_given(self, x: Array, *, context=None) -> latents.DiagonalGaussian:
    """p(z | y) of each example, ``[..., M]``: of x the batch shape counts only."""
    return self._prior(context, x.shape[:-1])

  def sample_prior(self, key: Key, num: int, *, context=None) -> Array:
    """A draw of p(z | y) for each of the ``num`` rows of the context, ``[num, M]``."""
    return self._prior(context, (num,)).sample_and_log_prob(key, 1)[0][0]

  def propose_prior(self, key: Key, x: Array, num: int, *, context=None) -> Array:
    """Draws of p(z | y), ``[num, ..., M]``."""
    return self.prior_given(x, context=context).sample_and_log_prob(key, num)[0]

  def generative_bound(self, key: Key, x: Array, *, context=None) -> Array:
    """L_GSNN in nats at one draw of p(z | y): ``[..., D] -> [...]``."""
    return self.log_likelihood(x, self.propose_prior(key, x, 1, context=context), context=context)[0]

  def predict(self, *, context) -> Array:
    """The mean of x at the most probable z of p(z | y), one answer for each condition: ``[..., C] -> [..., D]``."""
    context = jnp.asarray(context)
    labels = jnp.issubdtype(context.dtype, jnp.integer)
    return self.decode(self._prior(context, context.shape if labels else context.shape[:-1]).mean, context=context)


def objective(model: ConditionalVAE, *, alpha: float = 1.0, **kwargs) -> tuple[Callable, Loss]:
  """``init`` and ``loss`` for ``descent``: the mean of ``-(alpha L_CVAE + (1 - alpha) L_GSNN)``, in nats.

  Args:
    model: the module.
    alpha: 1 for the CVAE, 0 for the Gaussian stochastic network, between them the hybrid.
    **kwargs: of ``vae.objective``, for L_CVAE.

  Raises:
    ValueError: unless ``0 <= alpha <= 1``.
  """
  if not 0 <= alpha <= 1:
    raise ValueError(f'alpha={alpha}: a weight lies between 0 and 1')
  init, variational = vae.objective(model, **kwargs)
  generative_bound = bind(model, 'generative_bound')

  def loss(params, key, batch, state):
    value, extra = variational(params, key, batch, state)
    if alpha < 1:
      value = alpha * value - (1 - alpha) * generative_bound(params, key, batch.x, context=batch.context).mean()
    return value, extra

  return init, loss


def mlp(
  num_visible: int,
  num_latents: int,
  context_size: int,
  hidden_sizes: Sequence[int] = (200, 200),
  *,
  head: Head = vae.BERNOULLI,
  activation: Callable = nn.tanh,
  gibbs_steps: int = 100,
) -> ConditionalVAE:
  """A conditional VAE of fully connected networks; the prior's has the hidden layers of the encoder.

  Args:
    num_visible: D.
    num_latents: M.
    context_size: C, the number of features or classes of the context.
    hidden_sizes: of encoder and prior, from their inputs on; the decoder has them in reverse order.
    head: see ``vae.VAE``.
    activation: of the hidden layers.
    gibbs_steps: see ``vae.VAE``.
  """
  encoder, prior = (MLP(hidden_sizes, 2 * num_latents, activation) for _ in range(2))
  decoder = MLP(hidden_sizes[::-1], num_visible * head.size, activation)
  return ConditionalVAE(
    encoder, decoder, num_latents, head, context_size=context_size, gibbs_steps=gibbs_steps, prior_network=prior
  )
