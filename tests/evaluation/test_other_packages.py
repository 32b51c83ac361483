"""Scores of samples against the packages that are customary for them, fed with the same features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.evaluation import frechet, inception, precision_recall, two_sample


def features(num, shift, seed):
  """``[num, 16]`` features with a spectrum that falls, float32."""
  rng = np.random.default_rng(seed)
  return (rng.standard_normal((num, 16)) / np.sqrt(np.arange(1, 17)) + shift).astype(np.float32)


REAL, FAKE = features(600, 0.0, 0), features(500, 0.15, 1)


def test_neighbourhoods_are_those_of_prdc():
  prdc = pytest.importorskip('prdc')
  expected = prdc.compute_prdc(REAL, FAKE, nearest_k=5)
  found = precision_recall.neighbourhoods(jnp.asarray(REAL), jnp.asarray(FAKE), ks=(5,))
  for name, value in expected.items():
    assert getattr(found, name).value[0] == pytest.approx(value, abs=1e-6), name


def test_wasserstein_distances_are_those_of_pot():
  ot = pytest.importorskip('ot')
  real, fake = REAL.astype(np.float64), FAKE.astype(np.float64)
  expected = ot.wasserstein_1d(real[:, 0], fake[:, 0], p=2)  # the square
  assert two_sample.wasserstein(REAL[:, 0], FAKE[:, 0]) == pytest.approx(expected, rel=1e-4)
  directions = two_sample.project(jax.random.key(0), jnp.eye(16), jnp.eye(16), 50)[0]
  expected = ot.sliced_wasserstein_distance(real, fake, projections=np.asarray(directions).T, p=2) ** 2
  found = two_sample.mean_wasserstein(directions @ REAL.T, directions @ FAKE.T)
  assert found == pytest.approx(expected, rel=1e-4)


def test_frechet_and_kernel_distances_are_those_of_torch_fidelity():
  metric_fid = pytest.importorskip('torch_fidelity.metric_fid')
  metric_kid = pytest.importorskip('torch_fidelity.metric_kid')
  torch = pytest.importorskip('torch')
  statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (REAL, FAKE)]
  expected = metric_fid.fid_statistics_to_metric(*statistics, False)['frechet_inception_distance']
  found = frechet.frechet(jnp.asarray(REAL), jnp.asarray(FAKE))
  assert found.value == pytest.approx(expected, rel=1e-4)
  settings = {'kid_kernel_poly_degree': 3, 'kid_kernel_poly_gamma': None, 'kid_kernel_poly_coef0': 1}
  pairs = (REAL[:500], REAL[:500]), (REAL[:500], FAKE), (FAKE, FAKE)
  kernels = [metric_kid.kernel_poly(*pair, **settings) for pair in pairs]
  found = two_sample.mmd(jnp.asarray(REAL[:500]), jnp.asarray(FAKE))
  assert found.value == pytest.approx(metric_kid.mmd2(*kernels), rel=1e-3)


def test_the_inception_score_is_that_of_torch_fidelity():
  metric_isc = pytest.importorskip('torch_fidelity.metric_isc')
  torch = pytest.importorskip('torch')
  logits = 3 * FAKE[:, :10]
  expected = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=1)['inception_score_mean']
  found = inception.inception_score(jax.random.key(0), jnp.asarray(logits), num_splits=1)
  assert found.value == pytest.approx(expected, rel=1e-5)


def test_precision_and_recall_are_those_of_torch_fidelity():
  metric_prc = pytest.importorskip('torch_fidelity.metric_prc')
  torch = pytest.importorskip('torch')
  sets = torch.from_numpy(FAKE), torch.from_numpy(REAL)
  expected = metric_prc.prc_features_to_metric(*sets, prc_neighborhood=3, verbose=False)
  found = precision_recall.neighbourhoods(jnp.asarray(REAL), jnp.asarray(FAKE), ks=(3,))
  assert found.precision.value[0] == pytest.approx(float(expected['precision']), abs=1e-6)
  assert found.recall.value[0] == pytest.approx(float(expected['recall']), abs=1e-6)
