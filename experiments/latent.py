"""What the binaries of autoencoders share: data as a head takes them, networks from flags, and scores."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.autoencoders import annealing, diagnostics, iwae
from gm_jax.base import Batch, bind
from gm_jax.evaluation import likelihood
from gm_jax.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Head
from gm_jax.training import rules

LIKELIHOODS = ('auto', 'bernoulli', 'gaussian', 'logistic', 'categorical')
KINDS = {
  'bernoulli': ('binary', 'grey'),
  'gaussian': ('real', 'grey'),
  'logistic': ('grey',),
  'categorical': ('grey', 'binary'),
}


def define_network_flags(flags: absl_flags.FlagValues) -> None:
  """The flags that all autoencoders have."""
  absl_flags.DEFINE_integer('num_latents', 8, 'Dimensions of the code.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_list('hidden_sizes', ['200', '200'], 'Hidden layers of the encoder; the decoder mirrors them.',
                         flag_values=flags)  # fmt: skip
  define_schedule_flag(flags)


def define_schedule_flag(flags: absl_flags.FlagValues) -> None:
  """The flag of ``learning_rate``."""
  absl_flags.DEFINE_enum(
    'schedule', 'cosine', ('cosine', 'constant'), 'How the learning rate falls, or not.', flag_values=flags
  )


def define_likelihood_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of models with a distribution of x."""
  absl_flags.DEFINE_enum(
    'likelihood', 'auto', LIKELIHOODS,
    'Distribution of a dimension given the code; auto: gaussian for real data, else bernoulli. The gaussian has a '
    'learnt deviation and dequantised grey data; logistic and categorical see grey levels.', flag_values=flags,
  )  # fmt: skip
  vectors.define_binarise(flags, vectors.BINARISE[:-1])


def define_evaluation_flags(flags: absl_flags.FlagValues, name: str = 'num_importance', default: int = 500) -> None:
  """The flags of the final scores; the first is given its name and its default."""
  absl_flags.DEFINE_integer(name, default, 'Importance samples of the final estimate.', lower_bound=1,
                            flag_values=flags)  # fmt: skip
  absl_flags.DEFINE_integer(
    'num_annealing', 0, 'Temperatures of annealed importance sampling up and down, which bracket the log-likelihood of '
    '100 simulated examples; 0 for none.', lower_bound=0, flag_values=flags,
  )  # fmt: skip


def choose_likelihood(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> str:
  """The name of the distribution of a dimension.

  Raises:
    ValueError: if it does not fit the data.
  """
  name = flags.likelihood
  if name == 'auto':
    name = 'gaussian' if dataset.kind == 'real' else 'bernoulli'
  if dataset.kind not in KINDS[name]:
    kinds = ' or '.join(KINDS[name])
    raise ValueError(f'likelihood={name} needs {kinds} data, but dataset={dataset.name!r} is {dataset.kind}')
  return name


def make_head(name: str, dataset: datasets.Dataset) -> Head:
  """The distribution of a dimension."""
  return {
    'bernoulli': Bernoulli,
    'gaussian': lambda: Gaussian(min_scale=0.01),
    'logistic': lambda: DiscretisedLogistic(dataset.levels, num_components=2),
    'categorical': lambda: Categorical(dataset.levels),
  }[name]()


class Data(NamedTuple):
  """The three splits as a model takes them, ``[N, D]``, what is still to be done at each step, and the conditions."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  transform: Callable  # (key, x) -> x
  top: float  # the value that is drawn white
  contexts: tuple = (None, None, None)  # of the three splits


def prepare(likelihood_name: str, flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """The data as the likelihood takes them: binarised, dequantised, or as they are.

  With --binarise=stochastic the training set is drawn anew at every step; valid and test are drawn once.
  """
  if likelihood_name == 'gaussian':
    splits = vectors.dequantised(dataset)
  else:
    splits = vectors.binary(dataset, flags.binarise if likelihood_name == 'bernoulli' else 'none')
  top = dataset.levels - 1.0 if likelihood_name in ('logistic', 'categorical') else 1.0
  return Data(*splits, top)


def learning_rate(flags: absl_flags.FlagValues, num_steps: int) -> optax.Schedule:
  """The learning rate at every step."""
  if flags.schedule == 'constant':
    return optax.constant_schedule(flags.learning_rate)
  return optax.cosine_decay_schedule(flags.learning_rate, num_steps)


def adam(flags: absl_flags.FlagValues, num_steps: int) -> optax.GradientTransformation:
  """Adam with the epsilon of Burda et al. (2016), which matters where gradients are small."""
  return optax.adam(learning_rate(flags, num_steps), eps=1e-4)


def in_bits(found: likelihood.Score, name: str, dataset: datasets.Dataset) -> dict[str, likelihood.Score]:
  """The score of grey data in bits per dimension; nothing for others."""
  if dataset.kind != 'grey' or name == 'bernoulli':
    return {}
  levels = dataset.levels if name == 'gaussian' else 1  # the density of dequantised values is one in units of levels
  return {'test_bits': likelihood.score_in_bits(found, int(np.prod(dataset.shape)), levels=levels)}


class Numbers(NamedTuple):
  """What is watched during training, ``'bound'`` among it, and how it is reported."""

  function: Callable  # (params, key, x, context=None) -> {name: [B]}
  reported: dict[str, tuple[str, str]]  # name -> name of the score, and its kind


def experiment(
  flags: absl_flags.FlagValues,
  axis_name: str | None,
  *,
  module,
  data: Data,
  objective,
  numbers: Numbers,
  num_importance: int,
  draw: Callable,
  more_scores: Callable = lambda params, key, scores: {},
  optimizer: optax.GradientTransformation | None = None,
  published=(),
) -> cli.Experiment:
  """The experiment of any model with latent variables.

  Args:
    flags: of the binary.
    axis_name: of devices.
    module: a ``LatentVariableModel``.
    data: as it takes them.
    objective: ``init`` and ``loss``.
    numbers: what is watched.
    num_importance: samples of the estimate of log p(x) that is reported.
    draw: ``(params, key, folder) -> pictures``.
    more_scores: ``(params, key, scores) -> scores`` beside those at hand.
    optimizer: Adam, as ``adam`` gives it, if None.
    published: see ``cli.Experiment``.
  """
  optimizer = optimizer or adam(flags, cli.make_plan(flags, len(data.train)).num_steps)
  evaluate_numbers = likelihood.evaluator(
    lambda params, key, x, **kwargs: numbers.function(params, key, x.astype('float32'), **kwargs),
    block_size=100, stochastic=True,
  )  # fmt: skip
  score_bound = make_score(module, num_importance)
  train, valid, test = data.contexts

  def evaluate(step, state):
    found = evaluate_numbers(state.variables, data.valid, valid, key=jax.random.key(step))
    return {f'valid/{name}': mean.mean for name, mean in found.items()}

  def score(key, state):
    bound_key, number_key, anneal_key, more_key = jax.random.split(key, 4)
    scores = score_bound(state.variables, bound_key, data.test, test)
    found = evaluate_numbers(state.variables, data.test, test, key=number_key)
    scores |= {name: found[number].score(kind) for number, (name, kind) in numbers.reported.items()}
    if flags.num_annealing:
      scores |= simulated_scores(module, state.variables, anneal_key, flags.num_annealing, num_importance, test)
    return scores | more_scores(state.variables, more_key, scores)

  def sample(key, state, num):
    kwargs = {} if test is None else {'context': np.resize(test, (num, *test.shape[1:]))}
    return jax.jit(bind(module, 'sample'), static_argnums=2)(state.variables, key, num, **kwargs)

  return cli.Experiment(
    algorithm=rules.descent(*objective, optimizer, axis_name=axis_name),
    data=Batch(data.train, train),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(state.variables, key, folder),
    sample=sample,
    best_metric='valid/bound',
    published=published,
  )


def terms_of(module) -> Numbers:
  """The ELBO and its KL, of a module with ``terms``."""
  terms = bind(module, 'terms')

  def function(params, key, x, **kwargs):
    log_likelihood, divergence = terms(params, key, x, **kwargs)
    divergence = divergence.sum(-1)
    return {'bound': log_likelihood - divergence, 'divergence': divergence}

  return Numbers(function, {'bound': ('test_elbo', 'lower bound'), 'divergence': ('test_divergence', 'estimate')})


def make_score(module, num_samples: int):
  """``(params, key, test, context) -> scores``: log p(x) by importance sampling, and what its samples were worth."""
  estimate = iwae.estimate(module, num_samples)

  def numbers(params, key, x, **kwargs):
    found = estimate(params, key, x.astype('float32'), **kwargs)
    return {'test_bound': found.log_prob, 'effective_sample_size': found.effective_sample_size}

  evaluate = likelihood.evaluator(numbers, block_size=40, stochastic=True)

  def score(params, key, test, context=None):
    found = evaluate(params, test, context, key=key)
    size = found['effective_sample_size'].score('estimate', unit=f'samples of {num_samples}')
    return {'test_bound': found['test_bound'].score('lower bound'), 'effective_sample_size': size}

  return score


def simulated_scores(module, params, key, num_temperatures, num_importance, context) -> dict[str, likelihood.Score]:
  """Of 100 examples drawn from the model: their log-likelihood between annealing up and down, and by importance.

  By as much as importance sampling stays below the bracket, it will about stay below the truth on test data, too.
  """
  num = 100
  kwargs = {} if context is None else {'context': np.resize(context, (num, *context.shape[1:]))}
  walk = annealing.bidirectional(module, num_temperatures=num_temperatures)
  lower, upper, x = jax.jit(walk, static_argnums=2)(params, key, num, **kwargs)
  found = jax.jit(iwae.estimate(module, num_importance))(params, key, x, **kwargs)
  lower, upper = likelihood.summarise(lower), likelihood.summarise(upper)
  gap = likelihood.summarise(upper.values - lower.values)
  ends = lower.mean, max(upper.mean, lower.mean)
  bracket = likelihood.score(
    sum(ends) / 2, 'bracket', stderr=lower.stderr, n=num, lower=ends[0] - gap.stderr, upper=ends[1] + gap.stderr
  )
  return {
    'simulated_log_prob': bracket,
    'simulated_bound': likelihood.summarise(found.log_prob).score('lower bound'),
  }


def code_scores(module, params, key, test) -> dict[str, likelihood.Score]:
  """Active units and mutual information of code and example, on at most 2,000 random test examples."""
  some = test[np.random.default_rng(0).permutation(len(test))[:2000]].astype(np.float32)
  active = float(jax.jit(diagnostics.active_units(module))(params, some))
  information = likelihood.summarise(jax.jit(diagnostics.mutual_information(module))(params, key, some))
  return {
    'active_units': likelihood.score(active, 'exact', stderr=None, n=len(some), unit=f'of {module.num_latents}'),
    'mutual_information': information.score('estimate'),
  }
