"""Wasserstein GAN: clipped weights, gradient penalty, or spectral normalisation.

The critic's gap between data and samples, which estimates a Wasserstein distance, is the difference of
real score and fake score in the curves.

  python -m experiments.wgan                                              the embedded digits, gradient penalty
  python -m experiments.wgan --constraint=clipping --learning_rate=0.0002
  python -m experiments.wgan --dataset=gaussians25 --architecture=mlp --normalisation=none --num_latents=2
"""

from absl import flags as absl_flags

from experiments import adversarial, cli
from gm_jax import data as datasets
from gm_jax.adversarial import wgan

CONSTRAINTS = ('penalty', 'clipping', 'spectral')


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_enum('constraint', 'penalty', CONSTRAINTS, "What bounds the critic's slope.", flag_values=flags)
  absl_flags.DEFINE_float('penalty_weight', 10.0, 'Of --constraint=penalty.', lower_bound=0, flag_values=flags)
  absl_flags.DEFINE_float('clip_limit', 0.01, 'Of --constraint=clipping.', lower_bound=1e-9, flag_values=flags)
  adversarial.define_flags(
    flags, architecture='convolutional', generator_sizes=['64', '32'], critic_sizes=['32', '64'], num_latents=20,
    normalisation='batch', critic_steps=5, beta1=0.0, beta2=0.9,
  )  # fmt: skip


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  settings = {'output_bias': False}  # a constant cancels in the gap
  if flags.constraint == 'penalty':
    settings['penalty'] = wgan.gradient_penalty(flags.penalty_weight)
  elif flags.constraint == 'clipping':
    settings['critic_limit'] = flags.clip_limit
  else:
    settings['dense'] = wgan.SpectralDense
    if flags.architecture == 'convolutional':
      settings['convolution'] = wgan.SpectralConvolution
  return adversarial.build(flags, dataset, axis_name, wgan.WASSERSTEIN, has_odds=False, **settings)


BINARY = cli.Binary(
  name='wgan',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'batch_size': 200, 'num_epochs': 100, 'learning_rate': 0.001},
)

if __name__ == '__main__':
  cli.main(BINARY)
