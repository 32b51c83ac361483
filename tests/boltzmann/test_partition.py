"""log Z: enumeration, annealing forwards and backwards, and the known ways of getting annealing wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.boltzmann import partition
from gm_jax.boltzmann.rbm import RBM
from gm_jax.boltzmann.visible import CategoricalRBM, GaussianRBM
from tests.boltzmann.enumeration import float64, log_sum_exp, random_params, states

MACHINE = RBM(30, 16)
PARAMS = {
  **random_params(jax.random.key(0), 30, 16, scale=0.6),
  'visible_bias': 0.3 * jax.random.normal(jax.random.key(1), (30,)),
  'hidden_bias': 0.3 * jax.random.normal(jax.random.key(2), (16,)),
}
BASE = jnp.zeros(30)
PATH = partition.annealed_path(MACHINE, PARAMS, BASE)
NUM_CHAINS, NUM_REPEATS = 100, 400


@pytest.fixture(scope='module')
def truth():
  """log Z in float64, and exact samples ``[NUM_REPEATS * NUM_CHAINS, 30]``."""
  p, h = float64(PARAMS), states(16)
  score = h @ p['hidden_bias'] + np.logaddexp(0, h @ p['kernel'].T + p['visible_bias']).sum(1)
  log_z = log_sum_exp(score)
  index = np.random.default_rng(3).choice(len(h), NUM_REPEATS * NUM_CHAINS, p=np.exp(score - log_z))
  hidden = jnp.asarray(h[index], jnp.float32)
  return log_z, MACHINE.apply({'params': PARAMS}, jax.random.key(3), hidden, method='sample_visible')


def log_mean(log_weights):
  """The log of the mean of exp, and its standard error by the delta method."""
  log_weights = np.asarray(log_weights, np.float64).ravel()
  weights = np.exp(log_weights - log_weights.max())
  error = weights.std(ddof=1) / weights.mean() / math.sqrt(len(weights))
  return log_weights.max() + math.log(weights.mean()), error


def walk(path, num_steps, visible=None):
  """Log-weights ``[NUM_REPEATS, NUM_CHAINS]``, forwards or, from samples, backwards."""
  betas = partition.temperatures(num_steps)
  num = NUM_REPEATS * NUM_CHAINS
  start = path.start(jax.random.key(4), num) if visible is None else path.place(visible)
  betas = betas if visible is None else betas[::-1]
  run = jax.jit(lambda key, state: partition.anneal(path, betas, key, state)[0])
  return run(jax.random.key(5), start).reshape(NUM_REPEATS, NUM_CHAINS)


def test_exact_log_z(truth):
  log_z = MACHINE.apply({'params': PARAMS}, method='log_partition')
  np.testing.assert_allclose(log_z, truth[0], rtol=3e-7)


@pytest.mark.parametrize(('num_sites', 'num_states'), [(3, 2), (13, 2), (9, 3), (1, 5)])
def test_sum_over_states(num_sites, num_states):
  """Independent sites, so that the sum is a product; sizes that are no multiple of a chunk among them."""
  fields = jnp.linspace(-1.0, 2.0, num_sites)
  total = partition.log_sum_over_states(lambda s: s @ fields, num_sites, num_states)
  expected = sum(log_sum_exp(np.arange(num_states) * field) for field in np.asarray(fields, np.float64))
  np.testing.assert_allclose(total, expected, rtol=2e-6)
  gradient = jax.grad(lambda f: partition.log_sum_over_states(lambda s: s @ f, num_sites, num_states))(fields)
  weights = np.exp(np.arange(num_states) * np.asarray(fields, np.float64)[:, None])
  np.testing.assert_allclose(gradient, (weights @ np.arange(num_states)) / weights.sum(1), rtol=2e-5)


def test_too_many_states():
  with pytest.raises(ValueError, match=r'3\^13 states'):
    partition.log_sum_over_states(lambda s: s.sum(-1), 13, 3)


@pytest.mark.parametrize('num_steps', [5, *(pytest.param(num, marks=pytest.mark.slow) for num in (20, 100))])
def test_both_walks_are_unbiased_and_bracket(truth, num_steps):
  log_z, samples = truth
  forward = np.asarray(walk(PATH, num_steps)) + float(PATH.log_z)
  backward = np.asarray(walk(PATH, num_steps, samples)) - float(PATH.log_z)
  for log_weights, expected in ((forward, log_z), (backward, -log_z)):
    estimate, error = log_mean(log_weights)
    assert abs(estimate - expected) < 4 * error
    assert error < 0.05
  low = np.array([log_mean(row)[0] for row in forward])
  high = -np.array([log_mean(row)[0] for row in backward])
  assert low.mean() < log_z + 4 * low.std() / math.sqrt(NUM_REPEATS)
  assert high.mean() > log_z - 4 * high.std() / math.sqrt(NUM_REPEATS)
  if num_steps == 5:  # where annealing is coarse, Jensen's gap stands out
    assert low.mean() < log_z - 4 * low.std() / math.sqrt(NUM_REPEATS)
    assert high.mean() > log_z + 4 * high.std() / math.sqrt(NUM_REPEATS)


def moved_before_weighted(path):
  """The path whose weight belongs to the state after the move."""

  def run(key, state, betas):
    def step(carry, inputs):
      log_weight, state = carry
      now, after, key = inputs
      state = path.move(key, state, after)
      return (log_weight + path.gap(state, now, after), state), None

    keys = jax.random.split(key, len(betas) - 1)
    start = (jnp.zeros(len(state.v)), state)
    return jax.lax.scan(step, start, (betas[:-1], betas[1:], keys))[0][0]

  state = path.start(jax.random.key(4), NUM_REPEATS * NUM_CHAINS)
  return jax.jit(run)(jax.random.key(5), state, partition.temperatures(5))


def means_in_the_bias_term(path):
  """The path whose contrast is taken at the visible means given v's hidden units, not at v."""

  def blur(state):
    hidden = jax.nn.sigmoid(state.logits)
    return state._replace(contrast=jax.nn.sigmoid(hidden @ PARAMS['kernel'].T) @ (PARAMS['visible_bias'] - BASE))

  return walk(path._replace(move=lambda key, state, beta: blur(path.move(key, state, beta))), 5)


def test_planted_bugs_are_far_outside_the_tolerance(truth):
  """What reviews found in published annealing code would not pass the test above."""
  log_z, samples = truth
  for log_weights in (moved_before_weighted(PATH), means_in_the_bias_term(PATH)):
    estimate, error = log_mean(log_weights)
    assert abs(estimate + float(PATH.log_z) - log_z) > 6 * error
  backward = walk(PATH, 5, samples)
  averaged_w = float(PATH.log_z) + log_mean(-np.asarray(backward))[0]  # where the mean of 1 / w is due
  assert averaged_w - log_z > 1


def test_estimates_and_bracket(truth):
  log_z, samples = truth
  betas = partition.temperatures(300)
  both = jax.jit(lambda key: partition.forward_and_reverse(PATH, betas, key, 200, 100))
  forward, reverse = both(jax.random.key(6))
  given = jax.jit(lambda key, v: partition.forward_and_reverse(PATH, betas, key, 200, 0, v))
  from_samples = given(jax.random.key(7), samples[:200])[1]
  single = jax.jit(lambda key: partition.ais(PATH, betas, key, 200))(jax.random.key(8))
  for estimate in (forward, reverse, from_samples, single):
    error = log_mean(estimate.log_weights)[1]
    assert abs(estimate.log_z - log_z) < 4 * error
    assert estimate.lower < estimate.log_z < estimate.upper
    np.testing.assert_allclose(estimate.upper - estimate.lower, 2 * 1.96 * error, rtol=0.3)
    assert 1 < estimate.effective_sample_size <= 200
  bracket = partition.bracket(jnp.float32(10.0), forward, reverse)
  assert bracket.lower < -10 - log_z < bracket.upper
  assert bool(bracket.closed)
  assert not bool(partition.bracket(jnp.float32(10.0), forward, reverse._replace(upper=forward.lower + 1.1)).closed)
  with pytest.raises(ValueError, match='num_chains=1'):
    partition.ais(PATH, betas, jax.random.key(0), 1)


def test_many_temperatures_add_no_rounding():
  """Without couplings every chain's weight is known, whatever the number of steps."""
  params = {**PARAMS, 'kernel': jnp.zeros((30, 16)), 'visible_bias': BASE, 'hidden_bias': 3 * PARAMS['hidden_bias']}
  path = partition.annealed_path(MACHINE, params, BASE)
  betas = partition.temperatures('salakhutdinov')
  estimate = jax.jit(lambda key: partition.ais(path, betas, key, 2))(jax.random.key(9))
  expected = 30 * math.log(2) + np.logaddexp(0, float64(params)['hidden_bias']).sum()
  np.testing.assert_allclose(estimate.log_z, expected, atol=2e-4)


def test_schedules():
  betas = np.asarray(partition.temperatures('salakhutdinov'))
  assert len(betas) == 14_501
  assert betas[0] == 0
  assert betas[-1] == 1
  np.testing.assert_allclose(betas[[500, 4500]], [0.5, 0.9], rtol=1e-6)
  assert np.all(np.diff(betas) > 0)
  np.testing.assert_allclose(partition.temperatures(4), [0, 0.25, 0.5, 0.75, 1])
  with pytest.raises(ValueError, match="schedule='linear'"):
    partition.temperatures('linear')
  with pytest.raises(ValueError, match='schedule=0'):
    partition.temperatures(0)


@pytest.mark.parametrize('kind', ['gaussian', 'categorical'])
def test_other_visible_units_anneal(kind):
  if kind == 'gaussian':
    machine, x = GaussianRBM(4, 3, kernel_scale=1.0), 1 + 2 * jax.random.normal(jax.random.key(0), (50, 4))
  else:
    machine = CategoricalRBM(4, 3, num_states=3, kernel_scale=1.0)
    x = jax.random.randint(jax.random.key(0), (50, 4), 0, 3)
  params = machine.init(jax.random.key(10), x)['params']
  if kind == 'gaussian':
    params = {**params, 'log_variance': jnp.linspace(-0.5, 0.5, 4)}
  base = partition.base_natural(machine, params, x)
  path = partition.annealed_path(machine, params, base)
  exact = machine.apply({'params': params}, method='log_partition')
  both = jax.jit(lambda key: partition.forward_and_reverse(path, partition.temperatures(100), key, 1000, 100))
  for estimate in both(jax.random.key(11)):
    assert abs(estimate.log_z - exact) < 4 * log_mean(estimate.log_weights)[1]
    assert estimate.effective_sample_size > 100
