"""Convolutional encoders and decoders of images that come and go as vectors, ``[..., H * W * C]``."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array


class ConvolutionalEncoder(nn.Module):
  """Convolutions of stride 2 and a dense layer: ``[..., H * W * C] -> [..., num_outputs]``.

  Attributes:
    image_shape: (H, W, C).
    features: channels of each convolution; each halves height and width, rounding up.
    num_outputs: of the dense layer.
    activation: behind each convolution.
    kernel_size: of the convolutions, a side.
  """

  image_shape: tuple[int, int, int]
  features: Sequence[int]
  num_outputs: int
  activation: Callable[[Array], Array] = nn.relu
  kernel_size: int = 3

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The outputs, ``[..., num_outputs]``."""
    if x.shape[-1] != math.prod(self.image_shape):
      raise ValueError(
        f'x.shape={x.shape}: images of image_shape={self.image_shape} have {math.prod(self.image_shape)}'
      )
    batch = x.shape[:-1]
    x = x.reshape(-1, *self.image_shape)
    for size in self.features:
      x = self.activation(nn.Conv(size, (self.kernel_size,) * 2, strides=2)(x))
    return nn.Dense(self.num_outputs)(x.reshape(*batch, -1))


class ConvolutionalDecoder(nn.Module):
  """A dense layer, then doublings of height and width, each by repetition and a convolution.

  Repeating pixels leaves no checkerboard, and its gradient is much cheaper on a CPU than a transposed convolution's.

  Attributes:
    image_shape: (H, W, C).
    features: channels before each doubling, first to last (those of the encoder in reverse).
    outputs_per_dimension: the ``size`` of the head that reads the outputs.
    activation: behind each layer but the last.
    kernel_size: of the convolutions, a side.
  """

  image_shape: tuple[int, int, int]
  features: Sequence[int]
  outputs_per_dimension: int = 1
  activation: Callable[[Array], Array] = nn.relu
  kernel_size: int = 3

  @nn.compact
  def __call__(self, z: Array) -> Array:
    """``[..., M] -> [..., H * W * C * outputs_per_dimension]``, the outputs of a dimension next to each other."""
    (height, width, channels), batch = self.image_shape, z.shape[:-1]
    sides = [(height, width)]
    for _ in self.features:
      sides.append(tuple(-(-side // 2) for side in sides[-1]))
    z = z.reshape(-1, z.shape[-1])
    x = self.activation(nn.Dense(math.prod(sides[-1]) * self.features[0])(z))
    x = x.reshape(-1, *sides[-1], self.features[0])
    following = (*self.features[1:], channels * self.outputs_per_dimension)
    for (rows, columns), size in zip(sides[-2::-1], following, strict=True):
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :rows, :columns]
      x = nn.Conv(size, (self.kernel_size,) * 2)(x)
      x = self.activation(x) if (rows, columns) != (height, width) else x
    return x.reshape(*batch, -1)
