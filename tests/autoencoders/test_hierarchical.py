"""Hierarchical variational autoencoders against quadrature, and their layers against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoencoders import hierarchical, iwae, vae
from gm_jax.base import bind
from tests import models
from tests.autoencoders.test_vae import assert_mean, many


@functools.cache
def two_layers():
  """Three bits under two layers of one dimension each, and the exact log p(x); no network is at its start."""
  module = hierarchical.HierarchicalVAE(3, 1, 2, width=4)
  x = jnp.asarray(models.bits(3))

  @jax.jit
  def start(key):
    init_key, key = jax.random.split(key)
    params = module.init(init_key, x)['params']
    keys = jax.random.split(key, len(jax.tree.leaves(params)))
    noise = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, jax.tree.leaves(params), strict=True)]
    params = jax.tree.map(jnp.add, params, jax.tree.unflatten(jax.tree.structure(params), noise))
    params['down']['posterior'] = jax.tree.map(lambda leaf: 0.3 * leaf, params['down']['posterior'])  # a wide q
    return params

  params = start(jax.random.key(1))
  return module, params, x, np.asarray(jax.jit(models.quadrature(module, 2))(params, x))


def test_importance_samples_and_terms_agree_with_quadrature():
  module, params, x, exact = two_layers()
  assert np.exp(exact).sum() == pytest.approx(1, abs=1e-4)
  found = jax.jit(iwae.estimate(module, 2000, block_size=500))(params, jax.random.key(0), x)
  assert (np.abs(found.log_prob - exact) < 5 * found.stderr + 1e-5).all()

  def both(key):
    terms = [bind(module, 'terms')(params, key, x, estimator=estimator) for estimator in ('analytic', 'sampled')]
    z, log_q = bind(module, 'propose')(params, key, x, 1)
    return terms, (bind(module, 'log_joint')(params, x, z) - log_q)[0]

  (analytic, sampled), weights = many(both, 700)()
  np.testing.assert_allclose(sampled.log_likelihood - sampled.divergence.sum(-1), weights, rtol=1e-3, atol=1e-4)
  assert_mean(np.asarray(analytic.divergence) - np.asarray(sampled.divergence), 0)  # layer by layer
  assert analytic.divergence.shape == (700, 8, 2)
  assert (np.asarray(analytic.divergence).mean((0, 1)) > 0.01).all()


def test_a_draw_has_the_density_it_was_drawn_with():
  module, params, x, _ = two_layers()
  z, log_q = jax.jit(bind(module, 'propose'), static_argnums=3)(params, jax.random.key(0), x, 5)
  np.testing.assert_allclose(jax.jit(bind(module, 'log_posterior'))(params, x, z), log_q, rtol=1e-4, atol=1e-4)
  log_prior, log_likelihood, log_joint = (
    jax.jit(bind(module, name))(params, x, z) for name in ('log_prior', 'log_likelihood', 'log_joint')
  )
  np.testing.assert_allclose(log_prior + log_likelihood, log_joint, rtol=1e-5, atol=1e-5)


def test_a_layer_knows_what_is_above_it_and_nothing_below():
  module, params, x, _ = two_layers()
  resample = jax.jit(bind(module, 'resample'), static_argnums=3)
  z = jnp.tile(jnp.array([0.7, -0.3]), (1000, 1))
  kept, none = resample(params, jax.random.key(0), z, 1), resample(params, jax.random.key(0), z, 0)
  assert (kept[:, 0] == z[0, 0]).all()
  assert np.unique(np.asarray(kept[:, 1])).size > 990
  np.testing.assert_array_equal(resample(params, jax.random.key(0), z, 2), z)
  assert np.unique(np.asarray(none[:, 0])).size > 990
  # The density of the top layer alone, p(z_top), is what log p(z) integrates to over the layer below it.
  grid = jnp.linspace(-30, 30, 4001)
  log_prior = jax.jit(bind(module, 'log_prior'))
  total = lambda top: jax.nn.logsumexp(log_prior(params, x, jnp.stack([jnp.full(4001, top), grid], -1))) + np.log(0.015)
  tops = np.linspace(-6, 6, 61)
  mass = np.exp([float(total(top)) for top in tops])
  mean, variance = (mass * tops).sum() / mass.sum(), (mass * tops**2).sum() / mass.sum()
  drawn = np.asarray(none[:, 0], np.float64)
  assert_mean(drawn, mean)
  assert_mean(drawn**2, variance)


def test_the_program_does_not_grow_with_the_number_of_layers():
  x = jnp.zeros((2, 3))

  def size(num_layers):
    module = hierarchical.HierarchicalVAE(3, 2, num_layers, width=4)
    params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
    assert params['down']['insert']['kernel'].shape == (num_layers, 2, 4)
    return len(str(jax.make_jaxpr(bind(module, 'bound'))(params, jax.random.key(0), x)).splitlines())

  assert size(2) == size(40)


def test_what_cannot_be_is_refused():
  module, params, x, _ = two_layers()
  for message, call in {
    'num_layers=0': lambda: hierarchical.HierarchicalVAE(3, 1, 0),
    "estimator='stl'": lambda: bind(module, 'terms')(params, jax.random.key(0), x, estimator='stl'),
    "estimator='exact'": lambda: vae.objective(module, estimator='exact'),
    'num_kept=3': lambda: bind(module, 'resample')(params, jax.random.key(0), jnp.zeros((1, 2)), 3),
    'context is given': lambda: bind(module, 'bound')(params, jax.random.key(0), x, context=jnp.ones(8, int)),
    'the decoder speaks of 3 dimensions': lambda: bind(module, 'log_likelihood')(params, x[:, :2], jnp.ones((1, 1, 2))),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
