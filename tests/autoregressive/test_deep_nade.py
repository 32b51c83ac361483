"""DeepNADE by enumeration: every ordering, ensemble and conditional is a distribution, and the right one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoregressive import deep_nade
from gm_jax.base import bind
from gm_jax.likelihoods import Categorical, Gaussian
from tests import models

ORDERINGS = ((0, 1, 2, 3, 4, 5), (5, 2, 0, 4, 1, 3), (3, 4, 1, 0, 5, 2))
MODULE = deep_nade.DeepNADE(6, (8, 7), orderings=ORDERINGS)


def parameters(module):
  """Random parameters of which none is zero."""
  context = {'context': jnp.zeros((1, module.context_size))} if module.context_size else {}
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, module.num_dimensions)), **context)['params']
  random = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: jnp.asarray(0.7 * random.standard_normal(leaf.shape), jnp.float32), params)


PARAMS = parameters(MODULE)
log_prob = jax.jit(bind(MODULE, 'log_prob'))
conditional = jax.jit(bind(MODULE, 'conditional_log_prob'))


def joint(ordering, x):
  """p(x | o) from one full pass per dimension: the sum of what each conditional gives."""
  outputs = jax.jit(bind(MODULE, 'conditionals'))(PARAMS, x, ordering=jnp.array(ordering))
  return np.asarray(MODULE.head.log_prob(outputs, x).sum(-1), np.float64)


def test_the_likelihood_of_an_ordering_is_the_sum_of_its_conditionals():
  x = models.bits(6)
  for ordering in ORDERINGS:
    found = log_prob(PARAMS, x, orderings=jnp.array(ordering))
    np.testing.assert_allclose(found, joint(ordering, x), rtol=1e-4, atol=1e-4)


def test_orderings_differ_and_the_ensemble_is_the_mean_of_their_probabilities():
  x = models.bits(6)
  each = np.stack([joint(ordering, x) for ordering in ORDERINGS])
  assert np.abs(each[0] - each[1]).max() > 0.1
  found = np.asarray(log_prob(PARAMS, x), np.float64)
  np.testing.assert_allclose(found, np.log(np.exp(each).mean(0)), rtol=1e-4, atol=1e-4)
  assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)


def test_classes_sum_to_one():
  module = deep_nade.DeepNADE(4, (5,), Categorical(3), orderings=((2, 0, 3, 1), (0, 1, 2, 3)), context_size=2)
  states = np.array(list(itertools.product(range(3), repeat=4)), np.float32)
  context = jnp.broadcast_to(jnp.array([0.3, -1.0]), (81, 2))
  found = jax.jit(bind(module, 'log_prob'))(parameters(module), states, context=context)
  assert np.exp(np.asarray(found, np.float64)).sum() == pytest.approx(1, abs=1e-5)


def masks(num):
  """Disjoint random parts of the dimensions, targets and observed, ``[num, 6]``."""
  part = np.random.default_rng(3).integers(3, size=(num, 6))
  return part == 0, part == 1


@pytest.mark.parametrize('place', range(len(ORDERINGS)))
def test_any_conditional_is_that_of_the_joint_with_the_observed_first(place):
  """p(x_a | x_b) = p(x_a, x_b) / p(x_b), both summed over all states of the joint with ordering b, a, rest."""
  states, x = models.bits(6), models.bits(6)[[37]]
  for target, observed in zip(*masks(6), strict=True):
    given = np.array(ORDERINGS[place])
    ordering = np.concatenate([given[observed[given]], given[target[given]], given[~(observed | target)[given]]])
    p = np.exp(joint(ordering, states))
    agree = lambda part: (states == x)[:, part].all(1)
    expected = np.log(p[agree(target | observed)].sum() / p[agree(observed)].sum())
    found = conditional(PARAMS, x, target, observed, orderings=jnp.array(ORDERINGS[place]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_conditionals_of_an_ensemble_are_means_and_ignore_what_is_outside():
  targets, observed = masks(16)
  x = models.bits(6)[np.random.default_rng(4).integers(64, size=16)]
  each = [conditional(PARAMS, x, targets, observed, orderings=jnp.array(ordering)) for ordering in ORDERINGS]
  found = conditional(PARAMS, x, targets, observed)
  np.testing.assert_allclose(found, np.log(np.exp(each).mean(0)), rtol=1e-4, atol=1e-4)
  changed = np.where(targets | observed, x, 1 - x)
  np.testing.assert_array_equal(conditional(PARAMS, changed, targets, observed), found)
  assert np.asarray(conditional(PARAMS, x, np.zeros(6, bool), observed)) == pytest.approx(0, abs=1e-6)


def test_the_objective_is_the_mean_over_all_orderings():
  module = deep_nade.DeepNADE(4, (6,))
  params, x = parameters(module), jnp.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
  every = jnp.array(list(itertools.permutations(range(4))))
  each = jax.jit(jax.vmap(lambda o: bind(module, 'log_prob')(params, x, orderings=o)))(every)
  draws = jax.vmap(lambda key: bind(module, 'order_agnostic_log_prob')(params, key, x))
  found = np.asarray(jax.jit(draws)(jax.random.split(jax.random.key(5), 20_000)))
  stderr = found.std(0) / np.sqrt(len(found))
  assert (np.abs(found.mean(0) - np.asarray(each).mean(0)) < 4 * stderr).all()
  assert np.ptp(np.asarray(each), axis=0).min() > 10 * stderr.max()  # so that a single ordering would be told apart


def test_completions_have_the_conditional_distribution():
  num, observed = 20_000, np.array([False, True, False, False, True, False])
  x = np.array([0, 1, 0, 0, 0, 0], np.float32)
  complete = jax.jit(lambda key: bind(MODULE, 'complete')(PARAMS, key, jnp.tile(x, (num, 1)), observed))
  found = np.asarray(complete(jax.random.key(6)))
  assert (found[:, observed] == x[observed]).all()
  states = models.bits(6)[(models.bits(6)[:, observed] == x[observed]).all(1)]
  p = np.exp(np.asarray(conditional(PARAMS, states, ~observed, observed), np.float64))
  assert p.sum() == pytest.approx(1, abs=1e-5)
  index = {tuple(state): i for i, state in enumerate(states.tolist())}
  counts = np.bincount([index[tuple(one)] for one in found.tolist()], minlength=len(states))
  # The expected total variation of a perfect sampler, and four times a bound on its standard deviation.
  expected = np.sqrt(p * (1 - p) / num * 2 / np.pi).sum() / 2
  assert np.abs(counts / num - p).sum() / 2 < expected + 4 * np.sqrt(1 / num) / 2


def test_bad_input_is_named():
  with pytest.raises(ValueError, match='no permutation'):
    deep_nade.DeepNADE(3, (2,), orderings=((0, 2, 2),))
  with pytest.raises(ValueError, match='hidden_sizes='):
    deep_nade.DeepNADE(3, ())
  with pytest.raises(ValueError, match='bits or classes'):
    deep_nade.DeepNADE(3, (2,), Gaussian())
  with pytest.raises(ValueError, match='orderings has shape'):
    bind(MODULE, 'log_prob')(PARAMS, jnp.zeros((2, 6)), orderings=jnp.arange(5))
  with pytest.raises(ValueError, match='num_dimensions=6'):
    bind(MODULE, 'log_prob')(PARAMS, jnp.zeros((2, 5)))
