"""Importance-weighted autoencoders: tighter bounds from several samples, and log p(x) from many.

With z_1, ..., z_k from q(z | x) and weights w_i = p(x, z_i) / q(z_i | x) (Burda, Grosse & Salakhutdinov 2016)::

  L_k(x) = E[log (1/k) sum_i w_i],      ELBO = L_1 <= L_2 <= ... -> log p(x)

The plain gradient of L_k weighs the samples by w~_i = w_i / sum_j w_j, and its signal-to-noise ratio for the encoder
*falls* with k. The doubly reparameterised gradient (DReG; Tucker et al. 2019) is unbiased, too, and does not::

  d L_k / d phi = E[ sum_i w~_i^2 (d log w_i / d z_i) (d z_i / d phi) ]        log q(z | x) held but for its z

The same weights estimate log p(x): drawn from q (importance sampling) or from p(z), where w = p(x | z) (plain Monte
Carlo). Either estimate of p(x) is unbiased, its logarithm is a lower bound in the mean, and the relative variance of a
weight is S / ESS - 1 for the effective sample size ESS = (sum w)^2 / sum w^2 of S samples.

All functions take any ``LatentVariableModel``: a ``vae.VAE``, or the ``TwoLayerVAE`` of this file, whose latent
variables are a pair of arrays.

Example, the bound rises with the number of samples:
  >>> import jax
  >>> from gm_jax.autoencoders import iwae, vae
  >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (500, 6)).astype('float32')
  >>> module = vae.mlp(num_visible=6, num_latents=2, hidden_sizes=(8,))
  >>> params = jax.jit(module.init)(jax.random.key(1), x)['params']
  >>> bounds = [jax.jit(iwae.bound(module, k))(params, jax.random.key(2), x).mean() for k in (1, 5, 50)]
  >>> bool(bounds[0] < bounds[1] < bounds[2])
  True
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoencoders import latents
from gm_jax.autoencoders.latent_variables import LatentVariableModel, log_mean
from gm_jax.base import Array, Extra, Key, Loss, Model, bind, pure, refuse_context
from gm_jax.likelihoods import Bernoulli, Head
from gm_jax.nn.mlp import MLP

BERNOULLI = Bernoulli()
GRADIENTS = ('plain', 'dreg')
PROPOSALS = ('posterior', 'prior')


def log_weights(module: nn.Module, num_samples: int, proposal: str = 'posterior') -> Callable:
  """``(params, key, x, context=None) -> [S, ...]``: the logarithms of S weights whose mean is p(x).

  Args:
    module: a model with latent variables.
    num_samples: S.
    proposal: where z is drawn from: ``'posterior'`` q(z | x), which is importance sampling, or ``'prior'`` p(z), which
      is plain Monte Carlo.

  Raises:
    ValueError: for an unknown proposal, or fewer than one sample.
  """
  _check_positive('num_samples', num_samples)
  if proposal not in PROPOSALS:
    raise ValueError(f'proposal={proposal!r}: give one of {", ".join(map(repr, PROPOSALS))}')
  names = ('propose', 'log_joint', 'propose_prior', 'log_likelihood')
  propose, log_joint, propose_prior, log_likelihood = (bind(module, name) for name in names)

  def function(params, key, x, *, context=None):
    if proposal == 'prior':
      return log_likelihood(params, x, propose_prior(params, key, x, num_samples, context=context), context=context)
    z, log_q = propose(params, key, x, num_samples, context=context)
    return log_joint(params, x, z, context=context) - log_q

  return function


def bound(module: nn.Module, num_samples: int) -> Callable:
  """``(params, key, x, context=None) -> [...]``: the k-sample bound in nats at one draw of k samples."""
  weights = log_weights(module, num_samples)
  return lambda params, key, x, *, context=None: log_mean(weights(params, key, x, context=context))


def as_model(module: nn.Module, num_samples: int) -> Model:
  """``pure(module)`` with the k-sample bound."""
  return pure(module)._replace(bound=bound(module, num_samples))


def objective(module: nn.Module, num_samples: int, *, gradient: str = 'plain') -> tuple[Callable, Loss]:
  """``init`` and ``loss`` for ``descent``: the mean of minus the k-sample bound.

  Args:
    module: a model with latent variables.
    num_samples: k.
    gradient: ``'plain'``, or ``'dreg'``; both have the same value. With one sample DReG is "sticking the landing".

  Raises:
    ValueError: for an unknown gradient, or fewer than one sample.
  """
  _check_positive('num_samples', num_samples)
  if gradient not in GRADIENTS:
    raise ValueError(f'gradient={gradient!r}: give one of {", ".join(map(repr, GRADIENTS))}')
  estimate = doubly_reparameterised(module, num_samples) if gradient == 'dreg' else bound(module, num_samples)

  def loss(params, key, batch, state):
    del state
    return -jnp.mean(estimate(params, key, batch.x, context=batch.context)), Extra()

  return pure(module).init, loss


def doubly_reparameterised(module: nn.Module, num_samples: int) -> Callable:
  """``bound``, with the gradient DReG for all that z was drawn by, and the plain one for the rest."""
  propose, log_joint, log_posterior = (bind(module, name) for name in ('propose', 'log_joint', 'log_posterior'))

  def function(params, key, x, *, context=None):
    z, _ = propose(params, key, x, num_samples, context=context)

    def weigh(params, z):
      log_q = log_posterior(jax.lax.stop_gradient(params), x, z, context=context)
      return log_joint(params, x, z, context=context) - log_q

    # The cotangents w~ of log w give the plain gradient of the decoder, and at z what DReG weighs once more by w~.
    held = jax.lax.stop_gradient((params, z))
    log_w, pull = jax.vjp(weigh, *held)
    weights = jax.nn.softmax(log_w, axis=0)
    of_params, of_z = pull(weights)
    of_z = jax.tree.map(lambda leaf: leaf * weights[..., None], of_z)
    return _with_gradient(log_mean(log_w), (of_params, of_z), (params, z))

  return function


def _with_gradient(values: Array, gradient, variables) -> Array:
  """``values``, the sum of which gets the given gradient with respect to ``variables``."""
  products = jax.tree.map(lambda g, v: jnp.vdot(jax.lax.stop_gradient(g), v), gradient, variables)
  surrogate = sum(jax.tree.leaves(products)) / values.size
  return jax.lax.stop_gradient(values) + (surrogate - jax.lax.stop_gradient(surrogate))


class Estimate(NamedTuple):
  """Of log p(x) by importance sampling; each field is ``[...]``."""

  log_prob: Array  # nats; in the mean a lower bound
  stderr: Array  # of log_prob, by the delta method: sqrt(1/ESS - 1/S); far too small where one weight dominates
  effective_sample_size: Array  # between 1 and the number of samples


def estimate(module: nn.Module, num_samples: int, *, block_size: int = 50, proposal: str = 'posterior') -> Callable:
  """``(params, key, x, context=None) -> Estimate``: log p(x) from S samples, ``block_size`` in memory at a time.

  Args:
    module: a model with latent variables.
    num_samples: S, exactly as many as are used.
    block_size: samples per block.
    proposal: see ``log_weights``.

  Raises:
    ValueError: for an unknown proposal, or numbers below one.
  """
  _check_positive('num_samples', num_samples)
  _check_positive('block_size', block_size)
  block_size = min(block_size, num_samples)
  weights = log_weights(module, block_size, proposal)

  def function(params, key, x, *, context=None):
    def block(carry, index):
      log_w = weights(params, jax.random.fold_in(key, index), x, context=context)
      counted = index * block_size + jnp.arange(block_size) < num_samples
      log_w = jnp.where(counted.reshape(-1, *(1,) * (log_w.ndim - 1)), log_w, -jnp.inf)
      sums = (jax.nn.logsumexp(log_w, axis=0), jax.nn.logsumexp(2 * log_w, axis=0))
      return jax.tree.map(jnp.logaddexp, carry, sums), None

    nothing = jnp.full(x.shape[:-1], -jnp.inf)
    (log_sum, log_squares), _ = jax.lax.scan(block, (nothing, nothing), jnp.arange(-(-num_samples // block_size)))
    size = jnp.exp(2 * log_sum - log_squares)
    variance = jnp.maximum(1 / size - 1 / num_samples, 0.0)
    return Estimate(log_sum - math.log(num_samples), jnp.sqrt(variance), size)

  return function


class TwoLayerVAE(LatentVariableModel):
  """Two stochastic layers: p(x, h1, h2) = p(h2) p(h1 | h2) p(x | h1), and q(h1, h2 | x) = q(h1 | x) q(h2 | h1).

  All but p(x | h1) are diagonal Gaussians. A latent variable ``z`` of its methods is the pair ``(h1, h2)``. ``encode``
  and ``decode`` speak of h1, the layer that x is decoded from.

  Attributes:
    encoders: modules from x to ``2 M1`` outputs, and from h1 to ``2 M2``.
    decoders: modules from h2 to ``2 M1`` outputs, and from h1 to ``D * head.size``.
    num_latents: M2, of the upper layer.
    head: the distribution of one dimension of x given its outputs.
    gibbs_steps: sweeps of ``complete``.
  """

  encoders: tuple[nn.Module, nn.Module]
  decoders: tuple[nn.Module, nn.Module]
  num_latents: int
  head: Head = BERNOULLI
  gibbs_steps: int = 100

  def posterior_given(self, x: Array, *, context=None) -> latents.DiagonalGaussian:
    """q(h1 | x): ``x [..., D]``."""
    refuse_context(context)
    return latents.Diagonal()(self.encoders[0](x))

  def propose(self, key: Key, x: Array, num: int, *, context=None) -> tuple[Any, Array]:
    """``num`` draws of q(h1, h2 | x) and their log-densities ``[num, ...]``."""
    first_key, second_key = jax.random.split(key)
    h1, log_q1 = self.posterior_given(x, context=context).sample_and_log_prob(first_key, num)
    h2, log_q2 = latents.Diagonal()(self.encoders[1](h1)).sample_and_log_prob(second_key, 1)
    return (h1, h2[0]), log_q1 + log_q2[0]

  def log_posterior(self, x: Array, z: Any, *, context=None) -> Array:
    """Log q(h1, h2 | x) in nats, ``[num, ...]``."""
    h1, h2 = z
    log_q1 = self.posterior_given(x, context=context).log_prob(h1)
    return log_q1 + latents.Diagonal()(self.encoders[1](h1)).log_prob(h2)

  def log_prior(self, x: Array, z: Any, *, context=None) -> Array:
    """Log p(h1, h2) in nats, ``[num, ...]``."""
    refuse_context(context)
    h1, h2 = z
    return latents.Diagonal()(self.decoders[0](h2)).log_prob(h1) + latents.standard_normal(self.num_latents).log_prob(
      h2
    )

  def sample_prior(self, key: Key, num: int, *, context=None) -> tuple[Array, Array]:
    """``num`` draws of p(h1, h2)."""
    refuse_context(context)
    first_key, second_key = jax.random.split(key)
    h2, _ = latents.standard_normal(self.num_latents).sample_and_log_prob(second_key, num)
    return latents.Diagonal()(self.decoders[0](h2)).sample_and_log_prob(first_key, 1)[0][0], h2

  def encode(self, x: Array, *, context=None) -> Array:
    """The mean of q(h1 | x): ``[..., D] -> [..., M1]``."""
    return self.posterior_given(x, context=context).mean

  def decode(self, z: Array, *, context=None) -> Array:
    """The mean of p(x | h1): ``[..., M1] -> [..., D]``."""
    return self.head.mean(self._outputs((z, None), context, z.shape[:-1]))

  def _outputs(self, z, context, batch_shape):
    refuse_context(context)
    outputs = self.decoders[1](z[0])
    return outputs.reshape(*outputs.shape[:-1], -1, self.head.size)


def two_layer_mlp(
  num_visible: int,
  num_latents: tuple[int, int] = (100, 50),
  hidden_sizes: tuple[int, int] = (200, 100),
  *,
  head: Head = BERNOULLI,
) -> TwoLayerVAE:
  """Two hidden tanh layers between any two stochastic ones; the sizes are those of Burda et al. (2016).

  Args:
    num_visible: D.
    num_latents: M1 and M2.
    hidden_sizes: units of the layers between x and h1, and between h1 and h2.
    head: the distribution of x.
  """
  (first, second), (lower, upper) = num_latents, ((size, size) for size in hidden_sizes)
  encoders = (MLP(lower, 2 * first, nn.tanh), MLP(upper, 2 * second, nn.tanh))
  decoders = (MLP(upper, 2 * first, nn.tanh), MLP(lower, num_visible * head.size, nn.tanh))
  return TwoLayerVAE(encoders, decoders, second, head)


def _check_positive(name: str, value: int) -> None:
  if value < 1:
    raise ValueError(f'{name}={value}: must be 1 or more')
