"""What is done to data before a model sees them: pure functions, each with its log-det where it has one.

A change of variables returns ``(y, log_det)`` with log p(x) = log p(y) + log_det, in nats per example. The log-dets of
a chain add up, and their sum takes the model's score back to the original data:
``evaluation.likelihood.bits_per_dimension(log_prob, D, log_det=sum)`` (``dequantise`` counts the division by the number
of levels, so that the argument ``levels`` there stays 1).

``event_ndims`` is the number of axes of an example: 1 for ``[..., D]``, 3 for ``[..., H, W, C]``.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Key
from gm_jax.data import batches
from gm_jax.data.dataset import DataError, Dataset

_BLOCK = 4096  # examples binarised at a time


def to_float(x: Array) -> Array:
  """Values as they are, in float32; any shape."""
  return jnp.asarray(x, jnp.float32)


def to_unit(x: Array, levels: int) -> Array:
  """Grey values 0 ... levels - 1 as intensities from 0 to 1, float32; any shape."""
  return jnp.asarray(x, jnp.float32) / (_checked_levels(levels) - 1)


def flatten(x: Array, event_ndims: int) -> Array:
  """Examples as vectors: ``[..., H, W, C]`` with ``event_ndims`` 3 to ``[..., H W C]``."""
  batch = x.shape[: x.ndim - event_ndims]
  return x.reshape(*batch, math.prod(x.shape[len(batch) :]))


def threshold_binarise(x: Array, levels: int, threshold: float = 0.5) -> Array:
  """One where the intensity x / (levels - 1) is above the threshold, zero elsewhere.

  Args:
    x: ``[...]`` grey values 0 ... levels - 1.
    levels: number of grey values.
    threshold: from 0 to 1.

  Returns:
    ``[...]`` float32.
  """
  return (to_unit(x, levels) > threshold).astype(jnp.float32)


def stochastic_binarise(key: Key, x: Array, levels: int) -> Array:
  """Draws each pixel from a Bernoulli with its intensity x / (levels - 1) as the mean, anew with every key.

  Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008; per update as in Burda,
  Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016.

  Args:
    key: of this draw; in training, the key of the step.
    x: ``[...]`` grey values 0 ... levels - 1.
    levels: number of grey values.

  Returns:
    ``[...]`` float32 zeros and ones.
  """
  return (jax.random.uniform(key, x.shape) < to_unit(x, levels)).astype(jnp.float32)


def static_binarise(key: Key, x: np.ndarray, levels: int) -> np.ndarray:
  """Draws each pixel as ``stochastic_binarise`` does, once for good, over a whole set of examples on the host.

  Args:
    key: of the draw. The same key gives the same binary data for ever.
    x: ``[N, ...]`` grey values 0 ... levels - 1.
    levels: number of grey values.

  Returns:
    ``[N, ...]`` uint8 zeros and ones.
  """
  block = min(_BLOCK, max(len(x), 1))
  drawn = np.zeros(x.shape, np.uint8)
  for start in range(0, len(x), block):
    grey = x[start : start + block]
    # All blocks are of one size, so that the draw is compiled once.
    padded = np.pad(grey, [(0, block - len(grey))] + [(0, 0)] * (x.ndim - 1))
    drawn[start : start + block] = _draw_block(key, start, padded, levels)[: len(grey)]
  return drawn


@functools.partial(jax.jit, static_argnames='levels')
def _draw_block(key, start, grey, levels):
  return stochastic_binarise(jax.random.fold_in(key, start), grey, levels).astype(jnp.uint8)


def binarise(dataset: Dataset, method: str, key: Key | None = None) -> Dataset:
  """A grey data set as a binary one.

  Args:
    dataset: of kind ``'grey'``.
    method: ``'static'`` draws every pixel once, ``'threshold'`` cuts at half the highest value.
    key: of the draw, for ``'static'``.

  Returns:
    The data set with uint8 zeros and ones for examples, which its provenance says.

  Raises:
    DataError: if the data are not grey, or are not in memory.
    ValueError: for another method, or if the key is missing.
  """
  if dataset.kind != 'grey':
    raise DataError(f'{dataset.name}: values are {dataset.kind}, and only grey ones can be made binary')
  if method not in ('static', 'threshold'):
    raise ValueError(f"method={method!r}: give 'static' or 'threshold'; stochastic binarisation happens at each step")
  if method == 'static' and key is None:
    raise ValueError('key=None: static binarisation is a draw, give its key')
  splits = {}
  for i, name in enumerate(('train', 'valid', 'test')):
    split = getattr(dataset, name)
    if not isinstance(split.x, np.ndarray):
      raise DataError(f'{dataset.name}: is read lazily; binarise its batches, not the whole set')
    if method == 'static':
      x = static_binarise(jax.random.fold_in(key, i), split.x, dataset.levels)
    else:
      x = (2 * split.x.astype(np.int32) > dataset.levels - 1).astype(np.uint8)
    splits[name] = split._replace(x=x)
  how = 'drawn once from its grey values' if method == 'static' else 'cut at half its highest value'
  return dataset._replace(**splits, kind='binary', levels=2, provenance=f'{dataset.provenance}; binary: {how}')


def dequantise(key: Key, x: Array, levels: int, event_ndims: int = 1) -> tuple[Array, Array]:
  """Uniform dequantisation: y = (x + u) / levels with u uniform on (0, 1).

  The expected log-density of y is a lower bound on the log-probability of x (Theis, van den Oord and Bethge, "A note on
  the evaluation of generative models", 2016). The noise has so few bits that no rounding happens when it is added: y
  is never 0 or 1, and the floor of levels y is x again.

  Args:
    key: of the noise.
    x: ``[..., *shape]`` integers 0 ... levels - 1.
    levels: number of values, at most 65536.
    event_ndims: axes of an example.

  Returns:
    y ``[..., *shape]`` float32, strictly between 0 and 1, and log-det ``[...]`` = -D log(levels): the uniform density
    of y is log2(levels) bits per dimension of x.
  """
  num_bits = 21 - (_checked_levels(levels) - 1).bit_length()
  noise = (jax.random.bits(key, x.shape, jnp.uint32) >> (32 - num_bits)).astype(jnp.float32)
  y = (jnp.asarray(x, jnp.float32) + (noise + 0.5) / 2**num_bits) / levels
  batch, num_dimensions = _event(x, event_ndims)
  return y, jnp.full(batch, -num_dimensions * math.log(levels))


def quantise(y: Array, levels: int) -> Array:
  """Undoes ``dequantise``: floor(levels y), within 0 ... levels - 1; int32 of the same shape."""
  return jnp.clip(jnp.floor(y * levels), 0, levels - 1).astype(jnp.int32)


def logit(x: Array, alpha: float = 0.0, event_ndims: int = 1) -> tuple[Array, Array]:
  """Unbounded values: y = log(s / (1 - s)) with s = alpha + (1 - 2 alpha) x.

  Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, with alpha at both ends, as in MAF
  (Papamakarios, Pavlakou and Murray, 2017: 1e-6 on MNIST and 0.05 on CIFAR-10).

  Args:
    x: ``[..., *shape]`` strictly between 0 and 1; the ends too if alpha > 0.
    alpha: keeps s away from 0 and 1; 0 <= alpha < 1/2.
    event_ndims: axes of an example.

  Returns:
    y ``[..., *shape]`` and log-det ``[...]`` = sum of log(1 - 2 alpha) - log s - log(1 - s).

  Raises:
    ValueError: for an alpha outside [0, 1/2).
  """
  alpha = _checked_alpha(alpha)
  s = alpha + (1 - 2 * alpha) * x
  # 1 - s from 1 - x, which is exact near 1 where subtracting s would lose digits.
  log_s, log_rest = jnp.log(s), jnp.log(alpha + (1 - 2 * alpha) * (1 - x))
  return log_s - log_rest, jnp.sum(math.log(1 - 2 * alpha) - log_s - log_rest, axis=_event_axes(event_ndims))


def inverse_logit(y: Array, alpha: float = 0.0) -> Array:
  """Undoes ``logit``: x = (sigmoid(y) - alpha) / (1 - 2 alpha), of the same shape.

  Of a y that no x within [0, 1] maps to, as a model may sample it, x lies outside.
  """
  return (jax.nn.sigmoid(y) - _checked_alpha(alpha)) / (1 - 2 * alpha)


def bag_to_sequence(key: Key, counts: Array, length: int) -> Array:
  """The words of bags in a uniformly random order, and of a long bag a random part of its words.

  Args:
    key: of the order; in training, the key of the step.
    counts: ``[..., V]`` how often each word occurs, at most 65535 words in all.
    length: L, the longest sequence.

  Returns:
    ``[..., L]`` int32 words, the first L of a random permutation of the bag; -1 behind the end of a shorter one.
  """
  counts = jnp.asarray(counts).astype(jnp.int32)
  rows = counts.reshape(-1, counts.shape[-1])
  # Sorting random numbers would cost as much as the longest bag is long; a permutation asked for L places does not.
  round_keys = jax.random.bits(key, (len(rows), 6 * 16, 2), jnp.uint32)
  places = jnp.arange(length)

  def one(round_keys, row):
    ends = jnp.cumsum(row)
    num = jnp.maximum(ends[-1], 1)
    token = batches.permute(round_keys, jnp.minimum(places, num - 1), num.astype(jnp.uint32))
    return jnp.where(places < ends[-1], jnp.searchsorted(ends, token, side='right'), -1)

  return jax.vmap(one)(round_keys, rows).reshape(*counts.shape[:-1], length).astype(jnp.int32)


class Standardisation(NamedTuple):
  """Mean and standard deviation of each dimension, ``[*shape]`` float32."""

  mean: np.ndarray
  stddev: np.ndarray


def fit_standardisation(train_x: np.ndarray) -> Standardisation:
  """The standardisation under which the training examples have mean 0 and standard deviation 1.

  Args:
    train_x: ``[N, *shape]``, training examples only.

  Raises:
    ValueError: if a dimension is constant or not finite; names it.
  """
  x = np.asarray(train_x, np.float64)
  mean, stddev = x.mean(axis=0), x.std(axis=0)
  # The mean of equal numbers may miss them by a rounding error.
  bad = np.argwhere(~(stddev > 1e-12 * np.abs(mean)))
  if len(bad):
    where = ', '.join(map(str, bad[0]))
    raise ValueError(
      f'train_x[:, {where}] is constant or not finite (mean {mean[tuple(bad[0])]}): leave such dimensions out'
    )
  return Standardisation(mean.astype(np.float32), stddev.astype(np.float32))


def standardise(fitted: Standardisation, x: Array) -> tuple[Array, Array]:
  """Centred and scaled values: y = (x - mean) / stddev.

  Args:
    fitted: see ``fit_standardisation``.
    x: ``[..., *shape]``.

  Returns:
    y ``[..., *shape]`` and log-det ``[...]`` = -sum of log stddev.
  """
  y = (x - fitted.mean) / fitted.stddev
  batch = y.shape[: y.ndim - fitted.mean.ndim]
  return y, jnp.full(batch, -np.log(fitted.stddev.astype(np.float64)).sum(), jnp.float32)


def inverse_standardise(fitted: Standardisation, y: Array) -> Array:
  """Undoes ``standardise``: x = mean + stddev y, of the same shape."""
  return fitted.mean + fitted.stddev * y


def _event(x, event_ndims):
  """The batch axes of an array, and the number of dimensions of an example."""
  split = x.ndim - event_ndims
  return x.shape[:split], math.prod(x.shape[split:])


def _event_axes(event_ndims):
  return tuple(range(-event_ndims, 0))


def _checked_levels(levels):
  if not 2 <= levels <= 65536:
    raise ValueError(f'levels={levels}: give the number of values that the data can take, 2 to 65536')
  return levels


def _checked_alpha(alpha):
  if not 0 <= alpha < 0.5:
    raise ValueError(f'alpha={alpha}: give 0 <= alpha < 0.5')
  return alpha
