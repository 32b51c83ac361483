"""Nearest-neighbour density against scikit-learn's neighbours and its own divergent integral."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import neighbors as reference

from gm_jax.density import neighbors

log_prob = jax.jit(neighbors.log_prob, static_argnames='block_size')


@pytest.mark.parametrize(('d', 'k', 'block_size'), [(1, 1, 1024), (3, 7, 43), (30, 40, 43), (3, 300, 100)])
def test_scikit_learns_neighbours(d, k, block_size):
  generator = np.random.default_rng(d)
  points, queries = generator.standard_normal((300, d)), generator.standard_normal((41, d))
  distance = reference.NearestNeighbors(n_neighbors=k).fit(points).kneighbors(queries)[0]
  estimator = neighbors.fit(points, k)
  ours = jax.jit(neighbors.distances, static_argnames='block_size')(estimator, queries, block_size=block_size)
  np.testing.assert_allclose(np.sqrt(ours), distance, rtol=1e-4)
  log_volume = d / 2 * math.log(math.pi) - special.gammaln(d / 2 + 1)
  expected = math.log(k / 300) - log_volume - d * np.log(distance[:, -1])
  np.testing.assert_allclose(log_prob(estimator, queries, block_size=block_size), expected, rtol=1e-4, atol=1e-3)


def test_the_integral_grows_for_ever():
  """The number in the docstring: k log(10) / N = 0.23 for every tenfold widening, in one dimension."""
  points = np.random.default_rng(0).standard_normal((100, 1))
  estimator = neighbors.fit(points, 10)

  def integral(low, high):
    x = np.geomspace(low, high, 20_001)
    both = np.exp(np.asarray(log_prob(estimator, np.stack([x, -x], -1)[..., None]), float)).sum(-1)
    return np.trapezoid(both, x)

  for decade in (2, 3, 4):
    assert integral(10.0**decade, 10.0 ** (decade + 1)) == pytest.approx(0.1 * math.log(10), rel=0.01)


def test_duplicates_are_infinite_and_not_nan():
  estimator = neighbors.fit(np.array([[0.0], [0.0], [1.0]]), 2)
  values = log_prob(estimator, np.array([[0.0], [0.5]]))
  assert np.isposinf(values[0]) and float(values[1]) == pytest.approx(math.log(2 / 3 / (2 * 0.5)), abs=1e-5)


def test_memory_is_bounded():
  points = jax.ShapeDtypeStruct((100_000, 4), jnp.float32)
  estimator = jax.eval_shape(lambda x: neighbors.fit(x, 10), points)
  compiled = jax.jit(neighbors.log_prob).lower(estimator, points).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 2e8


def test_it_lacks_what_an_improper_density_lacks():
  assert neighbors.model(3).sample is None


@pytest.mark.parametrize('k', [0, -1, 11])
def test_k_out_of_range(k):
  with pytest.raises(ValueError, match=f'k={k}'):
    neighbors.fit(np.zeros((10, 2)), k)


def test_shapes():
  with pytest.raises(ValueError, match='points of shape'):
    neighbors.fit(np.zeros(10), 1)
  with pytest.raises(ValueError, match='x of shape'):
    neighbors.log_prob(neighbors.fit(np.zeros((10, 2)), 1), np.zeros((3, 3)))
  with pytest.raises(ValueError, match='context'):
    neighbors.log_prob(neighbors.fit(np.zeros((10, 2)), 1), np.zeros((3, 2)), context=np.zeros(3))
