"""Missing values: NaN stands for what was not observed, and every density here leaves it out exactly."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.base import Array


def split(x: Array) -> tuple[Array, Array]:
  """Values with zeros in place of NaN, and a mask of the same shape that is 1 where a value was observed."""
  observed = ~jnp.isnan(x)
  return jnp.where(observed, x, 0), observed.astype(x.dtype)


def choose(x: Array, complete: Callable[[Array], Array], incomplete: Callable[[Array, Array], Array]):
  """``complete(x)`` if no value of ``x`` is NaN, otherwise ``incomplete(*split(x))``; integers are never NaN.

  The choice is made while the program runs, so data without gaps never pay for the general case. A ``vmap`` over ``x``
  computes both; one over parameters does not, as long as nothing of them has entered ``x``.
  """
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return complete(x)
  filled, observed = split(x)
  return jax.lax.cond(jnp.all(observed > 0), lambda: complete(filled), lambda: incomplete(filled, observed))


def column_moments(x: Array) -> tuple[Array, Array]:
  """Mean and variance of each column of ``x`` ``[N, D]`` over its observed values; 0 and 0 where there are none."""
  filled, observed = split(x)
  count = jnp.maximum(observed.sum(0), 1)
  mean = filled.sum(0) / count
  return mean, (observed * (filled - mean) ** 2).sum(0) / count


def as_floats(x: Array) -> Array:
  """Examples in the type that can hold NaN: floats as they are, anything else as the default float."""
  x = jnp.asarray(x)
  return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def standardised_columns(x: Array, floor: float) -> Array:
  """Columns of ``[N, D]`` less their means, in units of their deviations (squared at least ``floor``); gaps are 0."""
  mean, variance = column_moments(x)
  filled, observed = split(x)
  return observed * (filled - mean) / jnp.sqrt(jnp.maximum(variance, floor))
