"""NADE against the direct formula, which keeps every hidden unit of every dimension."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoregressive import nade
from gm_jax.base import bind
from gm_jax.likelihoods import Bernoulli, Categorical, Gaussian
from tests import models

MIXED = tuple(np.random.default_rng(0).permutation(19).tolist())
CASES = {
  'bits': nade.NADE(19, 5),
  'tied bits in another ordering, with a context': nade.NADE(19, 5, ordering=MIXED, tied=True, context_size=3),
  'classes in another ordering': nade.NADE(19, 5, Categorical(3), ordering=MIXED),
}


def parameters(module, scale=1.0):
  """Random parameters of which none is zero."""
  context = {'context': jnp.zeros((1, module.context_size))} if module.context_size else {}
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, module.num_dimensions)), **context)['params']
  random = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: jnp.asarray(scale * random.standard_normal(leaf.shape), jnp.float32), params)


def examples(module, num):
  random = np.random.default_rng(2)
  x = jnp.asarray(random.integers(max(module.head.size, 2), size=(num, module.num_dimensions)), jnp.float32)
  context = {'context': jnp.asarray(random.standard_normal((num, module.context_size)), jnp.float32)}
  return x, context if module.context_size else {}


def direct(module, params, x, context=None):
  """The log-likelihood with a_d = c + sum of the earlier columns, written out."""
  order = np.arange(module.num_dimensions) if module.ordering is None else np.array(module.ordering)
  seen = x[..., None] if module.head == Bernoulli() else jax.nn.one_hot(x.astype(jnp.int32), module.head.size)
  columns = jnp.einsum('bdf,dfh->bdh', seen, params['kernel'])[:, order]
  a = params['hidden_bias'] + jnp.cumsum(columns, axis=1) - columns
  output_kernel = params['kernel'] if module.tied else params['output_kernel']
  bias = jnp.broadcast_to(params['output_bias'], (len(x), *params['output_bias'].shape))
  if context is not None:
    a = a + (context @ params['context_kernel'])[:, None]
    bias = bias + jnp.einsum('bc,cdo->bdo', context, params['context_output_kernel'])
  outputs = jnp.einsum('bdh,doh->bdo', jax.nn.sigmoid(a), output_kernel[order]) + bias[:, order]
  return module.head.log_prob(outputs, x[:, order]).sum(-1)


def assert_close(found, expected, tolerance):
  for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(one, other, atol=tolerance * max(1, np.abs(other).max()))


@pytest.mark.parametrize('name', CASES)
def test_likelihood_and_gradients_are_those_of_the_direct_formula(name):
  """Small weights go by factors of exp(-a), large ones where those leave the range of floats."""
  module = CASES[name]
  x, context = examples(module, 7)
  importance = jnp.linspace(-1.0, 2.0, 7)
  weighted = lambda function: lambda params: jnp.vdot(importance, function(params, x, **context))
  formula = functools.partial(direct, module)

  @jax.jit
  def both(params):
    found, expected = (weighted(function) for function in (bind(module, 'log_prob'), formula))
    return jax.value_and_grad(found)(params), jax.value_and_grad(expected)(params)

  for scale in (0.5, 20.0):
    assert_close(*both(parameters(module, scale)), 1e-5)


def test_the_mean_has_the_gradient_of_the_mean():
  module = CASES['bits']
  params, (x, _) = parameters(module), examples(module, 7)
  found, expected = bind(module, 'mean_log_prob'), lambda params, x: direct(module, params, x).mean()
  assert_close(*(jax.jit(jax.value_and_grad(function))(params, x) for function in (found, expected)), 1e-5)


def test_pre_activations_that_cross_the_range_of_floats_are_exact():
  """The last bits take a hidden unit to a = 125, where exp(-a) is 0, and those before them take it back to 5."""
  module = nade.NADE(17, 1)
  params = jax.tree.map(jnp.zeros_like, parameters(module))
  kernel = jnp.full((17, 1, 1), 20.0).at[:11].set(0.0)
  params = {**params, 'kernel': kernel, 'output_kernel': jnp.ones((17, 1, 1)), 'hidden_bias': jnp.full(1, -5.0)}
  x = jnp.ones((1, 17))
  found = jax.jit(bind(module, 'log_prob'))(params, x)
  np.testing.assert_allclose(found, direct(module, params, x), rtol=1e-6)


def test_probabilities_sum_to_one_over_all_states():
  module = nade.NADE(12, 4, ordering=tuple(range(11, -1, -1)))
  log_prob = jax.jit(bind(module, 'log_prob'))(parameters(module), models.bits(12))
  assert np.exp(np.asarray(log_prob, np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_nothing_of_the_size_of_all_hidden_units_is_kept():
  num, dimensions, hidden = 64, 128, 64
  module = nade.NADE(dimensions, hidden)
  params, x = parameters(module, 0.1), jnp.ones((num, dimensions))
  step = jax.jit(jax.value_and_grad(bind(module, 'mean_log_prob')))
  needed = step.lower(params, x).compile().memory_analysis().temp_size_in_bytes
  assert needed < 4 * num * dimensions * hidden / 2


@pytest.mark.parametrize('module', [nade.NADE(6, 3, ordering=(4, 0, 5, 1, 3, 2)), nade.NADE(4, 3, Categorical(3))])
def test_the_sampler_equals_a_naive_one_bit_for_bit(module):
  params, key, num = parameters(module, 2.0), jax.random.key(3), 50
  conditionals = bind(module, 'conditionals')

  @jax.jit
  def naive(key):
    """All conditionals anew for each dimension."""
    order = jnp.arange(module.num_dimensions) if module.ordering is None else jnp.array(module.ordering)

    def step(x, now):
      d, key = now
      return x.at[:, d].set(module.head.sample(key, conditionals(params, x)[:, d])), None

    keys = jax.random.split(key, module.num_dimensions)
    return jax.lax.scan(step, jnp.zeros((num, module.num_dimensions)), (order, keys))[0]

  sample = jax.jit(bind(module, 'sample'), static_argnums=2)
  assert np.array_equal(sample(params, key, num), naive(key))


def test_completions_have_the_conditional_distribution():
  module = nade.NADE(5, 4, ordering=(3, 1, 4, 0, 2))
  params, num = parameters(module, 2.0), 20_000
  observed = np.array([False, True, False, True, False])
  x = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])
  complete = jax.jit(lambda key: bind(module, 'complete')(params, key, jnp.tile(x, (num, 1)), observed))
  found = np.asarray(complete(jax.random.key(4)))
  assert (found[:, observed] == np.asarray(x)[observed]).all()
  states = models.bits(5)
  p = np.exp(np.asarray(direct(module, params, states), np.float64))
  p *= (states[:, observed] == np.asarray(x)[observed]).all(1)
  p /= p.sum()
  counts = np.bincount((found @ 2 ** np.arange(5)).astype(int), minlength=32)
  # The expected total variation of a perfect sampler, and four times a bound on its standard deviation.
  expected = np.sqrt(p * (1 - p) / num * 2 / np.pi).sum() / 2
  assert np.abs(counts / num - p).sum() / 2 < expected + 4 * np.sqrt(1 / num) / 2


def test_bad_input_is_named():
  with pytest.raises(ValueError, match='no permutation'):
    nade.NADE(3, 2, ordering=(0, 0, 1))
  with pytest.raises(ValueError, match='num_hidden=0'):
    nade.NADE(3, 0)
  with pytest.raises(ValueError, match='bits or classes'):
    nade.NADE(3, 2, Gaussian())
  module = nade.NADE(3, 2)
  params = parameters(module)
  with pytest.raises(ValueError, match='num_dimensions=3'):
    bind(module, 'log_prob')(params, jnp.zeros((2, 4)))
  with pytest.raises(ValueError, match='later in the ordering'):
    bind(module, 'complete')(params, jax.random.key(0), jnp.zeros((2, 3)), np.array([False, True, False]))
