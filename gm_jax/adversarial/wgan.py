"""Wasserstein GANs: the critic's gap between data and samples is a distance of transport, if its slope is at most one.

By the duality of Kantorovich and Rubinstein (Arjovsky, Chintala & Bottou, "Wasserstein GAN", 2017)::

  W_1(p_r, p_g) = max over s with |s(x) - s(y)| <= |x - y| of  E_data s(x) - E_z s(G(z))

so the critic's loss is the negative of its estimate of W_1 (``-critic_loss``, up to the penalty and to the slope that
it has in truth). Three ways to keep the slope in bounds:

* ``clip_weights``: each weight is cut back into [-c, c] after each update, as in that paper;
* ``gradient_penalty``: lambda E (|grad s(u x + (1 - u) G(z))|_2 - 1)^2, the norm over all values of an example
  (Gulrajani et al., "Improved training of Wasserstein GANs", 2017);
* ``SpectralDense``: each kernel is divided by its largest singular value, found by a step of power iteration per update
  (Miyato et al., "Spectral normalization for GANs", 2018).

The five critic steps of the papers are ``rules.adversarial(..., critic_steps=5)``.

The penalty is no bound: between two points at a distance d the best slope under it is 1 + d / (2 lambda), and the gap
d + d^2 / (2 lambda).

Example, the gap between the points 0 and 3 is 3 + 9 / 20:
  >>> import jax, optax
  >>> import jax.numpy as jnp
  >>> from gm_jax.adversarial import gan, players
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import adversarial
  >>> zero = players.MLPGenerator((), (1,), kernel_init=nn.initializers.zeros)
  >>> module = gan.GAN(zero, players.MLPCritic((16,), output_bias=False), num_latents=1)
  >>> losses = gan.objective(module, WASSERSTEIN, penalty=gradient_penalty(10.0))
  >>> algorithm = adversarial(*losses, optax.sgd(0.0), optax.adam(0.01))
  >>> x = jnp.full((64, 1), 3.0)
  >>> init, step = jax.jit(algorithm.init), jax.jit(algorithm.step)
  >>> state = init(jax.random.key(0), Batch(x))
  >>> for i in range(300):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(abs(metrics['real_score'] - metrics['fake_score'] - 3.45) < 0.05)
  True
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax.adversarial.gan import Game
from gm_jax.base import Array, Key
from gm_jax.nn.convolutional import HalvingConvolution

WASSERSTEIN = Game(lambda s: -s, lambda s: s, lambda s: -s)


def clip_weights(limit: float) -> optax.GradientTransformation:
  """A last link of a chain of optax that keeps every parameter within [-limit, limit] after the update.

  Raises:
    ValueError: unless ``limit`` is positive.
  """
  if limit <= 0:
    raise ValueError(f'limit={limit}: weights are clipped to [-limit, limit], give a positive number')

  def update(updates, state, params):
    clip = lambda update, param: jnp.clip(param + update, -limit, limit) - param
    return jax.tree.map(clip, updates, params), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def gradient_norms(score: Callable[[Array], Array], x: Array) -> Array:
  """The norm of the gradient of each score with respect to all that it judges.

  Args:
    score: ``[B, ...] -> [B / m]``, for packs of m examples that follow each other.
    x: ``[B, ...]``.

  Returns:
    ``[B / m]``.
  """
  scores, pull = jax.vjp(score, x)
  gradient = pull(jnp.ones_like(scores))[0].reshape(len(scores), -1)
  square = jnp.sum(gradient**2, axis=-1)
  positive = square > 0  # the root has no slope at zero, and neither has the norm that is wanted there
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def gradient_penalty(weight: float = 10.0, *, one_sided: bool = False) -> Callable:
  """The penalty on slopes other than one between data and samples, for ``gan.objective``.

  Args:
    weight: lambda.
    one_sided: whether only slopes above one cost something.

  Returns:
    ``(score, key, real, fake) -> []``.
  """

  def penalty(score, key: Key, real: Array, fake: Array) -> Array:
    share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    excess = gradient_norms(score, share * real + (1 - share) * fake) - 1
    excess = nn.relu(excess) if one_sided else excess
    return weight * jnp.mean(excess**2)

  return penalty


def power_iteration(matrix: Array, u: Array) -> tuple[Array, Array]:
  """One step towards the largest singular value: ``[M, N], [N] -> []``, and the next ``[N]``.

  Gradients see the singular vectors as constants, so that of sigma is the outer product of the two, which is exact
  where the iteration has converged.
  """
  fixed = jax.lax.stop_gradient(matrix)
  normed = lambda vector: vector / (jnp.linalg.norm(vector) + 1e-12)
  left = normed(fixed @ u)
  u = normed(fixed.T @ left)
  return left @ matrix @ u, u


def spectrally_normalised(module: nn.Module, kernel: Array) -> Array:
  """A kernel ``[..., N]`` of a module, as a matrix of N columns, over its largest singular value.

  The singular vector is a variable of the module, and moves on while its collection may be written.
  """
  start = lambda: jax.random.normal(module.make_rng('params'), kernel.shape[-1:])
  vector = module.variable('spectral', 'vector', start)
  sigma, moved = power_iteration(kernel.reshape(-1, kernel.shape[-1]), vector.value)
  if module.is_mutable_collection('spectral') and not module.is_initializing():
    vector.value = moved
  return kernel / sigma


class SpectralDense(nn.Module):
  """A dense layer with a kernel of norm one.

  Attributes:
    features: units of the layer.
    use_bias: whether a bias is added.
    kernel_init: of the kernel before it is divided.
  """

  features: int
  use_bias: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """``[..., M] -> [..., features]``."""
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
    y = x @ spectrally_normalised(self, kernel)
    return y + self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else y


class SpectralConvolution(HalvingConvolution):
  """A 4 x 4 convolution of stride 2 whose kernel, as a matrix ``[16 C, features]``, has norm one."""

  def constrain(self, kernel: Array) -> Array:
    """The kernel over its largest singular value."""
    return spectrally_normalised(self, kernel)
