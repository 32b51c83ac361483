"""Autoencoders of series: against a loop over steps, against their own samples, and against a known graph."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.autoencoders import recurrent, vae
from gm_jax.base import Batch, bind
from gm_jax.likelihoods import Gaussian
from gm_jax.training.rules import descent


@functools.cache
def small(causal):
  """Three steps of two binary channels; the weights of all parts are random."""
  module = recurrent.SequenceVAE(3, 2, 1, num_hidden=3, causal=causal)
  x = jax.random.bernoulli(jax.random.key(0), 0.5, (4, 6)).astype(jnp.float32)
  params = jax.jit(module.init)(jax.random.key(1), x)['params']
  return module, {**params, 'readout': 4 * params['readout']}, x


def sigmoid(a):
  return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize('causal', [False, True])
def test_the_likelihood_is_that_of_a_loop_over_steps_in_numpy(causal):
  module, params, x = small(causal)
  z = np.random.default_rng(0).normal(size=(2, 4, 1)).astype(np.float32)
  found = jax.jit(bind(module, 'log_likelihood'))(params, x, z)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  for num, example in np.ndindex(2, 4):
    total, networks = 0.0, len(p['readout'])
    h = np.tanh(z[num, example] @ p['start']['kernel'] + p['start']['bias']).reshape(networks, 3)
    for one in np.asarray(x[example], np.float64).reshape(3, 2):
      logits = np.einsum('gh,gho->go', h, p['readout']).ravel() + p['readout_bias'][:, 0]
      total += (one * np.log(sigmoid(logits)) + (1 - one) * np.log(sigmoid(-logits))).sum()
      for i in range(networks):
        seen = one @ p['decoder']['input_kernel'][i] + p['decoder']['bias'][i]
        remembered = h[i] @ p['decoder']['recurrent_kernel'][i]
        reset, update = sigmoid(seen[:3] + remembered[:3]), sigmoid(seen[3:6] + remembered[3:6])
        h[i] = update * h[i] + (1 - update) * np.tanh(seen[6:] + reset * remembered[6:])
    assert found[num, example] == pytest.approx(total, rel=1e-5)


def test_a_channel_hears_others_by_its_own_input_weights_alone_and_none_in_the_future():
  module, params, x = small(True)
  outputs = lambda params: jax.jacrev(lambda x: bind(module, 'outputs_along')(params, x, jnp.ones((1, 1)))[:, 0, :, 0])
  jacobian = np.asarray(jax.jit(lambda params: outputs(params)(x[0]))(params)).reshape(3, 2, 3, 2)
  for t, s in np.ndindex(3, 3):
    assert (jacobian[t, :, s] != 0).all() == (s < t), (t, s)
    assert (jacobian[t, :, s] == 0).all() == (s >= t), (t, s)
  kernel = params['decoder']['input_kernel'].at[0, 1].set(0)
  cut = {**params, 'decoder': {**params['decoder'], 'input_kernel': kernel}}
  jacobian = np.asarray(jax.jit(lambda params: outputs(params)(x[0]))(cut)).reshape(3, 2, 3, 2)
  assert (jacobian[:, 0, :, 1] == 0).all()
  assert (jacobian[2, 1, 0] != 0).all()
  influence = np.asarray(bind(module, 'influence')(cut))
  assert influence[0, 1] == 0
  assert influence[1, 0] == pytest.approx(np.linalg.norm(params['decoder']['input_kernel'][1, 0]), rel=1e-6)


def test_a_forecast_goes_on_from_what_is_seen():
  """Given z and the first steps, the next one is drawn with the probability that the likelihood gives it."""
  module, params, x = small(False)
  observed = jnp.array([True] * 4 + [False] * 2)
  num = 4000
  rows = jnp.tile(x[:1], (num, 1))

  @jax.jit
  def both(key):
    posterior_key, _ = jax.random.split(key)
    z = bind(module, 'propose')(params, posterior_key, rows, 1)[0][0]
    outputs = bind(module, 'outputs_along')(params, rows, z)[2, ..., 0]
    return bind(module, 'sweep')(params, key, rows, observed), jax.nn.sigmoid(outputs)

  drawn, p = both(jax.random.key(3))
  np.testing.assert_array_equal(drawn[:, :4], rows[:, :4])
  rest = np.asarray(drawn[:, 4:] - p, np.float64)
  for values in (rest, rest * np.asarray(p - 0.5)):
    assert (np.abs(values.mean(0)) < 4.5 * values.std(0) / np.sqrt(num)).all()


def test_the_group_lasso_is_a_proximal_step():
  """argmin_w |w - v|^2 / 2 + threshold |w| shortens v by the threshold, or makes it zero."""
  params = {'decoder': {'input_kernel': jnp.array([[[3.0, 4.0], [0.03, 0.04]]]), 'bias': jnp.ones(1)}, 'a': jnp.ones(2)}
  optimizer = recurrent.group_lasso(optax.sgd(1.0), 0.5)
  gradient = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  moved = optax.apply_updates(params, updates)
  np.testing.assert_allclose(moved['decoder']['input_kernel'], [[[2.7, 3.6], [0, 0]]], rtol=1e-6)
  assert (moved['decoder']['bias'] == 1).all()
  assert (moved['a'] == 1).all()


def test_input_weights_recover_who_drives_whom():
  """A ring of four channels, each driven by itself and by the one before it; the other eight blocks all but vanish."""
  couplings = 0.3 * np.eye(4) + 0.6 * np.roll(np.eye(4), 1, axis=0)
  random = np.random.default_rng(0)
  x = random.normal(size=(600, 10, 4))
  for t in range(1, 10):
    x[:, t] = x[:, t - 1] @ couplings.T + 0.5 * x[:, t]
  x = jnp.asarray(x.reshape(600, 40), jnp.float32)
  module = recurrent.SequenceVAE(10, 4, 1, num_hidden=4, head=Gaussian(min_scale=0.05), causal=True)
  rate = optax.cosine_decay_schedule(0.03, 500)
  algorithm = descent(*vae.objective(module), recurrent.group_lasso(optax.adam(rate), rate))

  @jax.jit
  def learn(key):
    state = algorithm.init(key, Batch(x[:100]))

    def step(state, i):
      rows = jax.lax.dynamic_slice_in_dim(x, 100 * (i % 6), 100)
      return algorithm.step(jax.random.fold_in(key, i), state, Batch(rows))

    state, metrics = jax.lax.scan(step, state, jnp.arange(500))
    return bind(module, 'influence')(state.params), metrics['elbo']

  influence, elbo = learn(jax.random.key(0))
  cause = couplings != 0
  assert influence[cause].min() > 2 * influence[~cause].max()
  assert np.median(influence[~cause]) < 0.05 * influence[cause].min()
  assert float(elbo[-1]) > float(elbo[0]) + 5


def test_what_cannot_be_is_refused():
  module, params, x = small(False)
  for message, call in {
    'num_steps=0': lambda: recurrent.SequenceVAE(0, 2, 1),
    'are vectors of 6': lambda: bind(module, 'log_likelihood')(params, x[:, :5], jnp.ones((1, 1, 1))),
    'causal=False': lambda: bind(module, 'influence')(params),
    'threshold=-1': lambda: recurrent.group_lasso(optax.sgd(0.1), -1),
    "estimator='stl'": lambda: bind(module, 'terms')(params, jax.random.key(0), x, estimator='stl'),
    'context is given': lambda: bind(module, 'bound')(params, jax.random.key(0), x, context=jnp.ones(4, int)),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
