"""The variational autoencoder of waveforms, with a decoder that speaks in frequency bands.

A wave of T samples is taken apart into K bands of T / K coefficients by the modified discrete cosine transform with a
sine window (Princen & Bradley 1986), and put together again by its transpose::

  c_fk = sum_(n < 2K) sqrt(2/K) sin(pi (n + 1/2) / 2K) cos(pi (n + 1/2 + K/2) (k + 1/2) / K) x_(fK + n)    x in a ring

The transform is orthonormal, so that a density of the coefficients *is* a density of the wave, nat for nat, and the
bound holds for the samples themselves. The decoder gives every coefficient a mixture of two Laplace densities: their
locations are what is tonal, their widths the noise of each band over time, as in the multiband synthesis of RAVE
(Caillon & Esling 2021), which learns by a spectral distance and a critic in place of a likelihood. Their tails are
needed: with Gaussians in their place spoken digits take more bits than as stationary noise (``RESULTS.md``). Networks
are convolutions along time.

Example:
  >>> import jax
  >>> from gm_jax.autoencoders import audio
  >>> x = jax.random.normal(jax.random.key(0), (3, 64))
  >>> bands = audio.analyse(x, num_bands=8)
  >>> bool(abs(audio.synthesise(bands, num_bands=8) - x).max() < 1e-5)
  True
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.autoencoders import vae
from gm_jax.base import Array, Key
from gm_jax.likelihoods import Head, MixtureOfLaplaces


def filter_bank(num_bands: int) -> np.ndarray:
  """The K filters of 2 K samples each, ``[2 K, K]``: their shifts by K are orthonormal."""
  n, k = np.arange(2 * num_bands)[:, None], np.arange(num_bands)
  window = np.sin(np.pi * (n + 0.5) / (2 * num_bands))
  waves = np.cos(np.pi * (n + 0.5 + num_bands / 2) * (k + 0.5) / num_bands)
  return (math.sqrt(2 / num_bands) * window * waves).astype(np.float32)


def analyse(x: Array, num_bands: int) -> Array:
  """The coefficients of a wave, frame by frame and in each by band: ``[..., T] -> [..., T]``.

  Raises:
    ValueError: if K does not divide T.
  """
  frames = _frames(x, num_bands)
  doubled = jnp.concatenate([frames, jnp.roll(frames, -1, axis=-2)], axis=-1)
  return (doubled @ filter_bank(num_bands)).reshape(x.shape)


def synthesise(coefficients: Array, num_bands: int) -> Array:
  """The wave that has the coefficients: ``[..., T] -> [..., T]``, inverse and transpose of ``analyse``."""
  doubled = _frames(coefficients, num_bands) @ filter_bank(num_bands).T
  first, second = jnp.split(doubled, 2, axis=-1)
  return (first + jnp.roll(second, 1, axis=-2)).reshape(coefficients.shape)


def _frames(x: Array, num_bands: int) -> Array:
  if num_bands < 1 or x.shape[-1] % num_bands:
    raise ValueError(f'num_bands={num_bands}: must divide the {x.shape[-1]} samples of a wave')
  return x.reshape(*x.shape[:-1], -1, num_bands)


def _neighbours(x: Array) -> Array:
  """Every frame of a ring between the one before and the one after: ``[N, F, C] -> [N, F, 3 C]``.

  A dense layer of these is a convolution along time, and on a CPU much faster than XLA's in one dimension.
  """
  return jnp.concatenate([jnp.roll(x, 1, axis=1), x, jnp.roll(x, -1, axis=1)], axis=-1)


class WaveformVAE(vae.VAE):
  """A VAE of waves ``[..., T]`` whose encoder sees, and whose decoder makes, the coefficients of bands.

  Attributes (beside those of ``vae.VAE``):
    num_bands: K.
  """

  num_bands: int = 16

  def posterior_given(self, x: Array, *, context=None):
    """q(z | x), a distribution: ``x [..., T]``."""
    return super().posterior_given(analyse(x, self.num_bands), context=context)

  def log_likelihood(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(x | z) in nats: ``[..., T], [num, ..., M] -> [num, ...]``."""
    return super().log_likelihood(analyse(x, self.num_bands), z, context=context)

  def decode(self, z: Array, *, context=None) -> Array:
    """The mean wave: ``[..., M] -> [..., T]``."""
    return synthesise(super().decode(z, context=context), self.num_bands)

  def draw(self, key: Key, z: Array, *, context=None) -> Array:
    """A draw of p(x | z), mean and noise: ``[..., M] -> [..., T]``."""
    return synthesise(super().draw(key, z, context=context), self.num_bands)


class BandEncoder(nn.Module):
  """Convolutions of stride 2 along time and a dense layer: ``[..., T] -> [..., num_outputs]``.

  Coefficients of speech span many orders of magnitude; the first layer sees them and their inverse hyperbolic sines,
  which are logarithms of what is large.

  Attributes:
    num_bands: K.
    features: channels of each convolution.
    num_outputs: of the dense layer.
    activation: behind each convolution.
  """

  num_bands: int
  features: Sequence[int]
  num_outputs: int
  activation: Callable[[Array], Array] = nn.silu

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The outputs, ``[..., num_outputs]``."""
    batch = x.shape[:-1]
    x = _frames(x.reshape(-1, x.shape[-1]), self.num_bands)
    x = jnp.concatenate([jnp.arcsinh(x), jnp.arcsinh(30 * x), jnp.abs(jnp.arcsinh(30 * x))], axis=-1)
    for size in self.features:
      x = self.activation(nn.Dense(size)(_neighbours(x)[:, ::2]))
    return nn.Dense(self.num_outputs)(x.reshape(*batch, -1))


class BandDecoder(nn.Module):
  """A dense layer, doublings of time each by repetition and a convolution, then all bands at once.

  Attributes:
    num_samples: T.
    num_bands: K.
    features: channels before each doubling, first to last.
    outputs_per_dimension: the ``size`` of the head that reads the outputs.
    activation: behind each layer but the last.
  """

  num_samples: int
  num_bands: int
  features: Sequence[int]
  outputs_per_dimension: int
  activation: Callable[[Array], Array] = nn.silu

  @nn.compact
  def __call__(self, z: Array) -> Array:
    """``[..., M] -> [..., T * outputs_per_dimension]``, the outputs of a coefficient next to each other."""
    batch, frames = z.shape[:-1], [self.num_samples // self.num_bands]
    for _ in self.features:
      frames.append(-(-frames[-1] // 2))
    x = nn.Dense(frames[-1] * self.features[0])(z.reshape(-1, z.shape[-1]))
    x = self.activation(x.reshape(-1, frames[-1], self.features[0]))
    for num, size in zip(frames[-2::-1], (*self.features[1:], self.features[-1]), strict=True):
      x = self.activation(nn.Dense(size)(_neighbours(jnp.repeat(x, 2, axis=1)[:, :num])))
    return nn.Dense(self.num_bands * self.outputs_per_dimension)(x).reshape(*batch, -1)


def multiband(
  num_samples: int,
  num_latents: int,
  num_bands: int = 16,
  features: Sequence[int] = (64, 64),
  *,
  head: Head = MixtureOfLaplaces(2),  # noqa: B008, frozen
) -> WaveformVAE:
  """A waveform VAE of convolutions along time.

  Args:
    num_samples: T.
    num_latents: M.
    num_bands: K, which divides T.
    features: channels of the encoder's convolutions; the decoder has them in reverse order.
    head: the distribution of a coefficient.
  """
  if num_bands < 1 or num_samples % num_bands:
    raise ValueError(f'num_bands={num_bands}: must divide the {num_samples} samples of a wave')
  encoder = BandEncoder(num_bands, features, 2 * num_latents)
  decoder = BandDecoder(num_samples, num_bands, features[::-1], head.size)
  return WaveformVAE(encoder, decoder, num_latents, head, num_bands=num_bands)
