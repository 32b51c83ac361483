"""The loop: runs any ``Algorithm`` over any data set, with evaluation, checkpoints and exact resumption.

Update steps are compiled into dispatches, each a scan of many steps: the order of examples, the transform of the data
and the steps themselves are functions of the run's key and the step alone, so where dispatches begin and end changes
nothing.
"""

import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from gm_jax.base import Algorithm, Array, Batch, Key, TrainState
from gm_jax.data import batches
from gm_jax.training import keys, parallel
from gm_jax.training.checkpoint import Checkpoints
from gm_jax.training.metrics import Progress, Writer


class PlanError(ValueError):
  """What was asked for cannot be run."""


class NonFiniteError(ArithmeticError):
  """The loss, or a norm, is no longer a number."""


class Interrupted(RuntimeError):
  """The run was asked to stop, and has saved its state; ``signum`` says by which signal."""

  def __init__(self, message: str, signum: int):
    super().__init__(message)
    self.signum = signum


class Plan(NamedTuple):
  """How long to train, and what to do how often, all in steps.

  Dispatches end at each multiple of the three periods, counted from the beginning of the run, and at its end. Their
  default length is measured (``benchmarks/loop.py``).
  """

  num_steps: int
  batch_size: int
  eval_every: int
  checkpoint_every: int
  steps_per_dispatch: int = 200
  max_resident_bytes: int = 4 * 2**30  # data sets up to this size live on the device, larger ones are streamed

  def next_stop(self, step: int) -> int:
    """The step at which the dispatch that begins at ``step`` ends."""
    periods = (self.steps_per_dispatch, self.eval_every, self.checkpoint_every)
    return min(self.num_steps, *((step // period + 1) * period for period in periods))

  def check(self, num_examples: int) -> None:
    """Raise ``PlanError`` for what cannot be run."""
    for name in ('num_steps', 'batch_size', 'eval_every', 'checkpoint_every', 'steps_per_dispatch'):
      if getattr(self, name) < 1:
        raise PlanError(f'{name}={getattr(self, name)} must be at least 1')
    if self.batch_size > num_examples:
      raise PlanError(f'batch_size={self.batch_size} is larger than the {num_examples} training examples')


class Best(NamedTuple):
  """Which number of the evaluation decides on the best checkpoint, and where that is kept."""

  checkpoints: Checkpoints
  metric: str  # the larger the better


Transform = Callable[[Key, Array], Array]
Evaluate = Callable[[int, TrainState], dict[str, float]]


def as_float(key: Key, x: Array) -> Array:
  """The transform that only makes floats of the data."""
  del key
  return x.astype('float32')


def train(
  algorithm: Algorithm,
  data: Batch,
  key: Key,
  plan: Plan,
  *,
  placement: parallel.Placement | None = None,
  transform: Transform = as_float,
  evaluate: Evaluate | None = None,
  checkpoints: Checkpoints | None = None,
  best: Best | None = None,
  make_writers: Callable[[int], list[Writer]] = lambda first_step: [],
  make_progress: Callable[[int, int], Progress] | None = None,
) -> tuple[TrainState, float]:
  """Train from the newest checkpoint, or from the beginning, to the end of the plan.

  Args:
    algorithm: what to run; built with ``axis_name=placement.axis_name``.
    data: the whole training set, ``x`` as ``[N, ...]`` numpy or anything with ``len`` and ``[indices]``.
    key: the run's key, or ``[S]`` keys to train S replicas at once, each as it would be with its key alone.
    plan: how long, how often.
    placement: where; a single device if not given.
    transform: ``(key, x) -> x``, applied to each batch at each step with a fresh key.
    evaluate: ``(step, state) -> numbers``, of a single replica, every ``plan.eval_every`` steps.
    checkpoints: where to save, and to resume from.
    best: where to keep the best state by some number of ``evaluate``.
    make_writers: ``(first_step) -> writers`` of the metrics.
    make_progress: ``(num_steps, first_step) -> Progress``.

  Returns:
    The state on the host (with a leading axis if there are S keys), and the seconds that training took altogether.

  Raises:
    PlanError: for a plan that cannot be run, such as a batch larger than the data.
    NonFiniteError: if the loss or a norm is not finite; the last checkpoint is from before that.
    Interrupted: after SIGTERM or SIGINT, the state having been saved.
    CheckpointError: if a checkpoint cannot be written or read.
  """
  placement = placement or parallel.single()
  plan.check(len(data.x))
  state = initial_state(algorithm, data, key, plan, transform)
  for leaf in jax.tree.leaves(state.chains):
    if leaf.shape[key.ndim] % placement.num_shards:
      raise PlanError(f'{leaf.shape[key.ndim]} chains do not divide over {placement.num_shards} devices')
  state, notes = (checkpoints and checkpoints.restore(state)) or (state, {})
  step, seconds, best_score = int(np.ravel(state.step)[0]), notes.get('seconds', 0.0), _best_score(best, state)
  writers = make_writers(step)
  progress = make_progress(plan.num_steps, step) if make_progress else None
  run_dispatch = _dispatcher(algorithm, data, key, plan, placement, transform)
  device_state = placement.put_state(state)

  with contextlib.ExitStack() as stack:
    interrupt = stack.enter_context(_catch_signals())
    feed = stack.enter_context(contextlib.closing(run_dispatch.feed(step)))
    if progress:
      stack.callback(progress.close)
    while step < plan.num_steps:
      begun, first = time.monotonic(), step
      device_state, metrics = run_dispatch.run(device_state, next(feed))
      metrics = placement.first(metrics)
      step, seconds = plan.next_stop(step), seconds + time.monotonic() - begun
      _check_finite(metrics, first)
      for write in writers:
        write(step, {f'train/{name}': float(np.mean(values)) for name, values in metrics.items()})
      if progress:
        progress.advance(step, float(np.mean(metrics['loss'])))
      stop = parallel.agree(bool(interrupt))
      at_end = step == plan.num_steps
      save_now = checkpoints and (at_end or stop or step % plan.checkpoint_every == 0)
      evaluate_now = evaluate and (at_end or step % plan.eval_every == 0)
      if not (save_now or evaluate_now or stop):
        continue
      state = placement.get_state(device_state)
      if evaluate_now:
        numbers = _over_seeds(evaluate, step, state, key)
        for write in writers:
          write(step, numbers)
        if progress:
          progress.report(step, numbers)
        if best and numbers[best.metric] > best_score:
          best_score = numbers[best.metric]
          best.checkpoints.save(state, {'score': best_score, 'seconds': seconds})
      if save_now:
        checkpoints.save(state, {'seconds': seconds})
      if stop and not at_end:
        signum = interrupt[0] if interrupt else signal.SIGTERM  # it may be another host that was asked
        saved = f'saved at step {step}; the same command continues' if checkpoints else f'at step {step}, not saved'
        raise Interrupted(f'{signal.Signals(signum).name}: {saved}', signum)
  return placement.get_state(device_state), seconds


def initial_state(
  algorithm: Algorithm, data: Batch, key: Key, plan: Plan, transform: Transform = as_float
) -> TrainState:
  """The state at step 0, on the host: initialised on the first batch that the run will see.

  Arguments are those of ``train``.
  """

  def initial(key, batch):
    transform_key, init_key = jax.random.split(keys.purpose(key, 'init'))
    return algorithm.init(init_key, batch._replace(x=transform(transform_key, batch.x)))

  def first_batch(key):
    rows = np.asarray(batches.batch_indices(keys.purpose(key, 'order'), 0, 1, len(data.x), plan.batch_size)[0])
    return jax.tree.map(lambda leaf: np.asarray(leaf[rows]), data)

  if not key.ndim:
    return jax.device_get(jax.jit(initial)(key, first_batch(key)))
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[first_batch(one) for one in key])
  return jax.device_get(jax.jit(jax.vmap(initial))(key, stacked))


def _best_score(best: Best | None, like: TrainState) -> float:
  restored = best.checkpoints.restore(like) if best else None
  return restored.notes['score'] if restored else -np.inf


class _Dispatches(NamedTuple):
  run: Callable  # (state, inputs) -> (state, metrics)
  feed: Callable[[int], Iterator]  # (first step) -> the inputs of each dispatch from there on


def _dispatcher(algorithm, data, key, plan, placement, transform) -> _Dispatches:
  """Compiled dispatches, and their inputs: a data set that stays on the device, or batches streamed to it."""
  num_examples = len(data.x)
  order = keys.purpose(key, 'order') if not key.ndim else None
  resident = isinstance(data.x, np.ndarray) and data.x.nbytes <= plan.max_resident_bytes
  if key.ndim and not resident:
    raise PlanError(
      f'num_seeds={len(key)}: replicas read the data in orders of their own, so the data set has to fit on the device'
    )

  def scan_steps(state, key, rows, look_up):
    def one(state, row):
      step_key = keys.at_step(keys.purpose(key, 'step'), state.step, placement.axis_name)
      transform_key, update_key = jax.random.split(step_key)
      batch = look_up(row)
      return algorithm.step(update_key, state, batch._replace(x=transform(transform_key, batch.x)))

    return jax.lax.scan(one, state, rows)

  def resident_steps(num_steps):
    def run(state, key, table):
      rows = batches.batch_indices(keys.purpose(key, 'order'), state.step, num_steps, num_examples, plan.batch_size)
      return scan_steps(state, key, placement.split(rows), lambda row: jax.tree.map(lambda leaf: leaf[row], table))

    return jax.vmap(run, in_axes=(0, 0, None)) if key.ndim else run

  def streamed_steps(num_steps):
    return lambda state, key, stack: scan_steps(state, key, stack, lambda batch: batch)

  @functools.cache
  def compiled(num_steps):
    return placement.compile((resident_steps if resident else streamed_steps)(num_steps))

  def spans(step):
    """First step and length of each dispatch."""
    while step < plan.num_steps:
      yield step, plan.next_stop(step) - step
      step = plan.next_stop(step)

  def resident_feed(step):
    table = placement.put_data(data)
    for _, num_steps in spans(step):
      yield num_steps, table

  def gather(span):
    rows = np.asarray(batches.batch_indices(order, *span, num_examples, plan.batch_size))
    rows = rows[:, placement.own_columns(plan.batch_size)]
    look_up = lambda leaf: np.asarray(leaf[rows.ravel()])
    return span[1], jax.tree.map(lambda leaf: look_up(leaf).reshape(*rows.shape, *leaf.shape[1:]), data)

  def streamed_feed(step):
    with contextlib.closing(batches.prefetch(gather, spans(step))) as stream:
      for num_steps, stack in stream:
        yield num_steps, placement.put_batches(stack)

  def run(state, inputs):
    num_steps, table = inputs
    return compiled(num_steps)(state, key, table)

  return _Dispatches(run, resident_feed if resident else streamed_feed)


def _check_finite(metrics, first_step: int) -> None:
  """Raise at the first step whose loss or norms are not finite."""
  watched = {name: v for name, v in metrics.items() if name.endswith('loss') or name.endswith('norm')}
  for name, values in watched.items():
    values = np.asarray(values)
    bad = ~np.isfinite(values).reshape(-1, values.shape[-1]).all(0)
    if bad.any():
      step = first_step + int(bad.argmax())
      raise NonFiniteError(
        f'{name} is {np.ravel(values[..., bad.argmax()])[0]} in the update from step {step} to {step + 1}; the last '
        'good checkpoint is kept. A smaller learning_rate, or clipped gradients, usually help'
      )


def _over_seeds(evaluate: Evaluate, step: int, state: TrainState, key: Key) -> dict[str, float]:
  """The numbers of an evaluation; of several replicas their mean, and its standard error under ``_stderr``."""
  if not key.ndim:
    return evaluate(step, state)
  each = [evaluate(step, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(len(key))]
  numbers = {}
  for name in each[0]:
    values = np.array([one[name] for one in each])
    numbers[name] = float(values.mean())
    numbers[f'{name}_stderr'] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
  return numbers


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
  """Signals to stop are collected in a list, to be looked at between dispatches; a second Ctrl-C stops at once."""
  caught: list[int] = []

  def catch(signum, frame):
    if caught and signum == signal.SIGINT:
      raise KeyboardInterrupt
    caught.append(signum)

  before = {signum: signal.signal(signum, catch) for signum in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield caught
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)
