"""The binaries of the density family in this process, on data so small that the command line is what is tested."""

import json

import numpy as np
import pytest

from experiments import classifier, cli, common_flags, kde, mixture, pca
from gm_jax import data as datasets

pytestmark = pytest.mark.usefixtures('few_examples')

TINY = {
  'kde': (kde.BINARY, ['--dataset=two_moons', '--batch_size=50', '--num_steps=4', '--learning_rate=0.1']),
  'mixture': (mixture.BINARY, ['--dataset=bars_and_stripes', '--num_components=3', '--num_steps=4', '--bic=2']),
  'classifier': (classifier.BINARY, ['--dataset=two_moons', '--num_steps=1']),
  'pca': (pca.BINARY, ['--dataset=digits', '--num_components=3', '--num_steps=2']),
}


def run(name, workdir, *argv):
  """Runs a binary, where later flags win, and gives the scores of its report."""
  binary, tiny = TINY[name]
  cli.run(binary, [name, *tiny, f'--workdir={workdir}', *argv])
  report = json.loads((workdir / 'report.json').read_text())
  assert report['model'] == name
  assert (workdir / 'report.html').read_text().count('data:image/png') >= 1
  assert all(np.isfinite(score['value']) for score in report['metrics'].values())
  return report['metrics']


def test_kde_reports_the_exact_likelihood_beside_that_of_the_truth(tmp_path):
  scores = run('kde', tmp_path / 'run')
  assert {name: score['kind'] for name, score in scores.items()} == {
    'test_log_prob': 'exact',
    'test_log_prob_of_the_truth': 'exact',
  }
  error = np.hypot(scores['test_log_prob']['stderr'], scores['test_log_prob_of_the_truth']['stderr'])
  assert scores['test_log_prob']['value'] < scores['test_log_prob_of_the_truth']['value'] + 4 * error


def test_kde_keeps_the_bandwidth_that_it_is_given(tmp_path):
  """Of one Gaussian per example, written out."""
  width, dataset = 0.3, datasets.load('two_moons')
  found = run('kde', tmp_path / 'run', f'--bandwidth={width}', '--selection=rule')['test_log_prob']['value']
  squared = ((dataset.test.x[:, None] - dataset.train.x) ** 2).sum(-1)
  density = np.exp(-0.5 * squared / width**2).mean(1) / (2 * np.pi * width**2)
  assert found == pytest.approx(np.log(density).mean(), abs=1e-4)


@pytest.mark.slow
def test_kde_with_a_bounded_kernel_counts_the_examples_without_density(tmp_path):
  binary, tiny = TINY['kde']
  lonely = ['--kernel=tophat', '--selection=rule', '--bandwidth=0.05']
  cli.run(binary, ['kde', *tiny, f'--workdir={tmp_path / "run"}', *lonely])
  scores = json.loads((tmp_path / 'run' / 'report.json').read_text())['metrics']
  train, test = (getattr(datasets.load('two_moons'), part).x for part in ('train', 'test'))
  expected = (((test[:, None] - train) ** 2).sum(-1) > 0.05**2).all(1).mean()
  assert scores['test_share_without_density']['value'] == pytest.approx(expected, abs=1e-3)


def test_mixture_reports_exact_likelihoods(tmp_path):
  scores = run('mixture', tmp_path / 'run')
  assert {name: score['kind'] for name, score in scores.items()} == {
    'test_log_prob': 'exact',
    'train_log_prob': 'exact',
  }
  # Bits that are fair and independent have -16 log 2 = -11.1 nats, and the truth, of 30 patterns, about -3.4.
  assert -11.1 < scores['test_log_prob']['value'] < -3.4


@pytest.mark.slow
def test_mixture_learns_by_gradient_and_stepwise_too(tmp_path):
  for method in ('gradient', 'stepwise'):
    scores = run('mixture', tmp_path / method, f'--method={method}', '--bic=', '--num_restarts=1')
    assert -11.1 < scores['test_log_prob']['value'] < -3.4


def test_classifier_reports_accuracy_and_what_it_calls_unfamiliar(tmp_path):
  scores = run('classifier', tmp_path / 'run', '--unfamiliar=swiss_roll')
  assert scores['test_log_prob']['kind'] == scores['test_accuracy']['kind'] == 'exact'
  assert scores['test_accuracy']['unit'] == 'share' and 0.8 < scores['test_accuracy']['value'] <= 1
  assert scores['auc_against_swiss_roll']['unit'] == 'AUC' and 0 <= scores['auc_against_swiss_roll']['value'] <= 1


@pytest.mark.slow
def test_classifier_by_mixtures_of_one_component_is_naive_bayes(tmp_path):
  """The pseudo-examples of a mixture are half ones, half zeros: two are one of each value."""
  options = ['--dataset=digits', '--num_steps=1']
  mixture_flags = ['--model=bernoulli_mixture', '--num_components=1', '--pseudo_count=2']
  one = run('classifier', tmp_path / 'one', *options, *mixture_flags)
  naive = run('classifier', tmp_path / 'naive', *options, '--model=bernoulli_naive_bayes', '--pseudo_count=1')
  assert one['test_log_prob']['value'] == pytest.approx(naive['test_log_prob']['value'], rel=1e-5)
  assert one['test_accuracy']['value'] == naive['test_accuracy']['value']


def test_pca_reports_nats_and_bits(tmp_path):
  scores = run('pca', tmp_path / 'run')
  assert {name: score['kind'] for name, score in scores.items()} == {
    'test_log_prob': 'exact', 'train_log_prob': 'exact', 'test_bits': 'upper bound',
  }  # fmt: skip
  # The bits of 64 dequantised pixels of 17 values.
  bits = np.log2(17) - scores['test_log_prob']['value'] / 64 / np.log(2)
  assert scores['test_bits']['value'] == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize(
  ('name', 'argv', 'message'),
  [
    ('kde', ['--bandwidth=0'], 'bandwidth=0'),
    ('kde', ['--bandwidth=-1'], 'bandwidth=-1'),
    ('kde', ['--dataset=bars_and_stripes'], 'is binary, but a density needs real or grey data'),
    ('kde', ['--kernel=tophat'], 'kernel=tophat ends somewhere'),
    ('kde', ['--kernel=box'], 'box'),
    ('kde', ['--batch_size=301'], 'batch_size=301 is larger than the'),
    ('mixture', ['--num_components=301'], 'num_components=301 exceeds the 300'),
    ('mixture', ['--num_components=0'], 'num_components'),
    ('mixture', ['--prior=-1'], 'prior'),
    ('mixture', ['--standardise'], 'standardise needs real data'),
    ('mixture', ['--dataset=two_moons', '--components=bernoulli'], 'components=bernoulli needs binary data'),
    ('mixture', ['--dataset=two_moons', '--components=categorical'], 'components=categorical needs binary or grey'),
    ('mixture', ['--components=factors', '--num_factors=16'], 'num_factors=16 must be below the 16'),
    ('classifier', ['--dataset=bars_and_stripes'], 'needs real or grey data'),
    ('classifier', ['--dataset=swiss_roll'], 'has no labels'),
    ('classifier', ['--model=bernoulli_naive_bayes'], 'needs binary or grey data'),
    ('classifier', ['--model=bernoulli_mixture'], 'needs binary or grey data'),
    ('classifier', ['--dataset=digits', '--model=bernoulli_mixture', '--num_components=200'], 'exceeds the'),
    ('classifier', ['--unfamiliar=digits'], 'unfamiliar=digits'),
    ('classifier', ['--floor=0'], 'floor=0'),
    ('classifier', ['--quantile=1'], 'quantile=1'),
    ('pca', ['--num_components=64'], 'num_components=64 must be below the 64'),
    ('pca', ['--dataset=bars_and_stripes'], 'needs real or grey data'),
    ('pca', ['--num_components=1'], 'num_components'),
  ],
)
def test_what_the_user_can_put_right_is_one_clear_line(tmp_path, name, argv, message):
  binary, tiny = TINY[name]
  with pytest.raises(common_flags.UserError, match=message) as error:
    cli.run(binary, [name, *tiny, f'--workdir={tmp_path / "run"}', *argv])
  assert '\n' not in str(error.value)
