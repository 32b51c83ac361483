"""What the binaries of adversarial models share: data and players from flags, the game, its diagnosis, and pictures."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli
from gm_jax import data as datasets
from gm_jax.adversarial import conditional, dcgan, gan, theory, tricks, wgan
from gm_jax.base import Batch, Variables
from gm_jax.data import toy, transforms
from gm_jax.density import kernel
from gm_jax.evaluation import adversarial_plots, extractors, likelihood, modes, plots, two_sample
from gm_jax.training import rules

NUM_SAMPLES = 2500  # that are scored, as in PacGAN's protocol
CONDITIONS = ('none', 'joined', 'projected')


def define_flags(flags: absl_flags.FlagValues, **defaults) -> None:
  """The flags that all adversarial models have; ``defaults`` are those of the binary where they differ."""

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, defaults.get(name, options[0]), options, help, flag_values=flags)

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, defaults.get(name, default), help, lower_bound=lower_bound, flag_values=flags)

  def number(name, default, help, upper_bound=None):
    absl_flags.DEFINE_float(
      name, defaults.get(name, default), help, lower_bound=0, upper_bound=upper_bound, flag_values=flags
    )

  def sizes(name, default, help):
    absl_flags.DEFINE_list(name, defaults.get(name, default), help, flag_values=flags)

  choice('architecture', ('mlp', 'convolutional'), 'Networks of both players; convolutional ones take images.')
  sizes('generator_sizes', ['128', '128'], 'Hidden units of the generator, or channels before each doubling.')
  sizes('critic_sizes', ['128', '128'], 'Hidden units of the critic, or channels behind each halving.')
  integer('maxout', 0, 'Pieces of the hidden units of an mlp critic, of which the greatest counts; 0 for ReLU.', 0)
  choice('normalisation', gan.NORMALISATIONS, 'Of the hidden layers of the generator.')
  choice('critic_normalisation', ('none', 'batch'), 'Of all layers but the first of a convolutional critic.')
  integer('num_latents', 2, 'Dimensions of z.')
  choice('prior', gan.PRIORS, 'Of z.')
  integer('critic_steps', 1, 'Updates of the critic for one of the generator; each sees an equal part of the batch.')
  number('critic_learning_rate', 0.0, 'Learning rate of the critic; 0 for that of the generator.')
  number('beta1', 0.5, 'Of Adam, for both players.', 1)
  number('beta2', 0.999, 'Of Adam, for both players.', 1)
  choice('schedule', ('constant', 'linear'), 'Whether learning rates fall to zero over the run.')
  number('average', 0.0, 'Decay of the running average of the parameters, from which samples come; 0 for none.', 1)
  absl_flags.DEFINE_bool(
    'feature_matching', False, "Let the generator match the critic's mean features.", flag_values=flags
  )
  integer('num_kernels', 0, 'Kernels of minibatch discrimination; 0 for none.', 0)
  number('history_weight', 0.0, 'Weight of the distance from the mean of all earlier parameters.')
  number('real_target', 1.0, 'Target of the critic on data; below 1 for one-sided label smoothing.', 1)
  number('instance_noise', 0.0, 'Standard deviation of the noise on all that the critic sees, at the start.')
  number('noise_until', 0.5, 'Share of the run in which that noise falls to zero.', 1)
  integer('packing', 1, 'Examples that the critic judges at once.')
  integer('num_train', 0, 'Training examples drawn of a toy set; 0 for its own number.', 0)


def prepare(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> datasets.Dataset:
  """The data in [-1, 1] if they are images, as floats; toy sets of the size that is asked for.

  Raises:
    ValueError: for data that are neither real nor of pixels, or a number of training examples of a set that has its
    own.
  """
  if flags.num_train:
    if dataset.name not in toy.TOYS:
      raise ValueError(f'num_train={flags.num_train} is for toy sets, and dataset={dataset.name!r} is none')
    dataset = datasets.load(dataset.name, num_train=flags.num_train)
  if dataset.kind not in ('real', 'grey', 'binary'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, and these players take real, grey or binary data')
  return dataset


def to_players(dataset: datasets.Dataset, x):
  """Examples as the players see them: float32, pixels from -1 to 1."""
  x = jnp.asarray(x)
  return transforms.to_float(x) if dataset.kind == 'real' else 2 * transforms.to_unit(x, dataset.levels) - 1


def to_intensity(dataset: datasets.Dataset, x):
  """Samples as they are, or pixels from 0 to 1."""
  return x if dataset.kind == 'real' else (x + 1) / 2


def make_players(
  flags: absl_flags.FlagValues, dataset: datasets.Dataset, condition: str = 'none', **critic_settings
) -> gan.GAN:
  """The two players that the flags ask for."""
  generator_sizes, critic_sizes = (
    cli.whole_numbers(flags, 'generator_sizes', least=0),
    cli.whole_numbers(flags, 'critic_sizes', least=0),
  )
  settings = {'num_kernels': flags.num_kernels, **critic_settings}
  pixels = dataset.kind != 'real'
  if flags.architecture == 'convolutional':
    if len(dataset.shape) != 3:
      raise ValueError(f'architecture=convolutional needs images, but examples of {dataset.name!r} are {dataset.shape}')
    if flags.maxout:
      raise ValueError(f'maxout={flags.maxout}: a convolutional critic has leaky units; take --architecture=mlp')
    generator = dcgan.Generator(dataset.shape, generator_sizes, flags.normalisation)
    critic = dcgan.Critic(critic_sizes, flags.critic_normalisation == 'batch', **settings)
    if any(side % 2 ** len(critic_sizes) for side in dataset.shape[:2]):
      raise ValueError(f'critic_sizes={critic_sizes}: images of {dataset.shape} cannot be halved as often')
  else:
    if flags.critic_normalisation != 'none':
      raise ValueError('critic_normalisation=batch is of a convolutional critic; take --architecture=convolutional')
    output = nn.tanh if pixels else None
    generator = gan.MLPGenerator(
      generator_sizes, dataset.shape, output_activation=output, normalisation=flags.normalisation
    )
    activation = (lambda h: nn.leaky_relu(h, 0.2)) if pixels else nn.relu
    critic = gan.MLPCritic(critic_sizes, activation, flags.maxout, **settings)
  context_size = 0
  if condition != 'none':
    if not dataset.num_classes:
      raise ValueError(f'dataset={dataset.name!r} has no classes to be conditioned on')
    context_size = dataset.num_classes
    generator = conditional.Joined(generator)
    critic = (conditional.Joined if condition == 'joined' else conditional.Projected)(critic)
  return gan.GAN(generator, critic, flags.num_latents, context_size, flags.packing, flags.prior)


def make_algorithm(flags, module, game, num_steps, axis_name, *, penalty=None, critic_limit=0.0):
  """The game, its tricks and the optimisers that the flags ask for."""
  share = flags.batch_size // flags.critic_steps
  if flags.batch_size % flags.critic_steps or share % flags.packing:
    raise ValueError(
      f'batch_size={flags.batch_size} must divide into critic_steps={flags.critic_steps} parts of whole packs of '
      f'packing={flags.packing}'
    )
  if flags.real_target < 1:
    game = tricks.smoothed(game, flags.real_target)
  noise = None
  if flags.instance_noise:
    noise = optax.linear_schedule(flags.instance_noise, 0.0, max(int(flags.noise_until * num_steps), 1))

  def adam(rate, updates):
    rate = optax.linear_schedule(rate, 0.0, updates) if flags.schedule == 'linear' else rate
    return optax.adam(rate, b1=flags.beta1, b2=flags.beta2)

  critic_optimizer = adam(flags.critic_learning_rate or flags.learning_rate, num_steps * flags.critic_steps)
  if critic_limit:
    critic_optimizer = optax.chain(critic_optimizer, wgan.clip_weights(critic_limit))
  losses = gan.objective(
    module, game, feature_matching=flags.feature_matching, history_weight=flags.history_weight, instance_noise=noise,
    penalty=penalty,
  )  # fmt: skip
  algorithm = rules.adversarial(
    *losses, adam(flags.learning_rate, num_steps), critic_optimizer, critic_steps=flags.critic_steps,
    axis_name=axis_name,
  )  # fmt: skip
  return rules.averaged(algorithm, flags.average) if flags.average else algorithm


class Judge(NamedTuple):
  """Compiled functions of the variables of the players that evaluation needs."""

  module: gan.GAN
  dataset: datasets.Dataset
  has_odds: bool  # whether the critic's score is meant as the log-odds of single examples

  def labels(self, num: int) -> dict[str, Any]:
    """A context of all classes in turn, for as many samples."""
    classes = self.module.context_size
    return {'context': jnp.arange(num) % classes} if classes else {}

  def sample(self, variables, key, num: int):
    """``[num, ...]`` samples; of a conditional model those of all classes in turn."""
    draw = jax.jit(lambda variables, key: self._sample(variables, key, num))
    return np.asarray(draw(variables, key))

  def _sample(self, variables, key, num):
    return gan.bind_players(self.module, 'sample')(variables, key, num, **self.labels(num))

  def numbers(self):
    """``(variables, raw, key) -> (samples, numbers)``: what is looked at during training.

    The distance, by which the best state is chosen, is that of sliced Wasserstein from the validation set.
    The samples are of ``variables``, averaged if an average is kept; the critic that is judged is that of ``raw``.
    """
    held_out = to_players(self.dataset, self.dataset.valid.x[:NUM_SAMPLES])
    held_out = held_out[: len(held_out) // self.module.packing * self.module.packing]
    given = {'context': jnp.asarray(self.dataset.valid.y[: len(held_out)])} if self.module.context_size else {}
    criticise = gan.bind_players(self.module, 'criticise')
    exact = toy.log_density(self.dataset.name) if self.dataset.name in toy.TOYS and self.has_odds else None

    @jax.jit
    def run(variables, raw, key):
      first, second, third = jax.random.split(key, 3)
      samples = self._sample(variables, first, NUM_SAMPLES)
      fake = self._sample(raw, second, len(held_out))
      real_scores = criticise(raw, held_out, **given)[0]
      fake_scores = criticise(raw, fake, **self.labels(len(held_out)))[0]
      rows = lambda x: x.reshape(len(x), -1)
      projected = two_sample.project(jax.random.key(0), rows(held_out), rows(samples), 256)
      found = {
        'valid/negative_distance': -two_sample.mean_wasserstein(*projected),
        'valid/real_score': real_scores.mean(),
        'valid/fake_score': fake_scores.mean(),
        'valid/critic_accuracy': ((real_scores > 0).mean() + (fake_scores < 0).mean()) / 2,
      }
      if exact is not None:
        width = jnp.full(self.dataset.shape, self._bandwidth())
        estimate = kernel.fit(self._sample(raw, third, 2 * NUM_SAMPLES), width)
        best = lambda x: theory.optimal_score(exact(x), kernel.log_prob(estimate, x))
        gap = theory.optimality_gap(real_scores, fake_scores, best(held_out), best(fake))
        found['valid/optimality_gap'] = gap
      return samples, found

    return run

  def _bandwidth(self) -> float:
    """Of the kernel estimate of the generator's density: the width of the modes of the data if it is known."""
    return toy.MODES[self.dataset.name][1] if self.dataset.name in toy.MODES else 0.1


def raw_variables(state):
  """The parameters of the last update, where ``state.variables`` may be their average."""
  stats = {name: value for name, value in state.stats.items() if name != 'average'}
  return Variables(state.params, stats)


def build(
  flags: absl_flags.FlagValues,
  dataset: datasets.Dataset,
  axis_name: str | None,
  game: gan.Game,
  *,
  condition: str = 'none',
  has_odds: bool = True,
  penalty=None,
  critic_limit: float = 0.0,
  published: Sequence[tuple[str, float, str]] = (),
  **critic_settings,
) -> cli.Experiment:
  """The experiment of a game."""
  dataset = prepare(flags, dataset)
  module = make_players(flags, dataset, condition, **critic_settings)
  plan = cli.make_plan(flags, len(dataset.train.x))
  has_odds = has_odds and flags.packing == 1 and flags.real_target == 1 and not flags.instance_noise
  judge = Judge(module, dataset, has_odds and condition == 'none')
  look = judge.numbers()
  fixed = jax.jit(lambda variables: judge._sample(variables, jax.random.key(0), 1000 if _is_plane(dataset) else 100))

  classifier = functools.cache(lambda: train_classifier(dataset))

  def evaluate(step, state):
    samples, found = jax.device_get(look(state.variables, raw_variables(state), jax.random.key(step)))
    found = {name: float(value) for name, value in found.items()}
    if dataset.name in toy.MODES:
      seen = modes.coverage(samples, *toy.MODES[dataset.name])
      found |= {'valid/modes': seen.num_modes, 'valid/high_quality': seen.high_quality}
      found['valid/reverse_kl'] = min(seen.reverse_kl, 10.0)  # it is infinite before there is any good sample
    return found

  def score(key, state):
    samples = judge.sample(state.variables, key, NUM_SAMPLES)
    if dataset.name in toy.MODES:
      return modes.scores(samples, *toy.MODES[dataset.name])
    scores = nearest_scores(dataset, samples)
    if dataset.name == 'stacked_mnist':
      scores |= stacked_scores(judge, classifier(), state.variables, key)
    if module.context_size and len(dataset.shape) == 3:
      scores |= class_scores(dataset, classifier(), samples, np.asarray(judge.labels(NUM_SAMPLES)['context']))
    return scores

  return cli.Experiment(
    algorithm=make_algorithm(
      flags, module, game, plan.num_steps, axis_name, penalty=penalty, critic_limit=critic_limit
    ),
    data=Batch(dataset.train.x, dataset.train.y if module.context_size else None),
    transform=lambda key, x: to_players(dataset, x),
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(judge, key, state, folder, plan.num_steps),
    sample=lambda key, state, num: to_intensity(dataset, judge.sample(state.variables, key, num)),
    snapshot=lambda state: fixed(state.variables),
    best_metric='valid/negative_distance',
    score_last=True,
    published=published,
  )  # fmt: skip


def _is_plane(dataset) -> bool:
  return dataset.shape == (2,)


def nearest_scores(dataset, samples) -> dict[str, likelihood.Score]:
  """How far samples are from the training set, beside test examples, in [-1, 1]^D: what is much nearer is a copy."""
  train = np.asarray(to_players(dataset, dataset.train.x))
  test = np.asarray(to_players(dataset, dataset.test.x[: len(samples)]))
  scores = {}
  for name, x in (('sample', samples), ('test', test)):
    _, distance = plots.nearest_neighbors(x, train)
    scores[f'{name}_distance_to_train'] = likelihood.summarise(distance).score('estimate', 'in [-1, 1]^D')
  return scores


def class_scores(dataset, classifier: extractors.Extractor, samples, asked) -> dict[str, likelihood.Score]:
  """How often a classifier gives samples the class that was asked for, and test images their own."""
  scores = {}
  for name, x, y in (('sample', samples, asked), ('test', to_players(dataset, dataset.test.x), dataset.test.y)):
    answers = np.asarray(classifier.extract((np.asarray(x) + 1) / 2).logits).argmax(1)
    scores[f'{name}_class_agreement'] = likelihood.summarise(100.0 * (answers == y)).score('estimate', '%')
  return scores


def stacked_scores(judge: Judge, classifier: extractors.Extractor, variables, key) -> dict[str, likelihood.Score]:
  """Which of the thousand triples of digits 26,000 samples show, digit by digit, and how far their shares are off."""
  found = np.zeros(1000, int)
  for i in range(26):
    samples = (judge.sample(variables, jax.random.fold_in(key, i), 1000) + 1) / 2
    digits = [np.asarray(classifier.extract(samples[..., c : c + 1]).logits).argmax(1) for c in range(3)]
    found += np.bincount(100 * digits[0] + 10 * digits[1] + digits[2], minlength=1000)
  seen, n = modes.of_counts(found, 26_000), 26_000
  floor = f'nats (a perfect sampler {modes.least_divergence(1000, n):.4f})'
  return {
    'modes': likelihood.score(seen.num_modes, 'estimate', stderr=None, n=n, unit='of 1000, with a sample'),
    'reverse_kl': likelihood.score(
      seen.reverse_kl, 'estimate', stderr=modes.divergence_error(found), n=n, unit=floor
    ),
  }  # fmt: skip


def train_classifier(dataset) -> extractors.Extractor:
  """The judge of the classes of images; of stacked digits, of the first."""
  if dataset.name == 'stacked_mnist':
    first = lambda split: split._replace(x=split.x[:50_000, ..., :1], y=split.y[:50_000] // 100)
    dataset = dataset._replace(train=first(dataset.train), test=first(dataset.test), num_classes=10)
  images = lambda split: (np.asarray(to_players(dataset, split.x) + 1) / 2, split.y)
  return extractors.train_classifier(
    jax.random.key(0), images(dataset.train), images(dataset.test), dataset.num_classes
  )


def draw(judge: Judge, key, state, folder, num_steps: int) -> list[cli.Picture]:
  """Samples over training, and beside the data; of images walks between codes and nearest neighbours, too."""
  dataset, pictures = judge.dataset, []
  snapshots = cli.read_snapshots(folder, num_steps)

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  chosen = [*snapshots][:: max(len(snapshots) // 8, 1)][:7] + [*snapshots][-1:]
  chosen = {step: snapshots[step] for step in dict.fromkeys(chosen)}
  if _is_plane(dataset):
    if chosen:
      figure = adversarial_plots.points_over_time(chosen, dataset.train.x[:2000])
      keep('over_training.png', figure, 'Samples at the same codes over training, and data in grey')
    if dataset.name in toy.MODES and len(snapshots) > 1:
      keep('mode_shares.png', *shares_over_time(snapshots, *toy.MODES[dataset.name]))
    samples = judge.sample(state.variables, key, 2000)
    both = np.concatenate([dataset.test.x[:2000], samples])
    figure = plots.scatter(
      both, np.repeat([0, 1], 2000), names=('', ''), xlabel='$x_1$', ylabel='$x_2$', title='data blue, samples orange'
    )
    keep('samples.png', figure, 'Test data and samples')
    return pictures
  if len(dataset.shape) != 3:
    return pictures

  scale = {'value_range': (-1.0, 1.0)}
  samples = judge.sample(state.variables, key, 100)
  classes = judge.module.context_size
  columns = {'columns': classes} if classes else {}
  caption = 'Samples, a class in each column' if classes else 'Samples'
  keep('samples.png', plots.image_grid(samples, **columns, **scale), caption)
  if chosen:
    figure = plots.image_table(
      np.stack([one[:10] for one in chosen.values()]), rows=[f'{step:,}' for step in chosen], **scale
    )
    keep('over_training.png', figure, 'Samples at the same codes, by the number of updates')
  walk = interpolation(judge, state.variables, key)
  keep('interpolations.png', plots.image_table(walk, **scale), 'Straight walks between codes')
  train = np.asarray(to_players(dataset, dataset.train.x))
  figure = plots.beside_nearest(samples[:20], train, **scale)
  keep('nearest.png', figure, 'Samples above their nearest training examples')
  return pictures


def interpolation(judge: Judge, variables, key, num_walks: int = 6, num_steps: int = 10):
  """``[num_walks, num_steps, ...]`` images on straight walks between codes, each of one class if there are classes."""
  start, end = (judge.module.latents(one, num_walks) for one in jax.random.split(key))
  codes = dcgan.interpolate(start, end, num_steps)
  classes = judge.module.context_size
  context = {'context': jnp.repeat(jnp.arange(num_walks)[:, None] % classes, num_steps, 1)} if classes else {}
  return np.asarray(jax.jit(gan.bind_players(judge.module, 'decode'))(variables, codes, **context))


def shares_over_time(snapshots, centres, stddev):
  """The picture of the shares of the modes, and its caption, which says how much they change from one to the next."""
  counts = np.stack([modes.coverage(one, centres, stddev).counts for one in snapshots.values()])
  shares = counts / len(next(iter(snapshots.values())))
  moved = np.abs(np.diff(shares, axis=0)).sum(1) / 2
  late = moved[len(moved) // 2 :].mean()
  caption = (
    'Share of good samples at each mode. Oscillation: between two evaluations in the later half of the run, shares '
    f'change by {late:.3f} in total variation, at the same codes'
  )
  return adversarial_plots.mode_shares([*snapshots], shares), caption
