import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.adversarial import tricks
from gm_jax.adversarial.gan import GAMES

RANDOM = np.random.default_rng(0)


def test_closeness_leaves_the_example_itself_out():
  projected = RANDOM.normal(size=(5, 3, 2)).astype(np.float32)
  expected = [
    [sum(np.exp(-np.abs(projected[i, b] - projected[j, b]).sum()) for j in range(5) if j != i) for b in range(3)]
    for i in range(5)
  ]
  np.testing.assert_allclose(jax.jit(tricks.closeness)(projected), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(tricks.closeness(jnp.zeros((4, 1, 2))), 3.0)
  np.testing.assert_allclose(tricks.closeness(jnp.zeros((1, 1, 2))), 0.0)


def test_features_match_by_the_means_of_batches_and_not_by_pairs():
  features = RANDOM.normal(size=(6, 3)).astype(np.float32)
  assert tricks.feature_matching(features, features[::-1]) == pytest.approx(0, abs=1e-10)
  assert tricks.feature_matching(features, features[:3] + 2.0) > 0
  shifted = tricks.feature_matching(features, features + np.array([1.0, 2.0, 0.0], np.float32))
  assert shifted == pytest.approx(5.0, rel=1e-5)


@pytest.mark.parametrize('shape', [(4,), (2, 3, 4)])
def test_virtual_batch_norm_takes_the_reference_batch_and_the_example_itself(shape):
  reference, x = (RANDOM.normal(2.0, 3.0, (n, *shape)).astype(np.float32) for n in (5, 3))
  layer = tricks.VirtualBatchNorm(num_reference=5)
  variables = {'params': {'scale': jnp.full(4, 2.0), 'bias': jnp.full(4, 0.5)}}
  apply = jax.jit(lambda x: layer.apply(variables, x))
  found = apply(np.concatenate([reference, x]))

  def normalised(one, batch):
    batch = batch.reshape(-1, 4).astype(np.float64)
    return 2.0 * (one - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-5) + 0.5

  for i in range(5):
    np.testing.assert_allclose(found[i], normalised(reference[i], reference), rtol=1e-4, atol=1e-4)
  for i in range(3):
    np.testing.assert_allclose(
      found[5 + i], normalised(x[i], np.concatenate([reference, x[i : i + 1]])), rtol=1e-4, atol=1e-4
    )
  changed = apply(np.concatenate([reference, x[:1], 10 * x[1:]]))
  np.testing.assert_array_equal(found[5], changed[5])


def test_the_history_is_the_mean_of_all_parameters_and_pulls_from_within_the_loss():
  path = [{'w': jnp.array(w)} for w in ([0.0, 1.0], [2.0, 3.0], [7.0, -1.0])]
  history = tricks.begin_history(path[0])
  for params in path[1:]:
    history = tricks.remember(history, params)
  np.testing.assert_allclose(history.mean['w'], [3.0, 1.0], rtol=1e-6)
  distance, slope = jax.value_and_grad(tricks.distance_from_history)(path[2], history)
  assert distance == pytest.approx(16 + 4)
  np.testing.assert_allclose(slope['w'], [8.0, -4.0], rtol=1e-6)


def test_smoothing_is_one_sided():
  game, smooth = GAMES['non_saturating'], tricks.smoothed(GAMES['non_saturating'], 0.9)
  score = jnp.array(0.7)
  d = 1 / (1 + np.exp(-0.7))
  assert smooth.real(score) == pytest.approx(-0.9 * np.log(d) - 0.1 * np.log(1 - d), rel=1e-5)
  assert smooth.fake(score) == game.fake(score)
  assert smooth.generator(score) == game.generator(score)
  with pytest.raises(ValueError, match='real_target=0.4'):
    tricks.smoothed(game, 0.4)


def test_packs_hold_neighbours_side_by_side():
  x = jnp.arange(8.0).reshape(4, 2)
  np.testing.assert_array_equal(tricks.pack(x, 2), [[0, 1, 2, 3], [4, 5, 6, 7]])
  images = RANDOM.normal(size=(4, 3, 3, 2))
  packed = tricks.pack(jnp.asarray(images), 2)
  assert packed.shape == (2, 3, 3, 4)
  np.testing.assert_allclose(packed[1, ..., 2:], images[3], rtol=1e-6)
  with pytest.raises(ValueError, match='a batch of 4 does not divide into packs of packing=3'):
    tricks.pack(x, 3)


def test_instance_noise_has_the_deviation_that_was_asked_for():
  noise = tricks.instance_noise(jax.random.key(0), jnp.full((20_000,), 3.0), 0.5)
  assert noise.mean() == pytest.approx(3.0, abs=4 * 0.5 / np.sqrt(20_000))
  assert noise.std() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2 * 20_000))
