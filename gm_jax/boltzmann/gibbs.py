"""Block Gibbs sampling of bipartite machines as one compiled loop, free or with some units clamped.

In a restricted machine all hidden units are independent given the visible ones and the other way round, so that one
sweep draws every unit in two matrix products::

  h ~ p(h | v),    v' ~ p(v | h).

A chain of sweeps is one ``lax.scan``. The functions take the two conditional draws, so that they serve any model that
has them: ``sample_hidden(key, v) -> h`` and ``sample_visible(key, h) -> v``.

Reference: Geman & Geman 1984; Hinton 2002.

Example, a machine whose one pixel copies its one hidden unit:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.likelihoods import sample_bernoulli
  >>> copy = lambda key, other: sample_bernoulli(key, 50.0 * (2 * other - 1))
  >>> block_gibbs(copy, copy, jax.random.key(0), jnp.ones((3, 1)), 10).tolist()
  [[1.0], [1.0], [1.0]]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key

Draw = Callable[[Key, Array], Array]


def sweep(sample_hidden: Draw, sample_visible: Draw, key: Key, visible: Array) -> Array:
  """One sweep: all hidden units given the visible ones, then all visible units given the hidden ones."""
  hidden_key, visible_key = jax.random.split(key)
  return sample_visible(visible_key, sample_hidden(hidden_key, visible))


def block_gibbs(
  sample_hidden: Draw,
  sample_visible: Draw,
  key: Key,
  visible: Array,
  num_steps: int,
  *,
  observed: Array | None = None,
) -> Array:
  """The end of chains of block Gibbs sweeps.

  Args:
    sample_hidden: ``(key, v) -> h``.
    sample_visible: ``(key, h) -> v``.
    key: a key.
    visible: where the chains start, ``[..., D]``.
    num_steps: number of sweeps, at least 0.
    observed: boolean, broadcastable to ``visible``: the visible units that keep their value. What the others converge
      to is the model's conditional given these.

  Returns:
    Visible units of the shape of ``visible``.

  Raises:
    ValueError: if ``num_steps`` is negative.
  """
  if num_steps < 0:
    raise ValueError(f'num_steps={num_steps}: the number of sweeps must be 0 or more')
  clamp = _clamp(visible, observed)

  def step(state, key):
    return clamp(sweep(sample_hidden, sample_visible, key, state)), None

  return jax.lax.scan(step, visible, jax.random.split(key, num_steps))[0]


def block_gibbs_trace(
  sample_hidden: Draw,
  sample_visible: Draw,
  key: Key,
  visible: Array,
  num_frames: int,
  steps_per_frame: int = 1,
  *,
  observed: Array | None = None,
) -> Array:
  """The same chains watched: the state after every ``steps_per_frame`` sweeps.

  Returns:
    ``[num_frames, ..., D]``; the start is not among them.
  """

  def frame(state, key):
    state = block_gibbs(sample_hidden, sample_visible, key, state, steps_per_frame, observed=observed)
    return state, state

  return jax.lax.scan(frame, visible, jax.random.split(key, num_frames))[1]


def _clamp(visible: Array, observed: Array | None) -> Callable[[Array], Array]:
  """What puts the observed units back after a draw."""
  return (lambda drawn: drawn) if observed is None else (lambda drawn: jnp.where(observed, visible, drawn))
