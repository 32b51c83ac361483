"""Data sets that tensorflow-datasets has prepared, read without TensorFlow.

Reading goes through ``as_data_source``, random access into files of the format ``array_record``. Nothing is
downloaded or prepared here: preparing a stock set needs TensorFlow (the extra ``[tf]``) and takes one command, which
the error for a set that is not there spells out. A builder of one's own that writes ``array_record`` needs no
TensorFlow.
"""

import contextlib
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from gm_jax.data.dataset import DataError, Dataset, Split, check, check_values

_RESIDENT_BYTES = 4 * 2**30
_BLOCK = 1000  # examples decoded at a time


class Source:
  """Examples that are read and decoded when asked for; for data that do not fit in memory.

  Stands where an array ``[N, *shape]`` would: ``len(source)``, ``source.shape``, ``source.dtype`` and
  ``source[indices]``, where indices are an integer, a slice or an integer array ``[n]``. It may be read from a thread.
  """

  def __init__(self, records: Any, feature: str, rows: np.ndarray, shape: tuple[int, ...], kind: str, where: str):
    self._records, self._feature, self._rows, self._kind, self._where = records, feature, rows, kind, where
    self.shape = (len(rows), *shape)
    self.dtype = np.dtype({'real': np.float32, 'audio': np.float32, 'counts': np.int32}.get(kind, np.uint8))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, indices) -> np.ndarray:
    rows = self._rows[indices]
    x = _read(self._records, self._feature, np.atleast_1d(rows), self.shape[1:], self._where)
    levels = {'grey': 256, 'binary': 2}.get(self._kind)
    x = check_values(_as_kind(x, self._kind, self._where), self._kind, levels, self._where)
    return x[0] if np.ndim(rows) == 0 else x


def folders(data_dir: pathlib.Path | None) -> list[pathlib.Path]:
  """Where prepared sets are looked for: the given folder, then the one that tensorflow-datasets uses by default."""
  default = pathlib.Path(os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')).expanduser()
  return [default] if data_dir is None else [data_dir, default]


def find(name: str, data_dir: pathlib.Path | None) -> pathlib.Path | None:
  """The folder of a prepared set, of its highest version if the name does not say which; None if there is none.

  Args:
    name: ``dataset``, ``dataset/config``, and either with ``:version``.
    data_dir: looked into first, see ``folders``.

  Raises:
    DataError: if the set is there in several configurations and the name does not say which.
  """
  stem, _, version = name.partition(':')
  if not re.fullmatch(r'[\w.+-]+(/[\w.+-]+)?', stem):
    return None
  for folder in folders(data_dir):
    for pattern in ('*', '*/*'):
      found = [path.parent for path in (folder / stem).glob(f'{pattern}/features.json')]
      found = [path for path in found if version in ('', path.name)]
      configs = sorted({str(path.parent.relative_to(folder)) for path in found})
      if len(configs) > 1:
        raise DataError(f'{name!r} is prepared in several configurations; name one of {", ".join(configs)}')
      if found:
        return max(found, key=lambda path: [int(part) for part in re.findall(r'\d+', path.name)])
  return None


def available(data_dir: pathlib.Path | None) -> list[str]:
  """Names of the prepared sets."""
  return sorted(
    {
      path.relative_to(folder).parts[0]
      for folder in folders(data_dir)
      for pattern in ('*/*', '*/*/*')
      for path in folder.glob(f'{pattern}/features.json')
    }
  )


def how_to_prepare(name: str, data_dir: pathlib.Path | None) -> str | None:
  """The command that prepares a stock set, or None if tensorflow-datasets has none of that name."""
  import tensorflow_datasets as tfds

  stem = re.split('[/:]', name)[0]
  if stem not in tfds.list_builders(with_community_datasets=False):
    return None
  folder = '' if data_dir is None else f', data_dir={str(data_dir)!r}'
  call = f"tfds.builder({name!r}, file_format='array_record'{folder}).download_and_prepare()"
  return f'pip install \'gm_jax[tf]\' && python -c "import tensorflow_datasets as tfds; {call}"'


def load(name: str, data_dir: pathlib.Path | None = None, *, lazy: bool | None = None) -> Dataset:
  """Reads a prepared set.

  The parts ``validation`` and ``test`` that a set lacks are cut out of its training part, a tenth each, at random from
  a fixed key. Images of bytes are grey (or colour) values, unless all of them are 0 or 1; other integers are counts.

  Args:
    name: see ``find``.
    data_dir: see ``folders``.
    lazy: whether ``x`` is a ``Source``, read when asked for; by default if its examples take more than 4 GiB.

  Raises:
    DataError: if the set is not prepared, has no part or feature that can be used, or is damaged.
  """
  path = find(name, data_dir)
  if path is None:
    raise DataError(f'{name!r} is not prepared in {" or ".join(map(str, folders(data_dir)))}')
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(str(path))
    features, parts = builder.info.features, builder.info.splits
    if 'train' not in parts:
      raise DataError(f'{path}: has no part named train, only {", ".join(parts) or "none"}')
    x_name, y_name = _choose_features(features, builder.info.supervised_keys, path)
    shape = tuple(features[x_name].shape)
    if None in shape:
      raise DataError(f'{path}: examples of {x_name!r} differ in shape, {shape}')
    skip_x = {x_name: tfds.decode.SkipDecoding()} if isinstance(features[x_name], tfds.features.Image) else None
    open_part = lambda part, decoders=None: builder.as_data_source(part, decoders=decoders)
    rows, cut_parts = _rows_of_parts(parts)
    if lazy is None:
      num_examples = sum(map(len, (each for _, each in rows)))
      lazy = num_examples * math.prod(shape) * np.dtype(features[x_name].np_dtype).itemsize > _RESIDENT_BYTES
    xs, ys = [], []
    for part, chosen in rows:
      xs.append(_read(open_part(part), x_name, chosen, shape, str(path)) if not lazy else open_part(part))
      ys.append(_read(open_part(part, skip_x), y_name, chosen, (), str(path)) if y_name else None)
  except DataError:
    raise
  except NotImplementedError as error:
    raise DataError(f"{path}: prepare it again with file_format='array_record' ({_one_line(error)})") from error
  except Exception as error:  # noqa: BLE001  whatever the readers of a damaged folder raise
    raise DataError(f'{path}: cannot be read ({type(error).__name__}: {_one_line(error)})') from error

  kind = _kind(features[x_name], shape, xs if not lazy else None)
  if lazy:
    xs = [Source(x, x_name, chosen, shape, kind, str(path)) for x, (_, chosen) in zip(xs, rows, strict=True)]
  else:
    xs = [_as_kind(x, kind, str(path)) for x in xs]
  num_classes = class_names = None
  if y_name:
    label = features[y_name]
    class_names = tuple(label.names) if getattr(label, 'names', None) else None
    num_classes = getattr(label, 'num_classes', None) or int(max(y.max(initial=0) for y in ys)) + 1
  cutting = f'; {" and ".join(cut_parts)} cut by us from train, a tenth each' if cut_parts else '; its own parts'
  return check(
    Dataset(
      name, *map(Split, xs, ys), shape=shape, kind=kind, levels={'grey': 256, 'binary': 2}.get(kind),
      provenance=f'tensorflow-datasets {builder.info.full_name}{cutting}', num_classes=num_classes,
      class_names=class_names, sample_rate=getattr(features[x_name], 'sample_rate', None),
    ),
    str(path),
  )  # fmt: skip


def _choose_features(features, supervised_keys, path) -> tuple[str, str | None]:
  """Names of the features that hold examples and labels."""
  names = list(features.keys())

  def is_label(name):
    return features[name].shape == () and np.issubdtype(features[name].np_dtype, np.integer)

  def is_numeric(name):
    dtype = np.dtype(features[name].np_dtype)
    return features[name].shape != () and (np.issubdtype(dtype, np.number) or dtype == np.bool_)

  keys = [key for key in supervised_keys or () if isinstance(key, str)]
  labels = [name for name in (*keys[1:], 'label') if name in names and is_label(name)]
  wanted = [name for name in (*keys[:1], 'image', 'audio') if name in names]
  wanted = wanted or [name for name in names if is_numeric(name)]
  if not wanted:
    raise DataError(f'{path}: none of its features {", ".join(names)} is an array of numbers')
  return wanted[0], labels[0] if labels else None


def _rows_of_parts(parts) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
  """For train, valid and test the part to read and which of its rows; and which of the three were cut from train."""
  num = parts['train'].num_examples
  own = [next((name for name in names if name in parts), None) for names in (('validation', 'valid', 'val'), ('test',))]
  order = np.random.RandomState(0).permutation(num) if None in own else np.arange(num)
  rows, missing = [], []
  for name, part in zip(('valid', 'test'), own, strict=True):
    if part:
      rows.append((part, np.arange(parts[part].num_examples)))
    else:
      missing.append(name)
      rows.append(('train', np.sort(order[: num // 10])))
      order = order[num // 10 :]
  return [('train', np.sort(order)), *rows], missing


def _read(records, feature: str, rows: Sequence[int], shape: tuple[int, ...], where: str) -> np.ndarray:
  """``[n, *shape]`` values of a feature."""
  blocks = []
  for start in range(0, len(rows), _BLOCK):
    with _quiet():
      examples = records.__getitems__([int(row) for row in rows[start : start + _BLOCK]])
    for row, example in zip(rows[start:], examples, strict=False):
      if np.shape(example[feature]) != shape:
        raise DataError(f'{where}: example {row} has the shape {np.shape(example[feature])}, not {shape}')
    blocks.append(np.stack([example[feature] for example in examples]))
  return np.concatenate(blocks) if blocks else np.zeros((0, *shape), np.uint8)


@contextlib.contextmanager
def _quiet():
  """Without the advice to install OpenCV, which is not needed."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _kind(feature, shape, xs: list[np.ndarray] | None) -> str:
  """The kind of the values; ``xs`` are all of them, or None where they are not read yet."""
  dtype = np.dtype(feature.np_dtype)
  if hasattr(feature, 'sample_rate'):
    return 'audio'
  if np.issubdtype(dtype, np.floating):
    return 'real'
  if dtype == np.bool_ or (xs and all(x.min(initial=0) >= 0 and x.max(initial=0) <= 1 for x in xs)):
    return 'binary'
  return 'grey' if dtype == np.uint8 and len(shape) == 3 else 'counts'


def _as_kind(x: np.ndarray, kind: str, where: str) -> np.ndarray:
  """Values in the type that their kind has."""
  if kind == 'audio' and np.issubdtype(x.dtype, np.integer):
    return x.astype(np.float32) / 2**15
  if kind in ('real', 'audio'):
    return x.astype(np.float32)
  if kind == 'counts':
    if x.max(initial=0) > np.iinfo(np.int32).max:
      raise DataError(f'{where}: the count {x.max()} is beyond 32 bits')
    return x.astype(np.int32)
  return x.astype(np.uint8)


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())[:200]
