"""The binaries of flows in this process, on data so small that the command line is what is tested."""

import json

import numpy as np
import pytest

from experiments import cli, common_flags, glow, iaf, maf, nice, planar, realnvp

pytestmark = pytest.mark.usefixtures('few_examples')

TINY = ['--num_steps=2', '--eval_every=2', '--batch_size=20', '--average=0']


def run(binary, workdir, *argv):
  cli.run(binary, [binary.name, *TINY, f'--workdir={workdir}', *argv])
  scores = json.loads((workdir / 'report.json').read_text())['metrics']
  assert all(np.isfinite(score['value']) for score in scores.values())
  return scores, {path.name for path in workdir.glob('*.png')}


def test_a_flow_of_the_plane_is_drawn_beside_the_truth(tmp_path):
  scores, pictures = run(maf.BINARY, tmp_path / 'run', '--dataset=two_moons', '--num_layers=1', '--hidden_sizes=4')
  assert {name: score['kind'] for name, score in scores.items()} == {
    'test_log_prob': 'exact', 'train_log_prob': 'exact', 'test_standardised': 'exact',
    'test_log_prob_of_the_truth': 'exact', 'inverted_to': 'exact', 'samples_outside': 'estimate',
  }  # fmt: skip
  assert scores['test_log_prob']['value'] < scores['test_log_prob_of_the_truth']['value']
  assert {'density.png', 'path.png'} <= pictures


def test_images_are_scored_in_bits_per_dimension_and_drawn_at_temperatures(tmp_path):
  argv = ['--num_layers=1', '--hidden_sizes=4']
  scores, pictures = run(nice.BINARY, tmp_path / 'run', *argv)
  assert scores['test_bits']['kind'] == 'upper bound' and scores['test_bits']['unit'] == 'bits/dim'
  expected = -scores['test_log_prob']['value'] / (64 * np.log(2)) + np.log2(17)  # the unit cube, centred
  assert scores['test_bits']['value'] == pytest.approx(expected, rel=1e-5)
  assert {'temperatures.png', 'walks.png', 'samples.png', 'classes.png'} <= pictures


@pytest.mark.slow
def test_an_energy_is_fitted_without_data(tmp_path):
  scores, pictures = run(planar.BINARY, tmp_path / 'run', '--energy=ring', '--num_layers=2')
  assert scores['divergence']['value'] > 0 and {'density.png', 'path.png'} <= pictures


@pytest.mark.slow
def test_the_other_binaries_run(tmp_path):
  run(glow.BINARY, tmp_path / 'glow', '--conditional', '--num_flow_steps=1', '--num_hidden=4')
  run(iaf.BINARY, tmp_path / 'iaf', '--transform=spline', '--num_bins=4', '--hidden_sizes=4')
  run(realnvp.BINARY, tmp_path / 'images', '--dataset=digits', '--architecture=images', '--num_hidden=4')
  run(realnvp.BINARY, tmp_path / 'tanh', '--activation=tanh', '--num_layers=1', '--hidden_sizes=4')
  run(planar.BINARY, tmp_path / 'planar', '--energy=none', '--kind=radial')
  scores, _ = run(nice.BINARY, tmp_path / 'learnt', '--hidden_sizes=4', '--dequantisation=variational')
  assert scores['test_bound']['kind'] == 'lower bound' and 'test_log_prob' not in scores


@pytest.mark.parametrize(
  ('binary', 'argv', 'message'),
  [
    (maf, ['--dataset=bars_and_stripes'], 'is binary, but a flow is a density of real or grey data'),
    (maf, ['--dataset=digits', '--hidden_sizes=8'], 'cannot bear each of the degrees'),
    (maf, ['--dataset=digits', '--alpha=0.5'], 'alpha=0.5'),
    (realnvp, ['--dequantisation=variational'], 'dequantisation=variational is of grey data'),
    (maf, ['--dataset=digits', '--dequantisation=variational'], 'does not go with batch normalisation'),
    (realnvp, ['--dataset=swiss_roll', '--conditional'], 'has no labels to condition on'),
    (realnvp, ['--hidden_sizes=5,x'], 'hidden_sizes=5,x: give whole numbers'),
    (glow, ['--dataset=two_moons'], 'this needs images'),
    (glow, ['--num_levels=4'], 'must be divisible by 16'),
    (planar, ['--conditional'], 'a fit to an energy has no labels'),
  ],
)
def test_what_the_user_can_put_right_is_one_clear_line(tmp_path, binary, argv, message):
  with pytest.raises(common_flags.UserError, match=message) as error:
    cli.run(binary.BINARY, ['name', *TINY, f'--workdir={tmp_path / "run"}', *argv])
  assert '\n' not in str(error.value)
