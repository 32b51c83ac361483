"""Importance weighting against quadrature, and its gradients against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoencoders import iwae, vae
from gm_jax.base import Batch, bind
from tests import models
from tests.autoencoders.test_vae import assert_mean, linear, many, small


@functools.cache
def two_layers():
  """Three bits under two stochastic layers of one dimension each, and the exact log p(x)."""
  module = iwae.two_layer_mlp(3, (1, 1), (3, 3))
  x = jnp.asarray(models.bits(3))
  params = module.init(jax.random.key(4), x)['params']
  for name in ('encoders_0', 'encoders_1', 'decoders_0'):  # wide posteriors, so that importance weights have a variance
    params[name] = jax.tree.map(lambda leaf: 0.4 * leaf, params[name])
  return module, params, x, np.asarray(jax.jit(models.quadrature(module))(params, x))


CASES = {'one layer': small, 'two layers': two_layers}
every_case = pytest.mark.parametrize('case', CASES)


@every_case
def test_the_bound_rises_with_the_number_of_samples_to_the_likelihood(case):
  module, params, x, exact = CASES[case]()
  assert np.exp(exact).sum() == pytest.approx(1, abs=1e-4)
  bounds = [iwae.bound(module, k) for k in (1, 3, 10, 100)]
  found = many(lambda key: jnp.stack([bound(params, key, x) for bound in bounds], -1), 3000)()
  found = np.asarray(found, np.float64).mean(1)  # [keys, k]: over the states
  means, stderr = found.mean(0), found.std(0) / np.sqrt(len(found))
  assert (np.diff(means) > 4 * (stderr[1:] + stderr[:-1])).all()
  assert means[-1] == pytest.approx(exact.mean(), abs=4 * stderr[-1] + 1.5 * (exact.mean() - means[2]) / 10)
  assert (means < exact.mean() + 4 * stderr).all()


@every_case
@pytest.mark.parametrize('proposal', iwae.PROPOSALS)
def test_estimates_of_the_probability_are_unbiased_with_the_error_they_say(case, proposal):
  module, params, x, exact = CASES[case]()
  estimate = iwae.estimate(module, 40, block_size=16, proposal=proposal)
  found = many(lambda key: estimate(params, key, x), 2000)()
  assert_mean(np.exp(np.asarray(found.log_prob, np.float64) - exact), 1)
  # The delta method at 40 samples: the spread of the estimates is what each says of itself, to within a fifth.
  np.testing.assert_allclose(np.sqrt((found.stderr**2).mean(0)), found.log_prob.std(0), rtol=0.2)
  assert (found.effective_sample_size <= 40.001).all()


def test_importance_sampling_beats_plain_monte_carlo_where_the_posterior_is_good():
  module, params, x, exact = linear()
  importance, plain = (
    jax.jit(iwae.estimate(module, 250, proposal=proposal))(params, jax.random.key(0), x) for proposal in iwae.PROPOSALS
  )
  np.testing.assert_allclose(importance.log_prob, exact, atol=2e-5)
  np.testing.assert_allclose(importance.effective_sample_size, 250, rtol=1e-4)  # all of them, and no more
  assert (importance.stderr < 1e-2).all()
  assert (plain.effective_sample_size < 100).all()
  assert (np.abs(plain.log_prob - exact) < 5 * plain.stderr).all()


def test_blocks_hold_exactly_the_samples_asked_for():
  """With the exact posterior each weight is p(x), so that a wrong count shows as a wrong logarithm."""
  module, params, x, exact = linear()
  for num_samples, block_size in ((1, 50), (7, 3), (100, 50), (101, 50)):
    found = iwae.estimate(module, num_samples, block_size=block_size)(params, jax.random.key(0), x)
    np.testing.assert_allclose(found.log_prob, exact, atol=5e-5)
    np.testing.assert_allclose(found.effective_sample_size, num_samples, rtol=1e-3)


@every_case
def test_the_doubly_reparameterised_gradient_is_unbiased(case):
  module, params, x, _ = CASES[case]()
  state = None

  def gradient(name):
    loss = iwae.objective(module, 4, gradient=name)[1]
    return lambda key: jax.value_and_grad(lambda params: loss(params, key, Batch(x), state)[0])(params)

  (plain_value, plain), (value, dreg) = (many(gradient(name), 2000)() for name in iwae.GRADIENTS)
  np.testing.assert_allclose(plain_value, value, rtol=1e-4, atol=1e-5)
  jax.tree.map(lambda a, b: assert_mean(np.asarray(a) - np.asarray(b), 0), plain, dreg)
  decoder = 'decoder' if case == 'one layer' else 'decoders_1'
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain[decoder], dreg[decoder])


def test_at_the_exact_posterior_the_doubly_reparameterised_gradient_is_silent():
  module, params, x, _ = linear()
  gradient = lambda name: jax.grad(
    lambda params: iwae.objective(module, 5, gradient=name)[1](params, jax.random.key(0), Batch(x), None)[0]
  )
  silent, noisy = (jax.jit(gradient(name))(params)['encoder']['Dense_0']['bias'] for name in ('dreg', 'plain'))
  assert np.abs(silent).max() < 1e-4 < 0.05 < np.abs(noisy).max()


def test_a_two_layer_model_draws_what_it_is_made_of():
  module, params, x, exact = two_layers()
  z, log_q = jax.jit(bind(module, 'propose'), static_argnums=3)(params, jax.random.key(0), x, 5)
  np.testing.assert_allclose(bind(module, 'log_posterior')(params, x, z), log_q, rtol=1e-4, atol=1e-4)
  samples = np.asarray(jax.jit(bind(module, 'sample'), static_argnums=2)(params, jax.random.key(0), 5000))
  counts = np.bincount((samples @ [1, 2, 4]).astype(int), minlength=8)
  p = np.exp(exact)
  assert (np.abs(counts / 5000 - p) < 4.5 * np.sqrt(p * (1 - p) / 5000)).all()
  assert bind(module, 'decode')(params, bind(module, 'encode')(params, x)).shape == x.shape


def test_a_context_conditions_estimates_of_either_kind():
  module = vae.mlp(3, 1, (4,), context_size=2)
  x, context = jnp.asarray(models.bits(3)), jnp.arange(8) % 2
  params = jax.tree.map(lambda leaf: 1.5 * leaf, module.init(jax.random.key(3), x, context=context)['params'])
  params['encoder']['Dense_1'] = {'kernel': 0.5 * params['encoder']['Dense_1']['kernel'], 'bias': jnp.array([0.2, 0.1])}
  exact = jax.jit(models.quadrature(module))
  for label in (0, 1):
    every = jnp.full(8, label)
    expected = np.asarray(exact(params, x, context=every))
    assert np.exp(expected).sum() == pytest.approx(1, abs=1e-4)
    for proposal in iwae.PROPOSALS:
      found = jax.jit(iwae.estimate(module, 4000, block_size=500, proposal=proposal))(
        params, jax.random.key(0), x, context=every
      )
      assert (np.abs(found.log_prob - expected) < 5 * found.stderr).all()


def test_what_cannot_be_is_refused():
  module = small()[0]
  for message, call in {
    'num_samples=0': lambda: iwae.bound(module, 0),
    "gradient='stl'": lambda: iwae.objective(module, 5, gradient='stl'),
    "proposal='q'": lambda: iwae.estimate(module, 5, proposal='q'),
    'block_size=0': lambda: iwae.estimate(module, 5, block_size=0),
    'context is given': lambda: two_layers()[0].init(jax.random.key(0), jnp.ones((1, 3)), context=jnp.ones((1, 2))),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
