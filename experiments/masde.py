"""MASDE: a masked autoencoder whose outputs see a Markov blanket each, on structured binary data.

The graph of the data is learnt from the training set before the network (a Chow-Liu tree, or the L1-neighbourhoods of
an Ising model), given (the grid of an image), or complete, which makes the model a MADE with one mask. The test
log-likelihood is exact.

  python -m experiments.masde                              the embedded digits, cut at one half
  python -m experiments.masde --dataset=debd/dna --structure=l1 --penalty=0.02
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import autoregressive, cli, common_flags
from gm_jax import data as datasets
from gm_jax.autoregressive import masde, structure
from gm_jax.base import Batch, pure
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.training import rules

STRUCTURES = ('l1', 'chow_liu', 'grid', 'complete')
ORDERINGS = ('small_blankets', 'natural')


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_enum('structure', STRUCTURES[0], STRUCTURES, 'Where the graph comes from.', flag_values=flags)
  absl_flags.DEFINE_float(
    'penalty', 0.01, 'Of --structure=l1: weight of the L1 norm.', lower_bound=0, flag_values=flags
  )  # fmt: skip
  absl_flags.DEFINE_enum('ordering', ORDERINGS[0], ORDERINGS, 'Of the variables.', flag_values=flags)
  absl_flags.DEFINE_list('hidden_sizes', ['300'], 'Units of each hidden layer.', flag_values=flags)
  autoregressive.define_flags(flags)


def make_graph(flags: absl_flags.FlagValues, dataset: datasets.Dataset, train: np.ndarray) -> np.ndarray:
  """The graph that the flags ask for."""
  if flags.structure == 'grid' and len(dataset.shape) != 3:
    raise ValueError(f'structure=grid, but dataset={dataset.name!r} has shape {dataset.shape} and is no image')
  return {
    'l1': lambda: structure.l1_neighbourhoods(train, flags.penalty),
    'chow_liu': lambda: structure.chow_liu(train),
    'grid': lambda: structure.grid(*dataset.shape[:2]),
    'complete': lambda: structure.complete(train.shape[1]),
  }[flags.structure]()


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  sizes = common_flags.whole_numbers(flags, 'hidden_sizes')
  head = autoregressive.head_of('bernoulli', 1, flags, dataset)
  splits = autoregressive.prepare(flags, dataset)
  drawn = np.asarray(splits.transform(jax.random.key(0), splits.train))
  graph = make_graph(flags, dataset, drawn)
  dims = range(len(graph))
  ordering = structure.ordering_of_small_blankets(graph) if flags.ordering == 'small_blankets' else np.array(dims)
  blankets = structure.looking_back_blankets(graph, ordering)
  module = masde.MASDE(blankets, sizes, head)
  model = pure(module)
  optimizer = autoregressive.optimizer(flags, cli.make_plan(flags, len(splits.train)).num_steps)
  algorithm = rules.descent(model.init, rules.likelihood_loss(model.log_prob), optimizer, axis_name=axis_name)
  log_prob = likelihood.evaluator(model.log_prob, block_size=1000)

  def evaluate(step, state):
    del step
    return {'valid/log_prob': log_prob(state.variables, splits.valid).mean}

  def score(key, state):
    del key
    sizes = [len(blanket) for blanket in blankets]
    return {
      **cli.exact_scores(log_prob, state.variables, drawn, splits.test, None),
      'mean_size_of_a_blanket': likelihood.score(np.mean(sizes), 'exact', stderr=None, n=len(sizes), unit='variables'),
    }

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(splits.train),
    transform=splits.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(dataset, module, graph, ordering, state.variables, key, splits.test, folder),
    sample=lambda key, state, num: model.sample(state.variables, key, num),
    best_metric='valid/log_prob',
    published=autoregressive.PUBLISHED.get(flags.dataset, ()),
  )


def draw(dataset, module, graph, ordering, params, key, test, folder) -> list[cli.Picture]:
  """The graph and its blankets in the ordering; of images samples, and which pixels each pixel looks at."""
  pictures, model, member = [], pure(module), masde.membership(module.blankets)

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  in_order = np.stack([matrix[np.ix_(ordering, ordering)] for matrix in (graph, member)])[..., None]
  titles = ['graph', 'looking-back blankets']
  figure = image_plots.image_table(in_order.astype(np.float32)[None], rows=['in order'], columns=titles)
  keep('structure.png', figure, 'Who is joined to whom, and who looks back at whom, with the variables in their order')
  samples = np.asarray(jax.jit(lambda key: model.sample(params, key, 100))(key))
  if len(dataset.shape) != 3:
    means = np.stack([test.mean(0), samples.mean(0)], 1)
    figure = plots.scatter(means, xlabel='mean in the test set', ylabel='mean in 100 samples')
    keep('means.png', figure, 'Mean of each variable, in the data and in samples')
    return pictures
  image = lambda x: np.asarray(x, np.float32).reshape(*np.shape(x)[:-1], *dataset.shape)
  keep('samples.png', image_plots.image_grid(image(samples)), '100 samples')
  chosen = np.linspace(0, len(member) - 1, 36).astype(int)
  look = np.maximum(image(member[chosen]), 0.5 * image(np.eye(len(member))[chosen]))
  keep('blankets.png', image_plots.image_grid(look), 'Pixels (grey) and the pixels that they look back at (white)')
  return pictures


BINARY = cli.Binary(
  name='masde',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 100, 'learning_rate': 0.003},
)

if __name__ == '__main__':
  cli.main(BINARY)
