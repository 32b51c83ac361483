"""Masked autoencoder for distribution estimation (MADE).

One network with masked weights gives all conditionals of an ordering at once; several masks make an ensemble over
orderings, connectivities or both. The test log-likelihood is exact, and a sample costs about one pass of the network.

  python -m experiments.made                                             the embedded digits, cut at one half
  python -m experiments.made --ordering=random --num_masks=8             an ensemble over orderings
  python -m experiments.made --binarise=none                             the 17 grey levels as categories
  python -m experiments.made --dataset=binarized_mnist --hidden_sizes=500
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import activations, autoregressive, cli, common_flags
from gm_jax import data as datasets
from gm_jax.autoregressive import made, made_degrees
from gm_jax.evaluation import autoregressive_plots
from gm_jax.likelihoods import Categorical


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=1, flag_values=flags)

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  sizes = 'Units of each hidden layer, with commas between; nothing for direct connections alone.'
  absl_flags.DEFINE_list('hidden_sizes', ['200'], sizes, flag_values=flags)
  activations.define_flag(flags, 'relu')
  choice('ordering', ('natural', 'random'), 'Ordering of the dimensions; a random one for each mask.')
  choice('connectivity', ('even', 'random'), 'How the hidden units are given their degrees.')
  integer('num_masks', 1, 'Masks of the ensemble.')
  choice('masks', ('cycle', 'draw'), 'Which mask a step of training uses: in turn, or at random.')
  absl_flags.DEFINE_bool('direct', True, 'Join inputs and outputs directly, too.', flag_values=flags)
  absl_flags.DEFINE_bool('one_hot', True, 'Let categories enter as one-hot rows.', flag_values=flags)
  choice('head', autoregressive.HEADS, 'Distribution of a dimension; auto goes by the data.')
  integer('num_components', 10, 'Gaussians of --head=mixture.')
  autoregressive.define_flags(flags)


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> made.MADE:
  """The network that the flags and the data ask for."""
  sizes = common_flags.whole_numbers(flags, 'hidden_sizes', least=0)
  head = autoregressive.head_of(flags.head, flags.num_components, flags, dataset)
  degrees = made_degrees.degrees(
    int(np.prod(dataset.shape)), sizes, ordering=flags.ordering,
    connectivity=flags.connectivity, num_masks=flags.num_masks, key=jax.random.key(flags.seed),
    reach_all=not flags.direct,
  )  # fmt: skip
  one_hot = flags.one_hot and isinstance(head, Categorical)
  return made.MADE(degrees, head, activations.ACTIVATIONS[flags.activation], direct=flags.direct, one_hot=one_hot)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = make_module(flags, dataset)

  def draw_masks(keep, params):
    del params
    matrices = module.masks()
    names = [f'hidden {i + 1}' for i in range(len(module.degrees.hidden))] + ['output'] * bool(module.degrees.hidden)
    figure = autoregressive_plots.masks(matrices, names + ['direct'] * module.direct)
    keep(
      'masks.png',
      figure,
      'Masks of the layers (the first set of several): units go down, what they see goes right',
    )

  data, objective = autoregressive.prepare(flags, dataset), made.objective(module, flags.masks)
  ordering = module.degrees.orderings[0]
  return autoregressive.experiment(flags, dataset, data, module, objective, ordering, axis_name, draw_masks)


BINARY = cli.Binary(
  name='made', doc=__doc__, define_flags=define_flags, build=build, defaults={'num_epochs': 100, 'learning_rate': 3e-3}
)

if __name__ == '__main__':
  cli.main(BINARY)
