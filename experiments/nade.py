"""NADE and DeepNADE: autoregressive models of vectors with one network for all conditionals.

  python -m experiments.nade                                        NADE on the embedded digits, exact likelihood
  python -m experiments.nade --model=deep_nade                      any ordering, any conditional, ensembles
  python -m experiments.nade --dataset=binarized_mnist --num_hidden=500     needs --data_dir or $GM_JAX_DATA_DIR

Data are bits (grey values are cut at one half) or, with --binarise=none, the grey values themselves.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import autoregressive, cli
from gm_jax import data as datasets
from gm_jax.autoregressive import deep_nade, nade
from gm_jax.base import Batch, as_variables, bind, pure
from gm_jax.evaluation import image_plots, likelihood, ordering_plots, plots
from gm_jax.likelihoods import Bernoulli, Categorical
from gm_jax.training import rules


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  choice('model', ('nade', 'deep_nade'), 'One ordering with an O(D H) recursion, or any ordering by a deep network.')
  integer('num_hidden', 200, 'Units of each hidden layer.')
  integer('num_layers', 2, 'Hidden layers of deep_nade.')
  choice('head', ('auto', 'bernoulli', 'categorical'), 'Distribution of a dimension; auto goes by the data.')
  choice('ordering', ('natural', 'random'), 'Ordering of nade.')
  absl_flags.DEFINE_bool('tied', False, 'Whether nade has the same weights in and out.', flag_values=flags)
  integer('num_orderings', 8, 'Random orderings in the ensemble of deep_nade that is scored on all test examples.')
  integer('curve_orderings', 128, 'Largest ensemble of the curve over orderings of deep_nade.')
  integer('curve_examples', 400, 'Test examples, drawn at random, of that curve.')
  autoregressive.define_flags(flags)


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset):
  """The model that the flags ask for."""
  head = autoregressive.head_of(flags.head, 1, flags, dataset)
  if not isinstance(head, Bernoulli | Categorical):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but model={flags.model} needs binary or grey data')
  dimensions = int(np.prod(dataset.shape))
  if flags.model == 'deep_nade':
    sizes = (flags.num_hidden,) * flags.num_layers
    orderings = tuple(map(tuple, random_orderings(flags.num_orderings, dimensions).tolist()))
    return deep_nade.DeepNADE(dimensions, sizes, head, orderings)
  ordering = tuple(random_orderings(1, dimensions)[0].tolist()) if flags.ordering == 'random' else None
  return nade.NADE(dimensions, flags.num_hidden, head, ordering, flags.tied)


def random_orderings(num: int, num_dimensions: int) -> np.ndarray:
  """The first ``num`` of a fixed sequence of random orderings, ``[num, D]``."""
  return np.stack([np.random.default_rng(i).permutation(num_dimensions) for i in range(num)])


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module, deep = make_module(flags, dataset), flags.model == 'deep_nade'
  data = autoregressive.prepare(flags, dataset)
  model = pure(module)
  optimizer = autoregressive.optimizer(flags, cli.make_plan(flags, len(data.train)).num_steps)
  objective = (deep_nade if deep else nade).loss(module)
  algorithm = rules.descent(model.init, objective, optimizer, axis_name=axis_name)
  algorithm = rules.averaged(algorithm, flags.average) if flags.average else algorithm
  exact = likelihood.evaluator(model.log_prob, block_size=500)
  if deep:
    agnostic = likelihood.evaluator(bind(module, 'order_agnostic_log_prob'), block_size=500, stochastic=True)
  train_of = lambda key: np.asarray(data.transform(key, data.train))
  curves = []  # of each replica, once scored

  def evaluate(step, state):
    """Always with the same masks, so that their noise is in no comparison of two steps."""
    del step
    if deep:
      return {'valid/log_prob': agnostic(state.variables, data.valid, key=jax.random.key(0)).mean}
    return {'valid/log_prob': exact(state.variables, data.valid).mean}

  def score(key, state):
    if not deep:
      return cli.exact_scores(exact, state.variables, train_of(key), data.test, None)
    found = {'test_log_prob': exact(state.variables, data.test).score('exact')}
    found['train_log_prob_of_one_ordering'] = agnostic(state.variables, train_of(key), key=key).score('estimate')
    curves.append(curve(module, state.variables, data.test, flags))
    for num, one in curves[-1].items():
      found[f'test_log_prob_of_{num}_orderings'] = one
    return found

  return cli.Experiment(
    algorithm=algorithm,
    data=Batch(data.train),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(
      module, data.test, train_of(key), dataset, key, state.variables, flags, curves, folder
    ),
    sample=lambda key, state, num: model.sample(state.variables, key, num),
    best_metric='valid/log_prob',
    published=autoregressive.PUBLISHED.get(flags.dataset, ()),
  )


def curve(module, params, test: np.ndarray, flags) -> dict[int, likelihood.Score]:
  """Mean log-likelihood of ensembles of 1, 2, 4, ... orderings, each of which holds the one before it.

  It is the exact likelihood of the ensemble on each of the test examples; as these are drawn at random where there are
  more than ``curve_examples``, it is then an estimate for the test set.
  """
  chosen = np.random.default_rng(0).permutation(len(test))[: flags.curve_examples]
  kind = 'exact' if len(chosen) == len(test) else 'estimate'
  log_prob = bind(module, 'log_prob')
  one = likelihood.evaluator(lambda inputs, x: log_prob(inputs[0], x, orderings=inputs[1]), block_size=500)
  orderings = random_orderings(flags.curve_orderings, test.shape[1])
  each = np.stack([one((params, ordering), test[chosen]).values for ordering in orderings]).astype(np.float64)
  sizes = [2**i for i in range(flags.curve_orderings.bit_length())]
  ensembles = {num: np.logaddexp.reduce(each[:num]) - np.log(num) for num in sizes}
  return {num: likelihood.summarise(values).score(kind) for num, values in ensembles.items()}


def draw(module, test, train, dataset, key, params, flags, curves, folder) -> list[cli.Picture]:
  """Samples, completions, conditionals and the likelihood of each dimension; of DeepNADE the curve over orderings."""
  pictures, deep = [], isinstance(module, deep_nade.DeepNADE)
  call: Callable = lambda method, *args: jax.jit(bind(module, method))(params, *args)
  sample_key, complete_key, mask_key = jax.random.split(key, 3)

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if deep:
    keep('orderings.png', ordering_plots.curve(curves[0]), 'Ensembles of orderings: the more, the more probable')
  samples = jax.jit(lambda key: bind(module, 'sample')(params, key, 100))(sample_key)
  if len(dataset.shape) != 3:
    means = np.stack([test.mean(0), np.asarray(samples).mean(0)], 1)
    figure = plots.scatter(means, xlabel='mean in the test set', ylabel='mean in 100 samples')
    keep('means.png', figure, 'Mean of each dimension, in the data and in samples')
    return pictures

  height, width, channels = dataset.shape
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  top = {'value_range': (0.0, float(module.head.size - 1 if isinstance(module.head, Categorical) else 1))}
  figure = image_plots.beside_nearest(image(samples[:20]), image(train), **top)
  keep('samples.png', figure, 'Samples, each above the training image nearest to it')

  chosen = test[np.linspace(0, len(test) - 1, 8).astype(int)].astype(np.float32)
  some = test[np.linspace(0, len(test) - 1, min(500, len(test))).astype(int)].astype(np.float32)
  observed = np.zeros((height, width, channels), bool)
  observed[: height // 2] = True
  observed = observed.ravel()
  if deep or flags.ordering == 'natural':
    four_times = np.repeat(chosen[:, None], 4, axis=1)
    completed = jax.jit(lambda key, x: bind(module, 'complete')(params, key, x, observed))(complete_key, four_times)
    figure = image_plots.completions(image(chosen), image(observed)[..., 0], image(completed), **top)
    keep('completions.png', figure, 'Test images of which the model sees the upper half, and four completions of each')

  if deep:
    shares = (0.0, 0.05, 0.2, 0.5)
    noise = jax.random.uniform(mask_key, chosen.shape)
    masks = np.stack([np.asarray(noise < share) for share in shares])
    means = module.head.mean(call('outputs', jnp.broadcast_to(chosen, masks.shape), masks))
    table = np.concatenate([np.where(masks, chosen, means), chosen[None]])
    rows = [*(f'{share:.0%} known' for share in shares), 'original']
    figure = image_plots.image_table(image(table), rows=rows, **top)
    keep('conditionals.png', figure, 'Means of each pixel given the known ones, in one pass')
    outputs = call('outputs', some, np.zeros(some.shape, bool))
    what = 'of the marginal'
  else:
    table = np.stack([chosen, np.asarray(module.head.mean(call('conditionals', chosen)))])
    figure = image_plots.image_table(image(table), rows=['original', 'mean of each\nconditional'], **top)
    keep('conditionals.png', figure, 'Test images, and the mean of each pixel given those before it')
    outputs = call('conditionals', some)
    what = 'given those before it'
    if module.head == Bernoulli():
      kernel = np.asarray(as_variables(params).params['kernel'])[:, 0].T
      strongest = np.argsort(-np.linalg.norm(kernel, axis=1))[:100]
      figure = image_plots.filters(image(kernel[strongest]).mean(-1))
      keep('filters.png', figure, 'Weights into hidden units, the strongest first')
  nats = np.asarray(-module.head.log_prob(outputs, some)).mean(0)
  figure = ordering_plots.likelihood_map(image(nats).sum(-1), title=f'-log p {what}')
  keep('likelihood_map.png', figure, f'What each pixel costs, {what}: mean over {len(some)} test images')
  return pictures


BINARY = cli.Binary(
  name='nade',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 60, 'learning_rate': 0.005, 'average': 0.99},
  evaluation_flags=('num_orderings', 'curve_orderings', 'curve_examples'),
)

if __name__ == '__main__':
  cli.main(BINARY)
