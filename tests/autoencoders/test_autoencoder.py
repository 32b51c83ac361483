"""Autoencoders: the linear one against principal components, and what corruptions do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.autoencoders import autoencoder
from gm_jax.base import Batch, bind
from gm_jax.training import rules


def test_the_linear_autoencoder_spans_the_principal_subspace():
  random = np.random.default_rng(0)
  x = (random.normal(size=(300, 5)) * [3.0, 2.0, 1.0, 0.5, 0.3]) @ np.linalg.qr(random.normal(size=(5, 5)))[0]
  x = jnp.asarray(x + random.normal(size=5), jnp.float32)
  module = autoencoder.mlp(5, 2, ())
  algorithm = rules.descent(*autoencoder.objective(module), optax.adam(optax.cosine_decay_schedule(0.03, 3000)))
  step = lambda state, key: algorithm.step(key, state, Batch(x))
  run = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 3000)))
  state, metrics = run(algorithm.init(jax.random.key(0), Batch(x)))
  values, vectors = np.linalg.eigh(np.cov(np.asarray(x, np.float64).T, bias=True))
  assert metrics['loss'][-1] == pytest.approx(values[:3].sum(), rel=1e-3)
  kernel = np.asarray(state.params['encoder']['Dense_0']['kernel'] @ state.params['decoder']['Dense_0']['kernel'])
  np.testing.assert_allclose(kernel, vectors[:, 3:] @ vectors[:, 3:].T, atol=0.01)


def test_a_denoising_autoencoder_sees_the_corrupted_and_rebuilds_the_clean():
  module = autoencoder.mlp(4, 2, (3,), reconstruction='bernoulli')
  x = jax.random.bernoulli(jax.random.key(0), 0.5, (6, 4)).astype(jnp.float32)
  init, loss = autoencoder.objective(module, lambda key, x: 1 - x)
  params = init(jax.random.key(1), Batch(x))
  p = np.asarray(bind(module, 'decode')(params, bind(module, 'encode')(params, 1 - x)), np.float64)
  expected = -np.where(x == 1, np.log(p), np.log1p(-p)).sum(-1).mean()
  assert float(loss(params, jax.random.key(0), Batch(x), None)[0]) == pytest.approx(expected, rel=1e-5)
  params['decoder']['Dense_1']['bias'] = jnp.array([200.0, -200.0, 200.0, -200.0])
  assert np.isfinite(loss(params, jax.random.key(0), Batch(x), None)[0])


def test_corruptions_do_as_often_as_told():
  x, key, num = jnp.full((20_000,), 0.5), jax.random.key(0), 20_000
  share = lambda found, value: float((found == value).mean())
  near = lambda p: pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / num))
  masked, salted = autoencoder.masking(0.3)(key, x), autoencoder.salt_and_pepper(0.3)(key, x)
  assert share(masked, 0.0) == near(0.3)
  assert share(masked, 0.5) == near(0.7)
  assert [share(salted, value) for value in (0.0, 1.0)] == [near(0.15), near(0.15)]
  assert share(salted, 0.5) == near(0.7)
  assert float((autoencoder.gaussian_noise(0.2)(key, x) - x).std()) == pytest.approx(0.2, rel=4.5 / np.sqrt(2 * num))


def test_what_cannot_be_is_refused():
  module = autoencoder.mlp(3, 1)
  for message, call in {
    "reconstruction='l1'": lambda: autoencoder.mlp(3, 1, reconstruction='l1'),
    'rate=1.5': lambda: autoencoder.masking(1.5),
    'scale=-1': lambda: autoencoder.gaussian_noise(-1),
    'the decoder has 3 outputs': lambda: module.init(jax.random.key(0), jnp.ones((2, 4))),
    'context is given': lambda: module.init(jax.random.key(0), jnp.ones((2, 3)), context=jnp.ones((2, 1))),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
