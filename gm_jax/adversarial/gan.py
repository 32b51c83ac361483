"""Generative adversarial networks: two players, one that makes samples and one that tells them from the data.

A generator G takes latent z ~ p(z) to samples; the critic's score s(x) is the log-odds of its belief that x is real,
D(x) = sigmoid(s(x)) (Goodfellow et al., "Generative adversarial nets", 2014)::

  min_G max_D V(G, D) = E_data log D(x) + E_z log(1 - D(G(z)))

Each update makes k steps of the critic on batches of data and samples, then one of the generator, with fresh z in each.
The games differ in what a score costs (``GAMES``):

  game             critic on data      critic on samples   generator
  minimax          -log D              -log(1 - D)         log(1 - D)
  non_saturating   -log D              -log(1 - D)         -log D
  least_squares    (s - 1)^2 / 2       s^2 / 2             (s - 1)^2 / 2         (Mao et al. 2017)
  hinge            max(0, 1 - s)       max(0, 1 + s)       -s                    (Lim & Ye 2017)

Players of dense layers are in ``players.py``, convolutional ones in ``dcgan.py``. What the optimal critic is, and what
V is then, stands in ``theory.py``; what steadies the game in ``tricks.py``.

Example, points on a circle in four lines:
  >>> import jax, optax
  >>> import jax.numpy as jnp
  >>> from gm_jax.adversarial.players import MLPCritic, MLPGenerator
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import adversarial
  >>> angle = jnp.linspace(0, 6.28, 100)
  >>> x = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
  >>> module = GAN(MLPGenerator((32,), (2,)), MLPCritic((32,)), num_latents=2)
  >>> algorithm = adversarial(*objective(module, GAMES['non_saturating']), optax.adam(0.01, b1=0.5), optax.adam(0.01))
  >>> init, step = jax.jit(algorithm.init), jax.jit(algorithm.step)
  >>> state = init(jax.random.key(0), Batch(x))
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> samples = jax.jit(lambda key: as_model(module).sample(state.variables, key, 500))(jax.random.key(1))
  >>> bool(abs(jnp.linalg.norm(samples, axis=-1).mean() - 1) < 0.2)
  True
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.adversarial import tricks
from gm_jax.adversarial.players import check_choice
from gm_jax.base import (
  Array,
  Extra,
  Key,
  Loss,
  Model,
  Params,
  Players,
  Variables,
  as_variables,
  bind,
  context_features,
)
from gm_jax.likelihoods import softplus

PRIORS = ('normal', 'uniform')


class Game(NamedTuple):
  """What each player pays for a score, example by example: functions ``[...] -> [...]``."""

  real: Callable[[Array], Array]  # the critic, for a score of data
  fake: Callable[[Array], Array]  # the critic, for a score of a sample
  generator: Callable[[Array], Array]  # the generator, for a score of its sample


GAMES = {
  'minimax': Game(lambda s: softplus(-s), softplus, lambda s: -softplus(s)),
  'non_saturating': Game(lambda s: softplus(-s), softplus, lambda s: softplus(-s)),
  'least_squares': Game(lambda s: (s - 1) ** 2 / 2, lambda s: s**2 / 2, lambda s: (s - 1) ** 2 / 2),
  'hinge': Game(lambda s: nn.relu(1 - s), lambda s: nn.relu(1 + s), lambda s: -s),
}


class GAN(nn.Module):
  """A generator and a critic.

  Attributes:
    generator: takes ``(z, train=)``, or ``(z, condition, train=)`` if there is a context, to samples ``[B, ...]``.
    critic: takes ``(x, train=)``, or ``(x, condition, train=)``, to scores ``[B]`` and features ``[B, F]``.
    num_latents: dimensions of z.
    context_size: classes, or features, of the condition; 0 for a model of p(x) alone.
    packing: how many examples the critic judges at once.
    prior: of z: ``'normal'``, or ``'uniform'`` on (-1, 1).
  """

  generator: nn.Module
  critic: nn.Module
  num_latents: int
  context_size: int = 0
  packing: int = 1
  prior: str = 'normal'

  def __post_init__(self):
    for name in ('num_latents', 'packing'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: must be 1 or more')
    check_choice('prior', self.prior, PRIORS)
    super().__post_init__()

  def __call__(self, x: Array, *, context=None) -> Array:
    """The critic's scores of as many samples as there are examples; touches every parameter of both players."""
    z = self.latents(self.make_rng('params'), len(x))
    return self.criticise(self.generate(z, context=context), context=context)[0]

  def latents(self, key: Key, num: int) -> Array:
    """``[num, num_latents]`` draws of z."""
    if self.prior == 'uniform':
      return jax.random.uniform(key, (num, self.num_latents), minval=-1.0)
    return jax.random.normal(key, (num, self.num_latents))

  def _condition(self, context, num):
    """What a player is given beside its input, as a tuple of arguments."""
    features = context_features(context, self.context_size, (num,))
    return () if features is None else (features,)

  def generate(self, z: Array, *, context=None, train: bool = False) -> Array:
    """G(z): ``[B, num_latents] -> [B, ...]``; in training with the statistics of this batch."""
    return self.generator(z, *self._condition(context, len(z)), train=train)

  def criticise(self, x: Array, *, context=None, train: bool = False) -> tuple[Array, Array]:
    """Scores of the packs of a batch, ``[B / packing]``, and their features ``[B / packing, F]``."""
    condition = (tricks.pack(one, self.packing) for one in self._condition(context, len(x)))
    return self.critic(tricks.pack(x, self.packing), *condition, train=train)

  def decode(self, z: Array, *, context=None) -> Array:
    """G(z) as it samples: ``[..., num_latents] -> [..., *shape]``."""
    batch = z.shape[:-1]
    num = math.prod(batch)
    if context is not None:
      context = jnp.asarray(context)
      context = context.reshape(num, *context.shape[len(batch) :])
    x = self.generate(z.reshape(num, self.num_latents), context=context)
    return x.reshape(*batch, *x.shape[1:])

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, ...]`` independent samples."""
    return self.generate(self.latents(key, num), context=context)


def bind_players(module: GAN, method: str) -> Callable:
  """A method of the module as a pure function of ``Players``, or of ``Variables`` of them, and its arguments."""
  function = bind(module, method)

  def adapted(params, *args, **kwargs):
    players, stats, _ = as_variables(params)
    return function(Variables(players._asdict(), _collections(stats)), *args, **kwargs)

  adapted.__doc__ = function.__doc__
  return adapted


def as_model(module: GAN) -> Model:
  """The module as a ``Model`` that samples and decodes; its parameters are ``Players``."""
  capabilities = {name: bind_players(module, name) for name in ('sample', 'decode')}
  return Model(init=_initial(module, remember=False), **capabilities)


def objective(
  module: GAN,
  game: Game,
  *,
  feature_matching: bool = False,
  history_weight: float = 0.0,
  instance_noise: Callable[[Array], Array] | None = None,
  penalty: Callable | None = None,
) -> tuple[Callable, Loss, Loss]:
  """``init``, and the losses of generator and critic, for ``rules.adversarial``.

  Args:
    module: the two players.
    game: what they play for; ``tricks.smoothed`` makes another of it.
    feature_matching: whether the generator matches the critic's mean features, in place of playing for its scores.
    history_weight: of the distance of each player's parameters from their mean so far, in its loss.
    instance_noise: the standard deviation of the noise on all that the critic sees, as a function of the update.
    penalty: ``(score, key, real, fake) -> []``, added to the critic's loss; ``score`` takes ``[B, ...]`` to the scores.

  Returns:
    ``(init, generator_loss, critic_loss)``. The critic's loss reports its mean scores and how often their sign is
    right.

  Raises:
    ValueError: if a penalty of single examples is asked of a critic that judges them together.
  """
  couples_examples = getattr(module.critic, 'couples_examples', False)
  if penalty and couples_examples:
    raise ValueError(
      'penalty is a function of the gradient at single examples, but this critic judges an example by its batch: '
      'leave out its batch normalisation and minibatch discrimination'
    )

  def play(players, stats, method, *args, context, train=True):
    """A method of the module in training, and the collections after it."""
    variables = {'params': players._asdict(), **_collections(stats)}
    mutable = list(_collections(stats)) if train else False
    out = module.apply(variables, *args, context=context, method=method, train=train, mutable=mutable)
    return out if train else (out, stats)

  def blur(key, x, state):
    return x if instance_noise is None else tricks.instance_noise(key, x, instance_noise(state.step))

  def draw(key, num):
    return module.apply({}, key, num, method='latents')

  def judge(players, stats, real, fake, context):
    """The critic's scores of data and of samples, and the collections after them."""
    if couples_examples:
      (real_scores, _), stats = play(players, stats, 'criticise', real, context=context)
      (fake_scores, _), stats = play(players, stats, 'criticise', fake, context=context)
      return real_scores, fake_scores, stats
    # Where each example is judged by itself both batches can go together, in half as many products.
    context = None if context is None else jnp.concatenate([context, context])
    (scores, _), stats = play(players, stats, 'criticise', jnp.concatenate([real, fake]), context=context)
    return *jnp.split(scores, 2), stats

  def with_history(value, player, players, collections, state):
    """The loss with the distance from the history of the player, and all statistics."""
    if not history_weight:
      return value, collections
    own, history = getattr(players, player), state.stats['history']
    value += history_weight * tricks.distance_from_history(own, getattr(history, player))
    history = history._replace(**{player: tricks.remember(getattr(history, player), own)})
    return value, {**collections, 'history': history}

  def critic_loss(players, key, batch, state):
    latent_key, real_key, fake_key, penalty_key = jax.random.split(key, 4)
    z = draw(latent_key, len(batch.x))
    fake, _ = play(players, state.stats, 'generate', z, context=batch.context)
    real, fake = blur(real_key, batch.x, state), blur(fake_key, fake, state)
    real_scores, fake_scores, collections = judge(players, state.stats, real, fake, batch.context)
    value = jnp.mean(game.real(real_scores)) + jnp.mean(game.fake(fake_scores))
    if penalty:
      score = lambda x: play(players, state.stats, 'criticise', x, context=batch.context, train=False)[0][0]
      value += penalty(score, penalty_key, real, fake)
    value, stats = with_history(value, 'critic', players, collections, state)
    metrics = {
      'real_score': jnp.mean(real_scores),
      'fake_score': jnp.mean(fake_scores),
      'critic_accuracy': (jnp.mean(real_scores > 0) + jnp.mean(fake_scores < 0)) / 2,
    }
    return value, Extra(stats=stats, metrics=metrics)

  def generator_loss(players, key, batch, state):
    latent_key, real_key, fake_key = jax.random.split(key, 3)
    z = draw(latent_key, len(batch.x))
    fake, collections = play(players, state.stats, 'generate', z, context=batch.context)
    fake = blur(fake_key, fake, state)
    (scores, features), _ = play(players, state.stats, 'criticise', fake, context=batch.context)
    if feature_matching:
      real = blur(real_key, batch.x, state)
      (_, real_features), _ = play(players, state.stats, 'criticise', real, context=batch.context)
      value = tricks.feature_matching(real_features, features)
    else:
      value = jnp.mean(game.generator(scores))
    value, stats = with_history(value, 'generator', players, collections, state)
    return value, Extra(stats=stats)

  return _initial(module, remember=history_weight > 0), generator_loss, critic_loss


def _initial(module: GAN, remember: bool) -> Callable[[Key, Any], Players | Variables]:
  """``(key, batch) -> Players``, with the statistics that the networks keep, and the history if it is asked for."""

  def init(key, batch):
    kwargs = {} if batch.context is None else {'context': batch.context}
    stats = dict(module.init(key, batch.x, **kwargs))
    players = Players(**stats.pop('params'))
    if remember:
      stats['history'] = Players(*map(tricks.begin_history, players))
    return Variables(players, stats) if stats else players

  return init


def _collections(stats: Mapping[str, Any]) -> dict[str, Params]:
  """The part of the statistics that belongs to the networks."""
  return {name: value for name, value in stats.items() if name != 'history'}
