"""Deep convolutional GAN on images.

Fractionally strided generator and strided critic with the settings of the paper: batch normalisation in both, Adam with
beta_1 = 0.5, z uniform on a cube.

  python -m experiments.dcgan                                             the embedded digits
  python -m experiments.dcgan --dataset=mnist --generator_sizes=128,64 --critic_sizes=64,128 --learning_rate=0.0002
"""

from absl import flags as absl_flags

from experiments import adversarial, cli
from gm_jax import data as datasets
from gm_jax.adversarial import gan


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  games = ['non_saturating', *(name for name in gan.GAMES if name != 'non_saturating')]
  absl_flags.DEFINE_enum('game', games[0], games, 'What the players play for.', flag_values=flags)
  adversarial.define_flags(
    flags, architecture='convolutional', generator_sizes=['64', '32'], critic_sizes=['32', '64'], num_latents=100,
    prior='uniform', normalisation='batch', critic_normalisation='batch',
  )  # fmt: skip


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  return adversarial.build(flags, dataset, axis_name, gan.GAMES[flags.game])


BINARY = cli.Binary(
  name='dcgan',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'batch_size': 64, 'num_epochs': 100, 'learning_rate': 0.0005},
)

if __name__ == '__main__':
  cli.main(BINARY)
