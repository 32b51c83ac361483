"""The binaries of autoencoders in this process, on the embedded digits and a handful of updates."""

import json

import numpy as np
import pytest

from experiments import autoencoder, cli, iwae, vae

TINY = ['--num_steps=2', '--hidden_sizes=6', '--num_latents=2', '--eval_every=2']
RUNS = {
  'vae': (vae.BINARY, ['--num_importance=3', '--warm_up=5'], {'test_bound': 'lower bound', 'test_elbo': 'lower bound'}),
  'iwae': (
    iwae.BINARY, ['--num_layers=2', '--hidden_sizes=6,5', '--num_evaluation=3', '--gradient=dreg'],
    {'test_bound': 'lower bound', 'test_bound_of_5': 'lower bound'},
  ),
  'autoencoder': (autoencoder.BINARY, ['--corruption=masking'], {'test_reconstruction_error': 'exact'}),
}  # fmt: skip


@pytest.mark.parametrize('name', RUNS)
def test_a_run_ends_in_a_report(name, tmp_path):
  binary, argv, kinds = RUNS[name]
  cli.run(binary, [name, *TINY, *argv, f'--workdir={tmp_path / "run"}'])
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  assert all(np.isfinite(score['value']) for score in report['metrics'].values())
  assert {score: report['metrics'][score]['kind'] for score in kinds} == kinds
  assert (tmp_path / 'run' / 'reconstructions.png').exists()


@pytest.mark.parametrize(
  ('binary', 'argv', 'message'),
  [
    (vae.BINARY, ['--hidden_sizes=20,x'], 'hidden_sizes=20,x: give whole numbers'),
    (vae.BINARY, ['--likelihood=logistic', '--dataset=bars_and_stripes'], 'likelihood=logistic needs grey data'),
    (vae.BINARY, ['--architecture=convolutional', '--dataset=two_moons'], 'architecture=convolutional needs images'),
    (vae.BINARY, ['--architecture=one_hidden_layer', '--posterior=full'], 'take --architecture=mlp'),
    (iwae.BINARY, ['--num_layers=2', '--hidden_sizes=20'], 'num_layers=2 has two hidden_sizes'),
    (autoencoder.BINARY, ['--dataset=two_moons'], 'reconstruction=bernoulli needs binary or grey data'),
  ],
)
def test_flags_that_cannot_be_used_are_refused_at_once(binary, argv, message, tmp_path):
  with pytest.raises(cli.UserError, match=message):
    cli.run(binary, [binary.name, *argv, f'--workdir={tmp_path / "run"}'])
