"""What the binaries of flows share: data as a flow takes them, learning, bits per dimension, and pictures.

Real data are standardised by the training set; grey values are dequantised anew at every step and, unless --space=unit,
taken to the real line by a logit. Each of these maps has a log-det: numbers are of the data as they were given.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.base import Batch, as_variables, bind
from gm_jax.data import toy, transforms
from gm_jax.evaluation import flow_plots, image_plots, likelihood, plots
from gm_jax.flows import dequantisation, flow, normalisation, scalar
from gm_jax.training import loop, rules

SPACES = ('logit', 'unit')
DEQUANTISATIONS = ('uniform', 'variational')
_MAF = 'Papamakarios et al. 2017, arXiv v4'


def _table(gaussian, made, realnvp, maf, mixture):
  names = ('Gaussian', 'MADE', 'Real NVP, the better of 5 and 10', 'MAF, the better of 5 and 10', 'MAF MoG, 5')
  return [(name, value, _MAF) for name, value in zip(names, (gaussian, made, realnvp, maf, mixture), strict=True)]


PUBLISHED = {
  'miniboone_valtest': _table(-37.24, -15.59, -13.55, -11.75, -11.68),
  'bsds300_patches': _table(96.67, 148.85, 153.28, 155.69, 156.36),
  'mnist': _table(-1366.9, -1380.8, -1323.2, -1300.5, -1100.3)
  + [('NICE, nats in the unit cube', 1980.50, 'Dinh et al. 2015')],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of the data and of learning."""

  def number(name, default, help):
    absl_flags.DEFINE_float(name, default, help, lower_bound=0, flag_values=flags)

  help = 'Where grey data live: the real line, by a logit, or the unit cube (centred).'
  absl_flags.DEFINE_enum('space', SPACES[0], SPACES, help, flag_values=flags)
  help = 'Noise that makes integers real: uniform, or learnt, which makes numbers bounds.'
  absl_flags.DEFINE_enum('dequantisation', DEQUANTISATIONS[0], DEQUANTISATIONS, help, flag_values=flags)
  number('alpha', 0.05, 'The logit is taken of alpha + (1 - 2 alpha) x.')
  number('weight_decay', 0.0, 'Decay of the weights, times the learning rate at each step.')
  number('average', 0.99, 'Decay of the running average of the parameters, which is what is scored; 0 for none.')
  number('clip', 10.0, 'Greatest norm of the gradient; what is longer is cut to it.')
  absl_flags.DEFINE_bool('conditional', False, 'Learn p(x | label).', flag_values=flags)


def define_layer_flags(flags: absl_flags.FlagValues, num_layers: int, hidden_sizes: list[str]) -> None:
  """The flags of a stack of layers with networks."""
  absl_flags.DEFINE_integer('num_layers', num_layers, 'Layers.', lower_bound=1, flag_values=flags)
  help = 'Units of each hidden layer of the networks, with commas between.'
  absl_flags.DEFINE_list('hidden_sizes', hidden_sizes, help, flag_values=flags)


def define_transform_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of what a dimension is transformed by."""
  help = 'How a dimension is transformed: affinely, or by a rational-quadratic spline.'
  absl_flags.DEFINE_enum('transform', 'affine', ('affine', 'spline'), help, flag_values=flags)
  absl_flags.DEFINE_integer('num_bins', 8, 'Bins of a spline.', lower_bound=1, flag_values=flags)


def transform(flags: absl_flags.FlagValues) -> Callable:
  """What a dimension is transformed by."""
  return scalar.Affine() if flags.transform == 'affine' else scalar.Spline(flags.num_bins)


def context_size(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> int:
  """The number of classes that the flow is conditioned on, or 0.

  Raises:
    ValueError: if there are no labels to condition on.
  """
  if not flags.conditional:
    return 0
  if dataset.num_classes is None or any(split.y is None for split in (dataset.train, dataset.valid, dataset.test)):
    raise ValueError(f'conditional: dataset={dataset.name!r} has no labels to condition on')
  return dataset.num_classes


def num_dimensions(dataset: datasets.Dataset) -> int:
  """D."""
  return int(np.prod(dataset.shape))


class Data(NamedTuple):
  """The three splits as vectors ``[N, D]`` of original values, and the way to where the flow lives and back."""

  splits: tuple[np.ndarray, np.ndarray, np.ndarray]
  contexts: tuple[np.ndarray | None, ...]
  to_flow: Callable  # (key, x [..., D]) -> y [..., D], log-det [...]
  from_flow: Callable  # y [..., D] -> x [..., D]
  from_cube: Callable | None = None  # of grey data: from the unit cube to where the flow lives, and its log-det


def prepare(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """Real data are standardised, grey ones dequantised and taken to the real line or centred.

  Raises:
    ValueError: if the data are of another kind, or alpha does not fit.
  """
  if dataset.kind not in ('real', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a flow is a density of real or grey data')
  splits, every = vectors.flat(dataset)[:3], (dataset.train, dataset.valid, dataset.test)
  contexts = tuple(split.y for split in every) if context_size(flags, dataset) else (None,) * 3
  if dataset.kind == 'real':
    if flags.dequantisation != 'uniform':
      raise ValueError(f'dequantisation={flags.dequantisation} is of grey data, but dataset={dataset.name!r} is real')
    fitted = transforms.fit_standardisation(splits[0])
    to_flow = lambda key, x: transforms.standardise(fitted, x)
    return Data(splits, contexts, to_flow, lambda y: transforms.inverse_standardise(fitted, y))
  levels, alpha = dataset.levels, flags.alpha
  if flags.space == 'logit':
    transforms.logit(np.float32(0.5), alpha, event_ndims=0)  # refuses an alpha that is out of range

  from_cube = dequantisation.centred if flags.space == 'unit' else lambda y: transforms.logit(y, alpha)
  to_cube = lambda y: transforms.inverse_logit(y, alpha) if flags.space == 'logit' else y + 0.5

  def to_flow(key, x):
    y, log_det = transforms.dequantise(key, x, levels)
    y, more = from_cube(y)
    return y, log_det + more

  return Data(splits, contexts, to_flow, lambda y: levels * to_cube(y), from_cube)


def scorer(density: Callable, block_size: int = 500) -> Callable:
  """``(params, key, x, context) -> means`` of log-densities in nats and of bits per dimension, log-dets counted.

  ``log_prob`` is of the data as they were given (with the noise of dequantisation on them), ``in_flow`` of what the
  flow sees, and ``bits`` the first in bits per dimension.

  Args:
    density: ``(params, key, x, context) -> log-density where the flow lives, log-det of the way there``.
    block_size: examples at once.
  """

  def numbers(params, key, x, context=None):
    found, log_det = density(params, key, x, context)
    bits = likelihood.bits_per_dimension(found, x.shape[-1], log_det=log_det)
    return {'log_prob': found + log_det, 'in_flow': found, 'bits': bits}

  return likelihood.evaluator(numbers, block_size=block_size, stochastic=True)


def exact_density(module: flow.Flow, data: Data) -> Callable:
  """The density of a flow, for ``scorer``."""
  log_prob = bind(module, 'log_prob')

  def density(params, key, x, context):
    y, log_det = data.to_flow(key, x)
    return log_prob(params, y, context=context), log_det

  return density


def bound_density(module: dequantisation.Dequantised) -> Callable:
  """A draw of the bound of learnt noise, for ``scorer``; the way into the flow is part of it."""
  log_weight = bind(module, 'log_weight')
  return lambda params, key, x, context: (log_weight(params, key, x, context=context), 0.0)


def experiment(
  flags: absl_flags.FlagValues,
  dataset: datasets.Dataset,
  module: flow.Flow,
  axis_name: str | None,
  *,
  schedule: Callable = optax.cosine_decay_schedule,
  calibrated: bool = False,
) -> cli.Experiment:
  """Maximum likelihood by Adam, the best state on the validation set, scores and pictures.

  Args:
    flags: of the binary.
    dataset: what to learn.
    module: the flow, of as many dimensions.
    axis_name: of devices.
    schedule: of the learning rate, from its highest value and the number of updates.
    calibrated: whether the statistics of batch normalisation are those of the training set (at most 20,000 random
      examples of it) wherever the flow is scored.
  """
  data = prepare(flags, dataset)
  plan = cli.make_plan(flags, len(data.splits[0]))
  kernels = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: 'kernel' in str(path[-1]), params)
  optimizer = optax.chain(
    optax.clip_by_global_norm(flags.clip or float('inf')),
    optax.adamw(schedule(flags.learning_rate, plan.num_steps), weight_decay=flags.weight_decay, mask=kernels),
  )
  variational = flags.dequantisation == 'variational'
  if variational and calibrated:
    raise ValueError('dequantisation=variational does not go with batch normalisation: turn one of them off')
  if variational:
    whole = dequantisation.dequantised(module, dataset.levels, data.from_cube)
    objective, measure = dequantisation.objective(whole), scorer(bound_density(whole))
  else:
    objective, measure = flow.objective(module), scorer(exact_density(module, data))
  algorithm = rules.descent(*objective, optimizer, axis_name=axis_name)
  some = np.random.RandomState(0).permutation(len(data.splits[0]))[:20_000]

  @jax.jit
  def calibrate(variables):
    x, _ = data.to_flow(jax.random.key(0), data.splits[0][some])
    context = None if data.contexts[0] is None else data.contexts[0][some]
    return normalisation.calibrate(module, variables, x, context=context)

  def variables_of(state):
    return calibrate(as_variables(state.variables)) if calibrated else state.variables

  def flow_of(state):
    """The variables of the flow alone."""
    return dequantisation.of_flow(variables_of(state)) if variational else variables_of(state)

  def evaluate(step, state):
    del step
    found = measure(variables_of(state), data.splits[1], data.contexts[1], key=jax.random.key(0))
    return {'valid/log_prob': found['in_flow'].mean, **({'valid/bits': found['bits'].mean} if _grey(dataset) else {})}

  def score(key, state):
    params = variables_of(state)
    test_key, sample_key = jax.random.split(key)
    found = measure(params, data.splits[2], data.contexts[2], key=test_key)
    on_train = measure(params, data.splits[0], data.contexts[0], key=test_key)
    if _grey(dataset):
      name, kind = ('bound', 'lower bound') if variational else ('log_prob', 'exact')
      scores = {f'test_{name}': found['in_flow'].score(kind), f'train_{name}': on_train['in_flow'].score(kind)}
      scores['test_bits'] = found['bits'].score('upper bound', unit='bits/dim')
    else:
      scores = {'test_log_prob': found['log_prob'].score('exact')}
      scores['train_log_prob'] = on_train['log_prob'].score('exact')
      scores['test_standardised'] = found['in_flow'].score('exact')
    if dataset.name in toy.TOYS:
      truth = likelihood.summarise(toy.log_density(dataset.name)(data.splits[2]))
      scores['test_log_prob_of_the_truth'] = truth.score('exact')
    return {**scores, **soundness(module, flow_of(state), data, test_key, sample_key)}

  def sample(key, state, num, **kwargs):
    return data.from_flow(draw_samples(module, flow_of(state), key, num, data.contexts[2], **kwargs))

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(data.splits[0], data.contexts[0]),
    transform=loop.as_float if variational else lambda key, x: data.to_flow(key, x)[0],
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(module, flow_of(state), data, dataset, key, folder),
    sample=sample,
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def _grey(dataset):
  return dataset.kind == 'grey'


def draw_samples(module, params, key, num, contexts, temperature=1.0):
  """Samples where the flow lives; of a conditional one for the labels of the test set in turn."""
  context = None if contexts is None else jnp.arange(num) % (int(np.max(contexts)) + 1)
  sample = jax.jit(bind(module, 'sample'), static_argnums=2)
  return np.asarray(sample(params, key, num, context=context, temperature=temperature))


def soundness(module, params, data: Data, data_key, sample_key) -> dict[str, likelihood.Score]:
  """To how many decimal digits every test example is inverted, and how many samples lie where no data are.

  A sample is outside if it is not finite, or a dimension of it is off the range of the training data, where the flow
  lives, by more than the width of that range.
  """
  x, _ = jax.jit(data.to_flow)(data_key, data.splits[2][:1000])
  context = None if data.contexts[2] is None else data.contexts[2][:1000]
  residual = np.asarray(jax.jit(bind(module, 'residual'))(params, x, context=context))
  train, _ = jax.jit(data.to_flow)(data_key, data.splits[0][:20_000])
  low, high = np.min(train, 0), np.max(train, 0)
  samples = draw_samples(module, params, sample_key, 1000, data.contexts[2])
  inside = ((samples >= 2 * low - high) & (samples <= 2 * high - low)).all(1)
  digits = -np.log10(np.maximum(np.max(residual), 1e-12))
  worst = likelihood.score(digits, 'exact', stderr=None, n=len(x), unit='digits')
  outside = likelihood.summarise(1.0 - inside)
  return {'inverted_to': worst, 'samples_outside': outside.score('estimate', unit='share')}


def draw(module, params, data: Data, dataset: datasets.Dataset, key, folder) -> list[cli.Picture]:
  """Densities beside the truth and the way through the layers, or samples at temperatures and walks."""
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if len(dataset.shape) == 3:
    draw_images(keep, module, params, data, dataset, key)
  elif module.num_dimensions == 2 and not module.context_size:
    draw_plane(keep, module, params, data, dataset, key)
  else:
    samples = data.from_flow(draw_samples(module, params, key, 1000, data.contexts[2]))
    test = data.splits[2][:1000]
    linked = np.abs(np.corrcoef(test.T)) - np.eye(test.shape[1])
    pair = np.unravel_index(np.nanargmax(linked), linked.shape)
    labels = [dataset.feature_names[d] if dataset.feature_names else f'dimension {d}' for d in pair]
    both = np.concatenate([test[:, pair], np.clip(samples[:, pair], *_range(test[:, pair]))])
    kinds = np.repeat([0, 1], [len(test), len(samples)])
    figure = plots.scatter(both, kinds, names=['data', 'samples'], xlabel=labels[0], ylabel=labels[1])
    keep('samples.png', figure, 'Test examples and samples, in the two dimensions that are linked the most')
  return pictures


def _range(x):
  low, high = x.min(0), x.max(0)
  return low - 0.2 * (high - low), high + 0.2 * (high - low)


def draw_plane(keep, module, params, data: Data, dataset, key) -> None:
  """The density beside the truth, samples, and the way of points from noise to data."""
  low, high = _range(data.splits[2])
  side = [np.linspace(low[d], high[d], 240, dtype=np.float32) for d in range(2)]
  points = np.stack(np.meshgrid(*side), axis=-1)
  y, log_det = data.to_flow(key, points)
  shown = {'flow': np.asarray(jax.jit(bind(module, 'log_prob'))(params, y) + log_det)}
  if dataset.name in toy.TOYS:
    shown = {'truth': np.asarray(toy.log_density(dataset.name)(points)), **shown}
  keep('density.png', flow_plots.densities(*side, shown), 'The density of the flow beside that of the data')
  draw_path(keep, module, params, key, data.from_flow)


def draw_path(keep, module, params, key, from_flow=lambda y: y) -> None:
  """The way of 2,000 draws of noise through the layers."""
  z = bind(module, 'draw_noise')(params, key, 2000)
  way = [z, *jax.jit(bind(module, 'path'))(params, z)]
  if len(way) > 15:
    way = [way[i] for i in np.linspace(0, len(way) - 1, 15).astype(int)]
  way[-1] = from_flow(way[-1])
  names = ['noise', *(f'{i} of {len(way) - 1}' for i in range(1, len(way) - 1)), 'data']
  figure = flow_plots.path([np.asarray(one) for one in way], names)
  keep('path.png', figure, 'Points on their way from noise to data through the layers, coloured by where they began')


def draw_images(keep, module, params, data: Data, dataset, key) -> None:
  """Samples at temperatures, each row with the same noise; walks between test images; the way from class to class."""
  image = lambda y: np.asarray(data.from_flow(y)).reshape(*np.shape(y)[:-1], *dataset.shape)
  white = (0.0, float(dataset.levels))
  temperatures = (0.5, 0.7, 0.85, 1.0)
  rows = [draw_samples(module, params, key, 10, data.contexts[2], temperature) for temperature in temperatures]
  figure = image_plots.image_table(image(np.stack(rows)), rows=[f'T = {t}' for t in temperatures], value_range=white)
  keep('temperatures.png', figure, 'Samples at temperatures; a column has the same noise')
  samples = draw_samples(module, params, key, 30, data.contexts[2])
  train = image(data.to_flow(key, data.splits[0][:10_000])[0])
  keep('samples.png', image_plots.beside_nearest(image(samples), train, value_range=white),
       'Samples, and below each the training example nearest to it with its distance')  # fmt: skip
  if module.context_size:
    return
  x, _ = data.to_flow(key, data.splits[2][:12])
  walk = jax.jit(lambda first, last: flow.interpolate(module, params, first, last, 9))
  walks = np.stack([walk(x[i], x[i + 6]) for i in range(6)])
  figure = image_plots.image_table(image(walks), value_range=white)
  keep('walks.png', figure, 'Walks through the noise between test images')
  if dataset.test.y is not None and dataset.num_classes > 1:
    train, _ = data.to_flow(key, data.splits[0][:5000])
    labels = dataset.train.y[:5000]
    move = jax.jit(lambda x, here, there: flow.shift_attribute(module, params, x, there, here, jnp.linspace(0, 1, 7)))
    shown = []
    for label in range(min(dataset.num_classes - 1, 6)):
      own = np.flatnonzero(dataset.test.y == label)
      size = min((labels == label).sum(), (labels == label + 1).sum(), 100)
      here, there = (train[np.flatnonzero(labels == one)[:size]] for one in (label, label + 1))
      if len(own) and size == 100:
        shown.append(move(data.to_flow(key, data.splits[2][own[0]])[0], here, there))
    if shown:
      keep('classes.png', image_plots.image_table(image(np.stack(shown)), value_range=white),
           'Test images moved by the difference of the mean noise of two classes')  # fmt: skip
