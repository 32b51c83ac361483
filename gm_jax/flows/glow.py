"""Glow: generative flow with invertible 1x1 convolutions (Kingma & Dhariwal 2018).

L levels of K steps. A step is, from the data to the noise::

  actnorm            y = s * (x + b) for each channel, zero mean and unit variance on the first batch
  1x1 convolution    y = W x at each pixel, log |det| = H W log |det W|; W itself, or its factors P L (U + diag(s))
  affine coupling    y_a = x_a,  y_b = (x_b - t(x_a)) exp(-s(x_a)), over channels

Each level begins with a squeeze and ends with half of the channels leaving as noise, Gaussian given the others
(``gm_jax/flows/multiscale.py``). Samples at a temperature below 1 are more typical and less diverse. A context, such as
the class, enters the couplings and the priors.

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.flows import flow, glow
  >>> from gm_jax.training.rules import descent
  >>> x = jax.random.normal(jax.random.key(0), (64, 1)) * jax.numpy.ones(16)
  >>> x = x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)
  >>> algorithm = descent(*flow.objective(glow.glow((4, 4, 1), 1, 1, num_hidden=4)), optax.adam(0.02))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> losses = []
  >>> for i in range(30):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  ...   losses.append(float(metrics['loss']))
  >>> losses[-1] < losses[0] - 5
  True
"""

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array
from gm_jax.flows import bijectors, multiscale, normalisation
from gm_jax.flows.flow import Flow
from gm_jax.flows.layers import Constant, Inverted, Layer, Scanned, Sequential


class Invertible1x1(Layer):
  """The invertible 1x1 convolution, which starts as a random rotation.

  Attributes:
    num_channels: C.
    factored: whether W is kept as its LU factors, of which P and the signs of the diagonal are fixed and are kept in
      ``stats``.
  """

  num_channels: int
  factored: bool = True

  @nn.compact
  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data: the inverse of W."""
    shape = (self.num_channels, self.num_channels)
    rotation = nn.initializers.orthogonal()
    if not self.factored:
      return distrax.Inverse(bijectors.ChannelMixing.direct(self.param('matrix', rotation, shape)))
    factors = [jnp.zeros(shape)] * 3  # later only their shapes are looked at
    if self.is_initializing():
      factors = jax.scipy.linalg.lu(rotation(self.make_rng('params'), shape))
    diagonal = jnp.diag(factors[2])
    permutation = self.variable('stats', 'permutation', lambda: factors[0]).value
    sign = self.variable('stats', 'sign', lambda: jnp.sign(diagonal)).value
    lower = self.param('lower', lambda key: jnp.tril(factors[1], -1))
    upper = self.param('upper', lambda key: jnp.triu(factors[2], 1))
    log_diagonal = self.param('log_diagonal', lambda key: jnp.log(jnp.abs(diagonal)))
    return distrax.Inverse(bijectors.ChannelMixing.factored(permutation, lower, upper, log_diagonal, sign))


def step(image_shape: tuple[int, int, int], num_hidden: int, factored: bool) -> Sequential:
  """One step of Glow."""
  channels = image_shape[-1]
  return Sequential(
    [
      multiscale.ImageCoupling(image_shape, num_hidden=num_hidden),
      Invertible1x1(channels, factored),
      normalisation.Actnorm(channels, 3),
    ]
  )


def glow(
  image_shape: tuple[int, int, int],
  num_levels: int = 2,
  num_steps: int = 8,
  *,
  num_hidden: int = 64,
  factored: bool = True,
  learnt_prior: bool = True,
  context_size: int = 0,
) -> Flow:
  """Glow; images come and go as vectors ``[..., H * W * C]``.

  Args:
    image_shape: (H, W, C).
    num_levels: L; height and width must be divisible by 2^L.
    num_steps: K, of each level.
    num_hidden: channels of the networks of the couplings.
    factored: whether 1x1 convolutions are kept as LU factors.
    learnt_prior: whether the noise that leaves early is Gaussian given what stays.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if the image cannot be halved that often.
  """
  levels = []
  for height, width, channels in multiscale.shapes(image_shape, num_levels):
    inner = step((height // 2, width // 2, 4 * channels), num_hidden, factored)
    levels.append(Sequential([Scanned(inner, num_steps, 3), Inverted(Constant(bijectors.Squeeze()))]))
  layers = multiscale.Multiscale(image_shape, levels, learnt_prior)
  return Flow(int(np.prod(image_shape)), layers, context_size=context_size)
