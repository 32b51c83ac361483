"""Small data sets drawn from a key, whose true density is known: a model can be held against the truth.

In the plane: two moons, rings, 8 and 25 Gaussians, a checkerboard, a pinwheel and a Swiss roll; as binary images, bars
and stripes; as bags of words, documents on five topics. Each is a ``Toy``: a sampler, and the log-density (nats) that
the samples have exactly.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, i0e, logsumexp

from gm_jax.base import Array, Key
from gm_jax.data.dataset import DataError, Dataset, Split


class Toy(NamedTuple):
  """A distribution of labelled examples."""

  sample: Callable[[Key, int], tuple[Array, Array | None]]  # (key, num) -> x [num, ...], labels [num] or None
  log_density: Callable[[Array], Array]  # x [..., *shape] -> [...], nats
  num_classes: int | None


def _log_mixture(x: Array, centres: Array, stddev: float, weights: Array) -> Array:
  """Log-density of a mixture of round Gaussians of one width; ``[..., 2]`` to ``[...]``."""
  squares = jnp.sum((x[..., None, :] - centres) ** 2, axis=-1)
  return logsumexp(-squares / (2 * stddev**2), b=weights, axis=-1) - math.log(2 * math.pi * stddev**2)


def gaussians(centres: np.ndarray, stddev: float) -> Toy:
  """A mixture of round Gaussians of equal weight; the label is the component.

  Args:
    centres: ``[K, 2]``.
    stddev: of every component, along either axis.
  """
  centres = np.asarray(centres, np.float32)
  num = len(centres)

  def sample(key, num_examples):
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.randint(label_key, (num_examples,), 0, num)
    return jnp.asarray(centres)[labels] + stddev * jax.random.normal(noise_key, (num_examples, 2)), labels

  return Toy(sample, lambda x: _log_mixture(x, centres, stddev, np.full(num, 1 / num)), num)


def noisy_curves(curve: Callable, num_curves: int, stddev: float, num_nodes: int) -> Toy:
  """Points at a uniform parameter along one of some curves, plus round Gaussian noise; the label is the curve.

  The density is an integral along the curves, done by Gauss-Legendre quadrature. With nodes that are closer than half
  a ``stddev`` along the curve its error is that of float32.

  Args:
    curve: (label, t in (0, 1), numpy or jax.numpy) -> a point as a pair of coordinates.
    num_curves: how many curves there are, all equally likely.
    stddev: of the noise, along either axis.
    num_nodes: nodes of quadrature on each curve.
  """

  def sample(key, num_examples):
    label_key, place_key, noise_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (num_examples,), 0, num_curves)
    points = jnp.stack(curve(labels, jax.random.uniform(place_key, (num_examples,)), jnp), axis=-1)
    noise = stddev * jax.random.normal(noise_key, (num_examples, 2))
    return points + noise, labels if num_curves > 1 else None

  @functools.cache
  def quadrature():  # takes a moment, and only densities need it
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    labels = np.repeat(np.arange(num_curves), num_nodes)
    centres = np.stack(curve(labels, np.tile((nodes + 1) / 2, num_curves), np), axis=-1)
    return centres.astype(np.float32), (np.tile(weights / 2, num_curves) / num_curves).astype(np.float32)

  def log_density(x):
    centres, weights = quadrature()
    return _log_mixture(x, centres, stddev, weights)

  return Toy(sample, log_density, num_curves if num_curves > 1 else None)


def _moons(label, t, xp):
  """Two half circles of radius 1, of which one hangs upside down with its end in the middle of the other."""
  upper, angle = 1 - 2 * label, math.pi * t
  return upper * xp.cos(angle) + label, upper * xp.sin(angle) + 0.5 * label


def _swiss_roll(label, t, xp):
  """The spiral of radius = angle / 5, from 1.5 pi to 4.5 pi."""
  angle = 1.5 * math.pi * (1 + 2 * t)
  return angle / 5 * xp.cos(angle), angle / 5 * xp.sin(angle)


def rings(radii: np.ndarray, stddev: float) -> Toy:
  """Concentric circles of equal weight, plus round Gaussian noise; the label is the circle.

  p(x) = mean_k N(|x|; r_k) I_0(|x| r_k / s^2), with the Gaussian normalised in two dimensions: the integral of the
  noise around the circle is a Bessel function.

  Args:
    radii: ``[K]``.
    stddev: s, of the noise along either axis.
  """
  radii = np.asarray(radii, np.float32)

  def sample(key, num_examples):
    label_key, angle_key, noise_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (num_examples,), 0, len(radii))
    angles = 2 * math.pi * jax.random.uniform(angle_key, (num_examples,))
    points = jnp.asarray(radii)[labels, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return points + stddev * jax.random.normal(noise_key, (num_examples, 2)), labels

  def log_density(x):
    radius = jnp.linalg.norm(x, axis=-1, keepdims=True)
    each = -((radius - radii) ** 2) / (2 * stddev**2) + jnp.log(i0e(radius * radii / stddev**2))
    return logsumexp(each, axis=-1) - math.log(len(radii) * 2 * math.pi * stddev**2)

  return Toy(sample, log_density, len(radii))


def checkerboard() -> Toy:
  """Uniform on the 8 squares of one colour of a board of 4 x 4 squares over [-4, 4]^2; the label is the square."""

  def sample(key, num_examples):
    label_key, place_key = jax.random.split(key)
    labels = jax.random.randint(label_key, (num_examples,), 0, 8)
    row, pair = labels // 2, labels % 2
    corner = jnp.stack([2 * pair + row % 2, row], axis=-1)
    return 2 * (corner + jax.random.uniform(place_key, (num_examples, 2))) - 4, labels

  def log_density(x):
    square = jnp.floor((x + 4) / 2)
    inside = jnp.all((square >= 0) & (square < 4), axis=-1) & (jnp.sum(square, axis=-1) % 2 == 0)
    return jnp.where(inside, -math.log(32), -jnp.inf)

  return Toy(sample, log_density, 8)


def pinwheel(num_arms: int = 5) -> Toy:
  """Gaussian arms around the origin, twisted more the farther they reach; the label is the arm.

  A point of the Gaussian N((2, 0), diag(0.6, 0.2)^2) at radius r is turned by the angle of its arm plus exp(r / 2) / 4.
  Turning by an angle that depends on the radius alone keeps areas, which makes the density exact: that of the
  Gaussian at the point turned back.

  Args:
    num_arms: how many arms there are, all equally likely.
  """
  arms = 2 * math.pi * np.arange(num_arms, dtype=np.float32) / num_arms
  mean, stddev = np.array([2, 0], np.float32), np.array([0.6, 0.2], np.float32)

  def turn(x, angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], axis=-1)

  def twist(x):
    return jnp.exp(jnp.linalg.norm(x, axis=-1) / 2) / 4

  def sample(key, num_examples):
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.randint(label_key, (num_examples,), 0, num_arms)
    x = mean + stddev * jax.random.normal(noise_key, (num_examples, 2))
    return turn(x, jnp.asarray(arms)[labels] + twist(x)), labels

  def log_density(x):
    back = turn(x[..., None, :], -arms - twist(x)[..., None])
    each = -0.5 * jnp.sum(((back - mean) / stddev) ** 2, axis=-1)
    return logsumexp(each, axis=-1) - math.log(num_arms * 2 * math.pi * stddev.prod())

  return Toy(sample, log_density, num_arms)


def bars_and_stripes(size: int) -> Toy:
  """Binary images ``[size, size, 1]`` of whole rows or whole columns, each on with probability 1/2.

  Rows (label 0) and columns (label 1) are equally likely, so the blank and the full image come twice as often.

  Args:
    size: number of rows and of columns.
  """

  def sample(key, num_examples):
    label_key, bit_key = jax.random.split(key)
    labels = jax.random.randint(label_key, (num_examples,), 0, 2)
    bits = jax.random.bernoulli(bit_key, 0.5, (num_examples, size)).astype(jnp.uint8)
    x = jnp.where(labels[:, None, None] == 0, bits[:, :, None], bits[:, None, :])
    return x[..., None], labels

  def log_density(x):
    x = x[..., 0]
    is_rows = jnp.all(x == x[..., :, :1], axis=(-2, -1))
    is_columns = jnp.all(x == x[..., :1, :], axis=(-2, -1))
    return jnp.log(is_rows + 1.0 * is_columns) - (size + 1) * math.log(2)

  return Toy(sample, log_density, 2)


def topics(word_probs: np.ndarray, shortest: int, longest: int) -> Toy:
  """Bags of words that keep to one topic each: a mixture of multinomials; the label is the topic.

  Topic and number of words are uniform, and the words of a document are independent given the topic. The probability
  of a bag counts all n! / prod_w c_w! sequences of its words; less that number's logarithm it is that of one of them.

  Args:
    word_probs: ``[K, V]``, the probabilities of the words in each topic, positive.
    shortest: least number of words of a document.
    longest: greatest number.
  """
  log_probs = np.log(np.asarray(word_probs, np.float64)).astype(np.float32)
  num_topics, num_words = log_probs.shape

  def sample(key, num_examples):
    label_key, length_key, word_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (num_examples,), 0, num_topics)
    lengths = jax.random.randint(length_key, (num_examples, 1), shortest, longest + 1)
    words = jax.random.categorical(word_key, jnp.asarray(log_probs)[labels], shape=(longest, num_examples)).T
    present = (jnp.arange(longest) < lengths).astype(jnp.int32)
    bags = jnp.zeros((num_examples, num_words), jnp.int32)
    return bags.at[jnp.arange(num_examples)[:, None], words].add(present), labels

  def log_density(x):
    num = jnp.sum(x, axis=-1)
    sequence = logsumexp(x @ log_probs.T, axis=-1) - math.log(num_topics * (longest - shortest + 1))
    orders = gammaln(num + 1.0) - jnp.sum(gammaln(x + 1.0), axis=-1)
    return jnp.where((num >= shortest) & (num <= longest), sequence + orders, -jnp.inf)

  return Toy(sample, log_density, num_topics)


_TOPICS = {
  'sea': 'ship harbour sail wave tide anchor island captain storm fish shore deck',
  'music': 'song violin melody choir concert piano rhythm drum opera string chord tune',
  'kitchen': 'bread butter oven salt soup onion pepper knife recipe sugar flour dinner',
  'sky': 'star planet moon telescope orbit comet galaxy light sun rocket cloud night',
  'garden': 'rose tree seed soil leaf rain flower spade hedge grass apple bee',
}
_COMMON = 'the of and to a in that it was with for on'
VOCABULARY = tuple(' '.join((_COMMON, *_TOPICS.values())).split())


def _word_probs() -> np.ndarray:
  """Half of the words of a document are its topic's, a twentieth any, and the rest common; by Zipf's law."""
  zipf = 1 / np.arange(2.0, 14.0)
  zipf /= zipf.sum()
  probs = np.full((len(_TOPICS), len(VOCABULARY)), 0.05 / len(VOCABULARY))
  probs[:, :12] += 0.45 * zipf
  for topic in range(len(_TOPICS)):
    probs[topic, 12 * (topic + 1) : 12 * (topic + 2)] += 0.5 * zipf
  return probs


_ANGLES = np.arange(8) * math.pi / 4
_GRID = np.arange(-4, 5, 2)

# Centres [K, 2] and standard deviation of the ring and the grid of Srivastava et al., "VEEGAN", 2017, and Lin et al.,
# "PacGAN", 2018.
MODES: dict[str, tuple[np.ndarray, float]] = {
  'gaussians8': (np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1), 0.01),
  'gaussians25': (np.stack(np.meshgrid(_GRID, _GRID), axis=-1).reshape(-1, 2), 0.05),
}
TOYS: dict[str, Toy] = {
  **{name: gaussians(*modes) for name, modes in MODES.items()},
  'two_moons': noisy_curves(_moons, 2, 0.1, num_nodes=100),
  'swiss_roll': noisy_curves(_swiss_roll, 1, 0.2, num_nodes=256),
  'rings': rings([1, 2, 3], 0.1),
  'checkerboard': checkerboard(),
  'pinwheel': pinwheel(),
}
TOPICS = topics(_word_probs(), 10, 30)
NAMES = (*TOYS, 'bars_and_stripes', 'topics')


def log_density(name: str, size: int = 4) -> Callable[[Array], Array]:
  """The true log-density of a toy set by name, in nats.

  It takes x ``[..., 2]``, or images ``[..., size, size, 1]``, or bags of words ``[..., V]``, to ``[...]``.
  """
  return _toy(name, size).log_density


def _toy(name: str, size: int) -> Toy:
  if name not in NAMES:
    raise DataError(f'{name!r} is no toy set; there are {", ".join(NAMES)}')
  if size < 1:
    raise DataError(f'size={size}: bars and stripes need 1 row or more')
  if name == 'topics':
    return TOPICS
  return bars_and_stripes(size) if name == 'bars_and_stripes' else TOYS[name]


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(toy, key, num):
  return toy.sample(key, num)


def load(
  name: str, *, seed: int = 0, num_train: int = 10_000, num_valid: int = 2_000, num_test: int = 10_000, size: int = 4
) -> Dataset:
  """Draws a toy data set.

  Args:
    name: one of ``NAMES``.
    seed: what to draw it from.
    num_train: how many examples to draw for training.
    num_valid: for validation.
    num_test: for the test.
    size: rows and columns of bars and stripes.

  Raises:
    DataError: for an unknown name, or a number below 1.
  """
  toy = _toy(name, size)
  numbers = {'num_train': num_train, 'num_valid': num_valid, 'num_test': num_test}
  for argument, number in numbers.items():
    if number < 1:
      raise DataError(f'{argument}={number}: give 1 or more')
  keys = jax.random.split(jax.random.key(seed), 3)
  drawn = [jax.device_get(_draw(toy, key, number)) for key, number in zip(keys, numbers.values(), strict=True)]
  splits = [Split(np.asarray(x), y) for x, y in drawn]
  kind, levels = {'bars_and_stripes': ('binary', 2), 'topics': ('counts', None)}.get(name, ('real', None))
  return Dataset(
    name, *splits,
    shape=splits[0].x.shape[1:],
    kind=kind,
    levels=levels,
    provenance=f'drawn from seed {seed}; the true density is gm_jax.data.toy.log_density({name!r})',
    num_classes=toy.num_classes,
    class_names=tuple(_TOPICS) if name == 'topics' else None,
    feature_names=VOCABULARY if name == 'topics' else None,
  )  # fmt: skip
