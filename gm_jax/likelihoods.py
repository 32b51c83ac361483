"""The distributions that models put out: how to draw from them fast, and heads with ``log_prob`` and ``sample``.

A *head* turns the raw outputs of a network into a distribution of each dimension of x. Decoders, autoregressive
conditionals and mixtures share them; the heads stand at the end of this file, after the draws they are made of.

Half the time of a restricted Boltzmann machine on a CPU is spent in making random numbers, because XLA runs the
twenty rounds of the Threefry hash (Salmon et al. 2011) as a loop over memory. Written out round by round, the same hash
fuses with the comparison that consumes it and becomes several times faster; the bits are those of ``jax.random.bits``,
word for word, so that nothing is given up: not the quality, and not that a draw is the same alone, under ``vmap`` and
on another device.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def random_bits(key: Key, shape: tuple[int, ...]) -> Array:
  """Uniform 32-bit words, equal to ``jax.random.bits(key, shape, 'uint32')`` and cheaper where XLA can fuse them.

  Args:
    key: any JAX key; the fast path is for the default kind (Threefry, partitionable), others go to ``jax.random``.
    shape: the shape of the result.

  Returns:
    A ``uint32`` array. Word i is ``a ^ b`` where ``(a, b)`` is the Threefry-2x32 hash of the counter i.
  """
  typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
  implementation = str(jax.random.key_impl(key)) if typed else jax.config.jax_default_prng_impl
  size = math.prod(shape)
  if 'threefry2x32' not in implementation or not jax.config.jax_threefry_partitionable or not 0 < size < 2**32:
    return jax.random.bits(key, shape, 'uint32')
  first, second = jax.random.key_data(key) if typed else key
  low = jax.lax.iota(jnp.uint32, size).reshape(shape)
  return jnp.bitwise_xor(*_threefry(first, second, jnp.zeros_like(low), low))


def _threefry(first: Array, second: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
  """Threefry-2x32 with twenty rounds: the counters (x0, x1) hashed under the key (first, second)."""
  keys = (first, second, first ^ second ^ jnp.uint32(_PARITY))
  x0, x1 = x0 + keys[0], x1 + keys[1]
  for i in range(5):
    for rotation in _ROTATIONS[i % 2]:
      x0 = x0 + x1
      x1 = x0 ^ ((x1 << rotation) | (x1 >> (32 - rotation)))
    x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + jnp.uint32(i + 1)
  return x0, x1


@jax.custom_jvp
def softplus(x: Array) -> Array:
  """log(1 + exp(x)) to full precision, several times cheaper than ``jax.nn.softplus``; the derivative is sigmoid."""
  return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
  return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


def softplus_gap(x: Array, low: Array, high: Array) -> Array:
  """softplus(high x) - softplus(low x) for 0 <= low <= high, to full *relative* precision.

  Annealing adds up thousands of such gaps. The difference of two float32 softplus errs by about 1e-8 per unit, mostly
  to one side: 0.03 nats over 500 units and 14,500 temperatures. With x <= 0 the gap is
  ``log1p(sigmoid(low x) expm1((high - low) x))``, and ``softplus(x) = x + softplus(-x)`` gives the other half.
  """
  minus, step = -jnp.abs(x), high - low
  return step * jnp.maximum(x, 0) + jnp.log1p(jax.nn.sigmoid(low * minus) * jnp.expm1(step * minus))


def sample_bernoulli(key: Key, logits: Array) -> Array:
  """Draws x in {0, 1} with p(x = 1) = sigmoid(logits), as numbers of the logits' type.

  With a uniform u, ``u < sigmoid(a)`` says ``u exp(-a) < 1 - u``: no division, and 1 - u is read off the inverted bits
  so that both tails are kept to 2^-32.

  Args:
    key: a key.
    logits: log-odds, of any shape and floating type.
  """
  logits = jnp.asarray(logits)
  bits = random_bits(key, logits.shape)
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  return (bits.astype(dtype) * jnp.exp(-logits.astype(dtype)) < (~bits).astype(dtype)).astype(logits.dtype)


def sample_categorical(key: Key, logits: Array) -> Array:
  """Draws the index of one of K classes with p(k) = softmax(logits)_k, by a race of exponentials.

  Class k arrives at time E_k / p_k with E_k ~ Exp(1); the first to arrive is a draw (the Gumbel-max trick).

  Args:
    key: a key.
    logits: unnormalised log-probabilities, ``[..., K]``.

  Returns:
    ``int32`` indices of shape ``[...]``.
  """
  logits = jnp.asarray(logits)
  uniform = jnp.minimum((random_bits(key, logits.shape).astype(jnp.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
  return jnp.argmax(logits - jnp.log(-jnp.log1p(-uniform)), axis=-1).astype(jnp.int32)


class Head(Protocol):
  """The distribution of one dimension of x given ``size`` raw outputs of a network; all shapes may be batched.

  Dimensions are independent given their outputs, so the log-probability of an example is the sum over its dimensions,
  which is left to the model.
  """

  @property
  def size(self) -> int:
    """Raw outputs per dimension of x."""

  def log_prob(self, outputs: Array, x: Array) -> Array:
    """Log-probability (or log-density) in nats of each dimension: ``[..., size], [...] -> [...]``."""

  def sample(self, key: Key, outputs: Array) -> Array:
    """A draw of each dimension: ``[..., size] -> [...]``."""

  def mean(self, outputs: Array) -> Array:
    """The mean of each dimension: ``[..., size] -> [...]``."""


@dataclass(frozen=True)
class Bernoulli:
  """x in {0, 1}; the output is the log-odds of 1."""

  size: int = 1

  def log_prob(self, outputs: Array, x: Array) -> Array:
    """The formula x a - softplus(a), right at every logit a."""
    logits = outputs[..., 0]
    return x * logits - softplus(logits)

  def sample(self, key: Key, outputs: Array) -> Array:
    """Zeros and ones of the outputs' type."""
    return sample_bernoulli(key, outputs[..., 0])

  def mean(self, outputs: Array) -> Array:
    """The probability of 1."""
    return jax.nn.sigmoid(outputs[..., 0])


@dataclass(frozen=True)
class Categorical:
  """x in {0, ..., num_classes - 1}, as integers or integer-valued floats; the outputs are unnormalised log-odds."""

  num_classes: int

  def __post_init__(self):
    if self.num_classes < 2:
      raise ValueError(f'num_classes={self.num_classes}: a categorical dimension has 2 classes or more')

  @property
  def size(self) -> int:
    """One output per class."""
    return self.num_classes

  def log_prob(self, outputs: Array, x: Array) -> Array:
    """The log-softmax of the outputs at x."""
    log_p = jax.nn.log_softmax(outputs)
    return jnp.take_along_axis(log_p, x.astype(jnp.int32)[..., None], axis=-1)[..., 0]

  def sample(self, key: Key, outputs: Array) -> Array:
    """Classes, as numbers of the outputs' type."""
    return sample_categorical(key, outputs).astype(outputs.dtype)

  def mean(self, outputs: Array) -> Array:
    """The mean of the class taken as a number, which makes sense for grey levels."""
    return jax.nn.softmax(outputs) @ jnp.arange(self.num_classes, dtype=outputs.dtype)


@dataclass(frozen=True)
class Gaussian:
  """Real x; the outputs are the mean and, unless ``scale`` is given, the logarithm of the standard deviation.

  Attributes:
    scale: a standard deviation common to all dimensions, not learnt.
    min_scale: added to a learnt standard deviation, so that no dimension can shrink onto a point, where the density has
      no bound and its gradient is no number.
  """

  scale: float | None = None
  min_scale: float = 1e-4

  def __post_init__(self):
    _check_scales(self.scale, self.min_scale)

  @property
  def size(self) -> int:
    """2, or 1 with a given scale."""
    return 1 if self.scale else 2

  def _scale(self, outputs: Array) -> Array:
    if self.scale:
      return jnp.asarray(self.scale, outputs.dtype)
    return jnp.exp(outputs[..., 1]) + self.min_scale

  def log_prob(self, outputs: Array, x: Array) -> Array:
    """The log-density of a Gaussian."""
    return log_normal(x, outputs[..., 0], self._scale(outputs))

  def sample(self, key: Key, outputs: Array) -> Array:
    """A draw, by the reparameterisation mean + scale * noise."""
    mean = outputs[..., 0]
    return mean + self._scale(outputs) * jax.random.normal(key, mean.shape, outputs.dtype)

  def mean(self, outputs: Array) -> Array:
    """The first output."""
    return outputs[..., 0]


class _LocationScaleMixture:
  """Real x with a mixture of K location-scale components; outputs are K log-weights, K locations, K log-scales."""

  num_components: int
  min_scale: float

  def __post_init__(self):
    if self.num_components < 1:
      raise ValueError(f'num_components={self.num_components}: a mixture has 1 component or more')
    _check_scales(None, self.min_scale)

  @property
  def size(self) -> int:
    """3 K."""
    return 3 * self.num_components

  def _parts(self, outputs: Array) -> tuple[Array, Array, Array]:
    log_weights, locations, log_scales = jnp.split(outputs, 3, axis=-1)
    return log_weights, locations, jnp.exp(log_scales) + self.min_scale

  def log_prob(self, outputs: Array, x: Array) -> Array:
    """The log of the weighted sum of the components' probabilities."""
    log_weights, locations, scales = self._parts(outputs)
    log_p = self._component_log_prob(x[..., None], locations, scales)
    return jax.nn.logsumexp(log_weights + log_p, axis=-1) - jax.nn.logsumexp(log_weights, axis=-1)

  def sample(self, key: Key, outputs: Array) -> Array:
    """A draw from a component that was itself drawn."""
    which_key, noise_key = jax.random.split(key)
    log_weights, locations, scales = self._parts(outputs)
    which = sample_categorical(which_key, log_weights)[..., None]
    location, scale = (jnp.take_along_axis(leaf, which, axis=-1)[..., 0] for leaf in (locations, scales))
    return self._component_sample(noise_key, location, scale)

  def mean(self, outputs: Array) -> Array:
    """The weighted mean of the locations."""
    log_weights, locations, _ = self._parts(outputs)
    return jnp.sum(jax.nn.softmax(log_weights) * locations, axis=-1)


@dataclass(frozen=True)
class MixtureOfGaussians(_LocationScaleMixture):
  """Real x with a mixture of K Gaussians; outputs are K log-weights, K means, K log standard deviations."""

  num_components: int
  min_scale: float = 1e-3

  def _component_log_prob(self, x, location, scale):
    return log_normal(x, location, scale)

  def _component_sample(self, key, location, scale):
    return location + scale * jax.random.normal(key, location.shape, location.dtype)


@dataclass(frozen=True)
class MixtureOfLaplaces(_LocationScaleMixture):
  """Real x with a mixture of K Laplace densities exp(-|x - m| / s) / (2 s); outputs as for Gaussians."""

  num_components: int
  min_scale: float = 1e-3

  def _component_log_prob(self, x, location, scale):
    return -jnp.abs(x - location) / scale - jnp.log(2 * scale)

  def _component_sample(self, key, location, scale):
    return location + scale * jax.random.laplace(key, location.shape, location.dtype)


@dataclass(frozen=True)
class DiscretisedLogistic(_LocationScaleMixture):
  """Grey levels 0, ..., levels - 1 as bins of a mixture of K logistic densities (Salimans et al. 2017).

  Level i has the mass between i - 1/2 and i + 1/2, the outermost levels all that lies beyond them, so the masses sum to
  one exactly. Locations and scales are in units in which the levels span [-1, 1]. With the bin's ends a < b in units of
  the component's scale, ``sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))``, whose logarithm needs no
  clamp however far the bin lies from the location.

  Attributes:
    levels: of x.
    num_components: K.
    min_scale: added to the scales.
  """

  levels: int
  num_components: int = 1
  min_scale: float = 1e-4

  def __post_init__(self):
    super().__post_init__()
    if self.levels < 2:
      raise ValueError(f'levels={self.levels}: grey data have 2 levels or more')

  def _component_log_prob(self, x, location, scale):
    width = 2.0 / (self.levels - 1)
    centre = (x * width - 1 - location) / scale
    half = width / (2 * scale)
    below, above = -softplus(-(centre + half)), -softplus(centre - half)  # log-mass below b, and above a
    inside = below + above + jnp.log(-jnp.expm1(-2 * half))
    return jnp.where(x <= 0, below, jnp.where(x >= self.levels - 1, above, inside))

  def _component_sample(self, key, location, scale):
    y = location + scale * jax.random.logistic(key, location.shape, location.dtype)
    return jnp.clip(jnp.round((y + 1) / 2 * (self.levels - 1)), 0, self.levels - 1)

  def mean(self, outputs: Array) -> Array:
    """The mean of the continuous mixture in levels, cut to their range: exact only where no mass lies outside."""
    return jnp.clip((super().mean(outputs) + 1) / 2 * (self.levels - 1), 0, self.levels - 1)


def log_normal(x: Array, mean: Array = 0.0, scale: Array = 1.0) -> Array:
  """The log-density in nats of a normal distribution, elementwise."""
  return -0.5 * (((x - mean) / scale) ** 2 + math.log(2 * math.pi)) - jnp.log(scale)


def _check_scales(scale: float | None, min_scale: float) -> None:
  if scale is not None and not scale > 0:
    raise ValueError(f'scale={scale}: a standard deviation is positive')
  if not min_scale >= 0:
    raise ValueError(f'min_scale={min_scale}: must be 0 or more')
