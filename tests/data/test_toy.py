import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import DataError, load, toy
from gm_jax.data.dataset import check

# Half the side of a square that holds all but about 1e-9 of the mass, and how many cells it is cut into: enough for the
# midpoint rule, whose error on Gaussians is below 1e-8 at half a standard deviation. The edges of the checkerboard
# are edges of cells.
GRIDS = {
  'gaussians8': (1.08, 432),
  'gaussians25': (4.4, 352),
  'two_moons': (2.8, 160),
  'swiss_roll': (4.4, 160),
  'rings': (3.8, 208),
  'checkerboard': (4.0, 160),
  'pinwheel': (7.0, 320),
}


def probabilities(name):
  """Mass of every cell of the grid."""
  half, cells = GRIDS[name]
  middles = (np.arange(cells) + 0.5) * (2 * half / cells) - half
  points = jnp.asarray(np.stack(np.meshgrid(middles, middles, indexing='ij'), axis=-1), jnp.float32)
  log_density = jax.jit(lambda rows: jax.lax.map(toy.log_density(name), rows))
  return np.exp(np.asarray(log_density(points), np.float64)) * (2 * half / cells) ** 2


@pytest.mark.parametrize('name', toy.TOYS)
def test_density_integrates_to_one_and_is_that_of_the_samples(name):
  half, cells = GRIDS[name]
  mass = probabilities(name)
  np.testing.assert_allclose(mass.sum(), 1, atol=2e-5)

  num = 100_000
  x = np.asarray(load(name, num_train=num, num_valid=1, num_test=1).train.x)
  bins = 16
  counts = np.histogramdd(x, bins=2 * [np.linspace(-half, half, bins + 1)])[0].ravel()
  assert counts.sum() == num
  expected = num * mass.reshape(bins, cells // bins, bins, cells // bins).sum((1, 3)).ravel()
  rare = expected < 10
  assert counts[expected < 1e-9].sum() == 0
  counts, expected = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
  counts, expected = counts[expected > 0], expected[expected > 0]
  freedom = len(counts) - 1
  assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize('name', toy.TOYS)
def test_mean_log_density_is_minus_the_entropy(name):
  """Finer than the cells of the test above: the width of the modes is right."""
  mass = probabilities(name)
  half, cells = GRIDS[name]
  log_density = np.log(np.maximum(mass, 1e-300)) - 2 * np.log(2 * half / cells)
  x = load(name, num_train=20_000, num_valid=1, num_test=1).train.x
  values = np.asarray(jax.jit(toy.log_density(name))(x), np.float64)
  stderr = values.std() / np.sqrt(len(values))
  np.testing.assert_allclose(values.mean(), (mass * log_density).sum(), atol=4 * stderr + 2e-4)


def test_the_ring_has_eight_distinct_angles():
  x, y = load('gaussians8', num_valid=1, num_test=1).train
  means = np.stack([x[y == k].mean(0) for k in range(8)])
  angles = np.degrees(np.arctan2(means[:, 1], means[:, 0])) % 360
  np.testing.assert_allclose(angles, 45 * np.arange(8), atol=0.1)
  np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, atol=2e-3)


@pytest.mark.parametrize('size', [1, 2, 3])
def test_bars_and_stripes_against_all_images(size):
  images = np.array(list(itertools.product([0, 1], repeat=size * size)), np.uint8).reshape(-1, size, size, 1)
  probability = np.exp(np.asarray(toy.log_density('bars_and_stripes', size)(images), np.float64))
  np.testing.assert_allclose(probability.sum(), 1, rtol=1e-6)
  assert (probability > 0).sum() == max(2 ** (size + 1) - 2, 2)
  num = 20_000
  x = load('bars_and_stripes', size=size, num_train=num, num_valid=1, num_test=1).train.x
  index = x.reshape(num, -1) @ (1 << np.arange(size * size)[::-1])
  counts = np.bincount(index, minlength=len(images))
  stderr = np.sqrt(num * probability * (1 - probability))
  assert (np.abs(counts - num * probability) <= 4 * stderr).all()


def test_topics_against_all_bags():
  probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
  small = toy.topics(probs, 1, 3)
  bags = np.array([bag for bag in itertools.product(range(5), repeat=3) if sum(bag) <= 4])
  probability = np.exp(np.asarray(small.log_density(jnp.asarray(bags)), np.float64))
  assert (probability[(bags.sum(1) == 0) | (bags.sum(1) == 4)] == 0).all()
  np.testing.assert_allclose(probability.sum(), 1, rtol=1e-5)
  num = 20_000
  x, labels = jax.jit(small.sample, static_argnums=1)(jax.random.key(0), num)
  index = {tuple(bag): i for i, bag in enumerate(bags.tolist())}
  counts = np.bincount([index[tuple(bag)] for bag in np.asarray(x).tolist()], minlength=len(bags))
  stderr = np.sqrt(num * probability * (1 - probability))
  assert (np.abs(counts - num * probability) <= 4.5 * stderr).all()
  words = np.stack([np.asarray(x)[np.asarray(labels) == topic].sum(0) for topic in range(2)])
  np.testing.assert_allclose(words / words.sum(1, keepdims=True), probs, atol=0.02)


def test_the_words_of_the_topics_are_named():
  dataset = load('topics', num_train=500, num_valid=1, num_test=1)
  assert (dataset.kind, len(dataset.feature_names), len(set(dataset.feature_names))) == ('counts', 72, 72)
  lengths = dataset.train.x.sum(1)
  assert (lengths.min(), lengths.max()) == (10, 30)
  for topic, name in enumerate(dataset.class_names):
    words = np.array(dataset.feature_names)[dataset.train.x[dataset.train.y == topic].sum(0).argsort()[::-1]]
    assert toy._TOPICS[name].split()[0] in words[:6]


@pytest.mark.parametrize('name', toy.NAMES)
def test_a_set_is_a_function_of_its_seed(name):
  numbers = {'num_train': 20, 'num_valid': 20, 'num_test': 20}
  one, same, other = (load(name, seed=seed, **numbers) for seed in (1, 1, 2))
  check(one)
  jax.tree.map(np.testing.assert_array_equal, one[1:4], same[1:4])
  assert (one.train.x != other.train.x).any()
  assert (one.train.x != one.test.x).any()
  assert [len(split.x) for split in one[1:4]] == [20, 20, 20]


def test_impossible_toys_are_refused():
  with pytest.raises(DataError, match='num_test=0'):
    load('rings', num_test=0)
  with pytest.raises(DataError, match='size=0'):
    load('bars_and_stripes', size=0)
  with pytest.raises(DataError, match='is no toy set'):
    toy.log_density('mnist')
