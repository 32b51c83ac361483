import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import (
  cli,
  common_flags,
  cross_validation,
  evaluate,
  failures,
  neural_net_divergence,
  parzen,
  rbm,
  rbm_pictures,
)

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
  '--dataset=bars_and_stripes', '--num_hidden=4', '--batch_size=8', '--num_steps=40', '--eval_every=20',
  '--checkpoint_every=10', '--average=0.9',
]  # fmt: skip


def run(*argv):
  """Run the binary in this process; later flags win."""
  cli.run(rbm.BINARY, ['rbm', *TINY, *argv])


def start(*argv, before=(), **kwargs):
  """Start the binary as a process of its own."""
  command = [*before, sys.executable, '-m', 'experiments.rbm', *TINY, *argv]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.fixture
def without_pictures(monkeypatch):
  """Leaves out what takes a third of a run, where the test is of how a run goes."""
  monkeypatch.setattr(rbm_pictures, 'draw', lambda *args: [])


def lines_of(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_text().splitlines() if path.exists() else []


def newest_arrays(workdir):
  """The arrays of the newest checkpoint, by name."""
  import orbax.checkpoint as ocp

  folder = max(
    (path for path in (workdir / 'checkpoints' / 'latest').iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
  )
  return jax.tree.map(np.asarray, ocp.StandardCheckpointer().restore(folder / 'state'))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a run that was left alone."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  run(f'--workdir={workdir}')
  return workdir


def test_a_run_leaves_a_report_pictures_checkpoints_settings_and_metrics(finished):
  report = json.loads((finished / 'report.json').read_text())
  assert set(report) == {'model', 'dataset', 'num_params', 'train_seconds', 'steps', 'metrics'}
  assert (report['model'], report['dataset'], report['steps']) == ('rbm', 'bars_and_stripes', 40)
  side = int(np.sqrt((report['num_params'] - 4) / 5))  # D H + D + H parameters with H = 4
  assert report['num_params'] == side**2 * 5 + 4
  assert report['metrics']['test_log_prob']['kind'] == 'exact'
  assert (finished / 'report.html').read_text().count('data:image/png') >= 4
  steps = [json.loads(line)['step'] for line in lines_of(finished)]
  assert steps == [10, 20, 20, 30, 40, 40]
  names = {name for line in lines_of(finished) for name in json.loads(line)}
  assert names >= {'train/loss', 'train/grad_norm', 'train/param_norm', 'train/update_norm', 'valid/log_prob'}


def test_the_flagfile_of_a_run_repeats_it(finished, tmp_path, without_pictures):
  cli.run(rbm.BINARY, ['rbm', f'--flagfile={finished / "settings.flags"}', f'--workdir={tmp_path / "again"}'])
  assert lines_of(tmp_path / 'again') == lines_of(finished)


def test_a_finished_run_is_evaluated_and_sampled_from(finished, capsys):
  report = json.loads((finished / 'report.json').read_text())
  run(f'--workdir={finished}', '--mode=evaluate')
  assert json.loads((finished / 'report.json').read_text())['metrics'] == report['metrics']
  assert 'test_log_prob: ' in capsys.readouterr().out
  run(f'--workdir={finished}', '--mode=sample', '--num_samples=7')
  samples = np.load(finished / 'samples.npz')['samples']
  assert samples.shape[0] == 7
  assert set(np.unique(samples)) <= {0.0, 1.0}
  assert (finished / 'drawn.png').exists()


def test_the_best_state_is_drawn_from_unless_the_last_is_asked_for(finished, tmp_path, without_pictures):
  run(f'--workdir={tmp_path / "other"}', '--seed=1')
  shutil.copytree(finished, tmp_path / 'run')
  best = tmp_path / 'run' / 'checkpoints' / 'best'
  shutil.rmtree(best)
  shutil.copytree(tmp_path / 'other' / 'checkpoints' / 'best', best)

  def sample(*argv):
    run(f'--workdir={tmp_path / "run"}', '--mode=sample', '--num_samples=50', *argv)
    return np.load(tmp_path / 'run' / 'samples.npz')['samples']

  of_best, of_last = sample(), sample('--state=last')
  shutil.rmtree(best)
  np.testing.assert_array_equal(of_last, sample())
  assert (of_best != of_last).any()


@pytest.mark.slow
def test_gaussian_units_take_grey_images_with_pixels_that_are_always_black(tmp_path):
  run('--dataset=digits', '--visible=gaussian', '--learning_rate=0.001', f'--workdir={tmp_path / "run"}')
  score = json.loads((tmp_path / 'run' / 'report.json').read_text())['metrics']['test_log_prob']
  assert score['kind'] == 'exact'
  assert np.isfinite(score['value'])


def test_replicas_are_reported_by_mean_and_error(tmp_path, without_pictures):
  run('--num_seeds=2', f'--workdir={tmp_path / "both"}')
  scores = []
  for seed in range(2):
    run(f'--seed={seed}', f'--workdir={tmp_path / str(seed)}')
    scores.append(json.loads((tmp_path / str(seed) / 'report.json').read_text())['metrics']['test_log_prob']['value'])
  found = json.loads((tmp_path / 'both' / 'report.json').read_text())['metrics']['test_log_prob']
  assert found['value'] == pytest.approx(np.mean(scores), abs=1e-3)
  assert found['stderr'] == pytest.approx(np.std(scores, ddof=1) / np.sqrt(2), abs=1e-3)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_killed_goes_on_where_it_was_and_ends_as_if_unbroken(
  finished, tmp_path, without_pictures, signum
):
  workdir = tmp_path / 'run'
  # Evaluation at every tenth step makes room for the signal between two dispatches.
  slow = ['--eval_every=10', f'--workdir={workdir}']
  process = start(*slow)
  deadline = time.monotonic() + 120
  while len(lines_of(workdir)) < 2 and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.005)
  process.send_signal(signum)
  _, errors = process.communicate(timeout=120)
  reached = json.loads(lines_of(workdir)[-1])['step']
  if reached == 40:
    pytest.skip('the run was over before the signal came')
  if signum == signal.SIGTERM:
    assert process.returncode == 128 + signal.SIGTERM
    assert f'error: SIGTERM: saved at step {reached}; the same command continues' in errors
  else:
    assert process.returncode == -signal.SIGKILL
  run(*slow)
  unbroken = tmp_path / 'unbroken'
  run('--eval_every=10', f'--workdir={unbroken}')
  assert lines_of(workdir) == lines_of(unbroken)
  jax.tree.map(np.testing.assert_array_equal, newest_arrays(workdir), newest_arrays(unbroken))


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(tmp_path, without_pictures):
  workdir = tmp_path / 'run'
  run('--num_steps=20', f'--workdir={workdir}')
  # No file may grow beyond 3 KiB, which gives the errors of a disk without room.
  no_cache = {**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  process = start(f'--workdir={workdir}', before=['bash', '-c', 'ulimit -f 3; exec "$@"', '--'], env=no_cache)
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 1, errors
  last = errors.splitlines()[-1]
  assert last.startswith('error: cannot write the checkpoint of step 30')
  assert last.endswith('the checkpoint of step 20 is kept')
  run(f'--workdir={workdir}')
  assert json.loads((workdir / 'report.json').read_text())['steps'] == 40


def test_two_hosts_equal_two_devices_of_one_host(tmp_path, without_pictures):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  # Points, because processes of their own cannot be kept from drawing images.
  common = ['--parallel=pmap', '--num_chains=8', '--dataset=two_moons', '--visible=gaussian', '--learning_rate=0.01']
  alone = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}
  hosts = [
    start(
      *common, f'--workdir={tmp_path / "hosts"}', f'--coordinator=127.0.0.1:{port}', '--num_hosts=2',
      f'--host_index={index}', env=alone,
    )
    for index in range(2)
  ]  # fmt: skip
  run(*common, f'--workdir={tmp_path / "devices"}')
  for process in hosts:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
  together, devices = newest_arrays(tmp_path / 'hosts'), newest_arrays(tmp_path / 'devices')
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, devices)
  assert together['chains']['visible'].shape[0] == 8


GREY = '--dataset=digits'


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--dataset=dogs'], "data set 'dogs' is not known. Data sets at hand: digits"),
    (['--data_dir=/nowhere'], "data_dir='/nowhere': there is no such folder"),
    ([GREY, '--binarise=none'], 'binarise=none, but dataset=.digits. is grey'),
    (['--dataset=two_moons', '--visible=bernoulli'], 'visible=bernoulli needs binary or grey data'),
    (['--num_hidden=0'], 'num_hidden'),
    (['--num_hidden=-3'], 'num_hidden'),
    (['--cd_steps=0'], 'cd_steps'),
    (['--batch_size=0'], 'batch_size'),
    (['--batch_size=100000'], 'batch_size=100000 is larger than the'),
    (['--learning_rate=-1'], 'learning_rate'),
    (['--parallel=pmap', '--batch_size=9'], 'batch_size=9 does not divide over 2 devices; use 8'),
    (['--parallel=pmap', '--num_chains=9'], '9 chains do not divide over 2 devices'),
    (['--visible=trinary'], 'trinary'),
    (['--no_such_flag=1'], "Unknown command line flag 'no_such_flag'"),
    (['stray'], "argument 'stray' is not a flag"),
    (['--mode=evaluate'], 'holds no trained model'),
    (['--ais_betas=many', GREY], "schedule='many'"),
    (['--num_hosts=2', '--host_index=2', '--coordinator=localhost:1'], 'host_index=2'),
    (['--flagfile=/nowhere/flags'], '/nowhere/flags'),
    (['--sparsity_target=0', GREY], 'sparsity_target=0'),
  ],
)
def test_what_the_user_can_put_right_is_one_clear_line(tmp_path, argv, message):
  with pytest.raises(common_flags.UserError, match=message) as error:
    run(f'--workdir={tmp_path / "run"}', *argv)
  assert '\n' not in str(error.value)


def test_user_errors_exit_with_2_and_no_traceback(tmp_path):
  process = start(f'--workdir={tmp_path}', '--cd_steps=0')
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 2
  assert errors.startswith('error: ')
  assert 'Traceback' not in errors


def test_a_non_finite_loss_exits_with_1_and_says_when(tmp_path, capsys):
  with pytest.raises(cli.loop.NonFiniteError, match=r'in the update from step \d+ to \d+'):
    run('--dataset=two_moons', '--learning_rate=1e6', '--num_steps=40', f'--workdir={tmp_path / "run"}')


def test_a_folder_of_another_run_is_refused(finished, tmp_path):
  with pytest.raises(common_flags.UserError, match=r'--num_hidden=4 \(now 5\), --seed=0 \(now 1\)'):
    run(f'--workdir={finished}', '--num_hidden=5', '--seed=1')
  settings = tmp_path / 'settings.flags'
  settings.write_text('# python -m experiments.mixture\n')
  with pytest.raises(common_flags.UserError, match='belongs to a run of mixture, not of rbm'):
    run(f'--workdir={tmp_path}')
  settings.rename(tmp_path / 'thesis.txt')
  with pytest.raises(common_flags.UserError, match='is not empty and holds no run'):
    run(f'--workdir={tmp_path}')


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
  with pytest.raises(common_flags.UserError, match="workdir='/proc/run' cannot be used"):
    run('--workdir=/proc/run')
  (tmp_path / 'file').touch()
  with pytest.raises(common_flags.UserError, match='cannot be used'):
    run(f'--workdir={tmp_path / "file"}')


def test_nan_in_the_data_is_refused(tmp_path, monkeypatch):
  from gm_jax import data

  dataset = data.load('two_moons', num_train=50)
  x = dataset.train.x.copy()
  x[7, 1] = np.nan
  dataset = dataset._replace(train=dataset.train._replace(x=x))
  monkeypatch.setattr(data, 'load', lambda *args, **kwargs: data.check(dataset))
  with pytest.raises(common_flags.UserError, match='two_moons: train: example 7 has the value nan'):
    run('--dataset=two_moons', f'--workdir={tmp_path / "run"}')


def test_help_shows_its_own_flags_first_and_help_for_every_flag(capsys):
  cli.run(rbm.BINARY, ['rbm', '--help'])
  text = capsys.readouterr().out
  assert text.startswith('Restricted Boltzmann machine.')
  assert text.index('\n  --num_hidden') < text.index('Flags of every binary') < text.index('\n  --dataset')
  flags = common_flags.parse_flags(rbm.BINARY, ['rbm'])
  assert all(flags[name].help for name in flags)
  promised = (
    'dataset data_dir workdir mode batch_size num_epochs num_steps learning_rate seed num_seeds parallel eval_every '
    'checkpoint_every coordinator num_hosts host_index'
  )
  assert set(promised.split()) <= set(flags)


@pytest.mark.parametrize('module', [cross_validation, evaluate, failures, neural_net_divergence, parzen])
def test_scripts_have_help_and_refuse_what_is_no_flag_or_no_data_set(module, capsys):
  name = module.SCRIPT.name
  assert module.__name__ == f'experiments.{name}'
  assert common_flags.run_script(module.SCRIPT, [name, '--help']) is None
  text = capsys.readouterr().out
  assert text.startswith(module.__doc__.strip()) and '\n  --dataset\n' in text and 'every binary' not in text
  for argv, message in ((['--nonsense'], "flag 'nonsense'"), (['digits'], "'digits' is not a flag"),
                        (['--dataset=none'], "data set 'none' is not known")):  # fmt: skip
    with pytest.raises(common_flags.UserError, match=message):
      common_flags.run_script(module.SCRIPT, [name, *argv])


@pytest.mark.parametrize('num_steps', [4, 90, 4800, 6150])
def test_dispatches_of_a_run_left_to_itself_are_of_one_length_but_for_the_last(num_steps):
  flags = common_flags.parse_flags(rbm.BINARY, ['rbm', f'--num_steps={num_steps}'])
  plan = cli.make_plan(flags, 1000)
  stops = [0]
  while stops[-1] < num_steps:
    stops.append(plan.next_stop(stops[-1]))
  assert len(set(np.diff(stops)[:-1])) == 1
  assert len([stop for stop in stops[1:] if stop % plan.eval_every == 0]) >= 4
