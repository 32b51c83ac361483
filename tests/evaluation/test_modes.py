import numpy as np
import pytest

from gm_jax.data import toy
from gm_jax.evaluation import modes

RANDOM = np.random.default_rng(0)
RING, STDDEV = toy.MODES['gaussians8']


def ring_samples(num, weights=None):
  return RING[RANDOM.choice(8, num, p=weights)] + STDDEV * RANDOM.normal(size=(num, 2))


def test_the_ring_has_eight_angles_and_a_copied_mode_is_refused():
  assert len(np.unique(RING.round(6), axis=0)) == 8
  angles = np.linspace(0, 2 * np.pi, 8)  # the mistake that is copied around: the last angle is the first
  with pytest.raises(ValueError, match='8 rows, of which some are the same'):
    modes.coverage(ring_samples(10), np.stack([np.cos(angles), np.sin(angles)], -1), STDDEV)


def test_a_perfect_sampler_has_the_scores_that_are_said():
  num, runs = 2500, 100
  found = [modes.coverage(ring_samples(num), RING, STDDEV) for _ in range(runs)]
  quality = np.array([one.high_quality for one in found])
  assert modes.best_quality(2) == pytest.approx(1 - np.exp(-4.5), rel=1e-9)
  assert quality.mean() == pytest.approx(modes.best_quality(2), abs=4 * quality.std() / np.sqrt(runs))
  divergence = np.array([one.reverse_kl for one in found])
  floor = modes.least_divergence(8, num)
  assert divergence.mean() == pytest.approx(floor, abs=4 * divergence.std() / np.sqrt(runs))
  assert {one.num_modes for one in found} == {8}


def test_the_error_of_the_divergence_is_that_of_many_runs():
  weights = np.array([4, 1, 1, 2, 1, 1, 1, 1]) / 12
  found = [modes.coverage(ring_samples(2000, weights), RING, STDDEV) for _ in range(200)]
  spread = np.std([one.reverse_kl for one in found])
  assert modes.divergence_error(found[0].counts) == pytest.approx(spread, rel=4 / np.sqrt(2 * 200) + 0.1)


def test_collapse_and_stray_samples_are_seen():
  one_mode = modes.coverage(ring_samples(500, np.eye(8)[2]), RING, STDDEV)
  assert (one_mode.num_modes, one_mode.counts.argmax()) == (1, 2)
  assert one_mode.reverse_kl == pytest.approx(np.log(8))
  stray = np.concatenate([ring_samples(500, np.eye(8)[2]), RING[:1]])
  assert modes.coverage(stray, RING, STDDEV).num_modes == 2
  assert modes.coverage(stray, RING, STDDEV, min_count=5).num_modes == 1
  nothing = modes.coverage(np.zeros((10, 2)), RING, STDDEV)
  assert (nothing.num_modes, nothing.high_quality, nothing.reverse_kl) == (0, 0.0, np.inf)
  scores = modes.scores(np.zeros((10, 2)), RING, STDDEV)
  assert scores['reverse_kl'].stderr is None


def test_misfits_are_refused():
  with pytest.raises(ValueError, match='of one D'):
    modes.coverage(np.zeros((3, 3)), RING, STDDEV)
  with pytest.raises(ValueError, match='min_count=0'):
    modes.coverage(np.zeros((3, 2)), RING, STDDEV, min_count=0)
