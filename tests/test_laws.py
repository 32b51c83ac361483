"""The laws that every model keeps, over the table of models."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.training import checkpoint
from tests import models

ROWS = {row.name: row for row in models.rows()}


def every(condition, *, variants=True):
  """Runs a law over all rows that it applies to, some of them only in ``make test-slow``.

  Where ``variants`` is false, the law is about the machinery and not about the mathematics of a model: further rows of
  one, named behind a comma, wait. Else only rows wait that have the very model of an earlier one, and learn otherwise.
  """
  rows, models_so_far = [], []
  for name, row in ROWS.items():
    if condition(row):
      wait = any(row.model is model for model in models_so_far) if variants else ',' in name
      rows.append(pytest.param(name, marks=pytest.mark.slow if wait else ()))
      models_so_far.append(row.model)
  return pytest.mark.parametrize('name', rows)


every_learner = every(lambda row: row.make, variants=False)
every_density = every(lambda row: row.log_prob)
every_small_density = every(lambda row: row.log_prob and (row.states is not None or row.grid))
every_bound = every(lambda row: row.model.bound and row.log_prob)
every_autoregressive_model = every(lambda row: row.conditionals)
every_flow = every(lambda row: row.bijector)


class Compiled(NamedTuple):
  """Init and step of a row, compiled once for all laws, and as many entries as the step was traced times."""

  init: Callable
  step: Callable
  traces: list


@functools.cache
def compiled(name):
  algorithm, traces = ROWS[name].make(None), []

  def step(key, state, batch):
    traces.append(key)
    return algorithm.step(key, state, batch)

  return Compiled(jax.jit(algorithm.init), jax.jit(step), traces)


@functools.cache
def trained(name):
  """The row, the first state, the state after its steps, and the metrics of each step."""
  row, (init, step, _) = ROWS[name], compiled(name)
  first = last = init(jax.random.key(0), row.batch)
  metrics = []
  for key in jax.random.split(jax.random.key(1), row.num_steps):
    last, found = step(key, last, row.batch)
    metrics.append(found)
  return row, first, last, metrics


@functools.cache
def fitted(name):
  """The row, and what its model takes as params: after learning, or in closed form."""
  row = ROWS[name]
  return row, trained(name)[2].variables if row.make else row.model.init(jax.random.key(0), row.batch)


def assert_same(one, other, **tolerance):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def condition(row, num, index=0):
  """Keyword arguments that condition ``num`` examples on the context of one of the row's examples, if it has any."""
  if row.batch.context is None:
    return {}
  one = row.batch.context[index]
  return {'context': jnp.broadcast_to(one, (num, *one.shape))}


def log_prob(row, params, x, **kwargs):
  return np.asarray(jax.jit(row.log_prob)(params, jnp.asarray(x), **(kwargs or condition(row, len(x)))), np.float64)


def own_context(row, num=None):
  """Keyword arguments that give each of the first examples of the row its own context."""
  return {} if row.batch.context is None else {'context': jnp.asarray(row.batch.context[:num])}


@every_learner
def test_init_is_a_function_of_its_key(name):
  row, first, *_ = trained(name)
  assert_same(first, compiled(name).init(jax.random.key(0), row.batch), rtol=0)
  other = compiled(name).init(jax.random.key(2), row.batch)
  changed = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, other.params)), strict=True)]
  assert any(changed)


@every_learner
def test_a_step_keeps_structure_shapes_and_types_and_is_traced_once(name):
  row, first, last, _ = trained(name)
  form = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)
  assert form(first) == form(last)
  assert [int(state.step) for state in (first, last)] == [0, row.num_steps]
  assert len(compiled(name).traces) == 1


@every_learner
def test_numbers_are_finite_and_no_parameter_is_dead(name):
  row, first, last, metrics = trained(name)
  for leaf in jax.tree.leaves((last, metrics)):
    assert np.isfinite(leaf).all()
  before, after = (jax.tree_util.tree_leaves_with_path(state.params) for state in (first, last))
  for (path, old), (_, new) in zip(before, after, strict=True):
    if str(getattr(path[-1], 'name', '')) not in row.fixed:
      assert np.abs(np.asarray(new) - np.asarray(old)).max() > 1e-6, jax.tree_util.keystr(path)


@every(lambda row: row.make and row.log_prob, variants=False)
def test_the_data_become_more_probable(name):
  row, first, last, _ = trained(name)
  context = own_context(row)
  before, after = (log_prob(row, state.variables, row.batch.x, **context).mean() for state in (first, last))
  assert after > before + 0.01


@every_small_density
def test_probabilities_sum_to_one(name):
  row, params = fitted(name)
  if row.states is not None:
    total = np.exp(log_prob(row, params, row.states)).sum()
    assert total == pytest.approx(1, abs=1e-5)
  else:
    points, volume = row.grid
    total = np.exp(log_prob(row, params, points)).sum() * volume
    assert total == pytest.approx(1, abs=1e-4)


@every_bound
def test_a_bound_lies_below_the_truth_in_the_mean(name):
  row, params = fitted(name)
  num, x, context = 2000, jnp.asarray(row.batch.x[:4]), own_context(row, 4)
  bound = jax.vmap(lambda key: row.model.bound(params, key, x, **context))
  found = np.asarray(jax.jit(bound)(jax.random.split(jax.random.key(7), num)), np.float64)
  exact = log_prob(row, params, x, **context)
  assert found.shape == (num, 4)
  assert (found.mean(0) < exact + 4 * found.std(0) / np.sqrt(num) + 1e-5).all()


@every(lambda row: row.log_prob and row.model.sample and (row.states is not None or row.grid))
def test_samples_agree_with_log_prob(name):
  row, params = fitted(name)
  num = 20_000
  sample = jax.jit(row.model.sample, static_argnums=2)
  samples = np.asarray(sample(params, jax.random.key(5), num, **condition(row, num)))
  assert samples.shape == (num, *row.batch.x.shape[1:])
  if row.states is not None:
    index = {tuple(state): i for i, state in enumerate(row.states.tolist())}
    counts = np.bincount([index[tuple(sample)] for sample in samples.tolist()], minlength=len(index))
    p = np.exp(log_prob(row, params, row.states))
    # Each frequency has variance p (1 - p) / n, so this is the expected total variation of a perfect sampler, and its
    # standard deviation is below sqrt(1 / n) / 2 by McDiarmid's inequality.
    expected = np.sqrt(p * (1 - p) / num * 2 / np.pi).sum() / 2
    assert np.abs(counts / num - p).sum() / 2 < expected + 4 * np.sqrt(1 / num) / 2
  else:
    points, volume = row.grid
    p = np.exp(log_prob(row, params, points)) * volume
    for power in (1, 2):
      mean = (p[:, None] * points**power).sum(0)
      stderr = (samples**power).std(0) / np.sqrt(num)
      assert (np.abs((samples**power).mean(0) - mean) < 4.5 * stderr).all()


@every(lambda row: row.log_prob, variants=False)
def test_a_batch_equals_its_examples_one_by_one_and_jit_equals_no_jit(name):
  row, params = fitted(name)
  x, context = jnp.asarray(row.batch.x[:4]), own_context(row, 4)
  one = lambda i: jax.tree.map(lambda leaf: leaf[i], context)
  fold = lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:])
  compiled = jax.jit(row.log_prob)
  together = row.log_prob(params, x, **context)  # without jit
  singly = [compiled(params, x[i], **one(i)) for i in range(4)]
  assert together.shape == (4,)
  np.testing.assert_allclose(together, singly, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(together, log_prob(row, params, x, **context), rtol=1e-5, atol=1e-5)
  folded = compiled(params, fold(x), **jax.tree.map(fold, context))
  np.testing.assert_allclose(folded, fold(together), rtol=1e-5, atol=1e-5)


@every_autoregressive_model
def test_a_conditional_ignores_what_comes_later(name):
  row, params = fitted(name)
  x, context = jnp.asarray(row.batch.x[0], jnp.float32), own_context(row)
  context = jax.tree.map(lambda leaf: leaf[0], context)
  jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: row.conditionals(params, x, **context)))(x))
  dependence = np.abs(jacobian).reshape(len(x), -1, len(x)).max(1)
  place = np.argsort(row.ordering or range(len(x)))
  earlier = place[None, :] < place[:, None]
  assert (dependence[~earlier] == 0).all()
  assert (dependence[earlier] > 0).all()


@every_flow
def test_a_bijector_inverts_and_its_volume_is_that_of_autodiff(name):
  row, params = fitted(name)
  context = jax.tree.map(lambda leaf: leaf[0], own_context(row))
  bijector = row.bijector(params, **context)
  x = jnp.asarray(row.batch.x[0])
  size, flat = x.size, lambda function: lambda y: function(y.reshape(x.shape)).ravel()

  @jax.jit
  def both_ways(x):
    z, inverse_log_det = bijector.inverse_and_log_det(x)
    back, forward_log_det = bijector.forward_and_log_det(z)
    jacobian = jax.jacrev(flat(bijector.inverse))(x.ravel()).reshape(size, size)
    return back, inverse_log_det, forward_log_det, jnp.linalg.slogdet(jacobian)[1]

  back, inverse_log_det, forward_log_det, expected = both_ways(x)
  np.testing.assert_allclose(back, x, atol=1e-4)
  np.testing.assert_allclose(inverse_log_det, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(forward_log_det, -expected, rtol=1e-4, atol=1e-4)


@every_learner
def test_vmapped_seeds_equal_single_runs(name):
  row, algorithm = ROWS[name], ROWS[name].make(None)
  keys = jnp.stack([jax.random.key(3), jax.random.key(4)])

  def run(key):
    step = lambda state, i: (algorithm.step(jax.random.fold_in(key, i), state, row.batch)[0], None)
    return jax.lax.scan(step, algorithm.init(key, row.batch), jnp.arange(2))[0]

  together = jax.jit(jax.vmap(run))(keys)
  for seed, key in enumerate(keys):
    state = compiled(name).init(key, row.batch)
    for i in range(2):
      state, _ = compiled(name).step(jax.random.fold_in(key, i), state, row.batch)
    assert_same(jax.tree.map(lambda leaf, seed=seed: leaf[seed], together), state, rtol=2e-4, atol=1e-5)


@every(lambda row: row.deterministic, variants=False)
def test_two_devices_equal_one(name):
  row, first, *_ = trained(name)
  key = jax.random.key(6)
  whole, _ = compiled(name).step(key, first, row.batch)
  halves = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), row.batch)
  step = jax.pmap(row.make('devices').step, axis_name='devices', in_axes=(None, None, 0))
  found, _ = step(key, first, halves)
  for device in range(2):
    state = jax.tree.map(lambda leaf, device=device: leaf[device], found)
    assert_same(state.params, whole.params, rtol=2e-5, atol=1e-6)


@every_learner
def test_saved_and_restored_a_run_goes_on_as_if_unbroken(name, tmp_path):
  row, first, *_ = trained(name)
  step = compiled(name).step
  second, _ = step(jax.random.key(0), first, row.batch)
  checkpoint.Checkpoints(tmp_path).save(jax.device_get(second), {})
  restored = checkpoint.Checkpoints(tmp_path).restore(jax.device_get(first)).state
  unbroken, _ = step(jax.random.key(1), second, row.batch)
  resumed, _ = step(jax.random.key(1), restored, row.batch)
  assert_same(resumed, unbroken, rtol=0)


@every(lambda row: row.model.log_prob or row.model.bound)
def test_a_model_is_given_a_context_if_and_only_if_it_has_one(name):
  row, params = fitted(name)
  wrong = {'context': jnp.zeros(len(row.batch.x), int)} if row.batch.context is None else {}
  x, key = jnp.asarray(row.batch.x), jax.random.key(0)
  ask = row.model.log_prob or (lambda params, x, **kwargs: row.model.bound(params, key, x, **kwargs))
  with pytest.raises(ValueError, match='context'):
    ask(params, x, **wrong)
