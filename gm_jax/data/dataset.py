"""What a data set is, and what is checked of every one before compute is spent on it."""

import math
from typing import Any, NamedTuple

import numpy as np

KINDS = ('binary', 'grey', 'real', 'counts', 'audio')


class DataError(ValueError):
  """Data that cannot be had or cannot be used; the message is one line that says what would help."""


class Split(NamedTuple):
  """Examples, and their labels where there are some; on the host."""

  x: Any  # [N, *shape] numpy, or a lazily read ``Source``
  y: np.ndarray | None  # [N] integer labels


class Dataset(NamedTuple):
  """A data set cut into what is learnt from, what is chosen by, and what is reported on.

  The kind says what a value is, and its type: ``'binary'`` 0 or 1 (uint8), ``'grey'`` an integer 0 ... levels - 1
  (uint8; colour too), ``'counts'`` a non-negative integer, ``'real'`` float32, ``'audio'`` float32 within [-1, 1].
  """

  name: str
  train: Split
  valid: Split
  test: Split
  shape: tuple[int, ...]  # of one example; images (H, W, C), windows of audio (T,)
  kind: str  # one of KINDS
  levels: int | None  # binary 2, grey the number of grey values; None for the others
  provenance: str  # where it came from, how it was split, whether published tables may be compared with
  num_classes: int | None = None  # labels run over 0 ... num_classes - 1
  class_names: tuple[str, ...] | None = None
  feature_names: tuple[str, ...] | None = None  # columns of a table, words of a vocabulary
  sample_rate: int | None = None  # of audio, samples per second


def check(dataset: Dataset, origin: str | None = None) -> Dataset:
  """Check that a data set is what it says.

  Args:
    dataset: the data set. Of a lazily read ``x`` only its length and shape are looked at here.
    origin: file or folder that it came from, named in messages.

  Returns:
    The data set itself.

  Raises:
    DataError: for examples of another shape or type, values that the kind does not have, NaN or infinity, labels that
      do not fit, or a split without examples.
  """
  for split_name in ('train', 'valid', 'test'):
    where = f'{origin or dataset.name}: {split_name}'
    x, y = getattr(dataset, split_name)
    if tuple(x.shape[1:]) != dataset.shape:
      raise DataError(f'{where}: examples of shape {tuple(x.shape[1:])} where {dataset.shape} was expected')
    if not len(x):
      raise DataError(f'{where}: holds no example')
    if isinstance(x, np.ndarray):
      check_values(x, dataset.kind, dataset.levels, where)
    if y is not None:
      _check_labels(y, len(x), dataset.num_classes, where)
  return dataset


def check_values(x: np.ndarray, kind: str, levels: int | None, where: str) -> np.ndarray:
  """Check the values of examples, and return them.

  Args:
    x: ``[..., *shape]``.
    kind: one of ``KINDS``.
    levels: number of values of binary and grey data.
    where: begins the message.

  Raises:
    DataError: naming the value and the example.
  """
  if kind in ('real', 'audio'):
    if x.dtype != np.float32:
      raise DataError(f'{where}: values of type {x.dtype} where float32 was expected')
    _refuse(~np.isfinite(x), x, 'a finite number', where)
    if kind == 'audio':
      _refuse(np.abs(x) > 1, x, 'a value from -1 to 1', where)
  elif not np.issubdtype(x.dtype, np.integer):
    raise DataError(f'{where}: values of type {x.dtype} where integers were expected')
  elif kind != 'counts':
    if x.max(initial=0) >= levels or x.min(initial=0) < 0:
      expected = '0 or 1' if kind == 'binary' else f'an integer from 0 to {levels - 1}'
      _refuse((x >= levels) | (x < 0), x, expected, where)
  elif x.min(initial=0) < 0:
    _refuse(x < 0, x, 'a count', where)
  return x


def _refuse(bad, x, expected, where):
  if bad.any():
    row = int(bad.reshape(len(x), math.prod(x.shape[1:])).any(1).argmax())
    raise DataError(f'{where}: example {row} has the value {x[row][bad[row]].flat[0]} where {expected} was expected')


def _check_labels(y, num_examples, num_classes, where):
  if y.shape != (num_examples,) or not np.issubdtype(y.dtype, np.integer):
    raise DataError(f'{where}: labels {y.dtype}{list(y.shape)} where integers [{num_examples}] were expected')
  if num_classes is None or y.min() < 0 or y.max() >= num_classes:
    raise DataError(f'{where}: labels from {y.min()} to {y.max()} for num_classes={num_classes}')
