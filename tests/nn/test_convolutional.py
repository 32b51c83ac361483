import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gm_jax.nn.convolutional import HalvingConvolution, TransposedConvolution

NAMES = ('NHWC', 'HWIO', 'NHWC')


# 512 columns of patches or of products are among them, to which zeros are added.
@pytest.mark.parametrize(('channels', 'features'), [(2, 2), (5, 2), (32, 2), (2, 32)])
@pytest.mark.parametrize('layer', [HalvingConvolution, TransposedConvolution])
def test_a_layer_equals_the_convolution_of_lax_with_its_gradients(layer, channels, features):
  module = layer(features)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 6, channels)), jnp.float32)
  kernel = jax.random.normal(jax.random.key(0), (4, 4, channels, features)) / channels**0.5
  params = {'params': {'kernel': kernel, 'bias': jnp.arange(1.0, features + 1)}}

  def reference(params, x):
    kernel = params['params']['kernel']
    if layer is HalvingConvolution:
      y = lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=NAMES)
    else:  # the transpose of a convolution, by its definition: a dilated image and the flipped kernel
      flipped = kernel[::-1, ::-1]
      y = lax.conv_general_dilated(x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=NAMES)
    return y + params['params']['bias']

  loss = lambda function: lambda params, x: jnp.sum(jnp.sin(function(params, x)))
  both = jax.jit(lambda p, x: (module.apply(p, x), jax.grad(loss(module.apply), (0, 1))(p, x)))
  other = jax.jit(lambda p, x: (reference(p, x), jax.grad(loss(reference), (0, 1))(p, x)))
  found, expected = both(params, x), other(params, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
  assert found[0].shape == ((3, 2, 3, features) if layer is HalvingConvolution else (3, 8, 12, features))
