"""Convolutions with gradients of their own, against those of XLA."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gm_jax.nn import convolution

CASES = [
  ((2, 6, 7, 3), (3, 3, 3, 4), (1, 1), 'SAME'),
  ((2, 7, 6, 2), (3, 3, 2, 3), (2, 2), 'SAME'),
  ((2, 8, 8, 2), (4, 4, 2, 3), (2, 2), ((1, 1), (1, 1))),
  ((1, 9, 5, 2), (3, 2, 2, 3), (3, 1), 'VALID'),
  ((2, 6, 6, 2), (1, 1, 2, 5), (1, 1), 'SAME'),
  ((2, 8, 7, 1), (5, 3, 1, 2), (2, 3), ((0, 3), (2, 1))),  # places that no window sees
]


def inputs(shape, kernel_shape):
  keys = jax.random.split(jax.random.key(0))
  return jax.random.normal(keys[0], shape), jax.random.normal(keys[1], kernel_shape)


@pytest.mark.parametrize(('shape', 'kernel_shape', 'strides', 'padding'), CASES)
def test_values_and_gradients_are_those_of_xla(shape, kernel_shape, strides, padding):
  arguments = inputs(shape, kernel_shape)
  ours = lambda x, kernel: convolution.convolve(x, kernel, strides, padding)
  plain = lambda x, kernel: lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=convolution.LAYOUT)
  weights = jnp.sin(jnp.arange(plain(*arguments).size)).reshape(plain(*arguments).shape)
  found, expected = (
    jax.jit(jax.value_and_grad(lambda x, k, f=f: jnp.sum(weights * f(x, k) ** 2), (0, 1)))(*arguments)
    for f in (ours, plain)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), found, expected)


def test_gradients_of_gradients_are_those_of_xla():
  x, kernel = inputs((3, 6, 6, 2), (3, 3, 2, 2))

  def penalty(convolve):
    score = lambda x: jnp.sum(jnp.tanh(convolve(x, kernel, (2, 2), 'SAME')))
    return jax.grad(lambda x: jnp.sum(jax.grad(score)(x) ** 2))(x)

  plain = lambda *arguments: lax.conv_general_dilated(*arguments, dimension_numbers=convolution.LAYOUT)
  np.testing.assert_allclose(penalty(convolution.convolve), penalty(plain), rtol=1e-4, atol=1e-4)


def test_replicas_learn_at_once():
  x, kernel = inputs((3, 4, 4, 2), (3, 3, 2, 2))
  gradient = jax.grad(lambda kernel: jnp.sum(convolution.convolve(x, kernel, (1, 1), 'SAME') ** 3))
  kernels = jnp.stack([kernel, 2 * kernel])
  np.testing.assert_allclose(jax.vmap(gradient)(kernels), [gradient(one) for one in kernels], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(('name', 'value'), [('kernel_dilation', 2), ('input_dilation', 2), ('feature_group_count', 2)])
def test_other_convolutions_are_refused(name, value):
  layer = convolution.Conv(4, (3, 3), **{name: value})
  with pytest.raises(ValueError, match='dilation|group'):
    layer.init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))


def test_the_layer_is_that_of_flax():
  x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
  ours, theirs = convolution.Conv(4, (3, 3), strides=2), nn.Conv(4, (3, 3), strides=2)
  variables = theirs.init(jax.random.key(1), x)
  np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-6)
