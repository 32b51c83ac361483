"""Data sets by name.

A name is looked for, in this order, among

1. what is at hand without any file: ``digits``, the toy sets and the signals;
2. the plain files in the folder of data (``files.NAMES``);
3. the sets that tensorflow-datasets has prepared, in the folder of data or in its own default folder.

``tfds:<name>`` goes to the third at once. The folder of data is the argument ``data_dir``, or else the environment
variable ``GM_JAX_DATA_DIR``. Nothing is ever downloaded.
"""

import inspect
import os
import pathlib

from gm_jax.data import digits, files, signals, tfds, toy
from gm_jax.data.dataset import DataError, Dataset, check

ENVIRONMENT_VARIABLE = 'GM_JAX_DATA_DIR'


def load(name: str, *, data_dir: str | os.PathLike | None = None, seed: int = 0, **options) -> Dataset:
  """Loads a data set; the module's docstring says what a name may be.

  Args:
    name: of the data set.
    data_dir: the folder of data; ``$GM_JAX_DATA_DIR`` if None.
    seed: what toy sets and signals are drawn from. Other sets are split from a fixed key and do not depend on it.
    **options: of toy sets and signals ``num_train``, ``num_valid``, ``num_test``, and ``size`` of ``bars_and_stripes``;
      of ``fsdd`` ``window``, the samples of an example; of sets from tensorflow-datasets ``lazy``, whether examples are
      read when asked for (by default if they take more than 4 GiB).

  Returns:
    A checked ``Dataset`` of NumPy arrays.

  Raises:
    DataError: a ValueError of one line, for a name that cannot be had (it lists those that can), an option that the set
      does not have, a folder that does not exist, or a file that is damaged.
  """
  folder = _folder(data_dir)
  if name == 'digits':
    _check_options(name, options, digits.load)
    return check(digits.load())
  if name in toy.NAMES:
    if name != 'bars_and_stripes' and 'size' in options:
      raise DataError(f"option 'size': data set {name!r} has no such option")
    _check_options(name, options, toy.load)
    return check(toy.load(name, seed=seed, **options))
  if name in signals.NAMES:
    _check_options(name, options, signals.load)
    return check(signals.load(name, seed=seed, **options))
  if folder is not None and files.has(name, folder):
    return files.load(name, folder, **options)
  stem = name.removeprefix('tfds:')
  if tfds.find(stem, folder) is not None:
    _check_options(name, options, tfds.load)
    return tfds.load(stem, folder, **options)
  raise DataError(_not_found(name, stem, folder))


def available(data_dir: str | os.PathLike | None = None) -> list[str]:
  """Names of all data sets that ``load`` finds at once.

  Args:
    data_dir: the folder of data; ``$GM_JAX_DATA_DIR`` if None.
  """
  folder = _folder(data_dir)
  plain = [] if folder is None else files.available(folder)
  prepared = [name for name in tfds.available(folder) if name not in plain]
  return ['digits', *toy.NAMES, *signals.NAMES, *plain, *prepared]


def _folder(data_dir) -> pathlib.Path | None:
  given = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
  if not given:
    return None
  folder = pathlib.Path(given).expanduser()
  if not folder.is_dir():
    origin = 'data_dir' if data_dir else f'${ENVIRONMENT_VARIABLE}'
    raise DataError(f'{origin}={str(given)!r}: there is no such folder')
  return folder


def _check_options(name, options, function):
  known = [parameter.name for parameter in inspect.signature(function).parameters.values() if parameter.kind == 3]
  if unknown := sorted(set(options) - set(known)):
    raise DataError(f'option {unknown[0]!r}: data set {name!r} has no such option')


def _not_found(name, stem, folder) -> str:
  at_hand = f'Data sets at hand: {", ".join(available(folder))}.'
  if stem == name and (name in files.NAMES or name.startswith('debd/')):
    where = f'is not in {folder}' if folder else 'is read from a file, and no folder of data is named'
    remedy = f'Name the folder that has its file by --data_dir, data_dir= or ${ENVIRONMENT_VARIABLE}.'
  else:
    where = 'is not known'
    remedy = f'Others are read from a folder named by --data_dir, data_dir= or ${ENVIRONMENT_VARIABLE}.'
  if command := tfds.how_to_prepare(stem, folder):
    remedy += f' Or let tensorflow-datasets prepare it: {command}'
    where = where.replace('is not known', 'is a stock set of tensorflow-datasets that is not prepared yet')
  return f'data set {name!r} {where}. {at_hand} {remedy}'
