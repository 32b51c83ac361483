"""Convolutions of images whose gradients are fast in the compiled loops of training.

XLA has good kernels for a convolution on a CPU, but for its gradients, which are convolutions of other shapes, only
where they stand outside of loops: within a ``lax.scan`` they take ten times as long (``benchmarks/convolution.py``).
Written out, the gradient of the kernel is one matrix product of all patches with the gradients of the outputs, and that
of the input is a convolution, of the spread gradients with the mirrored kernel, of the good kind. Both can be
differentiated again, backwards; forward-mode differentiation is refused by JAX where gradients are written out.

Example, three by three pixels of ones, and by how much each tap of a kernel moves their sum:
  >>> import jax
  >>> x, kernel = jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1))
  >>> jax.grad(lambda kernel: convolve(x, kernel, (1, 1), 'SAME').sum())(kernel)[:, :, 0, 0].astype(int).tolist()
  [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gm_jax.base import Array

Padding = tuple[tuple[int, int], tuple[int, int]]
LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def convolve(
  lhs: Array, rhs: Array, window_strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **settings
) -> Array:
  """A convolution of images: ``[B, H, W, C], [K, L, C, F] -> [B, H', W', F]``.

  The signature is that of ``lax.conv_general_dilated``, so that flax's layers can take it.

  Args:
    lhs: the images.
    rhs: the kernel.
    window_strides: along height and width.
    padding: ``'SAME'``, ``'VALID'``, or what is added before and after each axis.
    **settings: of flax's layers, as they stand.

  Raises:
    ValueError: for dilated or grouped convolutions.
  """
  for name in ('lhs_dilation', 'rhs_dilation'):
    if set(settings.get(name) or (1,)) != {1}:
      raise ValueError(f'{name}={settings[name]}: only convolutions without dilation are made here')
  if settings.get('feature_group_count', 1) != 1:
    raise ValueError(f'feature_group_count={settings["feature_group_count"]}: only one group of features is made here')
  strides = tuple(window_strides)
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
  return _convolve(lhs, rhs, strides, tuple(map(tuple, padding)))


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _forward(x, kernel, strides, padding):
  return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, gradient):
  x, kernel = saved
  return _input_gradient(x, kernel, gradient, strides, padding), _kernel_gradient(x, kernel, gradient, strides, padding)


_convolve.defvjp(_forward, _backward)


def _input_gradient(x, kernel, gradient, strides, padding):
  around = []
  for size, outputs, taps, stride, (before, _) in zip(
    x.shape[1:3], gradient.shape[1:3], kernel.shape[:2], strides, padding, strict=True
  ):
    first = taps - 1 - before
    around.append((first, size + taps - 1 - first - (outputs - 1) * stride - 1))
  mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  return lax.conv_general_dilated(
    gradient, mirrored, (1, 1), around, lhs_dilation=strides, dimension_numbers=LAYOUT
  )  # fmt: skip


def _kernel_gradient(x, kernel, gradient, strides, padding):
  def by_product(x, gradient):
    rows = patches(x, kernel.shape[:2], strides, padding)
    return (rows.reshape(-1, kernel[..., 0].size).T @ gradient.reshape(-1, kernel.shape[-1])).reshape(kernel.shape)

  def by_convolution(x, gradient):
    plain = lambda kernel: lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)
    return jax.vjp(plain, kernel)[1](gradient)[0]

  # Accelerators have kernels for all of them, and no need of the memory that patches take.
  return lax.platform_dependent(x, gradient, cpu=by_product, default=by_convolution)


def patches(x: Array, kernel_size: tuple[int, int], strides: tuple[int, int], padding: Padding) -> Array:
  """What the kernel sees at each place: ``[B, H, W, C] -> [B, H', W', K * L, C]``."""
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  height, width = (
    (size - taps) // stride + 1 for size, taps, stride in zip(x.shape[1:3], kernel_size, strides, strict=True)
  )
  ends = (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1
  taps = [
    x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
    for i in range(kernel_size[0])
    for j in range(kernel_size[1])
  ]
  return jnp.stack(taps, axis=3)
