"""RNADE: real-valued vectors, one mixture of Gaussians or Laplaces for each conditional.

Data are standardised by the training set, and grey values are dequantised first, anew at every step. The test
log-likelihood is exact, in units of the standardised data.

  python -m experiments.rnade                                            the embedded digits, about a minute
  python -m experiments.rnade --dataset=two_moons --num_epochs=20
  python -m experiments.rnade --dataset=uci/red_wine --fold=0            needs --data_dir or $GM_JAX_DATA_DIR
"""

from typing import NamedTuple

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, common_flags
from gm_jax import data as datasets
from gm_jax import likelihoods
from gm_jax.autoregressive.rnade import RNADE
from gm_jax.base import Batch, as_variables, pure
from gm_jax.data import transforms
from gm_jax.evaluation import conditional_plots, image_plots, likelihood, plots
from gm_jax.training import loop, rules

HEADS = {'gaussian': likelihoods.MixtureOfGaussians, 'laplace': likelihoods.MixtureOfLaplaces}
ORDERINGS = ('natural', 'reverse', 'random')
NUM_FOLDS = 10

_SOURCE = 'Uria, Murray and Larochelle 2013, mean of ten folds'
PUBLISHED = {
  f'uci/{name}': [('RNADE, mixtures of Gaussians', gaussian, _SOURCE), ('RNADE, Laplaces', laplace, _SOURCE)]
  for name, gaussian, laplace in [
    ('red_wine', -9.36, -9.46), ('white_wine', -10.23, -10.38), ('parkinsons', -0.90, -2.63),
    ('ionosphere', -2.50, -5.87),
  ]
}  # fmt: skip


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_list('hidden_sizes', ['100'], 'Units of the recursion, and of further layers.', flag_values=flags)
  absl_flags.DEFINE_integer('num_components', 10, 'Components of a mixture.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_enum('components', 'gaussian', [*HEADS], 'What the components are.', flag_values=flags)
  absl_flags.DEFINE_enum('ordering', 'natural', ORDERINGS, 'In which the dimensions come.', flag_values=flags)

  def number(name, default, help):
    absl_flags.DEFINE_float(name, default, help, lower_bound=0, flag_values=flags)

  number('min_scale', 1e-3, 'Least standard deviation of a component, in units of the standardised data.')
  number('weight_decay', 0.0, 'Decay of the weights (of AdamW), biases left out.')
  number('average', 0.999, 'Decay of the running average of the parameters, which is what is scored; 0 for none.')
  absl_flags.DEFINE_integer(
    'fold',
    None,
    f'All examples are cut anew into {NUM_FOLDS} folds, of which this is the test (real data only).',
    lower_bound=0,
    upper_bound=NUM_FOLDS - 1,
    flag_values=flags,
  )


def cut_folds(dataset: datasets.Dataset, fold: int) -> datasets.Dataset:
  """One fold of all examples is the test, the next one is for validation, and the other eight are learnt from."""
  if dataset.kind != 'real':
    raise ValueError(f'fold={fold}, but dataset={dataset.name!r} is {dataset.kind}: only real data are cut into folds')
  x = np.concatenate([dataset.train.x, dataset.valid.x, dataset.test.x])
  # RandomState and not Generator: NumPy promises that its stream stays as it is.
  folds = np.array_split(np.random.RandomState(0).permutation(len(x)), NUM_FOLDS)
  chosen = {'test': folds[fold], 'valid': folds[(fold + 1) % NUM_FOLDS]}
  chosen['train'] = np.concatenate([folds[(fold + i) % NUM_FOLDS] for i in range(2, NUM_FOLDS)])
  return dataset._replace(**{name: datasets.Split(x[rows], None) for name, rows in chosen.items()})


class Data(NamedTuple):
  """Standardised splits ``[N, D]``; the training set as it is stored, too, with what makes the one of the other."""

  stored: np.ndarray
  transform: loop.Transform
  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  fitted: transforms.Standardisation


def prepare(dataset: datasets.Dataset) -> Data:
  """Grey values are dequantised into the unit cube; everything is standardised by the training set."""
  if dataset.kind not in ('real', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but RNADE is a density of real or grey data')
  stored = [np.asarray(split.x).reshape(len(split.x), -1) for split in (dataset.train, dataset.valid, dataset.test)]
  spread = lambda key, x: transforms.dequantise(key, x, dataset.levels)[0] if dataset.kind == 'grey' else x
  splits = [np.asarray(jax.jit(spread)(jax.random.key(i), x)) for i, x in enumerate(stored)]
  fitted = transforms.fit_standardisation(splits[0])
  standardise = lambda x: transforms.standardise(fitted, x)[0]
  return Data(stored[0], lambda key, x: standardise(spread(key, x)), *map(standardise, splits), fitted)


def make_module(flags: absl_flags.FlagValues, num_dimensions: int) -> RNADE:
  """The model that the flags ask for."""
  sizes = common_flags.whole_numbers(flags, 'hidden_sizes')
  order = np.arange(num_dimensions)
  if flags.ordering == 'random':
    order = np.random.RandomState(flags.seed).permutation(num_dimensions)
  ordering = tuple((order[::-1] if flags.ordering == 'reverse' else order).tolist())
  head = HEADS[flags.components](flags.num_components, flags.min_scale)
  return RNADE(num_dimensions, sizes, head, None if flags.ordering == 'natural' else ordering)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  dataset = dataset if flags.fold is None else cut_folds(dataset, flags.fold)
  data = prepare(dataset)
  module = make_module(flags, data.train.shape[1])
  model = pure(module)
  plan = cli.make_plan(flags, len(data.train))
  decayed = lambda params: {name: 'kernel' in name for name in params}
  rate = optax.cosine_decay_schedule(flags.learning_rate, plan.num_steps)
  optimizer = optax.chain(
    optax.clip_by_global_norm(10.0), optax.adamw(rate, weight_decay=flags.weight_decay, mask=decayed)
  )
  algorithm = rules.descent(model.init, rules.likelihood_loss(model.log_prob), optimizer, axis_name=axis_name)
  log_prob = likelihood.evaluator(model.log_prob, block_size=500)

  def evaluate(step, state):
    del step
    return {'valid/log_prob': log_prob(params_of(state), data.valid).mean}

  def score(key, state):
    del key
    found = cli.exact_scores(log_prob, params_of(state), data.train, data.test, None)
    if dataset.kind == 'grey':
      bits = {'log_det': -float(np.log(data.fitted.stddev).sum()), 'levels': dataset.levels}
      bound = found['test_log_prob']._replace(kind='lower bound')
      found['test_bits'] = likelihood.score_in_bits(bound, data.test.shape[1], **bits)
    return found

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(data.stored),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(module, data, dataset, key, params_of(state), folder),
    sample=lambda key, state, num: data.fitted.mean + data.fitted.stddev * model.sample(params_of(state), key, num),
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def params_of(state):
  """The parameters that are scored."""
  return as_variables(state.variables).params


def draw(module, data: Data, dataset: datasets.Dataset, key, params, folder) -> list[cli.Picture]:
  """Conditionals over the data; samples beside data; of images completions and likelihoods by pixel."""
  call = lambda method: jax.jit(lambda *args: module.apply({'params': params}, *args, method=method))
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  sample_key, complete_key = jax.random.split(key)
  num = 100 if len(dataset.shape) == 3 else min(len(data.test), 1000)
  samples = jax.jit(lambda key: module.apply({'params': params}, key, num, method='sample'))(sample_key)
  samples, outputs = np.asarray(samples), call('conditionals')(data.test[:500])
  each = np.asarray(module.head.log_prob(outputs, data.test[:500])).mean(0)

  shown = module.order[np.unique(np.linspace(0, module.num_dimensions - 1, 6).astype(int))]
  low, high = data.test.min(0) - 0.5, data.test.max(0) + 0.5
  grid = np.linspace(low, high, 300, axis=1)[shown]
  densities = np.exp(module.head.log_prob(outputs[:200, shown, None], grid))
  names = dataset.feature_names or [f'dimension {d}' for d in range(module.num_dimensions)]
  figure = conditional_plots.conditional_densities(data.test[:200, shown], grid, densities, [names[d] for d in shown])
  caption = 'p(x_d | earlier ones) of five test examples, their values marked; its mean over 200, and the histogram'
  keep('conditionals.png', figure, caption)

  if len(dataset.shape) != 3:
    if module.num_dimensions == 2:
      side = [np.linspace(low[d], high[d], 200, dtype=np.float32) for d in range(2)]
      points = np.stack(np.meshgrid(*side), -1)
      figure = plots.density(*side, np.asarray(call('log_prob')(points)), data.test[:1000])
      keep('density.png', figure, 'The density, and test examples')
      pair = (0, 1)
    else:
      figure = plots.bars([str(d) for d in range(len(each))], each, ylabel='mean log-density (nats)')
      keep('by_dimension.png', figure, 'Mean log p(x_d | earlier dimensions) of test examples')
      linked = np.abs(np.corrcoef(data.test.T)) - np.eye(len(each))
      pair = np.unravel_index(np.nanargmax(linked), linked.shape)
    both = np.concatenate([data.test[:num, pair], samples[:, pair]])
    kinds = np.repeat([0, 1], [len(data.test[:num]), num])
    labels = [names[d] for d in pair]
    figure = plots.scatter(both, kinds, names=['data', 'samples'], xlabel=labels[0], ylabel=labels[1])
    keep('samples.png', figure, 'Test examples and samples, in the two dimensions that are linked the most')
    return pictures

  image = lambda x: np.asarray(data.fitted.mean + data.fitted.stddev * x).reshape(*np.shape(x)[:-1], *dataset.shape)
  keep('samples.png', image_plots.image_grid(image(samples)), '100 samples')
  figure = image_plots.beside_nearest(image(samples[:10]), image(data.train))
  keep('nearest.png', figure, 'Ten samples above the training examples nearest to them')
  keep('by_pixel.png', image_plots.filters(each.reshape(1, *dataset.shape[:2])), 'Mean log p(pixel | earlier pixels)')
  observed = np.arange(module.num_dimensions) < module.num_dimensions // 2
  if module.ordering is None:
    chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)]
    complete = jax.jit(lambda key, x: module.apply({'params': params}, key, x, observed, method='complete'))
    completed = complete(complete_key, np.repeat(chosen[:, None], 4, axis=1))
    figure = image_plots.completions(image(chosen), observed.reshape(dataset.shape)[..., 0], image(completed))
    keep('completions.png', figure, 'Test images of which the upper half is given, and four completions of each')
  return pictures


BINARY = cli.Binary(
  name='rnade',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 150, 'learning_rate': 0.003},
)

if __name__ == '__main__':
  cli.main(BINARY)
