"""The binaries of adversarial models in this process, on a handful of updates."""

import json

import numpy as np
import pytest

from experiments import adversarial_judge, cli, common_flags, conditional_gan, dcgan, gan, wgan

pytestmark = pytest.mark.usefixtures('few_examples')

MLP = ['--architecture=mlp', '--generator_sizes=6', '--critic_sizes=6', '--num_latents=2', '--normalisation=none']
SMALL = ['--generator_sizes=4,4', '--critic_sizes=4,4', '--num_latents=3']
RUNS = {
  'gan': (
    gan.BINARY, [*MLP, '--dataset=gaussians8', '--num_train=300', '--average=0.9', '--schedule=linear'],
    {'modes', 'solid_modes', 'high_quality', 'reverse_kl'}, {'over_training', 'mode_shares', 'samples'},
  ),
  'conditional_gan': (
    conditional_gan.BINARY, SMALL, {'sample_class_agreement', 'test_class_agreement', 'sample_distance_to_train'},
    {'over_training', 'interpolations', 'nearest', 'samples'},
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', ['gan', pytest.param('conditional_gan', marks=pytest.mark.slow)])
def test_a_run_ends_in_a_report(name, tmp_path):
  binary, argv, scores, pictures = RUNS[name]
  argv = [*argv, '--num_steps=4', '--eval_every=2', '--checkpoint_every=4', f'--workdir={tmp_path / "run"}']
  cli.run(binary, [name, *argv])
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  assert scores | {f'last_{name}' for name in scores} <= set(report['metrics'])
  assert pictures <= {path.stem for path in (tmp_path / 'run').glob('*.png')}
  assert len([*(tmp_path / 'run' / 'snapshots').glob('*.npy')]) == 2
  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  seen = {key for line in lines for key in line}
  assert {'train/generator_grad_norm', 'train/critic_accuracy', 'valid/real_score', 'valid/negative_distance'} <= seen
  assert ('valid/optimality_gap' in seen) == (name == 'gan')


@pytest.mark.parametrize(
  ('binary', 'argv', 'message'),
  [
    (gan, ['--generator_sizes=8,x'], 'generator_sizes=8,x: give whole numbers'),
    (gan, ['--batch_size=9', '--packing=2'], 'batch_size=9 must divide into critic_steps=1 parts of whole packs'),
    (gan, ['--dataset=digits', '--num_train=9'], 'num_train=9 is for toy sets'),
    (gan, ['--architecture=convolutional'], 'architecture=convolutional needs images'),
    (gan, ['--dataset=topics'], 'is counts'),
    (gan, ['--critic_normalisation=batch'], 'is of a convolutional critic'),
    (gan, ['--real_target=0.3'], 'real_target=0.3'),
    (dcgan, ['--generator_sizes=8,8,8,8'], 'height and width must divide by 16'),
    (dcgan, ['--critic_sizes=8,8,8,8'], 'cannot be halved as often'),
    (dcgan, ['--maxout=3'], 'maxout=3'),
    (wgan, ['--critic_normalisation=batch'], 'leave out its batch normalisation'),
    (conditional_gan, ['--dataset=swiss_roll', *MLP, '--critic_normalisation=none'], 'has no classes'),
  ],
)
def test_flags_that_cannot_be_used_are_refused_at_once(binary, argv, message, tmp_path):
  with pytest.raises(common_flags.UserError, match=message):
    cli.run(binary.BINARY, [binary.BINARY.name, *argv, f'--workdir={tmp_path / "run"}'])


def test_snapshots_beyond_the_step_are_left_out(tmp_path):
  (tmp_path / 'snapshots').mkdir()
  for step in (5, 10, 15):
    np.save(tmp_path / 'snapshots' / f'{step:09d}.npy', np.full(2, step))
  assert [*cli.read_snapshots(tmp_path, 10)] == [5, 10]


def test_movement_tells_a_generator_that_has_settled_from_one_that_has_not():
  draws = np.random.default_rng(0).normal(size=(9, 500, 2, 3))
  settled = [draws[0]] * 5
  assert adversarial_judge.movement([*draws[:4], *settled]) == 0
  # Independent draws are as far apart as two samples are: the ratio of two root mean squares of 3,000 numbers each.
  assert adversarial_judge.movement([*settled, *draws[1:]]) == pytest.approx(1.0, abs=0.03)
  half = [draws[0] + 0.5 * step * np.sqrt(2) for step in range(9)]  # by half of sqrt(2), the distance of two samples
  assert adversarial_judge.movement(half) == pytest.approx(0.5, abs=0.02)
