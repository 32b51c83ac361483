"""Inverse autoregressive flow (IAF) as a density, trained by maximum likelihood.

Its samples take one pass; the density of data is found by iterating all dimensions at once, and differentiated through
the equation that it solves. As the posterior of a variational autoencoder: ``experiments.vae --posterior=iaf``.

  python -m experiments.iaf                                              two moons, beside their true density
"""

from absl import flags as absl_flags

from experiments import cli, common_flags, flow_data, flows
from gm_jax import data as datasets
from gm_jax.flows import iaf


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  flows.define_layer_flags(flags, 4, ['32', '32'])
  flows.define_transform_flags(flags)
  flows.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = iaf.iaf(
    flow_data.num_dimensions(dataset), flags.num_layers, common_flags.whole_numbers(flags, 'hidden_sizes'),
    transform=flows.transform(flags),
    context_size=flow_data.context_size(flags, dataset),
  )  # fmt: skip
  return flows.experiment(flags, dataset, module, axis_name)


BINARY = cli.Binary(
  name='iaf', doc=__doc__, define_flags=define_flags, build=build,
  defaults={'dataset': 'two_moons', 'num_epochs': 40, 'learning_rate': 3e-3},
)  # fmt: skip

if __name__ == '__main__':
  cli.main(BINARY)
