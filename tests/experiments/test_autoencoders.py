"""The binaries of autoencoders in this process, on the embedded digits and a handful of updates."""

import json

import numpy as np
import pytest

from experiments import (
  audio_vae,
  autoencoder,
  cli,
  common_flags,
  conditional_vae,
  hierarchical_vae,
  iwae,
  sequence_vae,
  vae,
)

pytestmark = pytest.mark.usefixtures('few_examples')

TINY = ['--num_steps=2', '--num_latents=2', '--eval_every=2']
BOUNDS = {'test_bound': 'lower bound', 'test_elbo': 'lower bound'}
RUNS = {
  'vae': (vae.BINARY, ['--hidden_sizes=6', '--num_importance=3', '--warm_up=5'], BOUNDS, 'estimators.png'),
  'iwae': (
    iwae.BINARY, ['--num_layers=2', '--hidden_sizes=6,5', '--num_evaluation=3', '--gradient=dreg'],
    {**BOUNDS, 'test_bound_of_5': 'lower bound'}, 'completions.png',
  ),
  'autoencoder': (
    autoencoder.BINARY, ['--hidden_sizes=6', '--corruption=masking'], {'test_reconstruction_error': 'exact'},
    'denoised.png',
  ),
  'conditional_vae': (
    conditional_vae.BINARY, ['--hidden_sizes=6', '--num_importance=3', '--alpha=0.5'],
    {**BOUNDS, 'test_accuracy': 'estimate'}, 'styles.png',
  ),
  'hierarchical_vae': (
    hierarchical_vae.BINARY, ['--num_layers=2', '--width=6', '--num_importance=3'], BOUNDS, 'levels.png',
  ),
  'sequence_vae': (
    sequence_vae.BINARY, ['--num_hidden=3', '--num_importance=3'],
    {**BOUNDS, 'test_log_prob_of_the_truth': 'exact', 'edge_area_under_curve': 'exact'}, 'graph.png',
  ),
  'audio_vae': (
    audio_vae.BINARY, ['--num_features=4', '--num_importance=3'],
    {**BOUNDS, 'test_bits': 'upper bound', 'test_bits_of_gaussian_noise': 'exact'}, 'rebuilt.wav',
  ),
}  # fmt: skip


@pytest.mark.slow
def test_upper_halves_are_given_and_lower_ones_drawn(tmp_path):
  own = ['--given=upper_half', '--num_annealing=2', '--hidden_sizes=6', '--num_importance=2']
  argv = [*TINY, *own, f'--workdir={tmp_path / "run"}']
  cli.run(conditional_vae.BINARY, ['conditional_vae', *argv])
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  assert report['metrics']['simulated_log_prob']['kind'] == 'bracket'
  assert (tmp_path / 'run' / 'halves.png').exists()
  cli.run(conditional_vae.BINARY, ['conditional_vae', *argv, '--mode=sample', '--num_samples=3'])
  assert np.load(tmp_path / 'run' / 'samples.npz')['samples'].shape == (3, 64)


# These wait for `make test-slow`: most of their code is that of the binary of variational autoencoders.
SLOW = 'iwae', 'conditional_vae', 'hierarchical_vae', 'audio_vae'


@pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RUNS])
def test_a_run_ends_in_a_report(name, tmp_path):
  binary, argv, kinds, picture = RUNS[name]
  cli.run(binary, [name, *TINY, *argv, f'--workdir={tmp_path / "run"}'])
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  assert all(np.isfinite(score['value']) for score in report['metrics'].values())
  assert {score: report['metrics'][score]['kind'] for score in kinds} == kinds
  assert (tmp_path / 'run' / picture).stat().st_size > 1000


@pytest.mark.parametrize(
  ('binary', 'argv', 'message'),
  [
    (vae.BINARY, ['--hidden_sizes=20,x'], 'hidden_sizes=20,x: give whole numbers'),
    (vae.BINARY, ['--likelihood=logistic', '--dataset=bars_and_stripes'], 'likelihood=logistic needs grey data'),
    (vae.BINARY, ['--architecture=convolutional', '--dataset=two_moons'], 'architecture=convolutional needs images'),
    (vae.BINARY, ['--architecture=one_hidden_layer', '--posterior=full'], 'take --architecture=mlp'),
    (iwae.BINARY, ['--num_layers=2', '--hidden_sizes=20'], 'num_layers=2 has two hidden_sizes'),
    (conditional_vae.BINARY, ['--dataset=network'], 'given=label needs labels'),
    (conditional_vae.BINARY, ['--given=upper_half', '--dataset=two_moons'], 'given=upper_half needs images'),
    (conditional_vae.BINARY, ['--given=upper_half', '--binarise=stochastic'], 'binarise=stochastic draws x anew'),
    (sequence_vae.BINARY, ['--dataset=two_moons'], 'are no series'),
    (audio_vae.BINARY, ['--dataset=digits'], "dataset='digits' is grey, but this model is of audio"),
    (audio_vae.BINARY, ['--num_bands=7'], 'num_bands=7: must divide the 1024 samples'),
    (autoencoder.BINARY, ['--dataset=two_moons'], 'reconstruction=bernoulli needs binary or grey data'),
  ],
)
def test_flags_that_cannot_be_used_are_refused_at_once(binary, argv, message, tmp_path):
  with pytest.raises(common_flags.UserError, match=message):
    cli.run(binary, [binary.name, *argv, f'--workdir={tmp_path / "run"}'])
