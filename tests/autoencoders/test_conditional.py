"""The conditional variational autoencoder against the closed form of a linear-Gaussian one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.autoencoders import conditional, iwae
from gm_jax.base import Batch, bind
from gm_jax.likelihoods import Gaussian
from tests.autoencoders.test_vae import assert_mean, many

NOISE = 0.6
LOADINGS = np.array([[1.0, 0.5], [-0.4, 0.8], [0.3, 0.2]])  # of z in x
DIRECT = np.array([[0.5], [0.1], [-0.7]])  # of y in x
PRIOR = np.array([[1.2], [-0.6]])  # of y in z
SCALES = np.array([0.7, 1.5])


@functools.cache
def linear():
  """z ~ N(P y, S^2), x ~ N(W z + U y, s^2), and a q wider than the posterior: module, params, x, y, log p(x | y).

  Sums over z are Gaussian integrals: p(x | y) = N((W P + U) y, W S^2 W^T + s^2).
  """
  module = conditional.mlp(3, 2, 1, (), head=Gaussian(scale=NOISE))
  random = np.random.default_rng(0)
  y = random.normal(size=(5, 1)).astype(np.float32)
  mean, covariance = y @ (LOADINGS @ PRIOR + DIRECT).T, (LOADINGS * SCALES**2) @ LOADINGS.T + NOISE**2 * np.eye(3)
  x = np.stack([random.multivariate_normal(m, covariance) for m in mean]).astype(np.float32)
  gain = np.linalg.inv(np.diag(SCALES**-2.0) + LOADINGS.T @ LOADINGS / NOISE**2)
  to_mean = np.concatenate(
    [gain @ LOADINGS.T / NOISE**2, gain @ (PRIOR / SCALES[:, None] ** 2 - LOADINGS.T @ DIRECT / NOISE**2)], 1
  )
  spread = 0.5 * np.log(np.diag(gain)) + 0.1
  layer = lambda kernel, bias: {'Dense_0': {'kernel': kernel.T, 'bias': np.array(bias)}}
  padded = lambda kernel: np.pad(kernel, ((0, 2), (0, 0)))  # log standard deviations that know of no input
  params = {
    'encoder': layer(padded(to_mean), [0.1, -0.1, *spread]),
    'decoder': layer(np.concatenate([LOADINGS, DIRECT], 1), [0, 0, 0]),
    'prior_network': layer(padded(PRIOR), [0, 0, *np.log(SCALES)]),
  }
  exact = [stats.multivariate_normal(m, covariance).logpdf(one) for m, one in zip(mean, x, strict=True)]
  return module, jax.tree.map(jnp.float32, params), jnp.asarray(x), jnp.asarray(y), np.array(exact)


def test_the_likelihood_is_the_closed_form_by_either_proposal_and_both_bounds_lie_below():
  module, params, x, y, exact = linear()
  for proposal in iwae.PROPOSALS:
    estimate = iwae.estimate(module, 2000, block_size=1000, proposal=proposal)
    found = jax.jit(estimate)(params, jax.random.key(0), x, context=y)
    assert (np.abs(found.log_prob - exact) < 5 * found.stderr).all()
    assert (found.stderr < 0.2).all()
  bounds = lambda key: [bind(module, name)(params, key, x, context=y) for name in ('bound', 'generative_bound')]
  for found in many(bounds, 1000)():
    found = np.asarray(found, np.float64)
    assert (found.mean(0) < exact + 4 * found.std(0) / np.sqrt(1000)).all()
  # E log N(x; W z + U y, s^2) over z ~ p(z | y), in closed form.
  rest = np.asarray(x - y @ (LOADINGS @ PRIOR + DIRECT).T, np.float64)
  expected = -0.5 * ((rest**2).sum(-1) + (LOADINGS**2 @ SCALES**2).sum()) / NOISE**2 - 1.5 * np.log(
    2 * np.pi * NOISE**2
  )
  assert_mean(found, expected)


def test_samples_and_predictions_have_the_mean_and_covariance_of_the_condition():
  module, params, _, y, _ = linear()
  mean, covariance = y @ (LOADINGS @ PRIOR + DIRECT).T, (LOADINGS * SCALES**2) @ LOADINGS.T + NOISE**2 * np.eye(3)
  rows = jnp.tile(y[:1], (3000, 1))
  found = np.asarray(jax.jit(bind(module, 'sample'), static_argnums=2)(params, jax.random.key(0), 3000, context=rows))
  assert_mean(found, mean[0])
  rest = found - np.asarray(mean[0])
  assert_mean(rest[:, :, None] * rest[:, None, :], covariance)
  np.testing.assert_allclose(bind(module, 'predict')(params, context=y), mean, atol=1e-5)


def test_the_hybrid_weighs_both_bounds():
  module, params, x, y, _ = linear()
  key, batch = jax.random.key(3), Batch(x, y)
  value = lambda alpha: float(conditional.objective(module, alpha=alpha)[1](params, key, batch, None)[0])
  own, generative = (
    -float(bind(module, name)(params, key, x, context=y).mean()) for name in ('bound', 'generative_bound')
  )
  assert [value(1.0), value(0.0)] == pytest.approx([own, generative], rel=1e-5)
  assert value(0.25) == pytest.approx(0.25 * own + 0.75 * generative, rel=1e-5)


def test_what_cannot_be_is_refused():
  module, params, x, y, _ = linear()
  for message, call in {
    'context_size=0': lambda: conditional.mlp(3, 1, 0),
    'alpha=1.5': lambda: conditional.objective(module, alpha=1.5),
    'prior_network in place of a prior': lambda: module.clone(prior_network=None),
    'context is missing': lambda: bind(module, 'bound')(params, jax.random.key(0), x),
    'the prior of a ConditionalVAE': lambda: bind(module, 'prior_distribution')(params),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
