"""Neighbourhood scores against their definitions, duplicates, and what a perfect sampler scores."""

import functools

import jax
import numpy as np
import pytest
from scipy.spatial import distance

from gm_jax import distances
from gm_jax.evaluation import clusters, precision_recall

KS = (1, 3, 5)
score = jax.jit(functools.partial(precision_recall.neighbourhoods, ks=KS, block_size=32))


def draws(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def definitions(x, y, k):
  """Precision, recall, density, coverage, authenticity, nearest-neighbour accuracy, realism by whole matrices."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  within_x, within_y = np.sort(distance.cdist(x, x), 1), np.sort(distance.cdist(y, y), 1)
  across = distance.cdist(x, y)
  rx, ry = within_x[:, k], within_y[:, k]
  inside = across <= rx[:, None]
  authentic = across.min(0) > within_x[across.argmin(0), 1]
  right = np.concatenate([within_x[:, 1] < across.min(1), within_y[:, 1] < across.min(0)])
  compact = rx <= np.median(rx)
  realism = (rx[compact, None] / np.maximum(across[compact], 1e-30)).max(0)
  return (
    inside.any(0).mean(), (across <= ry).any(1).mean(), inside.sum(0).mean() / k, inside.any(1).mean(),
    authentic.mean(), right.mean(), realism,
  )  # fmt: skip


@pytest.mark.parametrize('d', [3, 20])  # direct distances, and those of a matrix product
def test_the_definitions(d):
  x, y = draws(0, 150, d) + 5, 1.2 * draws(1, 110, d) + 5
  found = jax.device_get(score(x, y))
  for i, k in enumerate(KS):
    precision, recall, density, coverage, authenticity, accuracy, realism = definitions(x, y, k)
    ours = [getattr(found, name).value[i] for name in ('precision', 'recall', 'density', 'coverage')]
    np.testing.assert_allclose(ours, [precision, recall, density, coverage], atol=1e-6)
    np.testing.assert_allclose(found.realism[:, i], realism, rtol=1e-3)
  assert float(found.authenticity.value) == pytest.approx(authenticity) == found.authentic.mean()
  assert float(found.nearest_accuracy.value) == pytest.approx(accuracy)


def test_copies_lie_in_the_balls_of_what_they_copy():
  """Real examples that come six times have balls of radius 0, and a copy lies in them."""
  x = np.repeat(10 + draws(2, 30, 20), 6, 0)
  found = jax.device_get(score(x, x[::2]))
  for one in (found.precision, found.recall, found.coverage):
    np.testing.assert_array_equal(one.value[2], 1.0)
  assert found.authenticity.value == 0
  np.testing.assert_allclose(found.density.value, [6, 2, 6 / 5])  # each is in the balls of its six copies


def test_smallest_counts_equal_values_one_by_one():
  values = np.array([[3.0, 1, 1, 2, 1], [5, 4, 4, 4, 0], [np.inf, 2, 1, np.inf, np.inf]], np.float32)
  ours = jax.jit(distances.smallest, static_argnums=1)(values, 3)
  np.testing.assert_array_equal(ours, np.sort(values, 1)[:, :3])


def test_nearest_is_exact_for_copies():
  points = 100 + draws(3, 50, 20)
  index, squared = jax.jit(functools.partial(distances.nearest, block_size=7))(points[::-1], points)
  np.testing.assert_array_equal(index, np.arange(50)[::-1])
  np.testing.assert_array_equal(squared, 0)


@functools.cache
def simulated():
  """60 perfect samplers, 100 examples each in 6 dimensions."""
  stack = jax.jit(lambda x, y: jax.lax.map(lambda p: precision_recall.neighbourhoods(*p, ks=(3,)), (x, y)))
  return jax.device_get(stack(draws(4, 60, 100, 6), draws(5, 60, 100, 6)))


@pytest.mark.parametrize('name', ['precision', 'recall', 'density', 'coverage', 'authenticity', 'nearest_accuracy'])
def test_a_perfect_sampler_scores_the_null(name):
  found = getattr(simulated(), name)
  gap = found.value - found.null
  assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(60)
  # Errors are approximate: shares of examples that are not quite independent.
  assert found.null_stderr.mean() == pytest.approx(gap.std(), rel=0.35)
  assert found.stderr.mean() == pytest.approx(found.value.std(), rel=0.45)


def test_coverage_of_a_perfect_sampler_in_closed_form():
  assert precision_recall.perfect_coverage(10_000, 10_000, 5) == pytest.approx(0.96878, abs=1e-5)
  assert precision_recall.perfect_coverage(5, 3, 1) == pytest.approx(3 / 7)  # the nearest of 7 is one of 3


def test_memory_is_bounded():
  x = jax.ShapeDtypeStruct((20_000, 16), np.float32)
  memory = jax.jit(precision_recall.neighbourhoods).lower(x, x).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 1e8  # the matrix of distances has 1.6e9


def test_curves_of_histograms():
  """Disjoint histograms have nothing, equal ones all; half of the modes dropped is precision 1 at recall 1/2."""
  p = np.array([0.25, 0.25, 0.25, 0.25], np.float32)
  curve = precision_recall.histogram_curve(p, np.array([0.5, 0.5, 0, 0], np.float32))
  assert float(curve.precision.max()) == pytest.approx(1) and float(curve.recall.max()) == pytest.approx(0.5)
  both = (np.asarray(curve.precision) > 1 - 1e-3) & (np.asarray(curve.recall) > 0.5 - 1e-2)
  assert both.any()
  np.testing.assert_allclose(curve.precision[500], curve.recall[500], rtol=1e-5)  # slope 1
  assert float(precision_recall.best_f(precision_recall.histogram_curve(p, p), 8.0)) == pytest.approx(1, abs=1e-6)
  one = precision_recall.Curve(np.array([1.0]), np.array([0.5]))
  assert [float(precision_recall.best_f(one, b)) for b in (1, 2, 0.5)] == pytest.approx([2 / 3, 5 / 9, 5 / 6])


def test_cluster_curves_tell_dropped_modes_from_invented_ones():
  centres = 20 * draws(8, 8, 2)
  rng = np.random.default_rng(9)
  sets = {name: centres[rng.integers(*span, 400)] + draws(10, 400, 2) for name, span in {
    'all': (0, 8), 'again': (0, 8), 'half': (0, 4)
  }.items()}  # fmt: skip
  curve = jax.jit(functools.partial(precision_recall.cluster_curve, num_runs=3))
  score = lambda real, fake: curve(jax.random.key(0), sets[real], sets[fake])
  same, dropped, invented = score('all', 'again'), score('all', 'half'), score('half', 'all')
  for one in (same.recall, same.precision):
    assert abs(one.value - one.null) < 3 * one.null_stderr
  assert dropped.recall.value < 0.6 and dropped.precision.value > 0.9
  assert invented.precision.value < 0.6 and invented.recall.value > 0.9


def test_k_means_finds_what_is_apart():
  centres = np.array([[0.0, 0], [50, 0], [0, 50]], np.float32)
  points = centres[np.arange(90) % 3] + draws(11, 90, 2)
  found = jax.jit(lambda key, x: clusters.kmeans(key, x, 3))
  best = min(
    (found(jax.random.key(i), points) for i in range(8)), key=lambda c: float(distances.nearest(points, c)[1].sum())
  )
  expected = np.stack([points[i::3].mean(0) for i in range(3)])
  order = np.argsort(np.asarray(best) @ [1, 2])
  np.testing.assert_allclose(np.asarray(best)[order], expected[np.argsort(expected @ [1, 2])], rtol=1e-4)
  with pytest.raises(ValueError, match='num_clusters=4'):
    clusters.kmeans(jax.random.key(0), points[:3], 4)


def test_bad_input():
  with pytest.raises(ValueError, match=r'ks=\(10,\): give numbers from 1 to 9'):
    precision_recall.neighbourhoods(draws(0, 30, 2), draws(1, 10, 2), ks=(10,))
