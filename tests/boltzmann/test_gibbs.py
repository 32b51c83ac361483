"""Gibbs sampling and tempering against enumeration."""

import jax
import jax.numpy as jnp
import pytest

from gm_jax.base import bind
from gm_jax.boltzmann import gibbs, partition, tempering
from gm_jax.boltzmann.rbm import RBM
from tests.boltzmann.enumeration import binary_joint, random_params, states, total_variation

PARAMS = random_params(jax.random.key(0), 6, 3)
MACHINE = RBM(6, 3)
TABLE = binary_joint(PARAMS)[0].sum(1)
HIDDEN, VISIBLE = (bind(MACHINE, name) for name in ('sample_hidden', 'sample_visible'))


def draws(params):
  return (lambda key, v: HIDDEN(params, key, v)), (lambda key, h: VISIBLE(params, key, h))


def exact_samples(params, key, num):
  table = binary_joint(params)[0].sum(1)
  index = jax.random.choice(key, len(table), (num,), p=jnp.asarray(table))
  return jnp.asarray(states(params['kernel'].shape[0]), jnp.float32)[index]


def test_long_chains_reach_the_distribution():
  run = jax.jit(lambda key, v: gibbs.block_gibbs(*draws(PARAMS), key, v, 100))
  distance, allowed = total_variation(run(jax.random.key(1), jnp.zeros((20_000, 6))), TABLE)
  assert distance < allowed


def test_one_sweep_keeps_the_distribution_and_a_mean_field_sweep_does_not():
  start = exact_samples(PARAMS, jax.random.key(2), 20_000)
  hidden, visible = draws(PARAMS)
  step = jax.jit(lambda key, v: gibbs.sweep(hidden, visible, key, v))
  distance, allowed = total_variation(step(jax.random.key(3), start), TABLE)
  assert distance < allowed
  mean_field = jax.jit(
    lambda key, v: gibbs.sweep(lambda key, v: bind(MACHINE, 'hidden_mean')(PARAMS, v), visible, key, v)
  )
  distance, allowed = total_variation(mean_field(jax.random.key(3), start), TABLE)
  assert distance > allowed


def test_trace_and_clamping():
  observed = jnp.array([True, False, True, False, False, False])
  start = jnp.ones((5, 6))
  run = jax.jit(lambda key: gibbs.block_gibbs_trace(*draws(PARAMS), key, start, 7, 3, observed=observed))
  trace = run(jax.random.key(4))
  assert trace.shape == (7, 5, 6)
  assert bool(jnp.all(trace[:, :, observed] == 1))
  assert 0 < float(trace[:, :, ~observed].mean()) < 1
  with pytest.raises(ValueError, match='num_steps=-1'):
    gibbs.block_gibbs(*draws(PARAMS), jax.random.key(0), start, -1)


def test_tempering_keeps_every_temperature_distributed_as_it_was():
  betas, base = tempering.ladder(3), jnp.array([0.3, -0.5, 0.0, 1.0, 0.0, -1.0])
  path = partition.annealed_path(MACHINE, PARAMS, base)
  mixed = [
    {
      'kernel': beta * PARAMS['kernel'],
      'hidden_bias': beta * PARAMS['hidden_bias'],
      'visible_bias': beta * PARAMS['visible_bias'] + (1 - beta) * base,
    }
    for beta in betas
  ]
  keys = jax.random.split(jax.random.key(5), 3)
  start = jnp.stack([exact_samples(p, key, 20_000) for p, key in zip(mixed, keys, strict=True)], axis=1)
  run = jax.jit(lambda key, v: tempering.parallel_tempering(path, betas, key, v, 3))
  state, rates = run(jax.random.key(6), start)
  assert rates.shape == (2,)
  assert bool(jnp.all((rates > 0.2) & (rates < 1)))
  for i, p in enumerate(mixed):
    distance, allowed = total_variation(path.visible(state)[:, i], binary_joint(p)[0].sum(1))
    assert distance < allowed
  always = path._replace(gap=lambda state, low, high: jnp.zeros(state.v.shape[:-1]))  # swaps without looking
  state, _ = jax.jit(lambda key, v: tempering.parallel_tempering(always, betas, key, v, 3))(jax.random.key(6), start)
  distance, allowed = total_variation(path.visible(state)[:, 2], TABLE)
  assert distance > allowed


def test_tempering_finds_the_weights_of_modes_that_gibbs_never_leaves():
  """All units on or all off: one hidden unit ties ten visible ones together."""
  params = {
    'kernel': jnp.full((10, 1), 8.0),
    'visible_bias': jnp.full((10,), -4.0),
    'hidden_bias': jnp.full((1,), -40.8),
  }
  machine = RBM(10, 1)
  table = binary_joint(params)[0].sum(1)
  exact = table[states(10).mean(1) > 0.5].sum()
  assert 0.2 < exact < 0.4
  start = jnp.ones((400, 10))
  stuck = gibbs.block_gibbs(
    lambda key, v: bind(machine, 'sample_hidden')(params, key, v),
    lambda key, h: bind(machine, 'sample_visible')(params, key, h),
    jax.random.key(7),
    start,
    500,
  )
  assert float((stuck.mean(1) > 0.5).mean()) > 0.95
  path, betas = partition.annealed_path(machine, params, jnp.zeros(10)), tempering.ladder(8)
  ladder = jnp.ones((400, 8, 10))
  state, _ = jax.jit(lambda key, v: tempering.parallel_tempering(path, betas, key, v, 250))(jax.random.key(8), ladder)
  found = float((path.visible(state)[:, -1].mean(1) > 0.5).mean())
  assert abs(found - exact) < 4 * (exact * (1 - exact) / 400) ** 0.5
  fresh = tempering.start(path, jax.random.key(9), 5, 8)
  assert fresh.shape == (5, 8, 10)
  with pytest.raises(ValueError, match='num_temperatures=1'):
    tempering.ladder(1)
