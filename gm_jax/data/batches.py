"""The order of examples as a pure function of the step, and how batches reach the device.

Epoch e goes through the examples in ``epoch_order(key, e, N)``, a permutation drawn from ``fold_in(key, e)``, in
N // B batches of B; the N mod B examples left over sit this epoch out. Nothing is carried from step to step, so a run
that is killed and resumed sees the batches that the unbroken run would have seen. The permutation is one that can be
asked for single positions, so that the batches of a few steps cost no sort of the whole data set.
"""

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key


@functools.partial(jax.jit, static_argnames='num_examples')
def epoch_order(key: Key, epoch: Array | int, num_examples: int) -> Array:
  """The order in which an epoch goes through the examples.

  Args:
    key: the key of the run's order.
    epoch: ``[]`` number of the epoch, from 0; may be traced.
    num_examples: N, static, from 1 to 2^31 - 1.

  Returns:
    ``[N]`` int32, a permutation of 0 ... N - 1.
  """
  return permute(_round_keys(key, epoch, num_examples), jnp.arange(num_examples), num_examples)


@functools.partial(jax.jit, static_argnames=('num_steps', 'num_examples', 'batch_size'))
def batch_indices(key: Key, first_step: Array | int, num_steps: int, num_examples: int, batch_size: int) -> Array:
  """Which examples the batches of a span of steps hold.

  Args:
    key: the key of the run's order.
    first_step: ``[]`` step that the span begins with, from 0; may be traced.
    num_steps: S, the length of the span, static.
    num_examples: N, static, below 2^31.
    batch_size: B, static.

  Returns:
    ``[S, B]`` int32 indices of examples.

  Raises:
    ValueError: unless 1 <= ``batch_size`` <= ``num_examples`` and ``num_steps`` >= 1.
  """
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps}: give 1 or more')
  if not 1 <= batch_size <= num_examples:
    raise ValueError(f'batch_size={batch_size}: give 1 to {num_examples}, the number of examples')
  steps_per_epoch = num_examples // batch_size
  steps = jnp.asarray(first_step, jnp.int32) + jnp.arange(num_steps)
  epochs, steps_in_epoch = steps // steps_per_epoch, steps % steps_per_epoch
  round_keys = jax.vmap(lambda epoch: _round_keys(key, epoch, num_examples))(epochs)
  positions = steps_in_epoch[:, None] * batch_size + jnp.arange(batch_size)
  return jax.vmap(lambda keys, position: permute(keys, position, num_examples))(round_keys, positions)


def _round_keys(key: Key, epoch: Array | int, num_examples: int) -> Array:
  """``[R, 2]`` random words of the R rounds of an epoch's permutation."""
  return jax.random.bits(jax.random.fold_in(key, epoch), (6 * num_examples.bit_length(), 2), jnp.uint32)


def permute(round_keys: Array, positions: Array, num_examples: Array | int) -> Array:
  """Where a permutation of 0 ... N - 1 sends some positions, by the swap-or-not shuffle; N may be traced.

  Each round pairs i with K - i mod N for a random K, and swaps the pair if a random function of its larger member
  says so. The order of the pair does not matter to either choice, so a round is a permutation, whatever N is; the
  number of rounds is that of Hoang, Morris and Rogaway, "An enciphering scheme based on a card shuffle", 2012.
  """

  def one_round(position, words):
    pivot = words[0] % num_examples
    partner = pivot + num_examples - position
    partner = jnp.where(partner >= num_examples, partner - num_examples, partner)
    swap = _mix(jnp.maximum(position, partner) ^ words[1]) >> 31
    return jnp.where(swap, partner, position), None

  return jax.lax.scan(one_round, positions.astype(jnp.uint32), round_keys)[0].astype(jnp.int32)


def _mix(word: Array) -> Array:
  """A random-looking function of 32-bit words: the finaliser of MurmurHash3."""
  word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
  word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
  return word ^ (word >> 16)


def prefetch(function: Callable[[Any], Any], items: Iterable, depth: int = 2) -> Generator:
  """Results of a function over items, in order, computed ahead by a thread.

  For data that do not fit on the device: ``function`` gathers a batch (or a stack of them) from memory, a memory map
  or a ``Source``, while the device computes on the one before. An error in ``function`` is raised where its result
  would have come. Close the generator (``contextlib.closing``) to stop early; what is being computed is waited for.

  Args:
    function: called on one item after the other, in one thread other than the caller's.
    items: what to call it on, such as spans of steps; may be endless. Read by the caller's thread.
    depth: how many results to compute ahead.

  Returns:
    A generator of the results.

  Raises:
    ValueError: if ``depth`` is below 1.
  """
  if depth < 1:
    raise ValueError(f'depth={depth}: give 1 or more')
  return _computed_ahead(function, items, depth)


def _computed_ahead(function, items, depth) -> Iterator:
  with concurrent.futures.ThreadPoolExecutor(1, 'prefetch') as thread:
    pending = collections.deque()
    try:
      for item in items:
        pending.append(thread.submit(function, item))
        if len(pending) > depth:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      for result in pending:
        result.cancel()
