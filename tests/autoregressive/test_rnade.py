"""RNADE against its formula written out, quadrature, and the distributions of its own conditionals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from gm_jax.autoregressive.rnade import RNADE
from gm_jax.likelihoods import MixtureOfGaussians, MixtureOfLaplaces

DENSITIES = {MixtureOfGaussians: stats.norm, MixtureOfLaplaces: stats.laplace}


def make(num=3, hidden_sizes=(8,), head=None, seed=0, scale=0.7, **kwargs):
  """A module, and random parameters that make its conditionals far from constant."""
  module = RNADE(num, hidden_sizes, head or MixtureOfGaussians(2, min_scale=0.1), **kwargs)
  context = {'context': jnp.zeros((1,), int)} if module.context_size else {}
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, num)), **context))['params']
  leaves, tree = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
  return module, jax.tree.unflatten(tree, drawn)


def call(module, params, method, *args, **kwargs):
  return jax.jit(lambda params: module.apply({'params': params}, *args, method=method, **kwargs))(params)


def parts(module, outputs):
  """Weights, locations and scales from raw outputs, in float64."""
  log_weights, locations, log_scales = np.split(np.asarray(outputs, np.float64), 3, axis=-1)
  weights = np.exp(log_weights - logsumexp(log_weights, axis=-1, keepdims=True))
  return weights, locations, np.exp(log_scales) + module.head.min_scale


def written_out(module, params, x):
  """log p(x) of one example, each pre-activation summed anew from all earlier dimensions."""
  p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
  total = 0.0
  for place, d in enumerate(module.order):
    activation = p['hidden_bias'] + sum(x[e] * p['kernel'][e] for e in module.order[:place])
    hidden = np.maximum(p['rescaling'][place] * activation, 0)
    for i in range(1, len(module.hidden_sizes)):
      hidden = np.maximum(hidden @ p[f'kernel_{i}'] + p[f'bias_{i}'], 0)
    weights, locations, scales = parts(module, hidden @ p['output_kernel'][d] + p['output_bias'][d])
    total += np.log((weights * DENSITIES[type(module.head)].pdf(x[d], locations, scales)).sum())
  return total


@pytest.mark.parametrize('head', DENSITIES)
@pytest.mark.parametrize(('hidden_sizes', 'ordering'), [((8,), None), ((6, 5, 4), (2, 0, 3, 1))])
def test_the_recursion_equals_the_formula(hidden_sizes, ordering, head):
  module, params = make(4, hidden_sizes, head(3, min_scale=0.1), ordering=ordering)
  x = np.asarray(jax.random.normal(jax.random.key(1), (6, 4)))
  expected = [written_out(module, params, one.astype(np.float64)) for one in x]
  np.testing.assert_allclose(call(module, params, 'log_prob', x), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize('head', DENSITIES)
def test_the_density_integrates_to_one(head):
  """By the midpoint rule over the second dimension, on [-60, 60] for five values of the first, and over the first."""
  module, params = make(2, head=head(2, min_scale=0.5), scale=0.3)
  side = np.linspace(-60, 60, 24_001)
  width = side[1] - side[0]
  x = np.stack(np.meshgrid([-2.0, -0.5, 0.0, 1.0, 3.0], side, indexing='ij'), -1)
  joint = np.exp(np.asarray(call(module, params, 'log_prob', x), np.float64)).sum(1) * width
  outputs = call(module, params, 'conditionals', x[:, 0])[:, 0]
  first = np.exp(np.asarray(module.head.log_prob(outputs, jnp.asarray(x[:, 0, 0])), np.float64))
  np.testing.assert_allclose(joint, first, rtol=1e-4)
  np.testing.assert_allclose(np.exp(module.head.log_prob(outputs[:1], jnp.asarray(side))).sum() * width, 1, rtol=1e-4)


@pytest.mark.parametrize('hidden_sizes', [(12,), (12, 12)])
def test_a_conditional_sees_exactly_the_earlier_dimensions_in_every_ordering(hidden_sizes):
  x = jax.random.normal(jax.random.key(2), (4,))
  for ordering in [*itertools.permutations(range(4))][::7]:
    module, params = make(4, hidden_sizes, ordering=ordering)
    outputs = lambda x, module=module, params=params: module.apply({'params': params}, x, method='conditionals')
    dependence = np.abs(jax.jacrev(outputs)(x)).max(1)
    place = np.argsort(ordering)
    np.testing.assert_array_equal(dependence > 0, place[None, :] < place[:, None])


def uniforms(module, params, x):
  """F(x_d | x_<d): independent and uniform where x has the distribution of the model."""
  weights, locations, scales = parts(module, call(module, params, 'conditionals', x))
  cdf = DENSITIES[type(module.head)].cdf(np.asarray(x, np.float64)[..., None], locations, scales)
  return (weights * cdf).sum(-1)


def assert_uniform(u):
  """Mean, variance and correlations of independent uniforms, within 4.5 standard errors, and the law by Kolmogorov."""
  num = len(u)
  assert (np.abs(u.mean(0) - 1 / 2) < 4.5 / np.sqrt(12 * num)).all()
  assert (np.abs(u.var(0) - 1 / 12) < 4.5 / np.sqrt(180 * num)).all()
  correlation = np.corrcoef(u.T) - np.eye(u.shape[1])
  assert (np.abs(correlation) < 4.5 / np.sqrt(num)).all()
  assert all(stats.kstest(column, 'uniform').pvalue > 1e-5 for column in u.T)


@pytest.mark.parametrize('head', DENSITIES)
def test_the_sampler_draws_from_the_conditionals(head):
  module, params = make(3, (6, 5), head(2, min_scale=0.1), scale=0.4, ordering=(2, 0, 1))
  x = call(module, params, 'sample', jax.random.key(3), 20_000)
  assert x.shape == (20_000, 3)
  assert_uniform(uniforms(module, params, x))


def test_a_completion_keeps_what_is_observed_and_draws_the_rest():
  module, params = make(3, ordering=(2, 0, 1))
  x = jnp.broadcast_to(jnp.array([9.0, -9.0, 0.7]), (20_000, 3))
  observed = np.array([False, False, True])
  filled = call(module, params, 'complete', jax.random.key(4), x, observed)
  assert (filled[:, 2] == 0.7).all()
  assert_uniform(uniforms(module, params, filled)[:, :2])
  other = call(module, params, 'complete', jax.random.key(4), x.at[:, :2].set(5.0), observed)
  np.testing.assert_array_equal(filled, other)
  with pytest.raises(ValueError, match=r'observed=\[0\] does not come first in the ordering \[2, 0, 1\]'):
    module.apply({'params': params}, jax.random.key(4), x, np.array([True, False, False]), method='complete')


def test_a_context_shifts_the_first_pre_activation():
  module, params = make(3, context_size=2)
  x = jax.random.normal(jax.random.key(5), (4, 3))
  found = call(module, params, 'log_prob', x, context=jnp.array([0, 1, 1, 0]))
  for label, rows in ((0, [0, 3]), (1, [1, 2])):
    plain = {name: leaf for name, leaf in params.items() if name != 'context_kernel'}
    plain['hidden_bias'] = params['hidden_bias'] + params['context_kernel'][label]
    np.testing.assert_allclose(
      found[jnp.array(rows)], call(make(3)[0], plain, 'log_prob', x[jnp.array(rows)]), rtol=1e-5
    )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'num_dimensions': 0}, 'num_dimensions=0'),
    ({'num_dimensions': 2, 'hidden_sizes': ()}, r'hidden_sizes=\(\)'),
    ({'num_dimensions': 2, 'hidden_sizes': (4, 0)}, r'hidden_sizes=\(4, 0\)'),
    ({'num_dimensions': 2, 'ordering': (0, 0)}, 'no permutation'),
  ],
)
def test_bad_settings_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    RNADE(**arguments)


def test_bad_examples_are_refused():
  module, params = make(3)
  with pytest.raises(ValueError, match='num_dimensions=3'):
    module.apply({'params': params}, jnp.zeros((5, 2)), method='log_prob')
  with pytest.raises(ValueError, match='observed has shape'):
    module.apply({'params': params}, jax.random.key(0), jnp.zeros((5, 3)), np.ones(2, bool), method='complete')
