"""Networks without sharing, against MADE, a loop over the conditionals, enumeration and full passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoregressive import ancestral, fvsbn, made, made_degrees
from tests.models import bits

ORDERING = (4, 0, 2, 5, 1, 3)


def start(module, context=None):
  init = lambda key: module.init(key, jnp.zeros((2, module.num_dimensions)), context=context)['params']
  random = np.random.default_rng(1)
  draw = lambda leaf: random.standard_normal(leaf.shape).astype(np.float32)
  return jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


def test_it_is_a_made_without_hidden_layers():
  net = fvsbn.FVSBN(6, ORDERING)
  autoencoder = made.MADE(made_degrees.degrees(6, (), ordering=ORDERING), direct=True)
  params, key = start(net), jax.random.key(3)
  same = {'shortcut': {'kernel': params['kernel'], 'bias': params['bias']}}
  one = lambda method, *args: jax.jit(lambda: net.apply({'params': params}, *args, method=method))()
  other = lambda method, *args: jax.jit(lambda: autoencoder.apply({'params': same}, *args, method=method))()
  np.testing.assert_array_equal(one('conditionals', bits(6)), other('conditionals', bits(6)))
  np.testing.assert_allclose(one('log_prob', bits(6)), other('log_prob', bits(6)), rtol=1e-6)  # sums in other orders
  _, draw_key = jax.random.split(key)  # the autoencoder draws a mask first
  keys = jax.random.split(draw_key, 50)
  np.testing.assert_array_equal(one('_draw', keys, None), other('sample', key, 50))


def test_separate_mlps_by_a_loop():
  module, x = fvsbn.SeparateMLPs(6, ORDERING, num_hidden=3), bits(6)[::7].astype(np.float64)
  params = start(module)
  w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  expected = np.zeros(len(x))
  for place, d in enumerate(ORDERING):
    earlier = list(ORDERING[:place])
    hidden = np.tanh(x[:, earlier] @ w['hidden_kernel'][d][earlier] + w['hidden_bias'][d])
    logit = hidden @ w['readout'][d] + w['bias'][d]
    expected += -np.logaddexp(0, np.where(x[:, d] == 1, -logit, logit))
  found = module.apply({'params': params}, jnp.asarray(x, jnp.float32), method='log_prob')
  np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize('context_size', [0, 2])
@pytest.mark.parametrize('module', [fvsbn.FVSBN, fvsbn.SeparateMLPs])
def test_mass_is_one_and_the_sampler_draws_what_full_passes_draw(module, context_size):
  module, num = module(10, context_size=context_size), 60
  some = lambda num: jnp.tile(jnp.array([1.0, -2.0]), (num, 1)) if context_size else None
  params, keys = start(module, some(2)), jax.random.split(jax.random.key(5), num)
  apply = lambda *args, **kwargs: module.apply({'params': params}, *args, **kwargs)
  total = jax.jit(lambda: jnp.exp(apply(bits(10), context=some(1024), method='log_prob')).sum())()
  assert total == pytest.approx(1, abs=2e-5)
  passes = jax.jit(
    lambda keys: ancestral.sample_by_passes(
      lambda x: apply(x, context=some(num), method='conditionals'), module.head, np.arange(10), keys
    )
  )
  found = jax.jit(lambda: apply(jax.random.key(5), num, context=some(num), method='sample'))()
  assert len(np.unique(found, axis=0)) > 10
  np.testing.assert_array_equal(found, passes(keys))
  observed = np.arange(10) < 4
  completed = jax.jit(lambda x: apply(jax.random.key(5), x, observed, context=some(num), method='complete'))(found)
  np.testing.assert_array_equal(completed, found)  # the same noise, and what was observed is what it had drawn


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: fvsbn.FVSBN(3, (0, 2, 2)), r'ordering=\[0, 2, 2\] is no permutation of 0, ..., 2'),
    (lambda: fvsbn.FVSBN(0), 'num_dimensions=0'),
    (lambda: fvsbn.SeparateMLPs(3, num_hidden=0), 'num_hidden=0'),
    (lambda: fvsbn.FVSBN(3).init(jax.random.key(0), jnp.zeros((2, 4))), r'x.shape=\(2, 4\)'),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
