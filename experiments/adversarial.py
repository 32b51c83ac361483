"""What the binaries of adversarial models share: data and players from flags, and the game.

How a game is judged while it goes on and at its end is in ``adversarial_judge.py``.
"""

import flax.linen as nn
import optax
from absl import flags as absl_flags

from experiments import adversarial_judge as judges
from experiments import cli, common_flags
from gm_jax import data as datasets
from gm_jax.adversarial import conditional, dcgan, gan, players, tricks, wgan
from gm_jax.base import Batch
from gm_jax.data import toy
from gm_jax.training import rules

CONDITIONS = ('none', 'joined', 'projected')

PUBLISHED = {
  'gaussians8': [('GAN, modes of 8', 6.3, 'Lin et al. 2018'), ('PacGAN2, modes of 8', 7.9, 'Lin et al. 2018')],
  'gaussians25': [
    ('GAN, modes of 25', 17.3, 'Lin et al. 2018'),
    ('PacGAN2, modes of 25', 23.8, 'Lin et al. 2018'),
    ('PacGAN4, modes of 25', 24.8, 'Lin et al. 2018'),
  ],
}


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
  choice('normalisation', players.NORMALISATIONS, 'Of the hidden layers of the generator.')
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


def make_players(
  flags: absl_flags.FlagValues, dataset: datasets.Dataset, condition: str = 'none', **critic_settings
) -> gan.GAN:
  """The two players that the flags ask for."""
  generator_sizes, critic_sizes = (
    common_flags.whole_numbers(flags, 'generator_sizes', least=0),
    common_flags.whole_numbers(flags, 'critic_sizes', least=0),
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
    generator = players.MLPGenerator(
      generator_sizes, dataset.shape, output_activation=output, normalisation=flags.normalisation
    )
    activation = (lambda h: nn.leaky_relu(h, 0.2)) if pixels else nn.relu
    critic = players.MLPCritic(critic_sizes, activation, flags.maxout, **settings)
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
  **critic_settings,
) -> cli.Experiment:
  """The experiment of a game."""
  dataset = prepare(flags, dataset)
  module = make_players(flags, dataset, condition, **critic_settings)
  plan = cli.make_plan(flags, len(dataset.train.x))
  has_odds = has_odds and flags.packing == 1 and flags.real_target == 1 and not flags.instance_noise
  judge = judges.Judge(module, dataset, has_odds and condition == 'none')

  return cli.Experiment(
    algorithm=make_algorithm(
      flags, module, game, plan.num_steps, axis_name, penalty=penalty, critic_limit=critic_limit
    ),
    data=Batch(dataset.train.x, dataset.train.y if module.context_size else None),
    transform=lambda key, x: judges.to_players(dataset, x),
    evaluate=judges.evaluation(judge),
    score=judges.scorer(judge),
    draw=lambda key, state, folder: judges.draw(judge, key, state, folder, plan.num_steps),
    sample=lambda key, state, num: judges.to_intensity(dataset, judge.sample(state.variables, key, num)),
    snapshot=judges.snapshots(judge),
    best_metric='valid/negative_distance',
    score_last=True,
    published=PUBLISHED.get(flags.dataset, ()),
  )  # fmt: skip
