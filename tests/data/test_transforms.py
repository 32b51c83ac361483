import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import DataError, load, transforms
from gm_jax.evaluation.likelihood import bits_per_dimension

KEY = jax.random.key(5)


def check_log_det(function, x, event_ndims):
  """Against the determinants of the whole Jacobians."""

  def jacobian(example):
    return jax.jacobian(lambda flat: function(flat.reshape(example.shape))[0].ravel())(example.ravel())

  y, log_det = jax.jit(function)(x)
  assert y.shape == x.shape and log_det.shape == x.shape[: x.ndim - event_ndims]
  jacobians = jax.jit(jax.vmap(jacobian))(x.reshape(-1, *x.shape[x.ndim - event_ndims :]))
  expected = np.linalg.slogdet(np.asarray(jacobians, np.float64))[1]
  np.testing.assert_allclose(log_det.ravel(), expected, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize('levels', [2, 17, 256, 65536])
def test_dequantised_values_stay_inside_and_come_back(levels):
  x = jnp.tile(jnp.array([0, 1, levels // 2, levels - 1]), (2000, 1))
  y, log_det = transforms.dequantise(KEY, x, levels)
  assert y.dtype == jnp.float32 and y.min() > 0 and y.max() < 1
  np.testing.assert_array_equal(transforms.quantise(y, levels), x)
  np.testing.assert_allclose(log_det, np.full(2000, -4 * np.log(levels)), rtol=1e-6)
  noise = np.asarray(y, np.float64) * levels - x
  assert abs(noise.mean() - 0.5) < 4 / np.sqrt(12 * noise.size)
  assert abs(noise.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / noise.size)
  assert (transforms.dequantise(jax.random.key(6), x, levels)[0] != y).any()


@pytest.mark.parametrize('levels', [2, 17, 256])
def test_the_uniform_density_is_log2_levels_bits(levels):
  """Through the whole pipeline: integers, dequantised, logit, standard logistic density, bits of the integers."""
  x = jax.random.randint(KEY, (5, 4, 2, 1), 0, levels)
  y, log_det = transforms.dequantise(KEY, x, levels, event_ndims=3)
  np.testing.assert_allclose(bits_per_dimension(0.0, 8, log_det=log_det), np.full(5, np.log2(levels)), rtol=1e-6)
  z, logit_log_det = transforms.logit(y, event_ndims=3)
  # The logistic density is what the logit makes of the uniform one.
  log_prob = -(jax.nn.softplus(z) + jax.nn.softplus(-z)).reshape(5, -1).sum(-1)
  bits = bits_per_dimension(log_prob, 8, log_det=log_det + logit_log_det)
  np.testing.assert_allclose(bits, np.full(5, np.log2(levels)), rtol=1e-5)


@pytest.mark.parametrize('alpha', [0.0, 0.05])
@pytest.mark.parametrize(('shape', 'event_ndims'), [((4,), 1), ((2, 3, 2, 2, 1), 3)])
def test_logit_log_det_and_inverse(alpha, shape, event_ndims):
  x = jax.random.uniform(KEY, shape, minval=0.01, maxval=0.99)
  check_log_det(lambda x: transforms.logit(x, alpha, event_ndims), x, event_ndims)
  y = transforms.logit(x, alpha, event_ndims)[0]
  np.testing.assert_allclose(transforms.inverse_logit(y, alpha), x, atol=5e-7)
  s = alpha + (1 - 2 * alpha) * np.asarray(x, np.float64)
  np.testing.assert_allclose(y, np.log(s / (1 - s)), rtol=1e-5, atol=1e-5)


def test_logit_is_exact_and_finite_at_the_ends():
  x = jnp.array([2.0**-22, 0.5, 1 - 2.0**-22])
  y, log_det = transforms.logit(x)
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(y, np.log(exact / (1 - exact)), rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(log_det, -np.log(exact * (1 - exact)).sum(), rtol=1e-6)
  assert np.isfinite(transforms.logit(jnp.array([0.0, 1.0]), 1e-6)[0]).all()


def test_standardisation_is_of_the_training_part():
  rng = np.random.RandomState(0)
  train = (rng.standard_normal((500, 3)) * [1, 10, 0.1] + [5, -3, 100]).astype(np.float32)
  fitted = transforms.fit_standardisation(train)
  y, _ = transforms.standardise(fitted, train)
  np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)
  other = train[:7] + 1
  y, _ = transforms.standardise(fitted, other)
  np.testing.assert_allclose(
    y, (other - train.mean(0, np.float64)) / train.std(0, dtype=np.float64), rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(transforms.inverse_standardise(fitted, y), other, rtol=1e-6)
  check_log_det(lambda x: transforms.standardise(fitted, x), jnp.asarray(other), 1)


def test_standardisation_names_a_dimension_without_spread():
  x = np.random.RandomState(0).standard_normal((20, 3)).astype(np.float32)
  x[:, 1] = 0.1
  with pytest.raises(ValueError, match=r'train_x\[:, 1\] is constant'):
    transforms.fit_standardisation(x)


@pytest.mark.parametrize(
  'binarise',
  [transforms.stochastic_binarise, transforms.static_binarise],
)
def test_pixels_are_drawn_with_their_intensity(binarise):
  num, levels = 10_001, 17
  x = np.tile(np.array([0, 4, 8, 13, 16], np.uint8), (num, 1))
  drawn = np.asarray(binarise(KEY, x, levels))
  assert set(np.unique(drawn)) == {0, 1}
  mean = x[0] / 16
  assert (np.abs(drawn.mean(0) - mean) <= 4 * np.sqrt(mean * (1 - mean) / num)).all()
  np.testing.assert_array_equal(binarise(KEY, x, levels), drawn)
  assert (np.asarray(binarise(jax.random.key(6), x, levels)) != drawn).any()
  # Blocks of the data do not repeat one another's draws, and pixels not their neighbours'.
  assert abs(np.mean(drawn[:4096, 2] == drawn[4096:8192, 2]) - 0.5) < 4 * 0.5 / 64
  assert abs(np.mean(drawn[1:, 2] == drawn[:-1, 2]) - 0.5) < 4 * 0.5 / 100


def test_threshold():
  x = np.array([0, 7, 8, 9, 16], np.uint8)
  np.testing.assert_array_equal(transforms.threshold_binarise(x, 17), [0, 0, 0, 1, 1])
  np.testing.assert_array_equal(transforms.threshold_binarise(x, 17, 0.25), [0, 1, 1, 1, 1])
  np.testing.assert_array_equal(transforms.threshold_binarise(np.arange(256), 256), np.arange(256) >= 128)


def test_a_grey_set_becomes_a_binary_one():
  digits = load('digits')
  by_threshold = transforms.binarise(digits, 'threshold')
  drawn = transforms.binarise(digits, 'static', KEY)
  for binary, how in ((by_threshold, 'cut at half'), (drawn, 'drawn once')):
    assert (binary.kind, binary.levels) == ('binary', 2) and how in binary.provenance
    assert binary.train.x.dtype == np.uint8 and binary.train.x.shape == digits.train.x.shape
    np.testing.assert_array_equal(binary.test.y, digits.test.y)
  np.testing.assert_array_equal(by_threshold.valid.x, transforms.threshold_binarise(digits.valid.x, 17))
  assert (drawn.valid.x != drawn.test.x).any()
  assert abs(drawn.train.x.mean() - digits.train.x.mean() / 16) < 0.01


def test_what_cannot_be_binarised_is_refused():
  digits = load('digits')
  with pytest.raises(ValueError, match="method='stochastic'"):
    transforms.binarise(digits, 'stochastic')
  with pytest.raises(ValueError, match='key=None'):
    transforms.binarise(digits, 'static')
  with pytest.raises(DataError, match='values are binary'):
    transforms.binarise(transforms.binarise(digits, 'threshold'), 'threshold')


def test_shapes_and_units():
  x = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2, 1)
  assert transforms.flatten(x, 3).shape == (2, 3, 4)
  np.testing.assert_array_equal(transforms.flatten(x, 3)[1, 2], [20, 21, 22, 23])
  assert transforms.to_float(x).dtype == jnp.float32
  np.testing.assert_allclose(transforms.to_unit(np.array([0, 8, 16]), 17), [0, 0.5, 1])


@pytest.mark.parametrize(
  ('call', 'named'),
  [
    (lambda: transforms.dequantise(KEY, jnp.zeros(3), 1), 'levels=1'),
    (lambda: transforms.dequantise(KEY, jnp.zeros(3), 2**17), 'levels=131072'),
    (lambda: transforms.logit(jnp.ones(3), 0.5), 'alpha=0.5'),
    (lambda: transforms.inverse_logit(jnp.ones(3), -1), 'alpha=-1'),
  ],
)
def test_bad_arguments(call, named):
  with pytest.raises(ValueError, match=named):
    call()
