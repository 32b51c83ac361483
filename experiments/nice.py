"""NICE: additive couplings and a learnt scale of each dimension.

The test log-likelihood is exact for the dequantised values; bits per dimension are of the original ones.

  python -m experiments.nice                                             the embedded digits
  python -m experiments.nice --dataset=mnist --hidden_sizes=1000,1000,1000,1000,1000 --num_layers=4
"""

from absl import flags as absl_flags

from experiments import cli, common_flags, flow_data, flows
from gm_jax import data as datasets
from gm_jax.flows import nice


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  flows.define_layer_flags(flags, 4, ['200', '200', '200'])
  absl_flags.DEFINE_enum('noise', 'logistic', ('logistic', 'normal'), 'Density of the noise.', flag_values=flags)
  flows.define_flags(flags)
  flags.set_default('space', 'unit')


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = nice.nice(
    flow_data.num_dimensions(dataset), flags.num_layers, common_flags.whole_numbers(flags, 'hidden_sizes'),
    noise=flags.noise, context_size=flow_data.context_size(flags, dataset),
  )  # fmt: skip
  return flows.experiment(flags, dataset, module, axis_name)


BINARY = cli.Binary(
  name='nice', doc=__doc__, define_flags=define_flags, build=build, defaults={'num_epochs': 150, 'learning_rate': 1e-3}
)

if __name__ == '__main__':
  cli.main(BINARY)
