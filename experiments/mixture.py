"""Mixtures of Gaussians, of low-rank Gaussians, of Bernoullis and of categoricals.

Learns by expectation-maximisation over all data at once, stepwise over batches, or by gradient on the same parameters.
The test log-likelihood is exact; values that are NaN in real data are missing, and left out exactly.

  python -m experiments.mixture                                             the embedded digits, half a minute
  python -m experiments.mixture --dataset=two_moons --num_components=20
  python -m experiments.mixture --dataset=uci/red_wine --standardise --components=ppca --num_components=5
  python -m experiments.mixture --dataset=binarized_mnist --num_components=500 --num_epochs=60
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.base import Batch
from gm_jax.data import transforms
from gm_jax.density import mixture, mixture_discrete, mixture_gaussian, mixture_low_rank
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.training import rules

COMPONENTS = ('auto', 'full', 'tied', 'diagonal', 'spherical', 'ppca', 'factors', 'bernoulli', 'categorical')
BIC_STEPS = 30  # of EM, for each point of the curve
START_STEPS = 5  # of EM, after which the best start is kept

PUBLISHED = {
  'binarized_mnist': [
    ('mixture of 10 Bernoullis', -168.95, 'Germain et al. 2015'),
    ('mixture of 500 Bernoullis', -137.64, 'Salakhutdinov & Murray 2008'),
  ],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  absl_flags.DEFINE_integer('num_components', 20, 'Components.', lower_bound=1, flag_values=flags)
  choice(
    'components', COMPONENTS, 'Kind of component; auto: bernoulli for binary data, full in few dimensions, factors.'
  )
  absl_flags.DEFINE_integer('num_factors', 5, 'Rank of ppca and factors.', lower_bound=1, flag_values=flags)
  choice('method', ('em', 'stepwise', 'gradient'), 'Rule; em reads all data at every step, whatever the batch size.')
  choice('start', ('kmeans++', 'random'), 'Which examples the components start from.')
  absl_flags.DEFINE_integer('num_restarts', 3, 'Starts, of which the best is kept.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_float('prior', 2.0, 'Pseudo-examples per component.', lower_bound=0, flag_values=flags)
  absl_flags.DEFINE_bool(
    'standardise', False, 'Real data: give the training columns mean 0 and deviation 1, and score in those units.',
    flag_values=flags,
  )  # fmt: skip
  absl_flags.DEFINE_list('bic', ['1', '5', '20'], 'Numbers of components to compare.', flag_values=flags)


def prepare(dataset: datasets.Dataset, kind: str) -> vectors.Vectors:
  """The data as the components take them; grey values as Gaussians' real ones are dequantised."""
  if kind == 'bernoulli' and dataset.kind != 'binary':
    raise ValueError(f'components=bernoulli needs binary data, but dataset={dataset.name!r} is {dataset.kind}')
  if kind == 'categorical':
    if dataset.levels is None:
      raise ValueError(
        f'components=categorical needs binary or grey data, but dataset={dataset.name!r} is {dataset.kind}'
      )
    return vectors.flat(dataset)
  return vectors.flat(dataset) if dataset.kind == 'binary' else vectors.dequantised(dataset)


def make_family(flags: absl_flags.FlagValues, dataset: datasets.Dataset, kind: str, train: np.ndarray):
  """The components; the prior of Gaussians has a hundredth of the variance of the data, that of Bernoullis its mean."""
  prior = flags.prior / len(train)
  if kind == 'bernoulli':
    return mixture_discrete.Bernoulli(prior=prior, prior_mean=train.mean(0))
  if kind == 'categorical':
    return mixture_discrete.Categorical(dataset.levels, prior=prior)
  gaussian = {'prior': prior, 'prior_variance': max(0.01 * float(np.nanvar(train, axis=0).mean()), 1e-6)}
  if kind in ('ppca', 'factors'):
    return mixture_low_rank.LowRank(flags.num_factors, isotropic=kind == 'ppca', **gaussian)
  return getattr(mixture_gaussian, kind.capitalize())(**gaussian)


def make_algorithm(flags: absl_flags.FlagValues, model: mixture.Mixture, num_steps: int, axis_name: str | None):
  """The rule that the flags ask for, begun from the best of several starts."""

  def init(key, batch):
    em = rules.expectation_maximization(model.init, model.e_step, model.m_step)
    return mixture.best_of(em, key, batch, num_restarts=flags.num_restarts, num_steps=START_STEPS)[0].params

  if flags.method == 'gradient':
    rate = optax.cosine_decay_schedule(flags.learning_rate, num_steps)
    return rules.descent(init, model.loss, optax.adam(rate), axis_name=axis_name)
  step_size = 1.0 if flags.method == 'em' else lambda step: (step + 2.0) ** -0.6
  return rules.expectation_maximization(init, model.e_step, model.m_step, step_size=step_size, axis_name=axis_name)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  kind = flags.components
  if kind == 'auto':
    kind = 'bernoulli' if dataset.kind == 'binary' else 'full' if np.prod(dataset.shape) <= 16 else 'factors'
  train, valid, test, _ = prepare(dataset, kind)
  if flags.standardise:
    if dataset.kind != 'real':
      raise ValueError(f'standardise needs real data, but dataset={dataset.name!r} is {dataset.kind}')
    fitted = transforms.fit_standardisation(train)
    train, valid, test = (np.asarray(transforms.standardise(fitted, x)[0]) for x in (train, valid, test))
  if flags.num_components > len(train):
    raise ValueError(f'num_components={flags.num_components} exceeds the {len(train)} training examples')
  if kind in ('ppca', 'factors') and flags.num_factors >= train.shape[1]:
    raise ValueError(f'num_factors={flags.num_factors} must be below the {train.shape[1]} dimensions of the data')
  if flags.method == 'em':
    flags.batch_size = len(train) - len(train) % jax.device_count()
  plan = cli.make_plan(flags, len(train))
  family = make_family(flags, dataset, kind, train)
  model = mixture.Mixture(family, flags.num_components, flags.start, prior=flags.prior / len(train))
  log_prob = likelihood.evaluator(model.log_prob, block_size=1000)

  def evaluate(step, state):
    del step
    return {'valid/log_prob': log_prob(state.params, valid).mean}

  def score(key, state):
    del key
    dequantised = dataset.kind == 'grey' and kind != 'categorical'
    return cli.exact_scores(log_prob, state.params, train, test, dataset.levels if dequantised else None)

  def sample(key, state, num):
    drawn = model.sample(state.params, key, num)
    return jnp.clip(drawn, 0, 1) if dataset.kind == 'grey' and kind != 'categorical' else drawn

  def draw(key, state, folder):
    bic = bic_curve(flags, family, train)
    return draw_pictures(dataset, model, state.params, key, (train, test), bic, lambda n: sample(key, state, n), folder)

  return cli.Experiment(
    algorithm=make_algorithm(flags, model, plan.num_steps, axis_name),
    data=Batch(train),
    transform=(lambda key, x: x) if kind == 'categorical' else transforms_to_float,
    evaluate=evaluate,
    score=score,
    draw=draw,
    sample=sample,
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def transforms_to_float(key, x):
  """Binary data arrive as bytes."""
  del key
  return transforms.to_float(x)


def bic_curve(flags, family, train) -> dict[int, float]:
  """The criterion per example for each number of components, after a short EM over the training set."""
  batch = Batch(jnp.asarray(train))
  curve = {}
  for num in sorted({int(n) for n in flags.bic}):
    if num <= len(train):
      model = mixture.Mixture(family, num, flags.start, prior=flags.prior / len(train))
      em = rules.expectation_maximization(model.init, model.e_step, model.m_step)
      fit = jax.jit(lambda key, em=em: mixture.best_of(em, key, batch, num_restarts=1, num_steps=BIC_STEPS))
      state, metrics = fit(jax.random.key(flags.seed))
      number = model.num_parameters(state.params)
      curve[num] = float(mixture.bic(-metrics['loss'][-1, 0], number, len(train))) / len(train)
  return curve


def draw_pictures(dataset, model, params, key, data, bic, sample, folder) -> list[cli.Picture]:
  """The criterion against K; in the plane the density; of images the means, samples and completions."""
  train, test = data
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if bic:
    names, values = [f'K = {num}' for num in bic], list(bic.values())
    figure = plots.intervals(names, values, np.zeros(len(bic)), xlabel='BIC per training example, nats')
    keep('bic.png', figure, f'Bayesian information criterion after {BIC_STEPS} steps of EM: lower is better')
  if train.shape[1] == 2:
    low, high = train.min(0), train.max(0)
    margin = 0.1 * (high - low)
    x, y = (np.linspace(low[j] - margin[j], high[j] + margin[j], 200) for j in range(2))
    grid = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    figure = plots.density(x, y, jax.jit(model.log_prob)(params, grid), test[:500])
    keep('density.png', figure, 'The density, with test examples')
  if len(dataset.shape) != 3:
    return pictures

  image = lambda x: np.asarray(x, np.float32).reshape(*np.shape(x)[:-1], *dataset.shape)
  means = model.family.mean(params.components)
  top = 1.0
  if means.ndim == 3:  # categorical: the expected grey value
    means, top = means @ jnp.arange(dataset.levels), float(dataset.levels - 1)
  order = np.argsort(-np.asarray(params.logits))[:100]
  weights = np.asarray(jax.nn.softmax(params.logits))[order]
  captions = [f'{weight:.1%}' for weight in weights] if len(order) <= 40 else None
  figure = image_plots.image_grid(image(means[order]), value_range=(0.0, top), captions=captions)
  keep('means.png', figure, 'Means of the components with their weights, the heaviest first')
  keep('samples.png', image_plots.image_grid(image(sample(100)), value_range=(0.0, top)), '100 samples')

  height = dataset.shape[0]
  observed = np.zeros(dataset.shape, bool)
  observed[: height // 2] = True
  chosen = test[np.linspace(0, len(test) - 1, 8).astype(int)]
  repeated = jnp.asarray(np.repeat(chosen[:, None], 4, axis=1))
  completed = jax.jit(model.complete)(params, key, repeated, observed.ravel())
  figure = image_plots.completions(image(chosen), observed[..., 0], image(completed), value_range=(0.0, top))
  keep('completions.png', figure, 'Test images of which the mixture sees the upper half, and four completions of each')
  return pictures


BINARY = cli.Binary(
  name='mixture',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'batch_size': 100, 'num_epochs': 40, 'learning_rate': 0.03},
  evaluation_flags=('bic',),
)

if __name__ == '__main__':
  cli.main(BINARY)
