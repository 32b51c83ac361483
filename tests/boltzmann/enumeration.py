"""Restricted machines by brute force in float64 NumPy: the truth that the tests compare with."""

import itertools
import math

import jax
import numpy as np


def states(num_sites, num_states=2):
  """All configurations, ``[num_states ** num_sites, num_sites]``."""
  return np.array(list(itertools.product(range(num_states), repeat=num_sites)), np.float64)


def float64(params):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def binary_joint(params):
  """p(v, h) of a binary machine as a table ``[2^D, 2^H]``, and log Z."""
  p = float64(params)
  v, h = states(p['kernel'].shape[0]), states(p['kernel'].shape[1])
  score = (v @ p['visible_bias'])[:, None] + (h @ p['hidden_bias'])[None] + v @ p['kernel'] @ h.T
  log_z = log_sum_exp(score.ravel())
  return np.exp(score - log_z), log_z


def log_sum_exp(x):
  return x.max() + math.log(np.exp(x - x.max()).sum())


def total_variation(samples, table, num_states=2):
  """Total variation between samples ``[N, D]`` and a table over ``states``, and what chance alone would allow.

  The expected distance of N exact draws is about sum sqrt(p (1 - p) / (2 pi N)), and one draw moves the distance by at
  most 1 / N, so that its standard deviation is at most 1 / (2 sqrt N): four of those are added.
  """
  samples = np.asarray(samples)
  num, sites = samples.shape
  index = (samples.astype(np.int64) * num_states ** np.arange(sites)[::-1]).sum(1)
  histogram = np.bincount(index, minlength=len(table)) / num
  allowed = np.sqrt(table * (1 - table) / (2 * np.pi * num)).sum() + 2 / math.sqrt(num)
  return 0.5 * np.abs(histogram - table).sum(), allowed


def random_params(key, num_visible, num_hidden, scale=1.0):
  """Couplings and biases large enough that nothing is nearly independent."""
  keys = jax.random.split(key, 3)
  return {
    'kernel': scale * jax.random.normal(keys[0], (num_visible, num_hidden)),
    'visible_bias': 0.5 * jax.random.normal(keys[1], (num_visible,)),
    'hidden_bias': 0.5 * jax.random.normal(keys[2], (num_hidden,)),
  }
