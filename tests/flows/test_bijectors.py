"""The bijectors of ours, against autodiff, linear algebra and what the theory says of them."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import transforms
from gm_jax.flows import autoregressive, bijectors, scalar


def assert_bijective(bijector, x, atol=1e-5):
  """Forward undoes inverse, and both log-dets are autodiff's; ``x`` is one example on the noise's side."""

  @jax.jit
  def both_ways(x):
    y, log_det = bijector.forward_and_log_det(x)
    back, inverse_log_det = bijector.inverse_and_log_det(y)
    there, again = jax.jacfwd(bijector.forward)(x), jax.jacfwd(bijector.inverse)(y)
    flat = lambda jacobian: jnp.linalg.slogdet(jacobian.reshape(x.size, x.size))[1]
    return back, jnp.sum(log_det), jnp.sum(inverse_log_det), flat(there), flat(again)

  back, log_det, inverse_log_det, expected, expected_inverse = both_ways(x)
  np.testing.assert_allclose(back, x, atol=atol)
  np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(inverse_log_det, expected_inverse, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-4, atol=1e-4)


def test_scaling_the_unit_cube_by_two_divides_its_density_by_eight():
  cube = distrax.Independent(distrax.Uniform(jnp.zeros(3), jnp.ones(3)), 1)
  scaled = distrax.Transformed(cube, distrax.Block(distrax.ScalarAffine(jnp.zeros(3), 2 * jnp.ones(3)), 1))
  assert float(scaled.prob(jnp.array([0.5, 1.0, 1.5]))) == 1 / 8


@pytest.mark.parametrize('alpha', [0.0, 0.05])
def test_logit(alpha):
  x = jnp.array([1e-5, 0.3, 0.5, 0.99])
  assert_bijective(bijectors.Logit(alpha), x)
  y, log_det = bijectors.Logit(alpha).forward_and_log_det(x)
  expected, expected_log_det = transforms.logit(x, alpha)  # that of the data, written independently
  np.testing.assert_allclose(y, expected, rtol=1e-6)
  np.testing.assert_allclose(jnp.sum(log_det), expected_log_det, rtol=1e-6)
  ends = bijectors.Logit(alpha).forward(jnp.array([0.0, 1.0]))
  assert np.isfinite(ends).all() == (alpha > 0)


def test_rearrangements():
  image = jnp.arange(16.0).reshape(4, 4, 1)
  squeezed = bijectors.Squeeze().forward(image)
  assert squeezed.shape == (2, 2, 4)
  assert squeezed[0, 0].tolist() == [0, 1, 4, 5] and squeezed[1, 1].tolist() == [10, 11, 14, 15]
  np.testing.assert_array_equal(bijectors.Squeeze().inverse(squeezed), image)
  np.testing.assert_array_equal(bijectors.Permutation([2, 0, 1]).forward(jnp.arange(3)), [2, 0, 1])
  for bijector, x in (
    (bijectors.Squeeze(), jnp.arange(24.0).reshape(2, 4, 3)), (bijectors.Flip(), jnp.arange(3.0)),
    (bijectors.Permutation([2, 0, 1]), jnp.arange(3.0)), (bijectors.Reshape((2, 2, 1)), jnp.arange(4.0)),
  ):  # fmt: skip
    y, log_det = bijector.forward_and_log_det(jnp.stack([x, x + 1]))
    back, inverse_log_det = bijector.inverse_and_log_det(y)
    np.testing.assert_array_equal(back, jnp.stack([x, x + 1]))
    assert log_det.shape == inverse_log_det.shape == (2,) and not log_det.any() and not inverse_log_det.any()


def test_channel_mixing_direct_and_by_factors():
  keys = jax.random.split(jax.random.key(0), 4)
  lower, upper, x = (jax.random.normal(key, (3, 3)) for key in keys[:3])
  log_diagonal, sign = jnp.array([0.1, -0.5, 0.3]), jnp.array([1.0, -1.0, 1.0])
  factored = bijectors.ChannelMixing.factored(jnp.eye(3)[jnp.array([2, 0, 1])], lower, upper, log_diagonal, sign)
  x = jax.random.normal(keys[3], (2, 2, 3))
  assert_bijective(factored, x)
  matrix = jax.jacfwd(lambda c: factored.forward(c.reshape(1, 1, 3)).ravel())(jnp.zeros(3))
  direct = bijectors.ChannelMixing.direct(matrix)
  for one, other in zip(direct.forward_and_log_det(x), factored.forward_and_log_det(x), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(factored.forward_log_det_jacobian(x), 4 * log_diagonal.sum(), rtol=1e-5)


@pytest.mark.parametrize('scale', [0.5, 5.0])
def test_planar_and_radial_are_invertible_whatever_their_parameters(scale):
  keys = jax.random.split(jax.random.key(1), 4)
  w, x, centre = (scale * jax.random.normal(key, (3,)) for key in keys[:3])
  # Against w, where an unconstrained layer would fold the space.
  bend = 0.3 - w @ x  # where the layer bends the most, and not where its tanh has gone flat
  assert_bijective(bijectors.Planar(w, -2 * w, bend), x, atol=1e-4 * scale)
  for beta in (-3.0, 3.0):
    assert_bijective(bijectors.Radial(centre, jnp.asarray(-1.0), jnp.asarray(beta)), x, atol=1e-5 * scale)


def network(key, num_dimensions, scale):
  """A strictly triangular conditioner with two outputs, as a pure function."""
  weights = (
    scale * jax.random.normal(key, (2, num_dimensions, num_dimensions)) * jnp.tril(jnp.ones((num_dimensions,) * 2), -1)
  )
  return lambda x: jnp.moveaxis(jnp.tanh(jnp.einsum('pij,...j->...pi', weights, x)), -2, -1)


def naive(bijector, conditioner, z):
  """The inverse by D passes, one dimension at a time."""
  x = jnp.zeros_like(z)
  for d in range(z.shape[-1]):
    x = x.at[..., d].set(bijector(conditioner(x)).forward(z)[..., d])
  return x


@pytest.mark.parametrize('scale', [0.3, 3.0])
def test_all_dimensions_at_once_equal_one_after_the_other_and_so_do_derivatives(scale):
  key, noise_key = jax.random.split(jax.random.key(2))
  transform, z = scalar.Affine(), jax.random.normal(noise_key, (5, 8))

  @jax.jit
  def found_and_expected(z, key):
    conditioner = network(key, 8, scale)
    at_once = lambda z, scale: autoregressive.MaskedAutoregressive(lambda x: scale * conditioner(x), transform).forward(
      z
    )
    in_turn = lambda z, scale: naive(transform, lambda x: scale * conditioner(x), z)
    solution = autoregressive.MaskedAutoregressive(conditioner, transform).solve(z)
    loss = lambda function: lambda z, scale: jnp.sum(jnp.sin(function(z, scale)))
    gradients = [jax.grad(loss(function), (0, 1))(z, 1.0) for function in (at_once, in_turn)]
    tangents = [jax.jvp(lambda s: function(z, s), (1.0,), (1.0,))[1] for function in (at_once, in_turn)]  # noqa: B023
    return solution, in_turn(z, 1.0), gradients, tangents

  solution, expected, gradients, tangents = found_and_expected(z, key)
  np.testing.assert_allclose(solution.x, expected, rtol=1e-4, atol=1e-4)
  assert solution.residual < 1e-5 and 2 <= solution.num_passes <= 9
  for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * float(jnp.abs(other).max()))
  np.testing.assert_allclose(*tangents, rtol=2e-3, atol=2e-3 * float(jnp.abs(tangents[1]).max()))


def test_what_cannot_be_is_refused():
  for call, message in (
    (lambda: bijectors.Logit(0.5), 'alpha=0.5'),
    (lambda: bijectors.Squeeze().forward(jnp.zeros((3, 4, 1))), '3 x 4 pixels cannot be squeezed'),
    (lambda: bijectors.Permutation([0, 0]), 'no permutation'),
    (lambda: scalar.Affine(0.0), 'bound=0.0'),
    (lambda: scalar.Spline(0), 'num_bins=0'),
    (lambda: autoregressive.MaskedNetwork(5, (3,), 2), 'cannot bear each of the degrees'),
    (lambda: autoregressive.MaskedNetwork(5, (), 2), 'hidden_sizes is empty'),
  ):
    with pytest.raises(ValueError, match=message):
      call()
