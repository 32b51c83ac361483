"""Histograms against numpy, and their sampler against their density."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.base import Batch
from gm_jax.density import histogram

log_prob = jax.jit(histogram.log_prob)
fit = jax.jit(histogram.fit, static_argnums=1)
sample = jax.jit(histogram.sample, static_argnums=2)


@pytest.mark.parametrize(('d', 'bins'), [(1, 13), (2, (5, 9)), (4, 3)])
def test_numpy(d, bins):
  generator = np.random.default_rng(d)
  points, weights = generator.standard_normal((500, d)).astype('f'), generator.uniform(0, 2, 500)
  estimator = fit(points, bins, weights=weights)
  expected, edges = np.histogramdd(points, bins, density=True, weights=weights)
  np.testing.assert_allclose(jnp.exp(estimator.log_density), expected, rtol=1e-4)
  np.testing.assert_allclose(estimator.low, [edge[0] for edge in edges], rtol=1e-5)
  volume = float(jnp.prod(estimator.width))
  assert float(jnp.exp(estimator.log_density).sum()) * volume == pytest.approx(1.0, abs=1e-5)
  index = [np.clip(np.searchsorted(edges[j], points[:, j], 'right') - 1, 0, len(edges[j]) - 2) for j in range(d)]
  np.testing.assert_allclose(jnp.exp(log_prob(estimator, points)), expected[tuple(index)], rtol=1e-4)


def test_integral_on_a_grid():
  for d, count in ((1, 60_000), (2, 600)):
    points = np.random.default_rng(d).standard_normal((50, d))
    estimator = histogram.fit(points, width=0.5, origin=0.1)
    axis = np.linspace(-5, 5, count, endpoint=False) + 5 / count
    grid = np.stack(np.meshgrid(*[axis] * d), -1)
    integral = float(jnp.exp(log_prob(estimator, grid)).sum()) * (10 / count) ** d
    assert integral == pytest.approx(1.0, abs=1e-3)


def test_width_and_origin_by_hand():
  estimator = histogram.fit(np.array([[0.2], [0.9], [1.0], [2.6]]), width=0.5, origin=1.0)
  assert float(estimator.low[0]) == 0.0 and estimator.log_density.shape == (6,)
  x = np.array([[0.0], [0.6], [1.0], [1.49], [1.5], [2.5], [2.99], [3.2], [-0.1]])
  np.testing.assert_allclose(jnp.exp(log_prob(estimator, x)), np.array([1, 1, 1, 1, 0, 1, 1, 0, 0]) / 4 / 0.5)


def test_origin_moves_modes():
  """What Silverman warns of: the same data, another origin, another number of modes."""
  points = np.array([[0.4], [0.6], [1.4], [1.6], [2.4], [2.6]])

  def modes(origin):
    density = np.exp(np.asarray(histogram.fit(points, width=0.5, origin=origin).log_density))
    return int((np.diff(np.concatenate([[0], density, [0]])) < 0).sum())

  assert modes(0.25) == 3 and modes(0.0) == 1


def test_greatest_value_is_inside_whatever_the_rounding():
  generator = np.random.default_rng(0)
  for bins in (3, 7, 49):
    points = generator.uniform(-1, 1, (20, 3)) * 10.0 ** generator.integers(-6, 6, 3)
    assert np.isfinite(log_prob(fit(points, bins), points)).all()


def test_constant_features():
  for points in (np.ones((5, 2)), np.stack([np.arange(5.0), np.full(5, 3.0)], 1)):
    estimator = fit(points, 4)
    assert np.isfinite(log_prob(estimator, points)).all() and np.all(np.asarray(estimator.width) > 0)


def test_sample_has_the_weights_and_stays_inside():
  points = np.random.default_rng(3).standard_normal((40, 2))
  estimator = fit(points, 4)
  draws = sample(estimator, jax.random.key(0), 8000)
  expected = np.histogramdd(points, 4)[0].ravel() / 40
  edges = [np.asarray(estimator.low[j] + estimator.width[j] * np.arange(5)) for j in range(2)]
  counts = np.histogramdd(np.asarray(draws), edges)[0].ravel() / 8000
  assert np.all(np.abs(counts - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 8000))
  place = (np.asarray(draws) - np.asarray(estimator.low)) / np.asarray(estimator.width) % 1
  assert np.abs(place.mean(0) - 0.5).max() < 4 * math.sqrt(1 / 12 / 8000)


def test_model_under_jit():
  model = histogram.model(5)
  points = jnp.asarray(np.random.default_rng(0).standard_normal((30, 2)))
  estimator = jax.jit(model.init)(jax.random.key(0), Batch(points))
  np.testing.assert_allclose(estimator.log_density, histogram.fit(points, 5).log_density, rtol=1e-5)
  assert model.log_prob(estimator, jnp.zeros((3, 1, 2))).shape == (3, 1)


@pytest.mark.parametrize(
  ('name', 'kwargs'),
  [
    ('bins=None and width=None', {}),
    ('bins=3 and width=1', {'bins': 3, 'width': 1.0}),
    ('bins=0', {'bins': 0}),
    ('bins=', {'bins': (3, 3, 3)}),
    ('width=0', {'width': 0.0}),
    ('width=', {'width': [1.0, -1.0]}),
    ('origin=', {'bins': 3, 'origin': 0.0}),
    ('cells are more', {'bins': 10_000}),
    ('weights of shape', {'bins': 3, 'weights': np.ones(3)}),
  ],
)
def test_errors_name_the_argument(name, kwargs):
  with pytest.raises(ValueError, match=name):
    histogram.fit(np.random.default_rng(0).standard_normal((10, 2)), **kwargs)


def test_queries_must_have_the_features():
  with pytest.raises(ValueError, match='x of shape'):
    histogram.log_prob(histogram.fit(np.ones((4, 2)), 2), np.ones((4, 3)))


def test_a_context_is_refused():
  with pytest.raises(ValueError, match='context'):
    histogram.log_prob(None, None, context=np.ones(4))
  with pytest.raises(ValueError, match='context'):
    histogram.sample(None, None, 4, context=np.ones(4))
