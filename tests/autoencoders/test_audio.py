"""The transform into bands and the density of waves, against matrices and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.autoencoders import audio
from gm_jax.base import bind
from gm_jax.likelihoods import Gaussian


@pytest.mark.parametrize(('num_samples', 'num_bands'), [(24, 4), (16, 16), (64, 8)])
def test_the_transform_is_orthonormal_and_synthesis_is_its_transpose(num_samples, num_bands):
  matrix = np.asarray(audio.analyse(jnp.eye(num_samples), num_bands), np.float64).T
  np.testing.assert_allclose(matrix @ matrix.T, np.eye(num_samples), atol=2e-6)
  np.testing.assert_allclose(audio.synthesise(jnp.eye(num_samples), num_bands), matrix, atol=1e-6)


def test_a_tone_is_heard_in_its_own_band():
  time = np.arange(512)
  for band in (1, 5, 14):  # of 16: the middle of a band is (band + 1/2) / 16 of half the sampling rate
    x = np.sin(np.pi * (band + 0.5) / 16 * time + 0.3)
    energy = (np.asarray(audio.analyse(jnp.asarray(x, jnp.float32), 16)).reshape(32, 16)[2:-2] ** 2).mean(0)
    assert energy[band] > 5 * np.delete(energy, band).max()


def test_the_likelihood_of_a_wave_is_a_gaussian_in_the_space_of_samples():
  module = audio.multiband(12, 1, 4, (3,), head=Gaussian(min_scale=0.05))
  x = jax.random.normal(jax.random.key(0), (3, 12))
  params = jax.jit(module.init)(jax.random.key(1), x)['params']
  z = jnp.array([[[0.4]], [[-1.0]]])
  found = jax.jit(bind(module, 'log_likelihood'))(params, x, z)
  transform = np.asarray(audio.analyse(jnp.eye(12), 4), np.float64).T
  outputs = np.asarray(module.apply({'params': params}, z, None, (3,), method='_outputs'), np.float64)
  for i in range(2):
    mean, scale = outputs[i, 0, :, 0], np.exp(outputs[i, 0, :, 1]) + 0.05
    normal = stats.multivariate_normal(transform.T @ mean, transform.T @ np.diag(scale**2) @ transform)
    np.testing.assert_allclose(found[i], normal.logpdf(x), rtol=1e-4)
  drawn = jax.jit(jax.vmap(lambda key: bind(module, 'draw')(params, key, z[0, 0])))(
    jax.random.split(jax.random.key(2), 4000)
  )
  rest = np.asarray(drawn - bind(module, 'decode')(params, z[0, 0]), np.float64)
  covariance = transform.T @ np.diag((np.exp(outputs[0, 0, :, 1]) + 0.05) ** 2) @ transform
  products = rest[:, :, None] * rest[:, None, :]
  assert (np.abs(rest.mean(0)) < 4.5 * rest.std(0) / np.sqrt(4000)).all()
  assert (np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(4000)).all()


def test_what_cannot_be_is_refused():
  for message, call in {
    'num_bands=5: must divide the 12 samples': lambda: audio.analyse(jnp.zeros(12), 5),
    'num_bands=0': lambda: audio.synthesise(jnp.zeros(12), 0),
    'num_bands=7': lambda: audio.multiband(16, 2, 7),
    'num_latents=0': lambda: audio.multiband(16, 0, 4),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
