"""Real NVP: affine couplings, of vectors and of images at several scales (Dinh, Sohl-Dickstein & Bengio 2017).

A coupling keeps one part of the dimensions, and moves and scales the other by functions of what was kept::

  z_a = x_a        z_b = (x_b - t(x_a)) exp(-s(x_a))        log |det dz/dx| = -sum s(x_a)

so that the inverse costs as much as the map. Couplings take turns in what they keep. With rational-quadratic splines in
place of the affine map it is the coupling flow of Durkan et al. (2019).

*Images.* A mask keeps every other pixel, as a checkerboard; after a squeeze, which turns blocks of 2 x 2 pixels into
channels, another keeps half of the channels. Then half of the channels become noise and leave, and the rest goes on at
half the resolution.

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.flows import flow, realnvp
  >>> from gm_jax.training.rules import descent
  >>> x = jax.random.normal(jax.random.key(0), (200, 2)) * jax.numpy.array([0.1, 1.0])
  >>> algorithm = descent(*flow.objective(realnvp.dense(2, num_layers=2, hidden_sizes=(8,))), optax.adam(0.02))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(150):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.7)  # the entropy is 1 + log(2 pi) - log 10 = 0.54 nats
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import numpy as np

from gm_jax.base import Array
from gm_jax.flows import bijectors, coupling, multiscale
from gm_jax.flows.flow import Flow
from gm_jax.flows.layers import Constant, Inverted, Scanned, Sequential
from gm_jax.flows.scalar import AFFINE


def dense(
  num_dimensions: int,
  num_layers: int = 5,
  hidden_sizes: Sequence[int] = (100, 100),
  *,
  transform: Callable = AFFINE,
  activation: Callable[[Array], Array] = nn.relu,
  batch_norm: bool = False,
  context_size: int = 0,
) -> Flow:
  """Real NVP of vectors.

  Args:
    num_dimensions: D, 2 or more.
    num_layers: couplings; two or more let every dimension be transformed.
    hidden_sizes: of the networks t and s, which are one.
    transform: of a dimension; ``scalar.Spline()`` makes a spline flow.
    activation: of the networks.
    batch_norm: whether couplings are followed by batch normalisation, as in the paper.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if there are fewer than two dimensions, or no layers.
  """
  layer = coupling.Coupling(num_dimensions, transform, hidden_sizes, activation)
  layers = Scanned(coupling.step(layer, num_dimensions, batch_norm), num_layers)
  return Flow(num_dimensions, layers, context_size=context_size)


def images(
  image_shape: tuple[int, int, int],
  num_levels: int = 2,
  num_steps: int = 2,
  num_hidden: int = 32,
  *,
  context_size: int = 0,
) -> Flow:
  """Real NVP of images, which come and go as vectors ``[..., H * W * C]``.

  Args:
    image_shape: (H, W, C).
    num_levels: L; height and width must be divisible by 2^L.
    num_steps: pairs of checkerboard couplings, and then pairs of channel couplings, at each level.
    num_hidden: channels of the convolutional networks.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if the image cannot be halved that often.
  """
  levels = []
  for height, width, channels in multiscale.shapes(image_shape, num_levels):
    checkerboard = multiscale.pair('checkerboard', (height, width, channels), num_hidden)
    by_channel = multiscale.pair('channel', (height // 2, width // 2, 4 * channels), num_hidden)
    levels.append(
      Sequential(
        [
          Scanned(by_channel, num_steps, 3),
          Inverted(Constant(bijectors.Squeeze())),
          Scanned(checkerboard, num_steps, 3),
        ]
      )
    )
  layers = multiscale.Multiscale(image_shape, levels, learnt_prior=False)
  return Flow(int(np.prod(image_shape)), layers, context_size=context_size)
