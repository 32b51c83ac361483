"""Conditional adversarial networks: both players are told a class, or other features, y.

The generator makes G(z, y), and the critic judges pairs; in the conditional GAN (Mirza & Osindero 2014) y is joined to
the inputs of both::

  min_G max_D E log D(x, y) + E log(1 - D(G(z, y), y))

The best score is a sum, log p(x, y) / q(x, y) = log p(x) / q(x) + log p(y | x) / q(y | x), and if the class is a
softmax of features phi(x), so is its second part an inner product: the projection critic (Miyato & Koyama, "cGANs with
projection discriminator", 2018) is::

  s(x, y) = psi(phi(x)) + <V y, phi(x)>

Both are wrappers of players that know no condition, of any architecture: ``Joined`` and ``Projected``.

Example, one of two points by its class:
  >>> import jax, optax
  >>> import jax.numpy as jnp
  >>> from gm_jax.adversarial import gan, players
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import adversarial
  >>> labels = jnp.arange(64) % 2
  >>> x = jnp.array([-1.0, 1.0])[labels][:, None] + 0.1 * jax.random.normal(jax.random.key(0), (64, 1))
  >>> module = gan.GAN(
  ...   Joined(players.MLPGenerator((16,), (1,))), Projected(players.MLPCritic((16,))), num_latents=1, context_size=2)
  >>> losses = gan.objective(module, gan.GAMES['non_saturating'])
  >>> algorithm = adversarial(*losses, optax.adam(0.01, b1=0.5), optax.adam(0.01, b1=0.5))
  >>> init, step = jax.jit(algorithm.init), jax.jit(algorithm.step)
  >>> state = init(jax.random.key(0), Batch(x, labels))
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x, labels))
  >>> draw = lambda key: gan.as_model(module).sample(state.variables, key, 4, context=jnp.array([0, 1, 0, 1]))
  >>> samples = jax.jit(draw)(jax.random.key(1))
  >>> jnp.sign(samples[:, 0]).tolist()
  [-1.0, 1.0, -1.0, 1.0]
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array


def join(x: Array, condition: Array) -> Array:
  """Features behind a vector, or as constant planes behind the channels of an image.

  Args:
    x: ``[B, D]`` or ``[B, H, W, C]``.
    condition: ``[B, F]``.

  Returns:
    ``[B, D + F]`` or ``[B, H, W, C + F]``.
  """
  inner = x.shape[1:-1]
  planes = condition.reshape(len(x), *(1,) * len(inner), -1)
  planes = jnp.broadcast_to(planes, (len(x), *inner, condition.shape[-1]))
  return jnp.concatenate([x, planes], axis=-1)


class Joined(nn.Module):
  """A player that sees the condition as a part of its input.

  Attributes:
    player: a generator or a critic without a condition.
  """

  player: nn.Module

  @property
  def couples_examples(self) -> bool:
    """As the player does."""
    return getattr(self.player, 'couples_examples', False)

  def __call__(self, x: Array, condition: Array, *, train: bool = False):
    """What the player answers."""
    return self.player(join(x, condition), train=train)


class Projected(nn.Module):
  """A critic that adds to its score the inner product of its features with an embedding of the condition.

  Attributes:
    critic: a critic without a condition.
  """

  critic: nn.Module

  @property
  def couples_examples(self) -> bool:
    """As the critic does."""
    return getattr(self.critic, 'couples_examples', False)

  @nn.compact
  def __call__(self, x: Array, condition: Array, *, train: bool = False) -> tuple[Array, Array]:
    """The scores ``[B]`` and the features ``[B, F]``."""
    scores, features = self.critic(x, train=train)
    embedded = nn.Dense(features.shape[-1], use_bias=False, name='embedding')(condition)
    return scores + jnp.sum(embedded * features, axis=-1), features
