"""Parallel tempering: chains at several temperatures that exchange their states.

The copies stand on the path of ``partition.py`` between independent units (beta = 0, where chains mix at once) and the
machine (beta = 1). After a Gibbs sweep of every copy, neighbours i and i + 1 swap with the probability that keeps their
joint distribution (Swendsen & Wang 1986; Desjardins et al. 2010)::

  min(1, f_i(v_{i+1}) f_{i+1}(v_i) / (f_i(v_i) f_{i+1}(v_{i+1})))

with the hidden units summed out. All even pairs or all odd pairs try, by the toss of a coin per chain.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.boltzmann.partition import Path


def ladder(num_temperatures: int) -> Array:
  """``[T]`` inverse temperatures from 0 to 1 in equal steps.

  Raises:
    ValueError: if there are fewer than two.
  """
  if num_temperatures < 2:
    raise ValueError(f'num_temperatures={num_temperatures}: tempering needs 2 or more')
  return jnp.linspace(0.0, 1.0, num_temperatures)


def swap(path: Path, betas: Array, key: Key, state: Any) -> tuple[Any, Array]:
  """Tries to exchange neighbours.

  Args:
    path: the path.
    betas: ``[T]``, increasing.
    key: a key.
    state: state of the path with leading axes ``[N, T]``.

  Returns:
    The state, and the acceptance rate of each neighbouring pair, ``[T - 1]`` (the mean probability over chains).
  """
  low, high = betas[:-1], betas[1:]
  below, above = (
    jax.tree.map(lambda leaf, part=part: leaf[:, part], state) for part in (slice(None, -1), slice(1, None))
  )
  log_ratio = path.gap(below, low, high) - path.gap(above, low, high)
  coin_key, accept_key = jax.random.split(key)
  num_chains, num_pairs = log_ratio.shape
  turn = jnp.arange(num_pairs) % 2 == jax.random.bernoulli(coin_key, shape=(num_chains, 1))
  accept = turn & (jnp.log(jax.random.uniform(accept_key, log_ratio.shape)) < log_ratio)
  edge = jnp.zeros((num_chains, 1), bool)
  up, down = jnp.concatenate([accept, edge], 1), jnp.concatenate([edge, accept], 1)
  source = jnp.arange(len(betas)) + up.astype(jnp.int32) - down.astype(jnp.int32)
  state = jax.tree.map(lambda leaf: jax.vmap(lambda rows, index: rows[index])(leaf, source), state)
  return state, jnp.exp(jnp.minimum(log_ratio, 0.0)).mean(0)


def parallel_tempering(path: Path, betas: Array, key: Key, visible: Array, num_steps: int) -> tuple[Any, Array]:
  """Sweeps and swaps, ``num_steps`` of each.

  Args:
    path: the path.
    betas: ``[T]``, increasing, the last one 1.
    key: a key.
    visible: ``[N, T, D]``, every copy's state; ``[:, -1]`` belongs to the model.
    num_steps: number of sweeps.

  Returns:
    The state of the path at the end (``path.visible(state)`` is ``[N, T, D]``), and the mean swap rates ``[T - 1]``.
  """

  def step(state, key):
    move_key, swap_key = jax.random.split(key)
    return swap(path, betas, swap_key, path.move(move_key, state, betas))

  state, rates = jax.lax.scan(step, path.place(visible), jax.random.split(key, num_steps))
  return state, rates.mean(0)


def start(path: Path, key: Key, num_chains: int, num_temperatures: int) -> Array:
  """``[N, T, D]`` states for ``parallel_tempering``, all drawn from the independent units."""
  visible = path.visible(path.start(key, num_chains * num_temperatures))
  return visible.reshape(num_chains, num_temperatures, *visible.shape[1:])
