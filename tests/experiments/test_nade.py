"""The binary of NADE and DeepNADE in this process, on data so small that the command line is what is tested."""

import json

import numpy as np
import pytest

from experiments import cli, common_flags, nade

pytestmark = pytest.mark.usefixtures('few_examples')

ORDERINGS = ['--num_orderings=2', '--curve_orderings=2']


def run(workdir, *argv):
  tiny = ['--num_hidden=4', '--num_steps=2', '--batch_size=50']
  cli.run(nade.BINARY, ['nade', *tiny, f'--workdir={workdir}', *argv])
  report = json.loads((workdir / 'report.json').read_text())
  assert all(np.isfinite(score['value']) for score in report['metrics'].values())
  return report['metrics'], {path.stem for path in workdir.glob('*.png')}


def test_nade_reports_an_exact_likelihood_and_draws(tmp_path):
  scores, pictures = run(tmp_path / 'run', '--dataset=bars_and_stripes')
  assert scores['test_log_prob']['kind'] == 'exact'
  assert pictures == {'curves', 'samples', 'completions', 'conditionals', 'filters', 'likelihood_map'}


def test_deep_nade_reports_ensembles_and_draws(tmp_path):
  scores, pictures = run(tmp_path / 'run', '--dataset=bars_and_stripes', '--model=deep_nade', *ORDERINGS)
  assert scores['test_log_prob_of_2_orderings'] == pytest.approx(scores['test_log_prob'])
  assert scores['test_log_prob_of_2_orderings']['value'] != scores['test_log_prob_of_1_orderings']['value']
  assert pictures == {'curves', 'orderings', 'samples', 'completions', 'conditionals', 'likelihood_map'}


def test_real_data_are_refused(tmp_path):
  with pytest.raises(common_flags.UserError, match='needs binary or grey data'):
    run(tmp_path / 'run', '--dataset=two_moons')
