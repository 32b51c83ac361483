"""Learnt noise of integers: against probabilities by quadrature, and as uniform noise where it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.base import Batch, as_variables, bind
from gm_jax.data import transforms
from gm_jax.flows import dequantisation, realnvp

LEVELS = 3
EVERY = np.array([[i, j] for i in range(LEVELS) for j in range(LEVELS)])


def enter(y):
  return transforms.logit(y, 0.05)


def small(noise=0.1):
  """A flow of two dimensions in three levels, and variables whose noise is not uniform unless ``noise`` is 0."""
  module = dequantisation.dequantised(realnvp.dense(2, 2, (8,)), LEVELS, enter, hidden_sizes=(8,))
  init, _ = dequantisation.objective(module)
  params = dict(as_variables(init(jax.random.key(0), Batch(jnp.asarray(EVERY)))).params)
  for i, (part, size) in enumerate((('flow', 0.1), ('noise', noise))):
    leaves, tree = jax.tree.flatten(params[part])
    keys = jax.random.split(jax.random.key(i + 1), len(leaves))
    moved = [leaf + size * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    params[part] = jax.tree.unflatten(tree, moved)
  return module, params


def draws(module, params, num):
  log_weight = jax.jit(bind(module, 'log_weight'))
  x = np.repeat(EVERY, num, axis=0)
  return np.asarray(log_weight(params, jax.random.key(9), x), np.float64).reshape(len(EVERY), num)


def probabilities(module, params, num=120):
  """log P(x) of every x, by Gauss-Legendre quadrature over its cell."""
  nodes, weights = special.roots_legendre(num)
  u = (nodes + 1) / 2
  grid = np.stack(np.meshgrid(u, u, indexing='ij'), -1).reshape(-1, 2)
  area = np.outer(weights, weights).ravel() / 4
  log_prob = jax.jit(bind(module.flow, 'log_prob'))

  def one(x):
    y, log_det = module.transform(jnp.asarray((x + grid) / LEVELS, jnp.float32))
    density = np.exp(np.asarray(log_prob(params['flow'], y) + log_det, np.float64)) / LEVELS**2
    return np.log((density * area).sum())

  return np.array([one(x) for x in EVERY])


def test_weights_have_the_probability_as_their_mean_and_their_logarithms_bound_it():
  module, params = small()
  truth = probabilities(module, params)
  assert 0.8 < np.exp(truth).sum() < 1  # the rest of the plane is of no integers
  found = draws(module, params, 20_000)
  weights = np.exp(found)
  error = weights.std(1, ddof=1) / np.sqrt(weights.shape[1])
  assert (np.abs(weights.mean(1) - np.exp(truth)) < 5 * error).all()
  spread = found.std(1, ddof=1) / np.sqrt(found.shape[1])
  assert (found.mean(1) < truth - 3 * spread).all()  # the noise is not the best


def test_noise_starts_as_the_uniform_one():
  module, params = small(noise=0.0)
  x = np.repeat(EVERY, 5000, axis=0)
  y, log_det = transforms.dequantise(jax.random.key(1), x, LEVELS)
  y, more = enter(y)
  uniform = np.asarray(bind(module.flow, 'log_prob')(params['flow'], y) + log_det + more).reshape(len(EVERY), -1)
  found = draws(module, params, 5000)
  error = np.hypot(found.std(1), uniform.std(1)) / np.sqrt(5000)
  assert (np.abs(found.mean(1) - uniform.mean(1)) < 5 * error).all()


def test_learning_the_noise_alone_brings_the_bound_to_the_probability():
  module, params = small(noise=0.0)
  truth = probabilities(module, params)
  before = truth - draws(module, params, 4000).mean(1)
  x = np.tile(EVERY, (20, 1))
  log_weight = bind(module, 'log_weight')

  @jax.jit
  def learn(noise):
    def step(noise, key):
      loss = lambda noise: -log_weight({**params, 'noise': noise}, key, x).mean()
      return jax.tree.map(lambda p, g: p - 0.05 * g, noise, jax.grad(loss)(noise)), None

    return jax.lax.scan(step, noise, jax.random.split(jax.random.key(0), 400))[0]

  after = truth - draws(module, {**params, 'noise': learn(params['noise'])}, 4000).mean(1)
  assert before.mean() > 0.02
  assert after.mean() < before.mean() / 3


def test_a_single_level_is_refused():
  with pytest.raises(ValueError, match='levels=1'):
    dequantisation.dequantised(realnvp.dense(2), 1)
