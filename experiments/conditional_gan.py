"""Conditional GAN: both players are told the class, which joins the critic's input or is projected on its features.

The report says how often a sample is of the class that was asked for, by the class of its nearest training example, and
how often that judge is right about test examples.

  python -m experiments.conditional_gan                                   the embedded digits
  python -m experiments.conditional_gan --condition=joined --game=non_saturating
"""

from absl import flags as absl_flags

from experiments import adversarial, cli
from gm_jax import data as datasets
from gm_jax.adversarial import gan


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  games = ['hinge', *(name for name in gan.GAMES if name != 'hinge')]
  conditions = ('projected', 'joined')
  absl_flags.DEFINE_enum('game', games[0], games, 'What the players play for.', flag_values=flags)
  absl_flags.DEFINE_enum('condition', conditions[0], conditions, 'How the critic is told the class.', flag_values=flags)
  adversarial.define_flags(
    flags, architecture='convolutional', generator_sizes=['64', '32'], critic_sizes=['32', '64'], num_latents=20,
    normalisation='batch', critic_normalisation='batch',
  )  # fmt: skip


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  return adversarial.build(flags, dataset, axis_name, gan.GAMES[flags.game], condition=flags.condition)


BINARY = cli.Binary(
  name='conditional_gan',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'batch_size': 64, 'num_epochs': 100, 'learning_rate': 0.0005},
)

if __name__ == '__main__':
  cli.main(BINARY)
