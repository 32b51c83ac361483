import contextlib
import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import batches

KEY = jax.random.key(3)


def orders(num_epochs, num_examples):
  return np.asarray(jax.vmap(lambda e: batches.epoch_order(KEY, e, num_examples))(jnp.arange(num_epochs)))


def chi_square(counts):
  """The statistic against equal probabilities, in standard deviations from its mean."""
  expected = counts.sum() / counts.size
  freedom = counts.size - 1
  return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize('num_examples', [1, 2, 3, 64, 65, 1297])
def test_every_epoch_goes_through_all_examples(num_examples):
  np.testing.assert_array_equal(np.sort(orders(3, num_examples)), np.tile(np.arange(num_examples), (3, 1)))


@pytest.mark.parametrize('num_examples', [2, 3, 4])
def test_all_orders_of_few_examples_are_equally_likely(num_examples):
  found, counts = np.unique(orders(24_000, num_examples), axis=0, return_counts=True)
  assert len(found) == len(list(itertools.permutations(range(num_examples))))
  assert abs(chi_square(counts)) < 4


def test_orders_of_many_examples_look_random():
  n, epochs = 60, 20_000
  order = orders(epochs, n)
  places = np.stack([np.bincount(order[:, i], minlength=n) for i in range(n)])
  # Each row and each column of the table has a given sum, so that (n - 1)^2 of its counts are free.
  expected = epochs / n
  assert abs(((places - expected) ** 2 / expected).sum() - (n - 1) ** 2) < 4 * np.sqrt(2) * (n - 1)
  assert abs(chi_square(np.bincount((np.diff(order) % n).ravel(), minlength=n)[1:])) < 4
  fixed_points = (order == np.arange(n)).sum(1)
  assert abs(fixed_points.mean() - 1) < 4 / np.sqrt(epochs)
  inversions = (order[:2000, :, None] > order[:2000, None, :])[:, *np.triu_indices(n, 1)].sum(-1)
  deviation = np.sqrt(n * (n - 1) * (2 * n + 5) / 72)
  assert abs(inversions.mean() - n * (n - 1) / 4) < 4 * deviation / np.sqrt(2000)


@pytest.mark.parametrize(('num_examples', 'batch_size'), [(10, 3), (7, 7), (9, 1)])
def test_a_span_is_a_piece_of_the_epochs(num_examples, batch_size):
  steps = num_examples // batch_size
  whole = orders(40, num_examples)[:, : steps * batch_size].reshape(-1, batch_size)
  span = jax.jit(batches.batch_indices, static_argnums=(2, 3, 4))
  for num_steps in (1, 3 * steps + 1):
    for first_step in (0, 1, steps - 1, steps, 2 * steps + 1):
      rows = span(KEY, first_step, num_steps, num_examples, batch_size)
      assert rows.dtype == jnp.int32
      np.testing.assert_array_equal(rows, whole[first_step : first_step + num_steps])


def test_order_depends_on_the_key_and_the_epoch():
  one = np.asarray(batches.epoch_order(jax.random.key(0), 0, 100))
  assert (one != np.asarray(batches.epoch_order(jax.random.key(1), 0, 100))).any()
  assert (one != np.asarray(batches.epoch_order(jax.random.key(0), 1, 100))).any()


def test_vmapped_over_keys():
  keys = jax.random.split(KEY, 2)
  span = jax.jit(lambda key: batches.batch_indices(key, 4, 3, 10, 4))
  np.testing.assert_array_equal(jax.vmap(span)(keys), [span(key) for key in keys])


@pytest.mark.parametrize(
  ('num_steps', 'batch_size', 'named'),
  [(1, 11, 'batch_size=11'), (1, 0, 'batch_size=0'), (1, -2, 'batch_size=-2'), (0, 5, 'num_steps=0')],
)
def test_impossible_batches_are_refused(num_steps, batch_size, named):
  with pytest.raises(ValueError, match=named):
    batches.batch_indices(KEY, 0, num_steps, 10, batch_size)


def test_prefetch_keeps_the_order_and_computes_ahead():
  others = set()

  def square(item):
    others.add(threading.current_thread())
    time.sleep(0.002 * (item % 3))
    return item * item

  assert list(batches.prefetch(square, range(20), depth=4)) == [i * i for i in range(20)]
  assert len(others) == 1 and threading.current_thread() not in others
  assert list(batches.prefetch(square, [])) == []


def test_prefetch_goes_no_further_ahead_than_depth():
  started = []
  with contextlib.closing(batches.prefetch(started.append, itertools.count(), depth=3)) as stream:
    for taken in range(1, 6):
      next(stream)
      time.sleep(0.02)
      assert len(started) <= taken + 3
    assert len(started) > taken  # and it does go ahead


def test_prefetch_raises_where_the_result_would_have_come():
  def fail_at_two(item):
    if item == 2:
      raise OSError('disk gone')
    return item

  stream = batches.prefetch(fail_at_two, itertools.count())
  assert [next(stream), next(stream)] == [0, 1]
  with pytest.raises(OSError, match='disk gone'):
    next(stream)


def test_prefetch_leaves_no_thread_behind():
  before = threading.active_count()
  stream = batches.prefetch(lambda item: item, itertools.count())
  next(stream)
  assert threading.active_count() == before + 1
  stream.close()
  assert threading.active_count() == before


def test_a_closed_prefetch_computes_no_further():
  started, gate = [], threading.Event()

  def compute(item):
    started.append(item)
    return item if item == 0 else gate.wait()

  stream = batches.prefetch(compute, itertools.count(), depth=8)
  next(stream)
  threading.Timer(1.0, gate.set).start()  # while the stream is being closed, which waits for what is computed
  stream.close()
  assert started in ([0], [0, 1])


def test_prefetch_depth_is_checked_at_once():
  with pytest.raises(ValueError, match='depth=0'):
    batches.prefetch(abs, [1], depth=0)
