"""What the binaries of autoencoders share: data as a head takes them, networks from flags, pictures of codes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.autoencoders import annealing, diagnostics, iwae, latents
from gm_jax.base import Batch, bind
from gm_jax.evaluation import image_plots, latent_plots, likelihood, plots
from gm_jax.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Head
from gm_jax.training import rules

LIKELIHOODS = ('auto', 'bernoulli', 'gaussian', 'logistic', 'categorical')
MAX_CLASSES = 20  # names of more would cover a picture of codes
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


def draw(module, params, data: Data, dataset: datasets.Dataset, key, folder, *, samples=True) -> list[cli.Picture]:
  """Codes, the use of each dimension, reconstructions, walks, the plane, decodes, samples, completions, estimators.

  Args:
    module: with ``encode`` and ``decode``, and ``propose`` and ``sample_prior`` if it has samples.
    params: its variables.
    data: as it takes them.
    dataset: that they come from.
    key: of all draws.
    folder: to write to.
    samples: whether the module has ``sample``.
  """
  encode, decode = jax.jit(bind(module, 'encode')), jax.jit(bind(module, 'decode'))
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  chosen = np.random.default_rng(0).permutation(len(data.test))[:2000]
  shown = data.test[chosen].astype(np.float32)
  labels = dataset.test.y[chosen] if dataset.num_classes and dataset.num_classes <= MAX_CLASSES else None
  codes = np.asarray(encode(params, shown))
  use, unit, what = codes.var(0), 'variance', 'variance over test examples'
  given = samples and hasattr(type(module), 'posterior_given')
  distribution = jax.jit(bind(module, 'posterior_given'))(params, shown) if given else None
  if isinstance(distribution, latents.DiagonalGaussian) and codes.shape[1] == module.num_latents:
    use = np.asarray(jax.jit(diagnostics.divergence_per_dimension(module))(params, shown))
    unit, what = 'nats', 'KL to N(0, 1), mean over test examples'
  order = np.argsort(-use)
  figure = plots.bars([str(i) for i in order[:16]], use[order[:16]], ylabel=unit)
  keep('use.png', figure, f'The most used dimensions of the code: {what}')
  if codes.shape[1] > 1:
    first, second = order[:2]
    figure = plots.scatter(codes[:, [first, second]], labels, xlabel=f'code {first}', ylabel=f'code {second}')
    keep('codes.png', figure, 'Test examples in the two most used dimensions of the code, by class')
  if len(dataset.shape) != 3:
    return pictures

  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  value_range = (0.0, data.top)
  rebuilt = decode(params, codes[:12])
  figure = image_plots.image_table(
    image(np.stack([shown[:12], rebuilt])), rows=['original', 'rebuilt'], value_range=value_range
  )
  keep('reconstructions.png', figure, 'Test images, and the means decoded from their codes')

  weights = np.linspace(0, 1, 7)[:, None]
  walks = np.stack([(1 - weights) * codes[i] + weights * codes[i + 6] for i in range(6)])
  figure = image_plots.image_table(image(decode(params, walks)), columns=[f'{w:.2f}' for w in weights[:, 0]],
                             value_range=value_range)  # fmt: skip
  keep('walks.png', figure, 'Walks in seven steps between the codes of two test images')

  if codes.shape[1] > 1:
    # The plane is cut at quantiles of the codes, so that each image stands for as many examples as any other.
    places = [np.quantile(codes[:, i], np.linspace(0.03, 0.97, 12)) for i in (first, second)]
    grid = np.tile(codes.mean(0), (12, 12, 1))
    grid[..., first], grid[..., second] = np.meshgrid(places[0], places[1][::-1])
    figure = image_plots.image_table(image(decode(params, grid)), value_range=value_range)
    keep('plane.png', figure, f'Decoded from code {first} (across) and {second} (up), the others at their means')

  if samples:
    draw_key, sample_key, complete_key, estimate_key = jax.random.split(key, 4)
    z, _ = jax.jit(bind(module, 'propose'), static_argnums=3)(params, draw_key, shown[:6], 10)
    z = np.asarray(jax.tree.leaves(z)[0]).swapaxes(0, 1)  # of several stochastic layers that which x is decoded from
    table = np.concatenate([shown[:6, None], np.asarray(decode(params, z))], axis=1)
    figure = image_plots.image_table(
      image(table), columns=['original', *map(str, range(1, 11))], value_range=value_range
    )
    keep('decodes.png', figure, 'Ten decodes of one image each, from draws of its posterior')
    drawn = jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 100)
    keep('samples.png', image_plots.image_grid(image(drawn), value_range=value_range), '100 samples')
    means = decode(params, jax.tree.leaves(bind(module, 'sample_prior')(params, sample_key, 100))[0])
    figure = image_plots.image_grid(image(means), value_range=value_range)
    keep('means.png', figure, 'Means decoded from 100 draws of the prior')
    pictures += draw_completions(module, params, data, dataset, complete_key, folder)
    pictures += draw_estimators(module, params, data, estimate_key, folder)
  return pictures


def draw_estimators(module, params, data: Data, key, folder) -> list[cli.Picture]:
  """Plain Monte Carlo and importance sampling of the likelihood of twenty test examples, side by side."""
  names = {'prior': 'plain Monte Carlo', 'posterior': 'importance sampling'}
  x = data.test[np.linspace(0, len(data.test) - 1, 20).astype(int)].astype(np.float32)
  weights = {
    name: jax.jit(iwae.log_weights(module, 1000, proposal))(params, key, x) for proposal, name in names.items()
  }
  figure = latent_plots.estimators(weights, (2, 5, 10, 20, 50, 100, 200, 500, 1000))
  plots.save(figure, folder / 'estimators.png')
  return [
    ('estimators.png', 'Two estimators of log p(x), means over 20 test examples, and what each says of its error')
  ]


def draw_completions(module, params, data: Data, dataset: datasets.Dataset, key, folder) -> list[cli.Picture]:
  """Test images of which the upper half is seen, and four completions of each."""
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  observed = np.zeros(dataset.shape, bool)
  observed[: dataset.shape[0] // 2] = True
  chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)].astype(np.float32)
  four_times = jnp.repeat(chosen[:, None], 4, axis=1)
  completed = jax.jit(bind(module, 'complete'))(params, key, four_times, observed.ravel())
  figure = image_plots.completions(image(chosen), observed[..., 0], image(completed), value_range=(0.0, data.top))
  plots.save(figure, folder / 'completions.png')
  caption = 'Test images of which the model sees the upper half, and four completions of each by pseudo-Gibbs'
  return [('completions.png', caption)]
