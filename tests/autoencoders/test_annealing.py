"""Annealing of latent variables against the exact likelihood of a linear-Gaussian model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoencoders import annealing
from gm_jax.base import bind
from gm_jax.density import factor_analysis
from tests.autoencoders.test_iwae import two_layers
from tests.autoencoders.test_vae import LOADINGS, NOISE, OFFSET, assert_mean, linear

CHAINS, STEPS = 300, 10


@functools.cache
def walks():
  """Up from the prior and down from the exact posterior, for the six examples of the linear model."""
  module, params, x, exact = linear()
  tune, forward, backward = annealing.annealer(module, num_temperatures=STEPS, num_chains=CHAINS, num_leapfrog=4)

  @jax.jit
  def run(key):
    keys = jax.random.split(key, 4)
    sizes = tune(params, keys[0], x)
    z, _ = bind(module, 'propose')(params, keys[1], x, CHAINS)  # its proposal is the posterior
    return sizes, z, forward(params, keys[2], x, sizes), backward(params, keys[3], x, z, sizes)

  return run(jax.random.key(0)), exact


def test_weights_of_either_way_are_unbiased_and_their_logarithms_lie_on_either_side():
  (_, _, up, down), exact = walks()
  assert_mean(np.exp(np.asarray(up.log_weights, np.float64) - exact), 1)
  assert_mean(np.exp(exact - np.asarray(down.log_weights, np.float64)), 1)
  up, down = (np.asarray(one.log_weights, np.float64) for one in (up, down))
  stderr = lambda w: w.std(0) / np.sqrt(CHAINS)
  assert (up.mean(0) < exact - 4 * stderr(up)).all()
  assert (down.mean(0) > exact + 4 * stderr(down)).all()


def test_moves_are_accepted_as_often_as_told_and_keep_the_posterior():
  """Large steps, of which many are refused: without the test of acceptance the variance would be another."""
  (sizes, z, up, _), _ = walks()
  assert sizes.shape == (STEPS, 6)
  assert 0.4 < float(up.acceptance[STEPS // 2 :].mean()) < 0.97
  assert (sizes[-1] > sizes[0]).all()  # the first ones were small
  module, params, x, _ = linear()
  log_joint = lambda z: bind(module, 'log_joint')(params, x, z)
  moved, acceptance = jax.jit(
    lambda z: annealing.hamiltonian_move(jax.random.key(5), log_joint, z, jnp.full((CHAINS, 6), 0.5), 3)
  )(z)
  assert 0.1 < float(acceptance.mean()) < 0.9
  assert (np.asarray(moved != z).any(-1)).mean() == pytest.approx(float(acceptance.mean()), abs=0.05)
  mean = bind(module, 'encode')(params, x)
  covariance = np.linalg.inv(np.eye(2) + LOADINGS.T @ LOADINGS / NOISE**2)
  assert_mean(moved - mean, 0)
  rest = np.asarray(moved - mean)
  assert_mean(rest[..., :, None] * rest[..., None, :], covariance)


def test_the_leapfrog_goes_back_the_way_it_came_and_nearly_keeps_the_energy():
  z, momentum, size = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.2]), jnp.float32(0.05)
  gradient = lambda z: -jnp.array([1.0, 4.0]) * z
  energy = lambda z, momentum: 0.5 * float((jnp.array([1.0, 4.0]) * z**2 + momentum**2).sum())
  there = annealing.leapfrog(gradient, z, momentum, size, 20)
  back = annealing.leapfrog(gradient, there[0], -there[1], size, 20)
  np.testing.assert_allclose(back[0], z, atol=1e-5)
  np.testing.assert_allclose(-back[1], momentum, atol=1e-5)
  assert energy(*there) == pytest.approx(energy(z, momentum), rel=3e-3)
  # In a harmonic well of frequency 1 and 2 the end is known: an error of the order of the step squared.
  angle = np.array([1.0, 2.0])
  expected = np.asarray(z) * np.cos(angle) + np.asarray(momentum) / angle * np.sin(angle)
  np.testing.assert_allclose(there[0], expected, atol=3e-3)


def test_simulated_data_are_bracketed_and_are_the_models_own():
  module, params, _, _ = linear()
  walk = annealing.bidirectional(module, num_temperatures=STEPS, num_chains=4, num_leapfrog=4)
  lower, upper, x = jax.jit(walk, static_argnums=2)(params, jax.random.key(1), 300)
  factors = factor_analysis.Factors(jnp.zeros(4), jnp.asarray(OFFSET), jnp.asarray(LOADINGS), jnp.float32(NOISE))
  exact = np.asarray(factor_analysis.log_prob(factors, x), np.float64)
  assert_mean(x, OFFSET)
  for gap in (exact - lower, upper - exact):
    assert gap.mean() > 4 * gap.std() / np.sqrt(300)
    assert gap.mean() < 1


@pytest.mark.slow
def test_two_stochastic_layers_are_annealed_together():
  module, params, x, exact = two_layers()
  tune, forward, _ = annealing.annealer(module, num_temperatures=4, num_chains=200, num_leapfrog=2)
  run = lambda key: forward(params, key, x, tune(params, jax.random.key(1), x))
  assert_mean(np.exp(np.asarray(jax.jit(run)(jax.random.key(0)).log_weights, np.float64) - exact), 1)


def test_what_cannot_be_is_refused():
  module = linear()[0]
  for message, call in {
    'num_temperatures=0': lambda: annealing.annealer(module, num_temperatures=0),
    'num_chains=0': lambda: annealing.bidirectional(module, num_chains=0),
    'num_leapfrog=0': lambda: annealing.annealer(module, num_leapfrog=0),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
  betas = annealing.temperatures(7)
  assert (np.diff(betas) > 0).all()
  assert [float(betas[0]), float(betas[-1])] == [0, 1]
