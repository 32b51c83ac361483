"""Glow: actnorm, invertible 1x1 convolutions and couplings over several scales of images.

The test log-likelihood is exact for the dequantised values; bits per dimension are of the original ones.

  python -m experiments.glow                                             the embedded digits
  python -m experiments.glow --conditional                               given the class
  python -m experiments.glow --dataset=mnist --num_flow_steps=8 --num_hidden=64 --learning_rate=0.004
"""

from absl import flags as absl_flags

from experiments import cli, flow_data, flows, realnvp
from gm_jax import data as datasets
from gm_jax.flows import glow


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  realnvp.define_image_flags(flags, 2, 4, 32)
  absl_flags.DEFINE_bool('factored', True, 'Keep 1x1 convolutions as LU factors.', flag_values=flags)
  absl_flags.DEFINE_bool('learnt_prior', True, 'Learn the Gaussians of what leaves early.', flag_values=flags)
  flows.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = glow.glow(
    realnvp.image_shape(dataset), flags.num_levels, flags.num_flow_steps, num_hidden=flags.num_hidden,
    factored=flags.factored, learnt_prior=flags.learnt_prior, context_size=flow_data.context_size(flags, dataset),
  )  # fmt: skip
  return flows.experiment(flags, dataset, module, axis_name)


BINARY = cli.Binary(
  name='glow', doc=__doc__, define_flags=define_flags, build=build, defaults={'num_epochs': 60, 'learning_rate': 5e-3}
)

if __name__ == '__main__':
  cli.main(BINARY)
