"""What steadies the game of generator and critic, each as a pure function or a layer.

Of Salimans et al., "Improved techniques for training GANs", 2016:

* feature matching: the generator's loss is || mean f(x) - mean f(G(z)) ||^2, a distance of the *means* of two batches;
* minibatch discrimination: o(x_i)_b = sum_{j != i} exp(-|| M_ib - M_jb ||_1), the example itself left out;
* historical averaging: || theta - (1/t) sum_i theta[i] ||^2 is a term *of the loss*;
* one-sided label smoothing: the critic's target is alpha on the data and stays 0 on samples, for with another target on
  samples the optimal critic has p_g in its numerator;
* virtual batch normalisation: an example is normalised by a reference batch that is chosen once *and itself*.

Instance noise (Sonderby et al. 2017; Arjovsky & Bottou 2017) blurs data and samples alike, less and less. Packing (Lin
et al., "PacGAN", 2018) shows the critic several examples of one kind at once. The running average of the generator is
``training.rules.averaged``.

Example, two copies are close to each other and not to a third:
  >>> import jax.numpy as jnp
  >>> closeness(jnp.array([[[0.0, 1.0]], [[0.0, 1.0]], [[9.0, -9.0]]])).round(3).ravel().tolist()
  [1.0, 1.0, 0.0]
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax.base import Array, Key, Params


def feature_matching(real: Array, fake: Array) -> Array:
  """The squared distance of the mean features of two batches: ``[B, F], [C, F] -> []``."""
  return jnp.sum((real.mean(0) - fake.mean(0)) ** 2)


def closeness(projected: Array) -> Array:
  """How close each example is to the others of its batch: ``[B, K, S] -> [B, K]``.

  The sum over the other examples of exp(-|| M_i - M_j ||_1), for each of K kernels of S dimensions.
  """
  # Examples last, [S, K, B], so that sums run over neighbours in memory: twice as fast on a CPU.
  distance = sum(jnp.abs(one[:, :, None] - one[:, None]) for one in jnp.transpose(projected, (2, 1, 0)))
  return jnp.sum(jnp.exp(-distance), axis=2).T - 1.0  # less the example itself, at distance zero


class MinibatchDiscrimination(nn.Module):
  """Joins to the features of an example how close it is to the rest of its batch: ``[B, F] -> [B, F + num_kernels]``.

  Attributes:
    num_kernels: K.
    kernel_size: S, the dimensions in which distances are taken.
  """

  num_kernels: int
  kernel_size: int = 5

  @nn.compact
  def __call__(self, features: Array) -> Array:
    """The features and the closeness."""
    projected = nn.Dense(self.num_kernels * self.kernel_size, use_bias=False, name='projection')(features)
    projected = projected.reshape(len(features), self.num_kernels, self.kernel_size)
    return jnp.concatenate([features, closeness(projected)], axis=-1)


class VirtualBatchNorm(nn.Module):
  """Normalises each example by the mean and the variance over a reference batch and itself.

  The first rows are the reference batch, ``[R + B, ..., C]``. Each of them is normalised by the statistics of that
  batch, and each of the others, with weight 1 / (R + 1), by its own as well; so no example bears on another.

  Attributes:
    num_reference: R.
    epsilon: added to the variance.
  """

  num_reference: int
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The normalised rows, scaled and shifted."""
    size = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (size,))
    bias = self.param('bias', nn.initializers.zeros, (size,))
    inner = tuple(range(1, x.ndim - 1))
    means, squares = jnp.mean(x, inner, keepdims=True), jnp.mean(x**2, inner, keepdims=True)
    share = 1 / (self.num_reference + 1)

    def joint(own):
      reference = jnp.mean(own[: self.num_reference], axis=0, keepdims=True)
      others = (1 - share) * reference + share * own[self.num_reference :]
      return jnp.concatenate([jnp.broadcast_to(reference, own[: self.num_reference].shape), others])

    means, squares = joint(means), joint(squares)
    variance = jnp.maximum(squares - means**2, 0.0)
    return (x - means) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias


class History(NamedTuple):
  """The mean of all parameters so far, and how many they are."""

  mean: Params
  count: Array  # [] float32


def begin_history(params: Params) -> History:
  """The history of parameters at the start, which counts them once."""
  return History(jax.tree.map(jnp.copy, params), jnp.float32(1))


def remember(history: History, params: Params) -> History:
  """The history with one more set of parameters."""
  count = history.count + 1
  return History(jax.tree.map(lambda mean, new: mean + (new - mean) / count, history.mean, params), count)


def distance_from_history(params: Params, history: History) -> Array:
  """|| theta - (1/t) sum_i theta[i] ||^2, to be added to the loss of the player."""
  return optax.tree.norm(jax.tree.map(jnp.subtract, params, history.mean), squared=True)


def smoothed(game, real_target: float):
  """The game with the target ``real_target`` in place of 1 on the data, and still 0 on samples.

  Raises:
    ValueError: unless ``0.5 < real_target <= 1``.
  """
  if not 0.5 < real_target <= 1:
    raise ValueError(f'real_target={real_target}: the smoothed target of the data must lie in (0.5, 1]')
  real, fake = game.real, game.fake
  return game._replace(real=lambda scores: real_target * real(scores) + (1 - real_target) * fake(scores))


def instance_noise(key: Key, x: Array, stddev: Array | float) -> Array:
  """Examples with independent Gaussian noise on every value."""
  return x + stddev * jax.random.normal(key, x.shape, x.dtype)


def pack(x: Array, size: int) -> Array:
  """Sets neighbours side by side along the last axis: ``[B, ..., C]`` to ``[B / size, ..., size * C]``.

  Raises:
    ValueError: if the batch does not divide into packs.
  """
  if size == 1:
    return x
  if x.shape[0] % size:
    raise ValueError(f'a batch of {x.shape[0]} does not divide into packs of packing={size}')
  packs = jnp.moveaxis(x.reshape(-1, size, *x.shape[1:]), 1, -2)
  return packs.reshape(*packs.shape[:-2], -1)
