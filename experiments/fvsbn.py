"""Fully visible sigmoid belief net, and a network of its own for each conditional.

The baselines of the autoregressive family: p(x_d | x_<d) by logistic regression, or by a small network that shares
nothing with the others. The test log-likelihood is exact.

  python -m experiments.fvsbn                            the embedded digits, cut at one half
  python -m experiments.fvsbn --model=separate_mlps
  python -m experiments.fvsbn --dataset=binarized_mnist
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import autoregressive, cli
from gm_jax import data as datasets
from gm_jax.autoregressive import fvsbn
from gm_jax.base import pure
from gm_jax.evaluation import image_plots
from gm_jax.training import rules


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  models = ('fvsbn', 'separate_mlps')
  absl_flags.DEFINE_enum('model', models[0], models, 'Logistic regressions, or small networks.', flag_values=flags)
  help = 'Hidden units of each network of --model=separate_mlps.'
  absl_flags.DEFINE_integer('num_hidden', 8, help, lower_bound=1, flag_values=flags)
  orderings = ('natural', 'random')
  absl_flags.DEFINE_enum('ordering', orderings[0], orderings, 'Ordering of the dimensions.', flag_values=flags)
  autoregressive.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  autoregressive.head_of('bernoulli', 1, flags, dataset)
  size = int(np.prod(dataset.shape))
  ordering = np.arange(size)
  if flags.ordering == 'random':
    ordering = np.asarray(jax.random.permutation(jax.random.key(flags.seed), size))
  given = {'num_dimensions': size, 'ordering': tuple(ordering.tolist())}
  regressions = flags.model == 'fvsbn'
  module = fvsbn.FVSBN(**given) if regressions else fvsbn.SeparateMLPs(**given, num_hidden=flags.num_hidden)

  def draw_weights(keep, params):
    if regressions and len(dataset.shape) == 3 and dataset.shape[-1] == 1:
      chosen = ordering[np.linspace(1, size - 1, 25).astype(int)]
      weights = (np.asarray(params['kernel']) * module.mask)[:, chosen].T.reshape(-1, *dataset.shape[:2])
      keep('weights.png', image_plots.filters(weights), 'What 25 pixels, from early to late, are regressed on')

  data, model = autoregressive.prepare(flags, dataset), pure(module)
  objective = model.init, rules.likelihood_loss(model.log_prob)
  return autoregressive.experiment(flags, dataset, data, module, objective, ordering, axis_name, draw_weights)


BINARY = cli.Binary(
  name='fvsbn', doc=__doc__, define_flags=define_flags, build=build, defaults={'num_epochs': 100, 'learning_rate': 1e-2}
)

if __name__ == '__main__':
  cli.main(BINARY)
