"""What the binaries of flows share: learning by maximum likelihood, scores in nats and in bits, and their flags.

Data as a flow takes them are in ``flow_data.py``. Numbers are of the data as they were given: the log-dets of the way
into the flow are counted.
"""

from collections.abc import Callable

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, flow_data, flow_pictures
from gm_jax import data as datasets
from gm_jax.base import Batch, as_variables, bind
from gm_jax.data import toy
from gm_jax.evaluation import likelihood
from gm_jax.flows import dequantisation, flow, normalisation, scalar
from gm_jax.training import loop, rules

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

  flow_data.define_flags(flags)
  number('weight_decay', 0.0, 'Decay of the weights, times the learning rate at each step.')
  number('average', 0.99, 'Decay of the running average of the parameters, which is what is scored; 0 for none.')
  number('clip', 10.0, 'Greatest norm of the gradient; what is longer is cut to it.')


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


def exact_density(module: flow.Flow, data: flow_data.Data) -> Callable:
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
  data = flow_data.prepare(flags, dataset)
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
    return data.from_flow(flow_data.draw_samples(module, flow_of(state), key, num, data.contexts[2], **kwargs))

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(data.splits[0], data.contexts[0]),
    transform=loop.as_float if variational else lambda key, x: data.to_flow(key, x)[0],
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: flow_pictures.draw(module, flow_of(state), data, dataset, key, folder),
    sample=sample,
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def _grey(dataset):
  return dataset.kind == 'grey'


def soundness(module, params, data: flow_data.Data, data_key, sample_key) -> dict[str, likelihood.Score]:
  """To how many decimal digits every test example is inverted, and how many samples lie where no data are.

  A sample is outside if it is not finite, or a dimension of it is off the range of the training data, where the flow
  lives, by more than the width of that range.
  """
  x, _ = jax.jit(data.to_flow)(data_key, data.splits[2][:1000])
  context = None if data.contexts[2] is None else data.contexts[2][:1000]
  residual = np.asarray(jax.jit(bind(module, 'residual'))(params, x, context=context))
  train, _ = jax.jit(data.to_flow)(data_key, data.splits[0][:20_000])
  low, high = np.min(train, 0), np.max(train, 0)
  samples = flow_data.draw_samples(module, params, sample_key, 1000, data.contexts[2])
  inside = ((samples >= 2 * low - high) & (samples <= 2 * high - low)).all(1)
  digits = -np.log10(np.maximum(np.max(residual), 1e-12))
  worst = likelihood.score(digits, 'exact', stderr=None, n=len(x), unit='digits')
  outside = likelihood.summarise(1.0 - inside)
  return {'inverted_to': worst, 'samples_outside': outside.score('estimate', unit='share')}
