"""The inverse autoregressive flow as a posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.autoencoders import vae
from gm_jax.base import Batch, bind
from gm_jax.flows import iaf
from gm_jax.training import rules
from tests import models


@pytest.mark.slow
def test_a_posterior_is_a_density_that_its_samples_have_and_starts_as_a_gaussian():
  module = vae.mlp(4, 2, (8,), posterior=iaf.Posterior(2, 2, (8,), num_features=3))
  algorithm = rules.descent(*vae.objective(module), optax.adam(0.02))
  x = jnp.asarray(models.PATTERNS.x)
  first = jax.jit(algorithm.init)(jax.random.key(0), Batch(x))
  step = lambda state, key: (algorithm.step(key, state, Batch(x))[0], None)
  last = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 100))[0])(first)
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first.params['posterior'], last.params['posterior'])
  assert min(jax.tree.leaves(moved)) > 1e-4
  grid, cell = models.square(-10, 10, 1001)

  @jax.jit
  def check(params, key):
    q = bind(module, 'posterior_given')(params, x[:3])
    z, log_q = q.sample_and_log_prob(key, 5)
    total = jnp.exp(q.log_prob(jnp.asarray(grid)[:, None])).sum(0) * cell
    held = jax.lax.stop_gradient(q)
    return q.mean, z, log_q, q.log_prob(z), total, held.log_prob(z)

  for params in (first.params, last.params):
    mean, z, log_q, again, total, held = check(params, jax.random.key(2))
    assert mean.shape == (3, 2) and z.shape == (5, 3, 2) and log_q.shape == (5, 3)
    np.testing.assert_allclose(again, log_q, atol=1e-3)
    np.testing.assert_allclose(held, again, atol=1e-5)
    np.testing.assert_allclose(total, 1, atol=1e-3)
