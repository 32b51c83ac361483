"""Masked autoregressive flow (MAF), MADE with Gaussian conditionals, and both with mixtures of Gaussians.

The test log-likelihood is exact; samples take a handful of passes of each layer, by iteration on all dimensions.

  python -m experiments.maf                                              the embedded digits in logit space
  python -m experiments.maf --dataset=two_moons --num_components=10      noise that is a MADE with mixtures
  python -m experiments.maf --dataset=bsds300_patches --hidden_sizes=512,512
  python -m experiments.maf --num_layers=1 --nobatch_norm                a Gaussian MADE
"""

from absl import flags as absl_flags

from experiments import cli, common_flags, flow_data, flows
from gm_jax import data as datasets
from gm_jax.flows import maf


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  flows.define_layer_flags(flags, 5, ['100', '100'])
  flows.define_transform_flags(flags)
  absl_flags.DEFINE_bool('batch_norm', True, 'Batch normalisation behind each layer.', flag_values=flags)
  help = 'Gaussians of each dimension of the noise; 1 is standard normal noise.'
  absl_flags.DEFINE_integer('num_components', 1, help, lower_bound=1, flag_values=flags)
  flows.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = maf.maf(
    flow_data.num_dimensions(dataset), flags.num_layers, common_flags.whole_numbers(flags, 'hidden_sizes'),
    transform=flows.transform(flags), batch_norm=flags.batch_norm, num_components=flags.num_components,
    context_size=flow_data.context_size(flags, dataset),
  )  # fmt: skip
  return flows.experiment(flags, dataset, module, axis_name, calibrated=flags.batch_norm)


BINARY = cli.Binary(
  name='maf', doc=__doc__, define_flags=define_flags, build=build, defaults={'num_epochs': 60, 'learning_rate': 1e-3}
)

if __name__ == '__main__':
  cli.main(BINARY)
