"""What follows from p(z), p(x | z) and q(z | x), whatever these are made of.

A model with latent variables gives the four pieces named in ``LatentVariableModel``; bound, samples, decoded means and
completions are the same formulas for all of them. A latent variable z is an array ``[..., M]``, or a tree of such.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key


class LatentVariableModel(nn.Module):
  """A model p(z) p(x | z) with a proposal q(z | x); all may be given a context.

  A subclass has the attributes ``head`` (the distribution of one dimension of x) and ``gibbs_steps`` (sweeps of
  ``complete``), and these methods, of which all but ``sample_prior`` see draws ``[num, ..., M]`` of each example::

    propose(key, x, num, context=)   draws of q(z | x), and their log q(z | x) [num, ...]
    log_posterior(x, z, context=)    log q(z | x)
    log_prior(x, z, context=)        log p(z), of x the batch shape only
    sample_prior(key, num, context=) draws of p(z), [num, M]
    _outputs(z, context, batch_shape)  what the head makes p(x | z) from, [..., D, head.size]
  """

  def __call__(self, x: Array, *, context=None) -> Array:
    """The ELBO at one fixed draw; touches every parameter."""
    return self.bound(jax.random.key(0), x, context=context)

  def log_likelihood(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(x | z) in nats: ``[..., D], [num, ..., M] -> [num, ...]``."""
    return self._log_likelihood(self._outputs(z, context, x.shape[:-1]), x)

  def _log_likelihood(self, outputs: Array, x: Array) -> Array:
    if outputs.shape[-2] != x.shape[-1]:
      raise ValueError(f'x.shape={x.shape}: the decoder speaks of {outputs.shape[-2]} dimensions; flatten images first')
    shape = jnp.broadcast_shapes(outputs.shape[:-1], x.shape)
    outputs = jnp.broadcast_to(outputs, (*shape, self.head.size))
    return self.head.log_prob(outputs, jnp.broadcast_to(x, shape)).sum(-1)

  def log_joint(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(x, z) in nats: ``[..., D], [num, ..., M] -> [num, ...]``."""
    return self.log_likelihood(x, z, context=context) + self.log_prior(x, z, context=context)

  def bound(self, key: Key, x: Array, *, context=None) -> Array:
    """The ELBO in nats, at one draw of z: ``[..., D] -> [...]``; in the mean a lower bound on log p(x)."""
    z, log_q = self.propose(key, x, 1, context=context)
    return (self.log_joint(x, z, context=context) - log_q)[0]

  def propose_prior(self, key: Key, x: Array, num: int, *, context=None) -> Array:
    """Draws of p(z) for each example, ``[num, ..., M]``; of x the batch shape counts only."""
    shape = (num, *x.shape[:-1])
    z = self.sample_prior(key, math.prod(shape))
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, leaf.shape[-1]), z)

  def decode(self, z: Array, *, context=None) -> Array:
    """The mean of p(x | z): ``[..., M] -> [..., D]``."""
    return self.head.mean(self._outputs(z, context, z.shape[:-1]))

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` draws of p(x): z from the prior, then x; with ``context`` one draw for each of its ``num`` rows."""
    prior_key, key = jax.random.split(key)
    return self.draw(key, self.sample_prior(prior_key, num, context=context), context=context)

  def draw(self, key: Key, z: Array, *, context=None) -> Array:
    """A draw of p(x | z): ``[..., M] -> [..., D]``."""
    return self.head.sample(key, self._outputs(z, context, jax.tree.leaves(z)[0].shape[:-1]))

  def complete(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """Draws what is not ``observed`` given what is, by pseudo-Gibbs: z from q(z | x), the rest from p(x | z).

    Exact in the limit of many sweeps if q is the true posterior (Rezende et al. 2014), approximate otherwise.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter: that starts from a draw of p(x).
      observed: boolean, broadcastable to x.
      context: of each example.
    """
    prior_key, start_key, key = jax.random.split(key, 3)
    z = jax.tree.map(lambda leaf: leaf[0], self.propose_prior(prior_key, x, 1, context=context))
    start = jnp.where(observed, x, self.draw(start_key, z, context=context))
    module, variables = self.unbind()

    def sweep(v, key):
      return module.apply(variables, key, v, observed, context=context, method='sweep'), None

    return jax.lax.scan(sweep, start, jax.random.split(key, self.gibbs_steps))[0]

  def sweep(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """One draw of z from q(z | x), and of what is not observed from p(x | z): ``[..., D] -> [..., D]``."""
    posterior_key, key = jax.random.split(key)
    z = jax.tree.map(lambda leaf: leaf[0], self.propose(posterior_key, x, 1, context=context)[0])
    return jnp.where(observed, x, self.draw(key, z, context=context))


class Terms(NamedTuple):
  """What the ELBO is made of, in nats: ``log_likelihood - divergence.sum(-1)``."""

  log_likelihood: Array  # [...], of log p(x | z) at a draw of z
  divergence: Array  # [..., G], KL(q || p) in as many parts as it falls into


class ModelWithTerms(LatentVariableModel):
  """A model that gives the terms of its ELBO, some of them formulas: ``terms(key, x, context=, estimator=)``."""

  def bound(self, key: Key, x: Array, *, context=None) -> Array:
    """The ELBO in nats, at one draw of z: ``[..., D] -> [...]``; in the mean a lower bound on log p(x)."""
    log_likelihood, divergence = self.terms(key, x, context=context)
    return log_likelihood - divergence.sum(-1)


def join(x: Array, features: Array | None) -> Array:
  """The features behind x, both repeated along the leading axes of the other; x itself where there are none."""
  if features is None:
    return x
  shape = jnp.broadcast_shapes(x.shape[:-1], features.shape[:-1])
  return jnp.concatenate([jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in (x, features)], axis=-1)


def log_mean(log_weights: Array) -> Array:
  """The logarithm of the mean weight over the first axis."""
  return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
