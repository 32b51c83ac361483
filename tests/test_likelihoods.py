"""Draws: the bits are those of jax.random, the frequencies those of the logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import likelihoods


@pytest.mark.parametrize('shape', [(), (1,), (7, 13), (2, 3, 5)])
def test_bits_are_those_of_jax(shape):
  key = jax.random.key(3)
  expected = jax.random.bits(key, shape, 'uint32')
  np.testing.assert_array_equal(likelihoods.random_bits(key, shape), expected)
  np.testing.assert_array_equal(likelihoods.random_bits(jax.random.PRNGKey(3), shape), expected)
  keys = jax.random.split(key, 4)
  alone = [likelihoods.random_bits(k, shape) for k in keys]
  np.testing.assert_array_equal(jax.vmap(lambda k: likelihoods.random_bits(k, shape))(keys), jnp.stack(alone))


def test_other_kinds_of_keys_are_served_too():
  key = jax.random.key(0, impl='rbg')
  np.testing.assert_array_equal(likelihoods.random_bits(key, (5,)), jax.random.bits(key, (5,), 'uint32'))
  assert likelihoods.random_bits(jax.random.key(0), (0, 3)).shape == (0, 3)
  with jax.threefry_partitionable(False):
    np.testing.assert_array_equal(
      likelihoods.random_bits(jax.random.key(1), (6,)), jax.random.bits(jax.random.key(1), (6,), 'uint32')
    )


def test_bernoulli_frequencies_and_certainties():
  logits = jnp.array([-9.0, -3.0, -0.5, 0.0, 1.0, 4.0, 9.0])
  num = 1_000_000
  draws = jax.jit(lambda key: likelihoods.sample_bernoulli(key, jnp.broadcast_to(logits, (num, 7))))(jax.random.key(0))
  assert draws.dtype == jnp.float32
  assert bool(jnp.all((draws == 0) | (draws == 1)))
  p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
  assert np.all(np.abs(np.asarray(draws, np.float64).mean(0) - p) < 4 * np.sqrt(p * (1 - p) / num))
  sure = jnp.array([-jnp.inf, -1e30, -200.0, 200.0, 1e30, jnp.inf])
  draws = likelihoods.sample_bernoulli(jax.random.key(1), jnp.broadcast_to(sure, (10_000, 6)))
  np.testing.assert_array_equal(draws, np.broadcast_to([0, 0, 0, 1, 1, 1], (10_000, 6)))


def test_categorical_frequencies():
  logits = jnp.array([0.0, -2.0, 1.5, -jnp.inf])
  num = 200_000
  draws = likelihoods.sample_categorical(jax.random.key(2), jnp.broadcast_to(logits, (num, 4)))
  p = np.asarray(jax.nn.softmax(logits), np.float64)
  frequency = np.bincount(np.asarray(draws), minlength=4) / num
  assert np.all(np.abs(frequency - p) <= 4 * np.sqrt(p * (1 - p) / num))


def test_softplus_and_its_gap():
  sizes = np.logspace(-3, 1.9, 40).astype(np.float32)
  x32 = jnp.concatenate([-sizes, jnp.zeros(1), sizes])
  x = np.asarray(x32, np.float64)
  np.testing.assert_allclose(likelihoods.softplus(x32), np.logaddexp(0, x), rtol=2e-6)
  np.testing.assert_allclose(jax.vmap(jax.grad(likelihoods.softplus))(x32), 1 / (1 + np.exp(-x)), rtol=2e-6)
  for low, high in ((0.0, 1.0), (0.9, 0.90001), (0.5, 0.5)):
    low32, high32 = np.float32(low), np.float32(high)
    step = np.float64(high32) - np.float64(low32)
    minus = -np.abs(x)
    exact = step * np.maximum(x, 0) + np.log1p(np.expm1(step * minus) / (1 + np.exp(-np.float64(low32) * minus)))
    np.testing.assert_allclose(likelihoods.softplus_gap(x32, low32, high32), exact, rtol=2e-6, atol=1e-30)
  assert math.isclose(float(likelihoods.softplus(jnp.float32(-200.0))), 0.0)


HEADS = {
  'bernoulli': (likelihoods.Bernoulli(), np.arange(2.0)),
  'categorical': (likelihoods.Categorical(5), np.arange(5.0)),
  'discretised logistic': (likelihoods.DiscretisedLogistic(256), np.arange(256.0)),
  'mixture of discretised logistics': (likelihoods.DiscretisedLogistic(16, 3), np.arange(16.0)),
  'gaussian': (likelihoods.Gaussian(), None),
  'gaussian of a given scale': (likelihoods.Gaussian(0.3), None),
  'mixture of gaussians': (likelihoods.MixtureOfGaussians(3), None),
  'mixture of laplaces': (likelihoods.MixtureOfLaplaces(3), None),
}


@pytest.mark.parametrize('name', HEADS)
def test_heads_are_normalised_and_draw_what_they_say(name):
  head, states = HEADS[name]
  outputs = 0.7 * jax.random.normal(jax.random.key(0), (head.size,))
  values, width = (states, 1.0) if states is not None else (np.linspace(-30, 30, 60_001), 1e-3)
  log_p = jax.jit(lambda x: head.log_prob(jnp.broadcast_to(outputs, (*x.shape, head.size)), x))
  p = np.exp(np.asarray(log_p(jnp.asarray(values, jnp.float32)), np.float64)) * width
  assert p.sum() == pytest.approx(1, abs=2e-5)
  num = 100_000
  draw = jax.jit(lambda key: head.sample(key, jnp.broadcast_to(outputs, (num, head.size))))
  draws = np.asarray(draw(jax.random.key(1)), np.float64)
  assert draws.shape == (num,)
  assert states is None or set(draws) <= set(states)
  for power in (1, 2):
    stderr = (draws**power).std() / math.sqrt(num)
    assert abs((draws**power).mean() - (p * values**power).sum()) < 4.5 * stderr
  if not isinstance(head, likelihoods.DiscretisedLogistic):
    assert float(head.mean(outputs)) == pytest.approx((p * values).sum(), abs=2e-4)


@pytest.mark.parametrize('location', [-40.0, -1.0, 0.2, 40.0])
def test_a_discretised_logistic_keeps_its_tails(location):
  head, x = likelihoods.DiscretisedLogistic(256, min_scale=0.0), jnp.array([0.0, 1.0, 128.0, 254.0, 255.0])
  outputs = jnp.broadcast_to(jnp.array([0.0, location, -5.0]), (5, 3))
  found, gradient = jax.vmap(jax.value_and_grad(head.log_prob))(outputs, x)
  a, scale = np.asarray(x, np.float64) / 127.5 - 1, math.exp(-5.0)
  log_cdf = lambda y: -np.logaddexp(0, -(y - location) / scale)
  log_survival = lambda y: -np.logaddexp(0, (y - location) / scale)
  low, high = a - 1 / 255, a + 1 / 255
  inside = log_cdf(high) + log_survival(low) + np.log1p(-np.exp(-2 / 255 / scale))
  expected = np.where(x == 0, log_cdf(high), np.where(x == 255, log_survival(low), inside))
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
  ('head', 'outputs', 'peak'),
  [
    (likelihoods.Gaussian(min_scale=0.01), [0.3], stats.norm.logpdf(0)),
    (likelihoods.MixtureOfGaussians(1, min_scale=0.01), [0.0, 0.3], stats.norm.logpdf(0)),
    (likelihoods.MixtureOfLaplaces(1, min_scale=0.01), [0.0, 0.3], stats.laplace.logpdf(0)),
  ],
)
def test_no_density_grows_beyond_that_of_the_least_scale(head, outputs, peak):
  found = lambda log_scale: head.log_prob(jnp.array([*outputs, log_scale]), jnp.float32(0.3))
  for log_scale in (-20.0, -1e4):  # a network that shrinks onto a point
    value, slope = jax.value_and_grad(found)(log_scale)
    assert float(value) == pytest.approx(peak - math.log(0.01), rel=1e-5)
    assert np.isfinite(slope)
  assert float(found(0.0)) == pytest.approx(peak - math.log(1.01), rel=1e-5)


def test_heads_refuse_what_is_no_distribution():
  for make, message in (
    (lambda: likelihoods.Categorical(1), 'num_classes=1'),
    (lambda: likelihoods.Gaussian(scale=0.0), 'scale=0.0'),
    (lambda: likelihoods.Gaussian(min_scale=-1.0), 'min_scale=-1.0'),
    (lambda: likelihoods.MixtureOfGaussians(0), 'num_components=0'),
    (lambda: likelihoods.DiscretisedLogistic(1), 'levels=1'),
  ):
    with pytest.raises(ValueError, match=message):
      make()
