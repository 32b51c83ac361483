"""Checkpoints by Orbax: the latest ones, to resume from, and the best one, to report.

A checkpoint is written beside its place and then renamed, so a writer that dies leaves no half of one; each carries a
digest of its arrays, so one that was damaged later is recognised, and the one before it is taken.
"""

import hashlib
import logging
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from gm_jax.base import TrainState


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none of those that exist can be read."""


class Restored(NamedTuple):
  """A state, and what was noted beside it."""

  state: TrainState
  notes: dict[str, Any]


class Checkpoints:
  """The checkpoints of one folder; the last ``keep`` of them stay."""

  def __init__(self, folder: str | pathlib.Path, keep: int = 2):
    self.folder = pathlib.Path(folder).absolute()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def save(self, state: TrainState, notes: dict[str, Any]) -> None:
    """Write a state as it is on the host (see ``Placement.get_state``), under its step.

    Args:
      state: numpy leaves.
      notes: whatever JSON can hold.

    Raises:
      CheckpointError: if it cannot be written; the checkpoints before it stay as they are.
    """
    step = _step(state)
    if step in self._manager.all_steps():
      self._manager.delete(step)
    notes = {'digest': digest(state), **notes}
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
    try:
      self._manager.save(step, args=items, force=True)
      self._manager.wait_until_finished()
    except Exception as error:  # Orbax passes on what its storage drivers raise, which has no common class
      before = [kept for kept in self._manager.all_steps() if kept != step]
      kept = f'the checkpoint of step {max(before)} is kept' if before else 'there is none before it'
      raise CheckpointError(f'cannot write the checkpoint of step {step} in {self.folder}: {error}; {kept}') from error

  def restore(self, like: TrainState) -> Restored | None:
    """The newest checkpoint that can be read whole, or ``None`` if there is no checkpoint at all.

    Args:
      like: a state of the same structure, shapes and dtypes.

    Raises:
      CheckpointError: if there are checkpoints and none of them can be read.
    """
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        restored = self._manager.restore(step, args=items)
        state = jax.tree.map(np.asarray, restored.state)
        if digest(state) != restored.notes['digest']:
          raise ValueError('its arrays are not those that were saved')
        return Restored(state, restored.notes)
      except Exception as error:  # as above; what cannot be read is not used, whatever the reason
        logging.warning('checkpoint of step %d in %s is damaged, trying the one before: %s', step, self.folder, error)
    if steps:
      raise CheckpointError(
        f'none of the checkpoints {steps} in {self.folder} can be read; remove the folder to start anew'
      )
    return None


def digest(state: TrainState) -> str:
  """A hash of all leaves of a state: their shapes, dtypes and bytes."""
  hasher = hashlib.blake2b(digest_size=16)
  for leaf in jax.tree.leaves(state):
    leaf = np.ascontiguousarray(leaf)
    hasher.update(f'{leaf.shape}{leaf.dtype}'.encode())
    hasher.update(leaf.tobytes())
  return hasher.hexdigest()


def _step(state: TrainState) -> int:
  return int(np.ravel(state.step)[0])
