"""The variational autoencoder: a latent-variable model, and a network that guesses its posterior.

With a prior p(z), a decoder p(x | z) and an encoder q(z | x) (Kingma & Welling 2014; Rezende et al. 2014)::

  log p(x) = ELBO(x) + KL(q(z | x) || p(z | x))
  ELBO(x)  = E_q[log p(x | z)] - KL(q(z | x) || p(z))  =  E_q[log p(x, z) - log q(z | x)]

The expectation is taken at one reparameterised draw of z. The KL to the prior is a formula where there is one
(Gaussian to diagonal Gaussian) and is taken at the same draw where there is none. Learning may weigh the KL by beta
(Higgins et al. 2017), raise beta from zero as steps go by, leave the first few nats of each dimension free (Kingma et
al. 2016), or drop the part of the gradient that is pure noise once q is right ("sticking the landing", Roeder et al.
2017). ``bound`` stays the ELBO whatever was learnt by. Distributions of z are in ``latents.py``, those of x are the
heads of ``gm_jax.likelihoods``, measures of collapse are in ``diagnostics.py``.

Example, two binary patterns and their complements:
  >>> import jax, optax
  >>> from gm_jax.autoencoders import vae
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = vae.mlp(num_visible=4, num_latents=1, hidden_sizes=(8,))
  >>> algorithm = descent(*vae.objective(model), optax.adam(0.03))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bound = model.apply({'params': state.params}, jax.random.key(0), x, method='bound').mean()
  >>> bool(bound > -1.1)  # two patterns have log 1/2 = -0.69 each; before learning it was 4 log 1/2 = -2.77
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoencoders import latents
from gm_jax.autoencoders.latent_variables import ModelWithTerms, Terms, join
from gm_jax.base import Array, Extra, Key, Loss, bind, context_features, pure
from gm_jax.likelihoods import Bernoulli, Head
from gm_jax.nn.mlp import MLP

BERNOULLI, DIAGONAL = Bernoulli(), latents.Diagonal()
ESTIMATORS = ('analytic', 'sampled', 'stl')


class VAE(ModelWithTerms):
  """A variational autoencoder of x in D dimensions, or of p(x | context).

  Attributes:
    encoder: module from x, and the context's features behind it, to ``posterior.size(num_latents)`` outputs. Of heads
      with levels or classes it sees x scaled to [-1, 1].
    decoder: module from z, and the context's features behind it, to ``D * head.size`` outputs, dimension by dimension.
    num_latents: M.
    head: the distribution of one dimension of x given its outputs.
    posterior: from the encoder's outputs to a distribution of z; see ``latents``.
    prior: module that gives the distribution of z; N(0, I) if None.
    context_size: C, the number of features or classes of the context; 0 for none.
    gibbs_steps: sweeps of ``complete``.
  """

  encoder: nn.Module
  decoder: nn.Module
  num_latents: int
  head: Head = BERNOULLI
  posterior: Callable = DIAGONAL
  prior: nn.Module | None = None
  context_size: int = 0
  gibbs_steps: int = 100

  def __post_init__(self):
    for name, least in (('num_latents', 1), ('gibbs_steps', 1), ('context_size', 0)):
      if getattr(self, name) < least:
        raise ValueError(f'{name}={getattr(self, name)}: must be {least} or more')
    if self.context_size and isinstance(self.prior, latents.VampPrior):
      raise ValueError(f'context_size={self.context_size} with a VampPrior: its pseudo-inputs have no context')
    super().__post_init__()

  # Distributions.

  def posterior_given(self, x: Array, *, context=None):
    """q(z | x), a distribution: ``x [..., D]``."""
    levels = getattr(self.head, 'levels', None) or getattr(self.head, 'num_classes', None)
    features = context_features(context, self.context_size, x.shape[:-1])
    return self._encoded(join(x if levels is None else 2 * x / (levels - 1) - 1, features))

  def _encoded(self, inputs: Array):
    outputs, size = self.encoder(inputs), self.posterior.size(self.num_latents)
    if outputs.shape[-1] != size:
      raise ValueError(
        f'the encoder has {outputs.shape[-1]} outputs, but this posterior of num_latents={self.num_latents} '
        f'is made from {size}'
      )
    return self.posterior(outputs)

  def prior_distribution(self):
    """p(z), a distribution."""
    if self.prior is None:
      return latents.standard_normal(self.num_latents)
    return self.prior(self._encoded)

  def prior_given(self, x: Array, *, context=None):
    """The prior of each example, which is the same for all here: of x the batch shape counts only."""
    return self.prior_distribution()

  def _outputs(self, z: Array, context, batch_shape: tuple[int, ...]) -> Array:
    """What the head makes p(x | z) from: ``[..., M] -> [..., D, head.size]``; the context is of ``batch_shape``."""
    outputs = self.decoder(join(z, context_features(context, self.context_size, batch_shape)))
    if outputs.shape[-1] % self.head.size:
      raise ValueError(f'the decoder has {outputs.shape[-1]} outputs: give it {self.head.size} for each dimension of x')
    return outputs.reshape(*outputs.shape[:-1], -1, self.head.size)

  def log_prior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(z) in nats: ``[..., D], [num, ..., M] -> [num, ...]``."""
    return self.prior_given(x, context=context).log_prob(z)

  def log_posterior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log q(z | x) in nats: ``[..., D], [num, ..., M] -> [num, ...]``."""
    return self.posterior_given(x, context=context).log_prob(z)

  def propose(self, key: Key, x: Array, num: int, *, context=None) -> tuple[Array, Array]:
    """Draws of q(z | x), ``[num, ..., M]``, with their log q(z | x), ``[num, ...]``."""
    return self.posterior_given(x, context=context).sample_and_log_prob(key, num)

  def sample_prior(self, key: Key, num: int, *, context=None) -> Array:
    """Draws of p(z), ``[num, M]``, which does not depend on the context."""
    return self.prior_distribution().sample_and_log_prob(key, num)[0]

  # The bound.

  def terms(self, key: Key, x: Array, *, context=None, estimator: str = 'analytic') -> Terms:
    """The terms of the ELBO at one draw of z.

    Args:
      key: of the draw.
      x: ``[..., D]``.
      context: of each example.
      estimator: of the KL: ``'analytic'`` where there is a formula, ``'sampled'`` at the draw, or ``'stl'``, which has
        the value of ``'sampled'`` and a gradient without the score of q.
    """
    q, prior = self.posterior_given(x, context=context), self.prior_given(x, context=context)
    z, log_q = jax.tree.map(lambda leaf: leaf[0], q.sample_and_log_prob(key, 1))
    log_likelihood = self.log_likelihood(x, z, context=context)
    if estimator == 'analytic' and latents.has_closed_divergence(q, prior):
      return Terms(log_likelihood, latents.divergence(q, prior))
    if estimator == 'stl':
      log_q = jax.lax.stop_gradient(q).log_prob(z)
    return Terms(log_likelihood, (log_q - prior.log_prob(z))[..., None])

  def encode(self, x: Array, *, context=None) -> Array:
    """The posterior mean: ``[..., D] -> [..., M]``."""
    return self.posterior_given(x, context=context).mean


def objective(
  model: VAE, *, beta: float | Callable[[Array], Array] = 1.0, free_bits: float = 0.0, estimator: str = 'analytic'
) -> tuple[Callable, Loss]:
  """``init`` and ``loss`` for ``descent``: the mean of ``-log p(x | z) + beta KL``, in nats.

  Args:
    model: the module.
    beta: weight of the KL, or a schedule of the step (``warm_up``).
    free_bits: nats of each part of the KL that cost nothing: ``sum_g max(free_bits, mean over the batch of KL_g)``,
      where the parts are dimensions if q is diagonal and the KL has a formula, and the whole KL if not.
    estimator: of the KL, see ``VAE.terms``.

  Returns:
    ``init``, and ``loss`` whose metrics are the mean ``elbo``, ``divergence`` and ``beta``.

  Raises:
    ValueError: for an unknown estimator, or a negative ``beta`` or ``free_bits``.
  """
  if estimator not in ESTIMATORS:
    raise ValueError(f'estimator={estimator!r}: give one of {", ".join(map(repr, ESTIMATORS))}')
  for name, value in (('beta', 0.0 if callable(beta) else beta), ('free_bits', free_bits)):
    if value < 0:
      raise ValueError(f'{name}={value}: must be 0 or more')
  terms = bind(model, 'terms')

  def loss(params, key, batch, state):
    log_likelihood, divergence = terms(params, key, batch.x, context=batch.context, estimator=estimator)
    log_likelihood, divergence = log_likelihood.mean(), divergence.reshape(-1, divergence.shape[-1]).mean(0)
    weight = beta(state.step) if callable(beta) else beta
    value = -log_likelihood + weight * jnp.maximum(divergence, free_bits).sum()
    total = divergence.sum()
    return value, Extra(metrics={'elbo': log_likelihood - total, 'divergence': total, 'beta': jnp.asarray(weight)})

  return pure(model).init, loss


def warm_up(num_steps: int, beta: float = 1.0) -> Callable[[Array], Array]:
  """A schedule of beta that rises linearly from 0 at step 0 and stays at ``beta`` from ``num_steps`` on."""
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps}: warm-up takes 1 step or more; give beta itself for none')
  return lambda step: beta * jnp.minimum(step / num_steps, 1.0)


def mlp(
  num_visible: int,
  num_latents: int,
  hidden_sizes: Sequence[int] = (200, 200),
  *,
  head: Head = BERNOULLI,
  posterior: Callable = DIAGONAL,
  activation: Callable = nn.tanh,
  **kwargs,
) -> VAE:
  """A VAE of fully connected networks, whose decoder has the hidden layers of the encoder in reverse order.

  Args:
    num_visible: D.
    num_latents: M.
    hidden_sizes: of the encoder, from x on; tanh and (200, 200) with 50 latents are those of Burda et al. (2016).
    head: see ``VAE``.
    posterior: see ``VAE``.
    activation: of the hidden layers.
    **kwargs: other attributes of ``VAE``.
  """
  encoder = MLP(hidden_sizes, posterior.size(num_latents), activation)
  decoder = MLP(hidden_sizes[::-1], num_visible * head.size, activation)
  return VAE(encoder, decoder, num_latents, head, posterior, **kwargs)


def one_hidden_layer(num_latents: int = 20, num_visible: int = 784) -> VAE:
  """784-300-2M: one hidden layer of 300 rectified units, means and log standard deviations, and the like back."""
  return mlp(num_visible, num_latents, (300,), activation=nn.relu)


def three_linear_layers(num_latents: int = 8, num_visible: int = 784) -> VAE:
  """Three linear layers to the code and three back, rectified between them, with sigmoid outputs."""
  return mlp(num_visible, num_latents, (512, 256), activation=nn.relu)
