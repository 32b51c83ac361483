"""Flows of images at several scales: couplings by convolutional networks, and noise that leaves at every scale.

At each of L levels an image is transformed, squeezed to half its height and width and four times its channels, and half
of these channels leave as noise. With a learnt prior the channels y that leave are Gaussian given the channels h that
stay, which is one more affine map, y = m(h) + s(h) z, with z as the noise; what is left at the end has a learnt mean
and scale, too. So all noise is standard normal, and a temperature multiplies all of it.
"""

import math
from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array
from gm_jax.flows import normalisation
from gm_jax.flows.layers import Layer, Sequential
from gm_jax.flows.scalar import Affine, by_dimension
from gm_jax.nn.convolution import Conv


def shapes(image_shape: tuple[int, int, int], num_levels: int) -> list[tuple[int, int, int]]:
  """The shape (H, W, C) of what enters each level.

  Raises:
    ValueError: unless height and width are divisible by 2^L.
  """
  if num_levels < 1:
    raise ValueError(f'num_levels={num_levels}: there is 1 level or more')
  height, width, channels = image_shape
  if height % 2**num_levels or width % 2**num_levels:
    raise ValueError(
      f'image_shape={tuple(image_shape)} with num_levels={num_levels}: height and width must be divisible by '
      f'{2**num_levels}; take fewer levels, or pad the images'
    )
  return [(height >> i, width >> i, channels << i) for i in range(num_levels)]


class ConvolutionalNetwork(nn.Module):
  """Convolutions of 3 x 3, 1 x 1 and 3 x 3; the last starts at zero: ``[..., H, W, C] -> [..., H, W, num_outputs]``.

  Attributes:
    num_hidden: channels.
    num_outputs: channels of the outputs.
  """

  num_hidden: int
  num_outputs: int

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None) -> Array:
    """The outputs; the context is joined to the first hidden layer."""
    h = Conv(self.num_hidden, (3, 3))(x)
    if context is not None:
      h = h + nn.Dense(self.num_hidden, use_bias=False)(context)[..., None, None, :]
    h = nn.relu(nn.Dense(self.num_hidden)(nn.relu(h)))
    return Conv(self.num_outputs, (3, 3), kernel_init=nn.initializers.zeros)(h)


class ImageCoupling(Layer):
  """A coupling of images.

  Attributes:
    image_shape: (H, W, C).
    mask: ``'checkerboard'`` keeps pixels whose row and column add up to an even number, ``'channel'`` the first half of
      the channels.
    swap: keeps the others instead.
    transform: of a value; see ``scalar``.
    num_hidden: channels of the network.
  """

  image_shape: tuple[int, int, int]
  mask: str = 'channel'
  swap: bool = False
  transform: Callable = Affine(2.0)
  num_hidden: int = 32

  def __post_init__(self):
    if self.mask not in ('checkerboard', 'channel'):
      raise ValueError(f"mask={self.mask!r}: choose 'checkerboard' or 'channel'")
    if self.mask == 'channel' and self.image_shape[-1] % 2:
      raise ValueError(f'image_shape={self.image_shape}: half of the channels stay, so their number must be even')
    super().__post_init__()

  def setup(self):
    """The network."""
    self.num_changed = self.image_shape[-1] // (2 if self.mask == 'channel' else 1)
    self.network = ConvolutionalNetwork(self.num_hidden, self.num_changed * self.transform.size)

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    conditioner = lambda x: by_dimension(self.network(x, context), self.num_changed)
    if self.mask == 'channel':
      return distrax.SplitCoupling(self.image_shape[-1] // 2, 3, conditioner, self.transform, self.swap)
    height, width, _ = self.image_shape
    kept = (np.indices((height, width)).sum(0) + self.swap) % 2 == 0
    return distrax.MaskedCoupling(np.broadcast_to(kept[..., None], self.image_shape), conditioner, self.transform)


def pair(mask: str, image_shape: tuple[int, int, int], num_hidden: int) -> Sequential:
  """Two couplings that take turns in what they keep, each followed by actnorm."""
  parts = []
  for swap in (False, True):
    coupling = ImageCoupling(image_shape, mask, swap, num_hidden=num_hidden)
    parts += [coupling, normalisation.Actnorm(image_shape[-1], 3)]
  return Sequential(parts)


class Prior(Layer):
  """The channels that leave, given those that stay: y = m(h) + exp(s(h)) z.

  Attributes:
    num_channels: of y.
  """

  num_channels: int

  @nn.compact
  def given(self, h: Array, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to y; h is ``[..., H, W, C]``."""
    outputs = Conv(2 * self.num_channels, (3, 3), kernel_init=nn.initializers.zeros)(h)
    if context is not None:
      outputs = outputs + _from_context(2 * self.num_channels, context)
    return distrax.Block(Affine()(by_dimension(outputs, self.num_channels)), 3)


class TopPrior(Layer):
  """What is left at the end: y = m + exp(s) z, where m and s are learnt for each channel (and class).

  Attributes:
    num_channels: of y.
  """

  num_channels: int

  @nn.compact
  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to y."""
    outputs = self.param('outputs', nn.initializers.zeros, (2, self.num_channels))
    if context is not None:
      shape = (*context.shape[:-1], 1, 1, 2, self.num_channels)
      outputs = outputs + _from_context(2 * self.num_channels, context).reshape(shape)
    return distrax.Block(Affine()(jnp.moveaxis(outputs, -2, -1)), 3)


def _from_context(size, context):
  dense = nn.Dense(size, use_bias=False, kernel_init=nn.initializers.zeros)
  return dense(context)[..., None, None, :]


class Multiscale(Layer):
  """Levels of layers, between which half of the channels leave; noise and images are vectors here.

  Attributes:
    image_shape: (H, W, C).
    levels: layers of images, the first the nearest to the data; each halves height and width.
    learnt_prior: whether what leaves is Gaussian given what stays, or standard normal.
  """

  image_shape: tuple[int, int, int]
  levels: Sequence[nn.Module]
  learnt_prior: bool = True

  def setup(self):
    """The priors."""
    if self.learnt_prior:
      _, _, channels = self.image_shape
      num_levels = len(self.levels)
      self.priors = [Prior(channels << (i + 1)) for i in range(num_levels - 1)]
      self.top = TopPrior(channels << (num_levels + 1))

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise, the noise of the first level first."""
    h, total, noise = x.reshape(*x.shape[:-1], *self.image_shape), 0.0, []
    flat = lambda y: y.reshape(*x.shape[:-1], -1)
    for i, level in enumerate(self.levels):
      h, log_det = level.inverse_and_log_det(h, context)
      total = total + log_det
      if i < len(self.levels) - 1:
        h, leaving = jnp.split(h, 2, axis=-1)
        if self.learnt_prior:
          leaving, log_det = self.priors[i].given(h, context).inverse_and_log_det(leaving)
          total = total + log_det
        noise.append(flat(leaving))
    if self.learnt_prior:
      h, log_det = self.top.inverse_and_log_det(h, context)
      total = total + log_det
    return jnp.concatenate([*noise, flat(h)], axis=-1), total

  def forward_and_log_det(self, z: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From noise to data."""
    entering = shapes(self.image_shape, len(self.levels))
    sizes = [math.prod(shape) // 2 for shape in entering[:-1]]
    *noise, h = jnp.split(z, np.cumsum(sizes), axis=-1)
    height, width, channels = entering[-1]
    h, total = h.reshape(*z.shape[:-1], height // 2, width // 2, 4 * channels), 0.0
    if self.learnt_prior:
      h, total = self.top.forward_and_log_det(h, context)
    for i in reversed(range(len(self.levels))):
      if i < len(self.levels) - 1:
        leaving = noise[i].reshape(h.shape)
        if self.learnt_prior:
          leaving, log_det = self.priors[i].given(h, context).forward_and_log_det(leaving)
          total = total + log_det
        h = jnp.concatenate([h, leaving], axis=-1)
      h, log_det = self.levels[i].forward_and_log_det(h, context)
      total = total + log_det
    return h.reshape(z.shape), total

  def forward(self, z: Array, context: Array | None = None) -> Array:
    """From noise to data alone."""
    return self.forward_and_log_det(z, context)[0]
