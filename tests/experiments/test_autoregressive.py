"""The binaries of autoregressive models in this process, on data so small that the command line is what is tested."""

import json

import numpy as np
import pytest

from experiments import cli, common_flags, docnade, fvsbn, made, rnade

pytestmark = pytest.mark.usefixtures('few_examples')

TINY = ['--dataset=bars_and_stripes', '--num_steps=4', '--eval_every=4', '--batch_size=20', '--average=0']


def run(binary, workdir, *argv):
  cli.run(binary, [binary.name, *TINY, f'--workdir={workdir}', *argv])
  report = json.loads((workdir / 'report.json').read_text())
  assert {name: score['kind'] for name, score in report['metrics'].items()} == {
    'test_log_prob': 'exact', 'train_log_prob': 'exact',
  }  # fmt: skip
  assert all(np.isfinite(score['value']) for score in report['metrics'].values())
  return {path.name for path in workdir.glob('*.png')}


def test_made_draws_its_pictures(tmp_path):
  found = run(made.BINARY, tmp_path / 'run', '--hidden_sizes=8,8', '--ordering=random', '--num_masks=2')
  assert {'samples.png', 'completions.png', 'conditionals.png', 'nats.png', 'masks.png'} <= found


@pytest.mark.slow
def test_made_takes_categories_and_real_data(tmp_path):
  run(made.BINARY, tmp_path / 'categories', '--hidden_sizes=', '--head=categorical')
  run(made.BINARY, tmp_path / 'real', '--hidden_sizes=4', '--dataset=two_moons', '--num_components=2')


def test_fvsbn_draws_its_pictures(tmp_path):
  assert 'weights.png' in run(fvsbn.BINARY, tmp_path / 'run')


@pytest.mark.slow
def test_networks_of_their_own_run(tmp_path):
  run(fvsbn.BINARY, tmp_path / 'run', '--model=separate_mlps', '--num_hidden=2', '--ordering=random')


def test_rnade_draws_its_pictures(tmp_path):
  found = run(rnade.BINARY, tmp_path / 'run', '--dataset=two_moons', '--hidden_sizes=4', '--num_components=2')
  assert {'samples.png', 'curves.png'} <= found


def test_docnade_reports_perplexities_and_draws(tmp_path):
  argv = [argument for argument in TINY if not argument.startswith('--dataset')]
  workdir = tmp_path / 'run'
  cli.run(docnade.BINARY, ['docnade', *argv, '--num_hidden=3', '--num_orders=2', f'--workdir={workdir}'])
  scores = json.loads((workdir / 'report.json').read_text())['metrics']
  kinds = {name: score['kind'] for name, score in scores.items()}
  assert kinds == {
    'test_log_prob': 'exact', 'test_perplexity': 'exact', 'test_perplexity_of_2_orders': 'upper bound',
    'test_perplexity_of_the_truth': 'exact',
  }  # fmt: skip
  assert scores['test_perplexity']['value'] > scores['test_perplexity_of_the_truth']['value'] > 1
  pictures = {path.name for path in workdir.glob('*.png')}
  assert pictures == {'curves.png', 'retrieval.png', 'nearest_words.png', 'topics.png', 'samples.png'}


@pytest.mark.parametrize(
  ('binary', 'argv', 'message'),
  [
    (
      made,
      ['--dataset=digits', '--binarise=none', '--head=bernoulli'],
      'is grey, but a bernoulli head needs binary data or cut them',
    ),
    (made, ['--dataset=two_moons', '--head=bernoulli'], 'is real, but a bernoulli head needs binary data'),
    (made, ['--dataset=two_moons', '--head=categorical'], 'is real, but a categorical head needs'),
    (made, ['--dataset=digits', '--head=mixture'], 'is grey, but a mixture head needs real data'),
    (made, ['--hidden_sizes=10', '--nodirect'], 'layer of 10 units cannot bear each of the degrees'),
    (made, ['--hidden_sizes=', '--nodirect'], 'direct=False without a hidden layer'),
    (made, ['--hidden_sizes=5,x'], 'hidden_sizes=5,x: give whole numbers'),
    (made, ['--num_masks=3'], 'num_masks=3, but neither'),
    (fvsbn, ['--dataset=two_moons'], 'is real, but a bernoulli head needs binary data'),
    (fvsbn, ['--num_hidden=0'], 'num_hidden'),
    (rnade, [], 'is binary, but RNADE is a density of real or grey data'),
    (docnade, [], 'is binary, but DocNADE needs counts of words'),
  ],
)
def test_what_the_user_can_put_right_is_one_clear_line(tmp_path, binary, argv, message):
  with pytest.raises(common_flags.UserError, match=message) as error:
    cli.run(binary.BINARY, ['name', *TINY, f'--workdir={tmp_path / "run"}', *argv])
  assert '\n' not in str(error.value)
