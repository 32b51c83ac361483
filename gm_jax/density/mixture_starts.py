"""Which examples the components of a mixture start from."""

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key


def random_rows(key: Key, features: Array, num: int, weights: Array | None = None) -> Array:
  """Indices ``[num]`` of different examples, drawn in proportion to their weights ``[N]``."""
  p = None if weights is None else weights / weights.sum()
  return jax.random.choice(key, len(features), (num,), replace=False, p=p)


def kmeans_plus_plus(key: Key, features: Array, num: int, weights: Array | None = None) -> Array:
  """Indices ``[num]`` of examples far from one another.

  Each next one is drawn in proportion to its weight times the squared distance to the nearest of those before it
  (Arthur & Vassilvitskii 2007, k-means++: the advantages of careful seeding). If all distances are zero, as with
  fewer different examples than ``num``, the draw is by weight alone.

  Args:
    key: for the draws.
    features: ``[N, F]``.
    num: how many, at most N.
    weights: ``[N]``, all equal if not given.
  """
  log_weights = jnp.zeros(len(features)) if weights is None else jnp.log(weights)

  def next_row(nearest, key):
    logits = jnp.where(jnp.any(nearest > 0), jnp.log(nearest), 0.0) + log_weights
    row = jax.random.categorical(key, logits)
    return jnp.minimum(nearest, ((features - features[row]) ** 2).sum(-1)), row

  first_key, key = jax.random.split(key)
  row = jax.random.categorical(first_key, log_weights)
  nearest = ((features - features[row]) ** 2).sum(-1)
  _, rows = jax.lax.scan(next_row, nearest, jax.random.split(key, num - 1))
  return jnp.concatenate([row[None], rows])


STARTS = {'kmeans++': kmeans_plus_plus, 'random': random_rows}
