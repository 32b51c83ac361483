"""Convolutional encoders and decoders of images that come and go as vectors, ``[..., H * W * C]``.

Behind them two layers on images ``[B, H, W, C]``: 4 x 4 convolutions that halve or double height and width.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array
from gm_jax.nn.convolution import Conv


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
      x = self.activation(Conv(size, (self.kernel_size,) * 2, strides=2)(x))
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
      x = Conv(size, (self.kernel_size,) * 2)(x)
      x = self.activation(x) if (rows, columns) != (height, width) else x
    return x.reshape(*batch, -1)


class TransposedConvolution(nn.Module):
  """A fractionally strided convolution, 4 x 4 with stride 2: ``[B, H, W, C] -> [B, 2 H, 2 W, features]``.

  Each pixel adds its kernel, 4 x 4, to the output around twice its place; what falls over the edge is cut off. That is
  one matrix product for all kernels and one sum of overlapping patches, because the gradient of ``lax.conv_transpose``
  is slow on a CPU.

  Attributes:
    features: channels of the output.
    use_bias: whether a bias is added.
    kernel_init: of the kernel ``[4, 4, C, features]``.
  """

  features: int
  use_bias: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The larger images."""
    batch, height, width, channels = x.shape
    kernel = self.param('kernel', self.kernel_init, (4, 4, channels, self.features))
    # Tap 2 i + p of a pixel j falls on place 2 (j + i) + p, in cell j + i of the two places that share one cell.
    taps = kernel.reshape(2, 2, 2, 2, channels, self.features).transpose(4, 0, 2, 1, 3, 5).reshape(channels, -1)
    size = 4 * self.features
    y = x.reshape(-1, channels) @ jnp.pad(taps, ((0, 0), (0, _spare(4 * size))))
    cells = 0
    for place, one in enumerate(jnp.split(y, [size, 2 * size, 3 * size, 4 * size], axis=1)[:4]):
      i, j = divmod(place, 2)
      one = one.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
      cells += jnp.pad(one, ((0, 0), (i, 1 - i), (0, 0), (j, 1 - j), (0, 0), (0, 0)))
    y = cells.reshape(batch, 2 * height + 2, 2 * width + 2, self.features)[:, 1:-1, 1:-1]
    return y + self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else y


class HalvingConvolution(nn.Module):
  """A convolution, 4 x 4 with stride 2: ``[B, H, W, C] -> [B, H / 2, W / 2, features]``, H and W even.

  A kind whose kernel is bounded overrides ``constrain``.

  Attributes:
    features: channels of the output.
    use_bias: whether a bias is added.
    kernel_init: of the kernel ``[4, 4, C, features]``.
  """

  features: int
  use_bias: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The smaller images."""
    kernel = self.param('kernel', self.kernel_init, (4, 4, x.shape[-1], self.features))
    y = _halve(x, self.constrain(kernel))
    return y + self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else y

  def constrain(self, kernel: Array) -> Array:
    """The kernel as it is used."""
    return kernel


def _halve(x: Array, kernel: Array) -> Array:
  """The convolution with a kernel ``[4, 4, C, features]`` at every second place: one product with all patches."""
  *_, channels, features = kernel.shape
  batch, height, width = x.shape[0], x.shape[1] // 2, x.shape[2] // 2
  cells = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(batch, height + 1, 2, width + 1, 2, channels)
  cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height + 1, width + 1, 4 * channels)
  corners = [cells[:, i : i + height, j : j + width] for i in range(2) for j in range(2)]
  spare = _spare(16 * channels)
  patches = jnp.concatenate([*corners, jnp.zeros((batch, height, width, spare))], axis=-1)
  taps = kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5).reshape(-1, features)
  y = patches.reshape(batch * height * width, -1) @ jnp.pad(taps, ((0, spare), (0, 0)))
  return y.reshape(batch, height, width, features)


def _spare(width: int) -> int:
  """Columns of zeros to be added to a matrix of such rows.

  The gradient of its product reads it by columns, at half the speed where rows begin at multiples of 2 KB, which share
  a few places of the cache.
  """
  return 16 if width % 512 == 0 else 0
