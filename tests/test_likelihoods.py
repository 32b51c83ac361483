"""Draws: the bits are those of jax.random, the frequencies those of the logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
