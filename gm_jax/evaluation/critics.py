"""Training of the small networks that scores of samples need: classifiers and critics, each in one compiled scan."""

from collections.abc import Callable

import jax

from gm_jax.base import Algorithm, Array, Batch, Key, TrainState


def train(key: Key, algorithm: Algorithm, batch: Callable[[Array, Key], Batch], num_steps: int) -> TrainState:
  """The state after ``num_steps`` updates.

  Args:
    key: of the start and of every step.
    algorithm: from a learning rule.
    batch: ``(step, key) -> Batch``.
    num_steps: updates.
  """
  init_key, step_key = jax.random.split(key)

  def step(state, number):
    batch_key, update_key = jax.random.split(jax.random.fold_in(step_key, number))
    return algorithm.step(update_key, state, batch(number, batch_key))[0], None

  start = algorithm.init(init_key, batch(0, init_key))
  return jax.lax.scan(step, start, jax.numpy.arange(num_steps))[0]
