"""Ancestral sampling: dimension by dimension, each drawn from its conditional given those drawn before.

The density of an autoregressive model costs one pass of its network; so should a sample. Feeding the network with all
that has been drawn, once for every dimension (``sample_by_passes``), costs D passes. A model that says how its state
moves when one dimension becomes known is sampled by ``draw`` at the price of the moves.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.likelihoods import Head


def draw(
  key: Key,
  head: Head,
  ordering: Array,
  state: Any,
  conditional: Callable,
  absorb: Callable,
  x: Array | None = None,
  observed: Array | None = None,
) -> tuple[Array, Array]:
  """One example, as one scan over its dimensions. Dimension t of the ordering is drawn with ``fold_in(key, t)``.

  Args:
    key: a key.
    head: the distribution of a dimension.
    ordering: ``[D]``; ``ordering[t]`` comes t-th.
    state: what the model keeps of the dimensions that are known, here of none.
    conditional: ``(state, t, dimension) -> (state, outputs [size])``: the head's outputs for the t-th dimension.
    absorb: ``(state, dimension, value) -> state``: makes a dimension known.
    x: ``[D]``, values of the observed dimensions; None if all are drawn.
    observed: ``[D]`` booleans.

  Returns:
    The example ``[D]``, and the sum of log p(x_d | earlier) in nats over the observed dimensions.
  """
  times = jnp.arange(len(ordering))
  keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(times)

  def step(state, at):
    t, dimension, key = at
    state, outputs = conditional(state, t, dimension)
    value, log_weight = head.sample(key, outputs), jnp.zeros(())
    if observed is not None:
      given, seen = x[dimension].astype(value.dtype), observed[dimension]
      value, log_weight = jnp.where(seen, given, value), jnp.where(seen, head.log_prob(outputs, given), 0.0)
    return absorb(state, dimension, value), (value, log_weight)

  _, (values, log_weights) = jax.lax.scan(step, state, (times, jnp.asarray(ordering), keys))
  return jnp.zeros_like(values).at[ordering].set(values), log_weights.sum()


def sample_by_passes(conditionals: Callable, head: Head, ordering: Array, keys: Key) -> Array:
  """What ``draw`` gives, by D full passes of the network: the reference that quicker samplers are held to.

  Args:
    conditionals: ``x [num, D] -> outputs [num, D, size]``.
    head: the distribution of a dimension.
    ordering: ``[D]``.
    keys: one for each example.

  Returns:
    ``[num, D]``.
  """

  def step(x, at):
    t, dimension = at
    outputs = conditionals(x)[:, dimension]
    values = jax.vmap(lambda key, outputs: head.sample(jax.random.fold_in(key, t), outputs))(keys, outputs)
    return x.at[:, dimension].set(values), None

  start = jnp.zeros((len(keys), len(ordering)))
  return jax.lax.scan(step, start, (jnp.arange(len(ordering)), jnp.asarray(ordering)))[0]
