import os
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.base import Batch, Extra, Variables
from gm_jax.training import checkpoint, loop, metrics, parallel, rules

DATA = Batch(np.asarray(jax.random.normal(jax.random.key(7), (50, 3))), np.arange(50) % 4)
PLAN = loop.Plan(num_steps=40, batch_size=8, eval_every=10, checkpoint_every=10, steps_per_dispatch=5)


def noisy_least_squares(axis_name=None, noise=1.0):
  """Learns the mean of the data; every draw of the key, every chain and every context shows in the parameters."""

  def init(key, batch):
    return Variables({'w': jax.random.normal(key, (3,))}, {'mean': jnp.zeros(3)}, jnp.arange(4.0))

  def loss(params, key, batch, state):
    chains = state.chains + noise * jax.random.normal(key, state.chains.shape)
    target = batch.x + 0.01 * batch.context[:, None]
    value = jnp.mean((params['w'] - target) ** 2) + 0.1 * noise * jnp.mean(chains) * params['w'].sum()
    stats = {'mean': 0.9 * state.stats['mean'] + 0.1 * target.mean(0)}
    return value, Extra(stats=stats, chains=chains, metrics={'chain': chains.mean()})

  return rules.descent(init, loss, optax.adam(0.01), axis_name=axis_name)


def jitter(key, x):
  return x + 0.1 * jax.random.normal(key, x.shape)


def train(algorithm=None, plan=PLAN, key=None, **kwargs):
  key = jax.random.key(0) if key is None else key
  state, _ = loop.train(algorithm or noisy_least_squares(), DATA, key, plan, **{'transform': jitter, **kwargs})
  return state


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope='module')
def unbroken():
  return train()


def test_the_length_of_dispatches_changes_nothing(unbroken):
  assert_equal(unbroken, train(plan=PLAN._replace(steps_per_dispatch=40, eval_every=40, checkpoint_every=40)))


def test_streamed_data_give_the_same_run_as_resident_data(unbroken):
  assert_equal(unbroken, train(plan=PLAN._replace(max_resident_bytes=0)))


def test_each_replica_equals_the_single_run_of_its_seed(unbroken):
  keys = jnp.stack([jax.random.key(3), jax.random.key(0)])
  replicas = train(key=keys)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), replicas, unbroken)
  assert np.abs(replicas.params['w'][0] - replicas.params['w'][1]).max() > 0.01


def test_replicas_cannot_be_streamed():
  with pytest.raises(ValueError, match='num_seeds=2'):
    train(key=jnp.stack([jax.random.key(3), jax.random.key(0)]), plan=PLAN._replace(max_resident_bytes=0))


@pytest.mark.parametrize('resident', [True, False])
@pytest.mark.parametrize('mode', ['pmap', 'jit'])
def test_two_devices_equal_one_where_nothing_is_random(mode, resident):
  plan = PLAN if resident else PLAN._replace(max_resident_bytes=0)
  one = train(noisy_least_squares(noise=0.0), transform=loop.as_float)
  placement = parallel.placement(mode, batch_size=PLAN.batch_size)
  two = train(noisy_least_squares(placement.axis_name, noise=0.0), plan, placement=placement, transform=loop.as_float)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def test_a_sharded_run_equals_the_single_one_also_where_it_is_random(unbroken):
  two = train(placement=parallel.placement('jit', batch_size=PLAN.batch_size))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), unbroken, two)


def test_devices_draw_different_numbers_under_pmap():
  placement = parallel.placement('pmap', batch_size=PLAN.batch_size)
  state = train(noisy_least_squares(placement.axis_name), placement=placement)
  moved = state.chains - np.arange(4.0)
  assert state.chains.shape == (4,)
  assert np.abs(moved[:2] - moved[2:]).min() > 1e-3


def test_each_step_draws_numbers_of_its_own():
  means = []
  plan = PLAN._replace(steps_per_dispatch=1, num_steps=8, eval_every=8, checkpoint_every=8)
  train(plan=plan, make_writers=lambda first: [lambda step, numbers: means.append(numbers['train/chain'])])
  moves = np.diff(means)
  assert len(set(moves.round(4))) == len(moves)


def test_replicas_on_two_devices_equal_replicas_on_one():
  keys = jnp.stack([jax.random.key(3), jax.random.key(0)])
  one = train(noisy_least_squares(noise=0.0), key=keys, transform=loop.as_float)
  for mode in ('pmap', 'jit'):
    placement = parallel.placement(mode, batch_size=PLAN.batch_size, chain_axis=1)
    algorithm = noisy_least_squares(placement.axis_name, noise=0.0)
    two = train(algorithm, key=keys, placement=placement, transform=loop.as_float)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def interrupting(at_step):
  """An evaluation during which somebody presses Ctrl-C."""

  def evaluate(step, state):
    if step == at_step:
      os.kill(os.getpid(), signal.SIGINT)
    return {'valid/w': float(state.params['w'].sum())}

  return evaluate


@pytest.mark.parametrize('mode', ['none', 'pmap', 'jit'])
def test_a_run_interrupted_and_resumed_equals_the_unbroken_one_bit_for_bit(tmp_path, mode):
  placement = parallel.placement(mode, batch_size=PLAN.batch_size)
  algorithm = noisy_least_squares(placement.axis_name)

  def go(name, evaluate):
    return train(
      algorithm,
      placement=placement,
      evaluate=evaluate,
      checkpoints=checkpoint.Checkpoints(tmp_path / name / 'latest'),
      best=loop.Best(checkpoint.Checkpoints(tmp_path / name / 'best', keep=1), 'valid/w'),
      make_writers=lambda step: [metrics.JsonLines(tmp_path / f'{name}.jsonl', step)],
    )

  whole = go('whole', interrupting(None))
  with pytest.raises(loop.Interrupted, match=r'SIGINT: saved at step 25; the same command continues') as stop:
    go('broken', interrupting(20))  # noticed after the next dispatch, which ends at 25
  assert stop.value.signum == signal.SIGINT
  assert_equal(whole, go('broken', interrupting(None)))
  assert (tmp_path / 'whole.jsonl').read_text() == (tmp_path / 'broken.jsonl').read_text()
  best = [checkpoint.Checkpoints(tmp_path / name / 'best').restore(whole) for name in ('whole', 'broken')]
  assert_equal(best[0].state, best[1].state)
  assert best[0].notes['score'] == best[1].notes['score']


def test_a_run_without_checkpoints_stops_too_and_says_that_nothing_is_saved():
  with pytest.raises(loop.Interrupted, match='SIGINT: at step 25, not saved'):
    train(evaluate=interrupting(20))


def test_a_run_may_go_on_under_another_placement(tmp_path):
  half, folder = PLAN._replace(num_steps=20), tmp_path / 'latest'
  train(noisy_least_squares(noise=0.0), half, transform=loop.as_float, checkpoints=checkpoint.Checkpoints(folder))
  placement = parallel.placement('pmap', batch_size=PLAN.batch_size)
  two = train(
    noisy_least_squares(placement.axis_name, noise=0.0),
    placement=placement,
    transform=loop.as_float,
    checkpoints=checkpoint.Checkpoints(folder),
  )
  one = train(noisy_least_squares(noise=0.0), transform=loop.as_float)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def files_of(folder: pathlib.Path):
  return sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size > 1)


def test_a_checkpoint_cut_short_is_never_loaded_and_the_one_before_it_is(tmp_path):
  folder = tmp_path / 'latest'
  state = train(checkpoints=checkpoint.Checkpoints(folder))
  names = [path.relative_to(folder) for path in files_of(folder / '40')]
  assert len(names) > 5
  outcomes = set()
  for name in names:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    restored = checkpoint.Checkpoints(folder).restore(state)
    step = int(restored.state.step)
    outcomes.add(step)
    if step == 40:  # a file that the arrays do not depend on
      assert_equal(restored.state, state)
    (folder / name).write_bytes(whole)
  assert outcomes >= {30}


def test_arrays_that_are_not_those_that_were_saved_are_noticed(tmp_path, monkeypatch):
  folder, digest = tmp_path / 'latest', checkpoint.digest
  state = train(checkpoints=checkpoint.Checkpoints(folder))
  changed = state._replace(params={'w': state.params['w'] + np.float32(1e-6)})
  assert digest(changed) != digest(state)
  monkeypatch.setattr(checkpoint, 'digest', lambda state: digest(state) if state.step < 40 else digest(changed))
  assert int(checkpoint.Checkpoints(folder).restore(state).state.step) == 30


def test_unreadable_checkpoints_are_an_error_and_not_a_new_start(tmp_path):
  folder = tmp_path / 'latest'
  state = train(checkpoints=checkpoint.Checkpoints(folder))
  for path in files_of(folder):
    path.write_bytes(path.read_bytes()[:1])
  with pytest.raises(checkpoint.CheckpointError, match=r'none of the checkpoints \[40, 30\].*can be read'):
    checkpoint.Checkpoints(folder).restore(state)


def test_a_non_finite_loss_stops_the_run_names_the_step_and_keeps_the_checkpoint_before(tmp_path):
  algorithm = noisy_least_squares()

  def step(key, state, batch):
    state, found = algorithm.step(key, state, batch)
    return state, {**found, 'loss': jnp.where(state.step == 24, jnp.nan, found['loss'])}

  checkpoints = checkpoint.Checkpoints(tmp_path / 'latest')
  with pytest.raises(loop.NonFiniteError, match='loss is nan in the update from step 23 to 24'):
    train(algorithm._replace(step=step), checkpoints=checkpoints)
  assert int(checkpoints.restore(loop.initial_state(algorithm, DATA, jax.random.key(0), PLAN)).state.step) == 20


def test_a_run_compiles_once_for_each_length_of_dispatch():
  algorithm, traces = noisy_least_squares(), []

  def step(key, state, batch):
    traces.append(batch.x.shape)
    return algorithm.step(key, state, batch)

  train(algorithm._replace(step=step), PLAN._replace(num_steps=400))
  assert len(traces) == 1
  train(algorithm._replace(step=step), PLAN._replace(num_steps=32))  # 5, 5, ... and 2
  assert len(traces) == 3


def test_metrics_hold_the_mean_over_each_dispatch():
  seen = {}
  plan = PLAN._replace(steps_per_dispatch=7)
  train(plan=plan, make_writers=lambda first: [lambda step, numbers: seen.setdefault(step, {}).update(numbers)])
  assert sorted(seen) == [7, 10, 14, 20, 21, 28, 30, 35, 40]
  names = {'loss', 'grad_norm', 'update_norm', 'param_norm', 'chain'}
  assert {name for numbers in seen.values() for name in numbers} == {f'train/{name}' for name in names}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'batch_size': 51}, 'batch_size=51 is larger than the 50 training examples'),
    ({'num_steps': 0}, 'num_steps=0 must be at least 1'),
    ({'steps_per_dispatch': 0}, 'steps_per_dispatch=0'),
  ],
)
def test_a_plan_that_cannot_run_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    train(plan=PLAN._replace(**change))


def test_placements_refuse_what_does_not_divide():
  with pytest.raises(ValueError, match='batch_size=7 does not divide over 2 devices; use 6'):
    parallel.placement('pmap', batch_size=7)
  with pytest.raises(ValueError, match="parallel='tpu'"):
    parallel.placement('tpu', batch_size=8)
  with pytest.raises(ValueError, match='host_index=2'):
    parallel.connect_hosts('localhost:1', 2, 2)
  with pytest.raises(ValueError, match="coordinator='localhost'"):
    parallel.connect_hosts('localhost', 2, 0)
  odd = noisy_least_squares('devices')
  odd = odd._replace(init=lambda key, batch: noisy_least_squares().init(key, batch)._replace(chains=jnp.arange(3.0)))
  with pytest.raises(ValueError, match='3 chains do not divide over 2 devices'):
    train(odd, placement=parallel.placement('pmap', batch_size=8))


def test_json_lines_drop_what_was_written_after_the_checkpoint(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 10, "a": 1.0}\n{"step": 20, "a": 2.0}\n{"step": 30, "a"')
  metrics.JsonLines(path, 10)(20, {'a': float('nan')})
  assert path.read_text() == '{"step": 10, "a": 1.0}\n{"step": 20, "a": null}\n'


def test_progress_prints_plain_lines_where_nobody_looks_on(capsys):
  progress = metrics.Progress(100)
  progress.advance(50, 1.0)
  progress.report(50, {'valid/loss': 2.5})
  progress.close()
  assert capsys.readouterr().err.startswith('step 50/100  valid/loss 2.5')
