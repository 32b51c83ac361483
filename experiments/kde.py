"""Kernel density estimation.

Puts a kernel on every training example; learns the bandwidth by climbing the leave-one-out likelihood, chooses it by
cross-validation, or takes a rule. The test log-likelihood is exact. Toy sets report that of their true density beside.

  python -m experiments.kde                                      two moons, half a minute
  python -m experiments.kde --dataset=digits --bandwidth_shape=scalar
  python -m experiments.kde --kernel=epanechnikov --selection=cross_validation
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.base import Batch, Extra
from gm_jax.data import toy
from gm_jax.density import bandwidth, kernel, kernel_shapes
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.training import rules

SELECTIONS = ('leave_one_out', 'cross_validation', 'rule')
FACTORS = np.geomspace(0.1, 10, 21)  # of the bandwidth, among which cross-validation chooses


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  choice('kernel', kernel_shapes.KERNELS, 'Shape of the kernel.')
  absl_flags.DEFINE_bool(
    'product', False, 'Multiply one kernel per feature, instead of a radial one.', flag_values=flags
  )
  choice('rule', ('silverman', 'scott'), 'Rule for the bandwidth, or for where its choice begins.')
  absl_flags.DEFINE_float('bandwidth', None, 'A number in place of the rule, in units of the data.', flag_values=flags)
  choice('selection', SELECTIONS, 'How the bandwidth is chosen; leave_one_out needs an unbounded kernel.')
  choice('bandwidth_shape', ('diagonal', 'scalar'), 'What leave_one_out learns: a factor per feature, or one.')
  absl_flags.DEFINE_bool('adaptive', False, "Give each point its own scale, by Abramson's law.", flag_values=flags)


def make_start(flags: absl_flags.FlagValues, data: vectors.Vectors) -> kernel.KernelDensity:
  """The estimate before anything is learnt."""
  bandwidth_or_rule = flags.rule if flags.bandwidth is None else flags.bandwidth
  estimator = kernel.fit(data.train, bandwidth_or_rule, kernel=flags.kernel, product=flags.product)
  compact = flags.kernel not in kernel_shapes.UNBOUNDED
  if flags.selection == 'leave_one_out' and compact:
    raise ValueError(
      f'selection=leave_one_out, but kernel={flags.kernel} ends somewhere, and a lonely point has no likelihood; '
      'use cross_validation, or kernel=gaussian or exponential'
    )
  if flags.selection == 'cross_validation':
    validate = jax.jit(bandwidth.cross_validate)
    estimator, scores = validate(estimator, jnp.asarray(FACTORS, jnp.float32), jax.random.key(flags.seed))
    if not np.isfinite(np.asarray(scores).max()):
      raise ValueError(
        f'selection=cross_validation: with kernel={flags.kernel} every bandwidth leaves some example without density; '
        'use kernel=gaussian or exponential'
      )
  return estimator


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  data = vectors.dequantised(dataset)
  start = make_start(flags, data)
  plan = cli.make_plan(flags, len(data.train))
  learns = flags.selection == 'leave_one_out'

  def estimator(params):
    return start._replace(bandwidth=start.bandwidth * jnp.exp(params['log_factor']))

  def init(key, batch):
    del key, batch
    return {'log_factor': jnp.zeros(data.train.shape[1] if flags.bandwidth_shape == 'diagonal' else ())}

  def loss(params, key, batch, state):
    """Of the examples with a density: those without, which only a bounded kernel has, are counted apart."""
    del key, state
    params = params if learns else jax.lax.stop_gradient(params)  # a bounded kernel has no gradient to follow
    log_density = kernel.leave_one_out(estimator(params), batch.context)
    lonely = log_density == -jnp.inf
    mean = jnp.sum(jnp.where(lonely, 0.0, log_density)) / jnp.maximum(jnp.sum(~lonely), 1)
    return -mean, Extra(metrics={'lonely': jnp.mean(lonely)})

  rate = optax.cosine_decay_schedule(flags.learning_rate, plan.num_steps)
  algorithm = rules.descent(init, loss, optax.adam(rate) if learns else optax.set_to_zero(), axis_name=axis_name)
  final = jax.jit(lambda params: bandwidth.adapt(estimator(params)) if flags.adaptive else estimator(params))
  evaluate_log_prob = likelihood.evaluator(kernel.log_prob, block_size=1000)

  def evaluate(step, state):
    del step
    valid = evaluate_log_prob(final(state.params), data.valid)
    return {'valid/log_prob': valid.mean, 'valid/without_density': float(np.mean(np.isneginf(valid.values)))}

  def score(key, state):
    del key
    estimate = final(state.params)
    test = evaluate_log_prob(estimate, data.test)
    scores = {'test_log_prob': test.score('exact')}
    if dataset.kind == 'grey':
      scores['test_bits'] = likelihood.score_in_bits(
        scores['test_log_prob']._replace(kind='lower bound'), data.test.shape[1], levels=dataset.levels
      )
    if np.isneginf(test.values).any():
      scores['test_share_without_density'] = likelihood.summarise(np.isneginf(test.values)).score('exact', unit='share')
    if dataset.name in toy.TOYS:
      truth = likelihood.summarise(jax.jit(toy.log_density(dataset.name))(data.test))
      scores['test_log_prob_of_the_truth'] = truth.score('exact')
    return scores

  def sample(key, state, num):
    drawn = kernel.sample(final(state.params), key, num)
    return drawn if dataset.kind == 'real' else jnp.clip(drawn, 0, 1)

  return cli.Experiment(
    algorithm=algorithm,
    data=Batch(data.train, np.arange(len(data.train), dtype=np.int32)),  # the context tells which point to leave out
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(
      dataset, data, functools.partial(kernel.log_prob, final(state.params)), lambda n: sample(key, state, n), folder
    ),
    sample=sample,
  )


def draw(dataset, data: vectors.Vectors, log_prob: Callable, sample: Callable, folder) -> list[cli.Picture]:
  """In the plane the density; of images samples above their nearest training examples; likelihoods in any case."""
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  samples = np.asarray(sample(1000))
  if data.train.shape[1] == 2:
    low, high = data.train.min(0), data.train.max(0)
    margin = 0.1 * (high - low)
    x, y = (np.linspace(low[j] - margin[j], high[j] + margin[j], 200) for j in range(2))
    grid = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    log_density = np.asarray(jax.jit(log_prob)(grid))
    keep('density.png', plots.density(x, y, log_density, data.test[:500]), 'The density, with test examples')
    keep('samples.png', plots.scatter(samples, xlabel='$x_1$', ylabel='$x_2$'), '1,000 samples')
  elif len(dataset.shape) == 3:
    images = lambda rows: rows.reshape(-1, *dataset.shape)
    figure = image_plots.beside_nearest(images(samples[:20]), images(data.train))
    keep('samples.png', figure, 'Samples, each above the training example nearest to it: a kernel estimate memorises')
  scores = {'test': data.test, 'samples': samples}
  figure = plots.histogram({k: jax.jit(log_prob)(v[:1000]) for k, v in scores.items()}, 'log p(x), nats')
  keep('log_prob.png', figure, 'Log-likelihood of test examples and of samples')
  return pictures


BINARY = cli.Binary(
  name='kde',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'dataset': 'two_moons', 'batch_size': 100, 'num_epochs': 3, 'learning_rate': 0.1},
  evaluation_flags=('adaptive',),
)

if __name__ == '__main__':
  cli.main(BINARY)
