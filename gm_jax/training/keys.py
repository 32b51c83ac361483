"""Randomness as a function of purpose, step and device.

``run key -> fold_in(purpose) -> fold_in(step) -> fold_in(device)``: no key is ever carried along, so a run that is
killed and resumed draws exactly what the unbroken run would have drawn.
"""

import zlib

import jax

from gm_jax.base import Key


def purpose(key: Key, name: str) -> Key:
  """The stream of keys for one purpose of a run, such as ``'init'``, ``'order'`` or ``'step'``.

  The name enters by its CRC-32 and not by Python's ``hash``, which differs from one process to the next.
  """
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at_step(key: Key, step: jax.Array | int, axis_name: str | None = None) -> Key:
  """The key of one step; under ``pmap`` or ``vmap`` with an axis name, of one device at that step."""
  key = jax.random.fold_in(key, step)
  return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
