"""Generative adversarial network: minimax, non-saturating, least-squares or hinge game, with the tricks that steady it.

On the ring and the grid of Gaussians modes, quality and reverse divergence are scored during training and at its end,
and so is the gap between the critic and the best one.

  python -m experiments.gan                                               the ring of 8 Gaussians
  python -m experiments.gan --dataset=gaussians25 --packing=2 --num_seeds=3
  python -m experiments.gan --dataset=digits --num_latents=20 --generator_sizes=256,256 --critic_sizes=256,256
"""

from absl import flags as absl_flags

from experiments import adversarial, cli
from gm_jax import data as datasets
from gm_jax.adversarial import gan


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  games = ['non_saturating', *(name for name in gan.GAMES if name != 'non_saturating')]
  absl_flags.DEFINE_enum('game', games[0], games, 'What the players play for.', flag_values=flags)
  adversarial.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  has_odds = flags.game in ('minimax', 'non_saturating')
  return adversarial.build(flags, dataset, axis_name, gan.GAMES[flags.game], has_odds=has_odds)


BINARY = cli.Binary(
  name='gan',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'dataset': 'gaussians8', 'batch_size': 200, 'num_epochs': 200, 'learning_rate': 0.001},
)

if __name__ == '__main__':
  cli.main(BINARY)
