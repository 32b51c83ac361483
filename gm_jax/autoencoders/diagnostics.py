"""Whether a variational autoencoder uses its code: posterior collapse, measured.

With the aggregated posterior q(z) = (1/N) sum_n q(z | x_n) of N examples (Hoffman & Johnson 2016)::

  mean_n KL(q(z | x_n) || p(z)) = I_q(n; z) + KL(q(z) || p(z))

A latent dimension is *active* if its posterior mean varies over the data: Var_x(E_q[z_j | x]) > 0.01 (Burda et al.
2016). A collapsed dimension has a KL of 0, tells nothing about x and is not active.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoencoders import latents
from gm_jax.base import Array, bind

ACTIVE_VARIANCE = 0.01


def code_variance(module: nn.Module) -> Callable:
  """``(params, x [N, D]) -> [M]``: the variance over the data of the posterior means; above 0.01 a unit is active."""
  encode = bind(module, 'encode')
  return lambda params, x: jnp.var(encode(params, x), axis=0)


def active_units(module: nn.Module) -> Callable:
  """``(params, x [N, D]) -> []``: the number of active units."""
  variance = code_variance(module)
  return lambda params, x: jnp.sum(variance(params, x) > ACTIVE_VARIANCE)


def divergence_per_dimension(module: nn.Module) -> Callable:
  """``(params, x [N, D]) -> [M]``: the mean of KL(q(z_j | x) || N(0, 1)) in nats.

  Raises:
    ValueError: when called, if the posterior is not a diagonal Gaussian.
  """
  posterior_given = bind(module, 'posterior_given')

  def function(params, x):
    q = posterior_given(params, x)
    if not isinstance(q, latents.DiagonalGaussian):
      raise ValueError(f'a posterior {type(q).__name__} has no KL per dimension: it takes a DiagonalGaussian')
    standard = latents.DiagonalGaussian(jnp.zeros(q.mean.shape[-1]), jnp.ones(q.mean.shape[-1]))
    return latents.divergence(q, standard).mean(0)

  return function


def mutual_information(module: nn.Module) -> Callable:
  """``(params, key, x [N, D]) -> [N]``: one-draw terms whose mean estimates I_q(n; z) in nats.

  The term of example n is log q(z | x_n) - log q(z) at a z from q(z | x_n), with q(z) over the N examples given. None
  is above log N, so where the mean comes near that, give more examples. Memory grows as N, time as N^2.
  """
  posterior_given = bind(module, 'posterior_given')

  def function(params, key, x) -> Array:
    q = posterior_given(params, x)
    z, log_q = q.sample_and_log_prob(key, 1)
    aggregated = jax.lax.map(lambda one: jax.nn.logsumexp(q.log_prob(one)), z[0], batch_size=16)
    return log_q[0] - aggregated + jnp.log(len(x))

  return function
