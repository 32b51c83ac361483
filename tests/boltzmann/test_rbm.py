"""The restricted machine against enumeration and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.base import Batch, pure
from gm_jax.boltzmann.rbm import RBM, as_model, data_init
from gm_jax.boltzmann.visible import CategoricalRBM, GaussianRBM
from tests.boltzmann.enumeration import binary_joint, float64, log_sum_exp, random_params, states, total_variation

PARAMS = random_params(jax.random.key(0), 6, 3)
MACHINE = RBM(6, 3, burn_in=100)
VISIBLE = jnp.asarray(states(6), jnp.float32)
JOINT, LOG_Z = binary_joint(PARAMS)


def call(machine, params, method, *args, **kwargs):
  return machine.apply({'params': params}, *args, method=method, **kwargs)


@pytest.mark.parametrize(('num_visible', 'num_hidden'), [(6, 3), (3, 6)])
def test_binary_machine_equals_its_table(num_visible, num_hidden):
  params = random_params(jax.random.key(1), num_visible, num_hidden)
  machine = RBM(num_visible, num_hidden)
  joint, log_z = binary_joint(params)
  v, h = jnp.asarray(states(num_visible), jnp.float32), jnp.asarray(states(num_hidden), jnp.float32)
  np.testing.assert_allclose(call(machine, params, 'log_partition'), log_z, rtol=2e-6)
  np.testing.assert_allclose(call(machine, params, 'log_prob', v), np.log(joint.sum(1)), atol=2e-5)
  energy = call(machine, params, 'joint_energy', v[:, None], h[None])
  np.testing.assert_allclose(energy, -np.log(joint) - log_z, atol=2e-5)
  hidden_mean = joint @ states(num_hidden) / joint.sum(1, keepdims=True)
  np.testing.assert_allclose(call(machine, params, 'encode', v), hidden_mean, atol=2e-6)
  visible_mean = joint.T @ states(num_visible) / joint.sum(0)[:, None]
  np.testing.assert_allclose(call(machine, params, 'decode', h), visible_mean, atol=2e-6)


def test_closed_forms():
  p = float64(PARAMS)
  independent = {**PARAMS, 'kernel': jnp.zeros((6, 3))}
  expected = np.logaddexp(0, p['visible_bias']).sum() + np.logaddexp(0, p['hidden_bias']).sum()
  np.testing.assert_allclose(call(MACHINE, independent, 'log_partition'), expected, rtol=1e-6)
  single = {**PARAMS, 'kernel': PARAMS['kernel'][:, :1], 'hidden_bias': PARAMS['hidden_bias'][:1]}
  off = np.logaddexp(0, p['visible_bias']).sum()
  on = p['hidden_bias'][0] + np.logaddexp(0, p['visible_bias'] + p['kernel'][:, 0]).sum()
  np.testing.assert_allclose(call(RBM(6, 1), single, 'log_partition'), np.logaddexp(off, on), rtol=1e-6)


def test_spins_are_bits():
  """With v = (1 + s) / 2 and h = (1 + t) / 2 the couplings of spins are W / 4."""
  p = float64(PARAMS)
  s, t = 2 * states(6) - 1, 2 * states(3) - 1
  fields = p['visible_bias'] / 2 + p['kernel'].sum(1) / 4, p['hidden_bias'] / 2 + p['kernel'].sum(0) / 4
  score = (s @ fields[0])[:, None] + t @ fields[1] + s @ (p['kernel'] / 4) @ t.T
  log_p = np.array([log_sum_exp(row) for row in score]) - log_sum_exp(score.ravel())
  np.testing.assert_allclose(call(MACHINE, PARAMS, 'log_prob', VISIBLE), log_p, atol=2e-5)


def test_categorical_machine_equals_its_table():
  machine = CategoricalRBM(num_visible=3, num_hidden=2, num_states=3)
  keys = jax.random.split(jax.random.key(2), 3)
  params = {
    'kernel': jax.random.normal(keys[0], (9, 2)),
    'visible_bias': jax.random.normal(keys[1], (3, 3)),
    'hidden_bias': jax.random.normal(keys[2], (2,)),
  }
  p, v, h = float64(params), states(3, 3), states(2)
  kernel = p['kernel'].reshape(3, 3, 2)
  score = np.zeros((27, 4))
  for a, row in enumerate(v.astype(int)):
    for b, hidden in enumerate(h):
      score[a, b] = sum(p['visible_bias'][i, k] + kernel[i, k] @ hidden for i, k in enumerate(row))
      score[a, b] += p['hidden_bias'] @ hidden
  joint = np.exp(score - log_sum_exp(score.ravel()))
  x = jnp.asarray(v, jnp.int32)
  np.testing.assert_allclose(call(machine, params, 'log_prob', x), np.log(joint.sum(1)), atol=1e-5)
  wide = CategoricalRBM(num_visible=3, num_hidden=6, num_states=3)  # now the visible side is the smaller one
  wide_params = {**params, 'kernel': jnp.tile(params['kernel'], 3), 'hidden_bias': jnp.tile(params['hidden_bias'], 3)}
  np.testing.assert_allclose(jnp.exp(call(wide, wide_params, 'log_prob', x)).sum(), 1, rtol=1e-5)
  one_hot = np.eye(3)[v.astype(int)]
  mean = np.einsum('ab,aik->bik', joint, one_hot) / joint.sum(0)[:, None, None]
  np.testing.assert_allclose(call(machine, params, 'decode', jnp.asarray(h, jnp.float32)), mean, atol=2e-6)
  np.testing.assert_allclose(
    call(machine, params, 'pseudo_log_prob', x), pseudo_log_prob(np.log(joint.sum(1)), v, 3), atol=2e-5
  )
  samples = jax.jit(lambda key: call(machine.clone(burn_in=60), params, 'sample', key, 4000))(jax.random.key(3))
  distance, allowed = total_variation(samples, joint.sum(1), 3)
  assert distance < allowed
  assert samples.dtype == jnp.int32


def test_gaussian_machine_is_a_mixture_of_gaussians():
  machine = GaussianRBM(num_visible=2, num_hidden=3, burn_in=50)
  keys = jax.random.split(jax.random.key(4), 4)
  params = {
    'kernel': jax.random.normal(keys[0], (2, 3)),
    'visible_bias': jax.random.normal(keys[1], (2,)),
    'hidden_bias': jax.random.normal(keys[2], (3,)),
    'log_variance': 0.5 * jax.random.normal(keys[3], (2,)),
  }
  p, h = float64(params), states(3)
  variance, mean = np.exp(p['log_variance']), p['visible_bias'] + h @ p['kernel'].T
  log_weight = h @ p['hidden_bias'] + (mean**2 / (2 * variance)).sum(1)
  log_weight = log_weight - log_sum_exp(log_weight)
  x = np.array([[0.3, -1.2], [2.0, 0.5], [-3.0, 1.0]])
  density = -0.5 * ((x[:, None] - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1) + log_weight
  expected = [log_sum_exp(row) for row in density]
  np.testing.assert_allclose(call(machine, params, 'log_prob', jnp.asarray(x, jnp.float32)), expected, atol=1e-5)
  axis = jnp.linspace(-12, 12, 400)
  grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
  integral = jnp.exp(call(machine, params, 'log_prob', grid)).sum() * (axis[1] - axis[0]) ** 2
  np.testing.assert_allclose(integral, 1, rtol=1e-5)
  samples = np.asarray(jax.jit(lambda key: call(machine, params, 'sample', key, 4000))(jax.random.key(5)), np.float64)
  weight = np.exp(log_weight)[:, None]
  exact_mean = (weight * mean).sum(0)
  exact_var = (weight * (mean**2 + variance)).sum(0) - exact_mean**2
  assert np.all(np.abs(samples.mean(0) - exact_mean) < 4 * np.sqrt(exact_var / len(samples)))
  spread = (samples - exact_mean) ** 2
  assert np.all(np.abs(spread.mean(0) - exact_var) < 4 * spread.std(0) / math.sqrt(len(samples)))


def pseudo_log_prob(log_p, v, num_states):
  """sum_i log p(v_i | the others) from a table of log p over ``states``."""
  lookup = {tuple(row): value for row, value in zip(v.astype(int), log_p, strict=True)}
  out = []
  for row in v.astype(int):
    terms = [[lookup[(*row[:i], k, *row[i + 1 :])] for k in range(num_states)] for i in range(len(row))]
    out.append(sum(lookup[tuple(row)] - log_sum_exp(np.array(term)) for term in terms))
  return np.array(out)


def test_pseudo_likelihood():
  expected = pseudo_log_prob(np.log(JOINT.sum(1)), states(6), 2)
  np.testing.assert_allclose(call(MACHINE, PARAMS, 'pseudo_log_prob', VISIBLE), expected, atol=2e-5)
  keys = jax.random.split(jax.random.key(6), 2000)
  draws = jax.jit(jax.vmap(lambda key: call(MACHINE, PARAMS, 'pseudo_log_prob_estimate', key, VISIBLE)))(keys)
  z = (draws.mean(0) - expected) / (draws.std(0) / math.sqrt(2000))
  assert np.abs(z).max() < 4.5  # 64 of them
  machine = GaussianRBM(2, 3)
  params = machine.init(jax.random.key(0), jnp.zeros((1, 2)))['params']
  with pytest.raises(ValueError, match='continuum'):
    call(machine, params, 'pseudo_log_prob', jnp.zeros((1, 2)))


def test_samples_follow_the_distribution():
  samples = jax.jit(lambda key: call(MACHINE, PARAMS, 'sample', key, 20_000))(jax.random.key(7))
  distance, allowed = total_variation(samples, JOINT.sum(1))
  assert distance < allowed


def test_completion_follows_the_conditional():
  observed = jnp.array([True, False, True, False, False, True])
  x = jnp.tile(jnp.array([1.0, 0, 0, 1, 1, 1]), (20_000, 1))
  complete = jax.jit(lambda key, x: call(MACHINE, PARAMS, 'complete', key, x, observed))
  filled = complete(jax.random.key(8), x)
  assert bool(jnp.all(jnp.where(observed, filled == x, True)))
  table = JOINT.sum(1) * np.all(np.where(observed, states(6) == np.asarray(x[0]), True), axis=1)
  distance, allowed = total_variation(filled, table / table.sum())
  assert distance < allowed
  hidden_by_mask = complete(jax.random.key(8), jnp.where(observed, x, 9.0))  # what is not observed does not matter
  assert bool(jnp.all(hidden_by_mask == filled))


def test_biases_start_from_the_marginals():
  x = jnp.array([[1.0, 0, 1], [1, 0, 0], [1, 0, 1]])
  params = data_init(RBM(3, 2), x)(jax.random.key(0), Batch(x[:1]))
  np.testing.assert_allclose(jax.nn.sigmoid(params['visible_bias']), [4 / 5, 1 / 5, 3 / 5], rtol=1e-6)
  other = data_init(RBM(3, 2))(jax.random.key(0), Batch(x))
  np.testing.assert_array_equal(other['visible_bias'], params['visible_bias'])
  gaussian = GaussianRBM(3, 2).marginals(x)
  np.testing.assert_allclose(gaussian['visible_bias'], x.mean(0), rtol=1e-6)
  np.testing.assert_allclose(jnp.exp(gaussian['log_variance']), x.var(0) + 1e-6, rtol=1e-4)
  states_of = CategoricalRBM(3, 2, num_states=3).marginals(x)['visible_bias']
  np.testing.assert_allclose(jax.nn.softmax(states_of)[0], [1 / 6, 4 / 6, 1 / 6], rtol=1e-5)


def test_leading_axes_and_capabilities():
  model = pure(MACHINE)
  x = VISIBLE[:12].reshape(3, 4, 6)
  assert model.log_prob(PARAMS, x).shape == model.energy(PARAMS, x).shape == (3, 4)
  assert model.encode(PARAMS, x).shape == (3, 4, 3)
  assert model.complete(PARAMS, jax.random.key(0), x, jnp.ones(6, bool)).shape == x.shape
  np.testing.assert_allclose(
    call(MACHINE, PARAMS, 'reconstruct', x), model.decode(PARAMS, model.encode(PARAMS, x)), rtol=1e-6
  )
  assert model.bound is None
  assert as_model(MACHINE).log_prob is not None
  assert as_model(RBM(30, 21)).log_prob is None
  assert as_model(RBM(20, 100)).log_prob is not None
  assert as_model(GaussianRBM(3, 21)).log_prob is None


def test_bad_arguments():
  with pytest.raises(ValueError, match='num_hidden=0'):
    RBM(3, 0)
  with pytest.raises(ValueError, match='num_states=1'):
    CategoricalRBM(3, 2, num_states=1)
  with pytest.raises(ValueError, match='num_visible=6'):
    call(MACHINE, PARAMS, 'energy', jnp.zeros((2, 28, 28)))
  with pytest.raises(ValueError, match='context'):
    call(MACHINE, PARAMS, 'log_prob', VISIBLE, context=jnp.zeros((64, 1)))
  big = RBM(30, 21)
  params = big.init(jax.random.key(0), jnp.zeros((1, 30)))['params']
  with pytest.raises(ValueError, match=r'2\^21 states'):
    call(big, params, 'log_prob', jnp.zeros((1, 30)))
