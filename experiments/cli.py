"""What all binaries share: the way from flags to a trained model and its report.

A binary is a ``Binary``: a name, its own flags, and a function that builds an ``Experiment`` from flags and data. The
flags that it shares with the others, and how they are read, are in ``common_flags.py``.
"""

import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import common_flags
from gm_jax import data as datasets
from gm_jax.base import Algorithm, Batch, Key, TrainState
from gm_jax.evaluation import likelihood, report
from gm_jax.training import keys, loop, metrics, parallel
from gm_jax.training.checkpoint import CheckpointError, Checkpoints

DISPATCH = loop.Plan._field_defaults['steps_per_dispatch']
Picture = tuple[str, str]  # name of a PNG file in the run folder, and its caption


class Experiment(NamedTuple):
  """A model with its data and its learning, ready to run. The functions see the state of one replica, on the host."""

  algorithm: Algorithm
  data: Batch  # the training set; x as [N, ...] or a lazily read source
  evaluate: Callable[[int, TrainState], dict[str, float]]  # numbers on held-out data, during training
  score: Callable[[Key, TrainState], dict[str, likelihood.Score]]  # the scores of the report
  draw: Callable[[Key, TrainState, pathlib.Path], list[Picture]]  # into the folder
  sample: Callable[[Key, TrainState, int], np.ndarray] | None  # [num, ...]
  transform: loop.Transform = loop.as_float
  best_metric: str | None = None  # of ``evaluate``, the larger the better; without one the last state is reported
  score_last: bool = False  # whether the last state is scored beside the best one, as last_<name>
  published: Sequence[tuple[str, float, str]] = ()  # (name, number, source) of others, for the report
  # Kept at each evaluation as snapshots/<step>.npy, of the first replica, so that ``draw`` can show how learning went.
  snapshot: Callable[[TrainState], np.ndarray] | None = None


class Binary(NamedTuple):
  """An experiment binary."""

  name: str
  doc: str  # its help text
  define_flags: Callable[[absl_flags.FlagValues], None]
  build: Callable[[absl_flags.FlagValues, datasets.Dataset, str | None], Experiment]  # the last is the axis of devices
  defaults: dict[str, Any] = {}  # of the common flags, where they differ
  evaluation_flags: Sequence[str] = ()  # own flags that do not bear on what is learnt


def main(binary: Binary) -> None:
  """Run a binary on the command line's arguments; exits with 2 for what the user can put right, without a traceback."""
  try:
    run(binary, sys.argv)
  except common_flags.UserError as error:
    sys.exit(common_flags.complain(error, 2))
  except (loop.NonFiniteError, CheckpointError) as error:
    sys.exit(common_flags.complain(error, 1))
  except loop.Interrupted as stop:
    sys.exit(common_flags.complain(stop, 128 + stop.signum))


def run(binary: Binary, argv: Sequence[str]) -> None:
  """Run a binary.

  Args:
    binary: what to run.
    argv: the name of the program, and its flags.

  Raises:
    common_flags.UserError: for a flag, a file or a folder that cannot be used.
    NonFiniteError, CheckpointError, Interrupted: see ``loop.train``.
  """
  flags = common_flags.parse_flags(binary, argv)
  if flags is None:
    return
  with common_flags.user_errors(ValueError):
    if flags.num_hosts > 1:
      parallel.connect_hosts(flags.coordinator or '', flags.num_hosts, flags.host_index)
    chain_axis = 1 if flags.num_seeds > 1 else 0
    placement = parallel.placement(flags.parallel, batch_size=flags.batch_size, chain_axis=chain_axis)
    dataset = datasets.load(flags.dataset, data_dir=flags.data_dir)
    experiment = binary.build(flags, dataset, placement.axis_name)
    plan = make_plan(flags, len(experiment.data.x))
  workdir = common_flags.prepare_workdir(binary, flags)
  checkpoints = Checkpoints(workdir / 'checkpoints' / 'latest')
  best = None
  if experiment.best_metric:
    best = loop.Best(Checkpoints(workdir / 'checkpoints' / 'best', keep=1), experiment.best_metric)
  seeds = [jax.random.key(flags.seed + i) for i in range(flags.num_seeds)]
  key = jax.numpy.stack(seeds) if flags.num_seeds > 1 else seeds[0]
  chief = jax.process_index() == 0

  if flags.mode == 'train':

    def make_writers(first_step):
      if not chief:
        return []
      writers = [metrics.JsonLines(workdir / 'metrics.jsonl', first_step)]
      return writers + ([metrics.TensorBoard(workdir / 'tensorboard')] if flags.tensorboard else [])

    with common_flags.user_errors(loop.PlanError):
      state, seconds = loop.train(
        experiment.algorithm, experiment.data, key, plan, placement=placement, transform=experiment.transform,
        evaluate=_evaluation(experiment, workdir if chief else None), checkpoints=checkpoints, best=best,
        make_writers=make_writers,
        make_progress=metrics.Progress if chief else None,
      )  # fmt: skip
  else:
    like = loop.initial_state(experiment.algorithm, experiment.data, key, plan, experiment.transform)
    restored = checkpoints.restore(like)
    if restored is None:
      raise common_flags.UserError(f'workdir={flags.workdir!r} holds no trained model; run with --mode=train first')
    state, seconds = restored.state, restored.notes['seconds']
  steps = int(np.ravel(state.step)[0])
  chosen = best.checkpoints.restore(state) if best and flags.state == 'best' else None
  last, state = state, chosen.state if chosen else state
  if not chief:
    return
  replicas = _replicas(state, flags)
  if flags.mode == 'sample':
    _write_samples(experiment, dataset, keys.purpose(seeds[0], 'sample'), replicas[0], flags.num_samples, workdir)
  else:
    scores = _scores(experiment, seeds, replicas)
    if experiment.score_last:
      best_is_last = not chosen or np.array_equal(last.step, state.step)
      found = scores if best_is_last else _scores(experiment, seeds, _replicas(last, flags))
      scores = {**scores, **{f'last_{name}': one for name, one in found.items()}}
    pictures = experiment.draw(keys.purpose(seeds[0], 'draw'), replicas[0], workdir)
    path = report.write_report(
      workdir,
      model=binary.name,
      dataset=flags.dataset,
      num_params=sum(np.size(leaf) for leaf in jax.tree.leaves(replicas[0].params)),
      train_seconds=seconds,
      steps=steps,
      metrics=scores,
      settings={name: flags[name].value for name in common_flags.own_flags(flags)},
      command=' '.join(['python', '-m', f'experiments.{binary.name}', *map(shlex.quote, argv[1:])]),
      pictures=pictures,
      history=report.read_history(workdir / 'metrics.jsonl'),
      published=experiment.published,
    )
    for name, one in scores.items():
      print(f'{name}: {likelihood.describe(one)}')
    print(f'report, pictures and checkpoints: {path.parent}')


def _replicas(state: TrainState, flags: absl_flags.FlagValues) -> list[TrainState]:
  """The states of the replicas, one by one."""
  if flags.num_seeds == 1:
    return [state]
  return [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(flags.num_seeds)]


def _scores(
  experiment: Experiment, seeds: Sequence[Key], replicas: Sequence[TrainState]
) -> dict[str, likelihood.Score]:
  """The scores of an experiment, over its replicas."""
  each = [experiment.score(keys.purpose(s, 'score'), r) for s, r in zip(seeds, replicas, strict=True)]
  return {name: likelihood.over_seeds([one[name] for one in each]) for name in each[0]}


def _evaluation(experiment: Experiment, workdir: pathlib.Path | None) -> Callable:
  """The evaluation of an experiment, which keeps a snapshot where there is one to keep."""
  if experiment.snapshot is None or workdir is None:
    return experiment.evaluate
  folder = workdir / 'snapshots'
  folder.mkdir(exist_ok=True)
  kept = set()

  def evaluate(step, state):
    if step not in kept:  # the other replicas follow the first one
      np.save(folder / f'{step:09d}.npy', np.asarray(experiment.snapshot(state)))
      kept.add(step)
    return experiment.evaluate(step, state)

  return evaluate


def read_snapshots(workdir: pathlib.Path, last_step: int) -> dict[int, np.ndarray]:
  """The snapshots of a run up to a step, by their step."""
  found = {int(path.stem): path for path in sorted((workdir / 'snapshots').glob('*.npy'))}
  return {step: np.load(path) for step, path in found.items() if step <= last_step}


def make_plan(flags: absl_flags.FlagValues, num_examples: int) -> loop.Plan:
  """How long to train and how often to look, from the flags.

  Left to itself, a run is evaluated about twenty times, after a whole number of dispatches: these are then all of one
  length but for the last, and every other length would have to be compiled.
  """
  num_steps = flags.num_steps or flags.num_epochs * max(num_examples // flags.batch_size, 1)
  twentieth = max(num_steps // 20, 1)
  twentieth -= twentieth % min(twentieth, DISPATCH)
  periods = flags.eval_every or twentieth, flags.checkpoint_every or twentieth
  plan = loop.Plan(num_steps, flags.batch_size, *periods, steps_per_dispatch=min(DISPATCH, *periods))
  plan.check(num_examples)
  return plan


def exact_scores(log_prob: Callable, params: Any, train, test, levels: int | None) -> dict[str, likelihood.Score]:
  """The scores of a model with an exact density.

  Args:
    log_prob: an evaluator of it.
    params: of the model.
    train: ``[N, D]`` training examples.
    test: ``[M, D]`` test examples.
    levels: of the grey values that ``train`` and ``test`` are dequantised from, for bits per dimension; None if they
      are not.
  """
  found = log_prob(params, test).score('exact')
  scores = {'test_log_prob': found, 'train_log_prob': log_prob(params, train).score('exact')}
  if levels is not None:
    scores['test_bits'] = likelihood.score_in_bits(found._replace(kind='lower bound'), test.shape[1], levels=levels)
  return scores


def _write_samples(experiment, dataset, key, state, num, workdir) -> None:
  if experiment.sample is None:
    raise common_flags.UserError('this model has no sampler')
  samples = np.asarray(experiment.sample(key, state, num))
  path = workdir / 'samples.npz'
  np.savez_compressed(path, samples=samples)
  print(f'{num} samples: {path}')
  if len(dataset.shape) == 3:
    from gm_jax.evaluation import image_plots, plots

    # Beside the pictures of the report, and from the darkest to the lightest: some samples are grey levels.
    figure = image_plots.image_grid(samples[:100].reshape(-1, *dataset.shape), value_range=None)
    print(f'picture: {plots.save(figure, workdir / "drawn.png")}')
