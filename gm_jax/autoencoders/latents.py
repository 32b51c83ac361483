"""Distributions of latent variables: posteriors q(z | x) made from the outputs of an encoder, and priors p(z).

A *distribution* here is a pytree of parameters with::

  sample_and_log_prob(key, num) -> z [num, ..., M], log-density [num, ...]      reparameterised: z is differentiable
  log_prob(z [..., M]) -> [...]                                                in nats
  mean [..., M]

Being a pytree, ``jax.lax.stop_gradient`` holds its parameters and leaves z free, which is all that the gradients named
"sticking the landing" and DReG need. A posterior with a network of its own, such as an inverse autoregressive flow, is
a Flax module that maps the outputs of the encoder to such a pytree; ``Diagonal`` and ``FullCovariance`` need none.

References:
  Kingma & Welling (2014), Auto-encoding variational Bayes; Rezende, Mohamed & Wierstra (2014), Stochastic
  backpropagation; Tomczak & Welling (2018), VAE with a VampPrior.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.likelihoods import log_normal, sample_categorical


class DiagonalGaussian(NamedTuple):
  """N(mean, diag(scale^2))."""

  mean: Array  # [..., M]
  scale: Array  # [..., M]

  def sample_and_log_prob(self, key: Key, num: int) -> tuple[Array, Array]:
    """Z = mean + scale * noise, ``[num, ..., M]``, and its log-density ``[num, ...]``."""
    noise = jax.random.normal(key, (num, *self.mean.shape), self.mean.dtype)
    return self.mean + self.scale * noise, (log_normal(noise) - jnp.log(self.scale)).sum(-1)

  def log_prob(self, z: Array) -> Array:
    """The log-density in nats: ``[..., M] -> [...]``."""
    return log_normal(z, self.mean, self.scale).sum(-1)


class FullGaussian(NamedTuple):
  """N(mean, factor factor^T)."""

  mean: Array  # [..., M]
  factor: Array  # [..., M, M], lower triangular with a positive diagonal

  def sample_and_log_prob(self, key: Key, num: int) -> tuple[Array, Array]:
    """Z = mean + factor noise, ``[num, ..., M]``, and its log-density ``[num, ...]``."""
    noise = jax.random.normal(key, (num, *self.mean.shape), self.mean.dtype)
    z = self.mean + jnp.einsum('...ij,...j->...i', self.factor, noise)
    return z, log_normal(noise).sum(-1) - self._log_det()

  def log_prob(self, z: Array) -> Array:
    """The log-density in nats: ``[..., M] -> [...]``."""
    difference = z - self.mean
    factor = jnp.broadcast_to(self.factor, (*difference.shape, difference.shape[-1]))
    noise = jax.scipy.linalg.solve_triangular(factor, difference[..., None], lower=True)[..., 0]
    return log_normal(noise).sum(-1) - self._log_det()

  def _log_det(self) -> Array:
    return jnp.log(jnp.diagonal(self.factor, axis1=-2, axis2=-1)).sum(-1)


class Mixture(NamedTuple):
  """A mixture over z of K components of one kind."""

  logits: Array  # [K], log-weights up to a constant
  components: DiagonalGaussian | FullGaussian  # with [K, M] means

  @property
  def mean(self) -> Array:
    """The weighted mean of the components' means, ``[M]``."""
    return jax.nn.softmax(self.logits) @ self.components.mean

  def sample_and_log_prob(self, key: Key, num: int) -> tuple[Array, Array]:
    """``[num, M]`` draws, not differentiable in the weights, and their log-densities ``[num]``."""
    which_key, key = jax.random.split(key)
    which = sample_categorical(which_key, jnp.broadcast_to(self.logits, (num, *self.logits.shape)))
    z = jax.tree.map(lambda leaf: leaf[which], self.components).sample_and_log_prob(key, 1)[0][0]
    return z, self.log_prob(z)

  def log_prob(self, z: Array) -> Array:
    """The log-density in nats: ``[..., M] -> [...]``."""
    return jax.nn.logsumexp(self.components.log_prob(z[..., None, :]) + jax.nn.log_softmax(self.logits), axis=-1)


def has_closed_divergence(q, p) -> bool:
  """Whether ``divergence(q, p)`` can be had."""
  return isinstance(q, DiagonalGaussian | FullGaussian) and isinstance(p, DiagonalGaussian)


def divergence(q: DiagonalGaussian | FullGaussian, p: DiagonalGaussian) -> Array:
  """KL(q || p) in nats, in parts that add up to it.

  With variances v, it is ``(v_q + (m_q - m_p)^2) / (2 v_p) - 1/2 + log(s_p / s_q)`` in each dimension.

  Returns:
    ``[..., M]``, one part per dimension, for a diagonal q; ``[..., 1]`` for a full one, which does not fall into parts.
  """
  full = isinstance(q, FullGaussian)
  variance = (q.factor**2).sum(-1) if full else q.scale**2
  scale = jnp.diagonal(q.factor, axis1=-2, axis2=-1) if full else q.scale
  parts = 0.5 * ((variance + (q.mean - p.mean) ** 2) / p.scale**2 - 1) + jnp.log(p.scale / scale)
  return parts.sum(-1, keepdims=True) if full else parts


@dataclass(frozen=True)
class Diagonal:
  """Encoder outputs as a ``DiagonalGaussian``: M means, then M logarithms of standard deviations."""

  def size(self, num_latents: int) -> int:
    """Outputs that the encoder must have."""
    return 2 * num_latents

  def __call__(self, outputs: Array) -> DiagonalGaussian:
    """``[..., 2 M] -> distribution``."""
    mean, log_scale = jnp.split(outputs, 2, axis=-1)
    return DiagonalGaussian(mean, jnp.exp(log_scale))


@dataclass(frozen=True)
class FullCovariance:
  """Encoder outputs as a ``FullGaussian``: M means, M logarithms of the factor's diagonal, and what lies below it."""

  def size(self, num_latents: int) -> int:
    """Outputs that the encoder must have."""
    return 2 * num_latents + num_latents * (num_latents - 1) // 2

  def __call__(self, outputs: Array) -> FullGaussian:
    """``[..., size] -> distribution``."""
    num_latents = (math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2
    mean, log_diagonal, below = jnp.split(outputs, (num_latents, 2 * num_latents), axis=-1)
    rows, columns = jnp.tril_indices(num_latents, -1)
    factor = jnp.exp(log_diagonal)[..., None] * jnp.eye(num_latents, dtype=outputs.dtype)
    return FullGaussian(mean, factor.at[..., rows, columns].set(below))


def standard_normal(num_latents: int) -> DiagonalGaussian:
  """N(0, I) in M dimensions."""
  return DiagonalGaussian(jnp.zeros(num_latents), jnp.ones(num_latents))


class MixturePrior(nn.Module):
  """p(z) = sum_k w_k N(m_k, diag(s_k^2)), all learnt.

  Attributes:
    num_latents: M.
    num_components: K.
    spread: standard deviation of the means at the start, where all scales are 1.
  """

  num_latents: int
  num_components: int
  spread: float = 1.0

  def __post_init__(self):
    _check_components(self.num_components)
    super().__post_init__()

  @nn.compact
  def __call__(self, posterior_given: Callable) -> Mixture:
    """The distribution."""
    shape = (self.num_components, self.num_latents)
    mean = self.param('mean', nn.initializers.normal(self.spread), shape)
    log_scale = self.param('log_scale', nn.initializers.zeros, shape)
    logits = self.param('logits', nn.initializers.zeros, (self.num_components,))
    return Mixture(logits, DiagonalGaussian(mean, jnp.exp(log_scale)))


class VampPrior(nn.Module):
  """p(z) = (1/K) sum_k q(z | u_k): a mixture of the posteriors of K learnt pseudo-inputs.

  The pseudo-inputs live where the inputs of the encoder do, and are not held within [0, 1] as in the paper.

  Attributes:
    num_visible: D.
    num_components: K.
    initial: initialiser of the pseudo-inputs ``[K, D]``.
  """

  num_visible: int
  num_components: int
  initial: Callable = nn.initializers.uniform(1.0)

  def __post_init__(self):
    _check_components(self.num_components)
    super().__post_init__()

  @nn.compact
  def __call__(self, posterior_given: Callable) -> Mixture:
    """The distribution; ``posterior_given`` maps inputs of the encoder to posteriors."""
    inputs = self.param('inputs', self.initial, (self.num_components, self.num_visible))
    return Mixture(jnp.zeros(self.num_components), posterior_given(inputs))


def _check_components(num_components: int) -> None:
  if num_components < 1:
    raise ValueError(f'num_components={num_components}: a mixture has 1 component or more')
