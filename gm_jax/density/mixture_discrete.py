"""Bernoulli and categorical components of a mixture, with missing values.

    log p_k(x) = sum_d x_d log p_kd + (1 - x_d) log(1 - p_kd) = sum_d x_d l_kd - softplus(l_kd),    l_kd = logit p_kd,

so that the E-step is one matrix product with the logits, and the M-step one with the responsibilities. Known also as
latent class analysis; see McLachlan & Peel (2000), Finite mixture models.

A probability learnt from counts stays at or above ``floor``: a component that never saw a pixel lit would otherwise
give -inf to the first image that has it.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Key
from gm_jax.density import missing

SMALLEST_MASS = 1e-12  # a value with less than this share of the data keeps its parameters


class Logits(NamedTuple):
  """Of K components: ``[K, D]`` for Bernoullis, ``[K, D, C]`` for categoricals (their softmax counts)."""

  logits: Array


def _check(prior: float, floor: float, smooth: float):
  if prior < 0:
    raise ValueError(f'prior={prior}: pseudo-examples cannot be negative')
  if not 0 < floor < 0.5:
    raise ValueError(f'floor={floor}: the least probability must lie between 0 and 1/2')
  if not 0 < smooth <= 1:
    raise ValueError(f'smooth={smooth}: the share of the mean in a start must be above 0 and at most 1')


@dataclasses.dataclass(frozen=True)
class Bernoulli:
  """Independent binary values within a component; NaN is missing, values between 0 and 1 count as expectations.

  Attributes:
    prior: weight of a Beta prior on each probability, in pseudo-examples per component and per example of the data.
    prior_mean: share of ones among those pseudo-examples, a number or ``[D]``. The mean of the data is a good one: in
      images, most pixels are never lit, and 1/2 would light them.
    floor: least probability of either value.
    smooth: components start from data rows mixed with this share of the mean of all rows.
  """

  prior: float = 0.0
  prior_mean: float | Array = 0.5
  floor: float = 1e-6
  smooth: float = 0.5
  missing = math.nan

  def __post_init__(self):
    _check(self.prior, self.floor, self.smooth)
    if np.any(np.less(self.prior_mean, 0) | np.greater(self.prior_mean, 1)):
      raise ValueError(f'prior_mean={self.prior_mean}: probabilities between 0 and 1 are needed')

  def data(self, x: Array) -> Array:
    """Examples as floats."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)

  def features(self, x: Array) -> Array:
    """The values, gaps filled with the mean."""
    return jnp.where(jnp.isnan(x), missing.column_moments(x)[0], x)

  def start(self, key: Key, x: Array, rows: Array) -> Logits:
    """Smoothed rows: a bare row has likelihood zero for every other."""
    del key
    mean = missing.column_moments(x)[0]
    return self._logits((1 - self.smooth) * self.features(x)[rows] + self.smooth * mean)

  def _logits(self, p):
    p = jnp.clip(p, self.floor, 1 - self.floor)
    return Logits(jnp.log(p) - jnp.log1p(-p))

  def log_prob(self, components: Logits, x: Array, observed: Array | None) -> Array:
    """``[N, K]``."""
    off = jax.nn.softplus(components.logits)
    return x @ components.logits.T - (off.sum(-1) if observed is None else observed @ off.T)

  def statistics(self, components: Logits, x: Array, observed: Array | None, responsibilities: Array):
    """Sums of r and r x over the observed values, each ``[K, D]``."""
    del components
    ones = responsibilities.T @ x
    if observed is None:
      return jnp.broadcast_to(responsibilities.sum(0)[:, None], ones.shape), ones
    return responsibilities.T @ observed, ones

  def maximize(self, components: Logits, statistics, mass: Array) -> Logits:
    """Shares of ones."""
    del mass
    count, ones = statistics
    count, ones = count + self.prior, ones + self.prior * self.prior_mean
    new = self._logits(ones / jnp.maximum(count, SMALLEST_MASS)).logits
    return Logits(jnp.where(count > SMALLEST_MASS, new, components.logits))

  def log_prior(self, components: Logits) -> Array:
    """Of all probabilities."""
    logits = components.logits
    return self.prior * (self.prior_mean * logits - jax.nn.softplus(logits)).sum()

  def sample(self, components: Logits, key: Key, which: Array) -> Array:
    """0 or 1."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(components.logits)[which]).astype(components.logits.dtype)

  def complete(self, components: Logits, key: Key, x: Array, which: Array) -> Array:
    """Within a component the missing do not depend on the observed."""
    return jnp.where(jnp.isnan(x), self.sample(components, key, which), x)

  def mean(self, components: Logits) -> Array:
    """Probabilities of one, ``[K, D]``."""
    return jax.nn.sigmoid(components.logits)

  def num_parameters(self, components: Logits) -> int:
    """One for each probability."""
    return components.logits.size


@dataclasses.dataclass(frozen=True)
class Categorical:
  """Independent values in ``0 .. num_categories - 1`` within a component; a negative integer is missing.

  Attributes:
    num_categories: C, at least 2, the same in every dimension.
    prior: weight of a Dirichlet prior on each distribution, in pseudo-examples per component and per example of the
      data, spread evenly over the categories.
    floor: least probability of a category before they are normalised.
    smooth: components start from data rows mixed with this share of the mean of all rows.
  """

  num_categories: int
  prior: float = 0.0
  floor: float = 1e-6
  smooth: float = 0.5
  missing = -1

  def __post_init__(self):
    _check(self.prior, self.floor, self.smooth)
    if self.num_categories < 2:
      raise ValueError(f'num_categories={self.num_categories}: at least 2 are needed')

  def data(self, x: Array) -> Array:
    """Examples as integers.

    Raises:
      ValueError: if they are not.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(f'x has dtype {x.dtype}: categories must be integers')
    return x.astype(jnp.int32)

  def features(self, x: Array) -> Array:
    """One indicator for each dimension and category, ``[N, D C]``; zeros where missing."""
    return jax.nn.one_hot(x, self.num_categories).reshape(len(x), -1)

  def start(self, key: Key, x: Array, rows: Array) -> Logits:
    """Smoothed rows."""
    del key
    indicators = self.features(x).reshape(*x.shape, -1)
    mean = self._normalize(indicators.mean(0))
    row = jnp.where((x[rows] >= 0)[..., None], indicators[rows], mean)
    return Logits(jnp.log(self._normalize((1 - self.smooth) * row + self.smooth * mean)))

  def _normalize(self, counts):
    counts = jnp.maximum(counts, self.floor * jnp.maximum(counts.sum(-1, keepdims=True), SMALLEST_MASS))
    return counts / counts.sum(-1, keepdims=True)

  def log_prob(self, components: Logits, x: Array, observed: Array | None) -> Array:
    """``[N, K]``."""
    del observed  # a missing value has no indicator
    log_p = jax.nn.log_softmax(components.logits)
    return self.features(x) @ log_p.reshape(len(log_p), -1).T

  def statistics(self, components: Logits, x: Array, observed: Array | None, responsibilities: Array) -> Array:
    """Expected counts of the categories, ``[K, D, C]``."""
    del observed
    return (responsibilities.T @ self.features(x)).reshape(components.logits.shape)

  def maximize(self, components: Logits, statistics: Array, mass: Array) -> Logits:
    """Shares of the categories."""
    del mass
    counts = statistics + self.prior / self.num_categories
    alive = counts.sum(-1, keepdims=True) > SMALLEST_MASS
    return Logits(jnp.where(alive, jnp.log(self._normalize(counts)), components.logits))

  def log_prior(self, components: Logits) -> Array:
    """Of all distributions."""
    return self.prior / self.num_categories * jax.nn.log_softmax(components.logits).sum()

  def sample(self, components: Logits, key: Key, which: Array) -> Array:
    """Integers."""
    return jax.random.categorical(key, components.logits[which]).astype(jnp.int32)

  def complete(self, components: Logits, key: Key, x: Array, which: Array) -> Array:
    """Within a component the missing do not depend on the observed."""
    return jnp.where(x < 0, self.sample(components, key, which), x)

  def mean(self, components: Logits) -> Array:
    """Probabilities, ``[K, D, C]``."""
    return jax.nn.softmax(components.logits)

  def num_parameters(self, components: Logits) -> int:
    """C - 1 for each distribution."""
    num, dim, _ = components.logits.shape
    return num * dim * (self.num_categories - 1)
