"""Data sets from plain files of a folder: IDX files of MNIST, and NumPy archives of arrays.

Arrays of the archives are named after the split (``train_x``, ``valid_y``, ...). Binary images and vectors are stored
as bits, ``numpy.packbits(x, axis=1)``. Official splits are kept where they exist. Where this file cuts, it permutes
with a fixed key first: the rows of several sets are sorted, and a prefix of sorted rows is no sample.
"""

import functools
import gzip
import io
import math
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from gm_jax.data.dataset import DataError, Dataset, Split, check

Reader = Callable[..., Dataset]

_COMPARABLE = 'comparable with published tables'
_NOT_COMPARABLE = 'not comparable with published tables'


class Archive:
  """Arrays of an ``.npz`` file, with errors that name the file and the array."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._read = {}
    try:
      self._file = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
      raise DataError(f'{path}: not a readable .npz file ({error})') from error
    if not isinstance(self._file, Mapping):
      raise DataError(f'{path}: a single array where a .npz archive was expected')

  def __contains__(self, name: str) -> bool:
    return name in self._file

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self._read:
      try:
        self._read[name] = self._file[name]
      except KeyError as error:
        raise DataError(f'{self._path}: has no array {name!r}') from error
      except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f'{self._path}: array {name!r} cannot be read, the file is damaged ({error})') from error
    return self._read[name]

  def array(self, name: str, dtype, *shape: int | None) -> np.ndarray:
    """An array of a kind of numbers (a NumPy abstract type) and of a shape, where None stands for any length."""
    array = self[name]
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or not np.issubdtype(array.dtype, dtype):
      expected = ', '.join('N' if want is None else str(want) for want in shape)
      raise DataError(
        f'{self._path}: {name} is {array.dtype}{list(array.shape)} where {dtype.__name__}[{expected}] was expected'
      )
    return array

  def bits(self, name: str, num: int) -> np.ndarray:
    """Packed rows as uint8 zeros and ones, ``[N, num]``."""
    packed = self.array(name, np.uint8, None, -(-num // 8))
    return np.unpackbits(packed, axis=1, count=num)

  def labels(self, name: str) -> np.ndarray | None:
    """``[N]`` integers, or None where the archive has none of that name."""
    return self.array(name, np.integer, None) if name in self else None

  def names(self, name: str, num: int) -> tuple[str, ...]:
    """An array of strings."""
    return tuple(map(str, self.array(name, np.str_, num)))


def cut(x: np.ndarray, y: np.ndarray | None, *sizes: int) -> list[Split]:
  """Cuts examples into parts of the given sizes and a part of the rest, after a permutation from a fixed key."""
  # RandomState and not Generator: NumPy promises that its stream stays as it is.
  order = np.random.RandomState(0).permutation(len(x))
  parts = np.split(order, np.cumsum(sizes))
  if any(len(part) == 0 for part in parts):
    raise DataError(f'{len(x)} examples are too few to be cut into parts of {", ".join(map(str, sizes))} and a rest')
  return [Split(x[part], None if y is None else y[part]) for part in parts]


def _read_idx(path: pathlib.Path, num_dimensions: int) -> np.ndarray:
  """An IDX file of unsigned bytes: magic 0, 0, 8, number of dimensions; sizes; values."""
  if not path.exists():
    raise DataError(f'{path}: this file of the data set is not there')
  try:
    content = gzip.decompress(path.read_bytes())
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f'{path}: cannot be decompressed, the file is damaged ({error})') from error
  expected = bytes([0, 0, 8, num_dimensions])
  if content[:4] != expected:
    raise DataError(f'{path}: begins with {content[:4].hex()} where the IDX magic {expected.hex()} was expected')
  start = 4 + 4 * num_dimensions
  shape = tuple(int.from_bytes(content[i : i + 4], 'big') for i in range(4, start, 4))
  if len(content) - start != math.prod(shape):
    raise DataError(f'{path}: holds {max(len(content) - start, 0)} values where its header says {list(shape)}')
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _mnist(name, folder):
  def read(part):
    x, y = _read_idx(folder / f'{part}-images-idx3-ubyte.gz', 3), _read_idx(folder / f'{part}-labels-idx1-ubyte.gz', 1)
    return x[..., None], y

  x, y = read('train')
  if len(x) <= 10_000:
    raise DataError(f'{folder}: {len(x)} training images, of which 10000 are for validation')
  return Dataset(
    name, Split(x[:-10_000], y[:-10_000]), Split(x[-10_000:], y[-10_000:]), Split(*read('t10k')),
    shape=(28, 28, 1), kind='grey', levels=256, num_classes=10,
    provenance=f'MNIST, the official 60000/10000; the last 10000 training images are for validation; {_COMPARABLE}',
  )  # fmt: skip


def _stacked_mnist(name, folder):
  digits = _mnist('mnist', folder)

  def stack(seed, split, num):
    rows = np.random.RandomState(seed).randint(len(split.x), size=(num, 3))
    x = np.concatenate([split.x[rows[:, i]] for i in range(3)], axis=-1)
    return Split(x, split.y[rows].astype(np.int32) @ np.array([100, 10, 1], np.int32))

  sizes = 128_000, 10_000, 10_000
  splits = [stack(seed, *pair) for seed, pair in enumerate(zip(digits[1:4], sizes, strict=True))]
  return Dataset(
    name, *splits, shape=(28, 28, 3), kind='grey', levels=256, num_classes=1000,
    provenance='three random digits of MNIST, each in a channel, and a class for every triple; 128000 training triples '
    'as in PacGAN, drawn by a fixed seed of our own',
  )  # fmt: skip


def _binary_images(name, path, *, provenance, num_classes=None):
  archive = Archive(path)
  splits = [
    Split(archive.bits(f'{part}_x', 784).reshape(-1, 28, 28, 1), archive.labels(f'{part}_y') if num_classes else None)
    for part in ('train', 'valid', 'test')
  ]
  class_names = archive.names('class_names', num_classes) if num_classes else None
  return Dataset(name, *splits, (28, 28, 1), 'binary', 2, provenance, num_classes, class_names)


def _omniglot28(name, path):
  archive = Archive(path)
  splits = [
    Split(archive.array(f'{part}_x', np.uint8, None, 28, 28)[..., None], archive.labels(f'{part}_y'))
    for part in ('train', 'valid', 'test')
  ]
  return Dataset(
    name, *splits, shape=(28, 28, 1), kind='grey', levels=256, num_classes=1623,
    provenance='OMNIGLOT drawings averaged down to 28 x 28 and split at random 23000/1345/8115, neither of them those '
    f'of the IWAE paper; labels are characters; {_NOT_COMPARABLE}',
  )  # fmt: skip


def _cifar10_subset(name, path):
  archive = Archive(path)
  train, test = (
    (archive.array(f'{part}_x', np.uint8, None, 32, 32, 3), archive.array(f'{part}_y', np.integer, None))
    for part in ('train', 'test')
  )
  valid, train = cut(*train, len(train[0]) // 10)
  return Dataset(
    name, train, valid, Split(*test), shape=(32, 32, 3), kind='grey', levels=256, num_classes=10,
    class_names=archive.names('class_names', 10),
    provenance='1000 training and 200 test images of each class of CIFAR-10, from its official parts; a tenth of the '
    f'training images, cut by us, is for validation; {_NOT_COMPARABLE}',
  )  # fmt: skip


def _debd(name, path):
  archive = Archive(path)
  num = int(archive.array('dim', np.integer))
  stem = path.stem
  provenance = f'{stem} of the binary sets of the density-estimation literature, official split; {_COMPARABLE}'
  if stem == 'rcv1_valid_only':
    splits = cut(archive.bits('valid_x', num), None, 8000, 1000)
    provenance = (
      'the validation part of rcv1 (NADE, MADE), the only part at hand, cut by us 8000/1000/1000; ' + _NOT_COMPARABLE
    )
  else:
    splits = [Split(archive.bits(f'{part}_x', num), archive.labels(f'{part}_y')) for part in ('train', 'valid', 'test')]
  if stem == 'web_own_split':
    provenance = f'the rows of web (LIBSVM w8a) in a random split of the sizes of NADE and MADE; {_NOT_COMPARABLE}'
  return Dataset(name, *splits, (num,), 'binary', 2, provenance, 26 if splits[0].y is not None else None)


# RNADE (Uria, Murray and Larochelle 2013) drops discrete columns and one of each pair with correlation above 0.98,
# without listing them. Four measurements of Parkinsons are the fewest whose loss leaves no such pair; 15 remain.
_UCI_DROPPED = {
  'red_wine': ('quality',),
  'white_wine': ('quality',),
  'parkinsons': ('subject#', 'age', 'sex', 'Jitter:RAP', 'Jitter:DDP', 'Shimmer', 'Shimmer:DDA'),
  'boston_housing': ('CHAS', 'RAD', 'TAX', 'B'),  # B is derived from race, and has no place in a model
}


def _uci(name, path):
  archive = Archive(path)
  table = name.split('/')[1]
  num_classes = class_names = feature_names = None
  y = None
  if table == 'ionosphere':
    x = archive.array('ionosphere_x', np.floating, None, 34)[:, 2:]  # of the first two one is binary, one constant
    y, num_classes, class_names = archive.labels('ionosphere_y'), 2, ('bad', 'good')
  else:
    x = archive.array(f'{table}_x', np.floating, None, None)
    columns = archive.names(f'{table}_cols', x.shape[1])
    if missing := set(_UCI_DROPPED[table]) - set(columns):
      raise DataError(f'{path}: {table} has no column {", ".join(sorted(missing))}')
    if 'quality' in columns:
      y, num_classes = x[:, columns.index('quality')].astype(np.int32), 11
    kept = [i for i, column in enumerate(columns) if column not in _UCI_DROPPED[table]]
    x, feature_names = x[:, kept], tuple(columns[i] for i in kept)
  tenth = len(x) // 10
  test, valid, train = cut(x.astype(np.float32), y, tenth, tenth)
  return Dataset(
    name, train, valid, test, shape=x.shape[1:], kind='real', levels=None, num_classes=num_classes,
    class_names=class_names, feature_names=feature_names,
    provenance=f'{table} of UCI, continuous columns as in RNADE, not standardised; a tenth for the test and a tenth '
    'for validation, cut by us at random; published results are means over other cuts: comparable in kind only',
  )  # fmt: skip


def _miniboone_valtest(name, path):
  archive = Archive(path)
  x, test = (archive.array(f'{part}_x', np.floating, None, 43).astype(np.float32) for part in ('valid', 'test'))
  valid, train = cut(x, None, len(x) // 10)
  return Dataset(
    name, train, valid, Split(test, None), shape=(43,), kind='real', levels=None,
    provenance='MINIBOONE as standardised for MAF, without its training rows: learnt from nine tenths of its '
    f'validation part, tested on its test part; {_NOT_COMPARABLE}',
  )  # fmt: skip


def _bsds300_patches(name, path):
  archive = Archive(path)

  def read(part):
    pixels = archive.array(f'{part}_x', np.uint8, None, 8, 8).reshape(-1, 64)
    noise = np.random.RandomState(['train', 'valid', 'test'].index(part)).random_sample(pixels.shape)
    grey = (pixels + noise) / 256
    return Split((grey - grey.mean(axis=1, keepdims=True))[:, :63].astype(np.float32), None)

  return Dataset(
    name, *map(read, ('train', 'valid', 'test')), shape=(63,), kind='real', levels=None,
    provenance='8 x 8 grey patches of the official BSDS300 images at our own 130000 random places; uniform noise from '
    f'a fixed key, divided by 256, less the mean of the patch, without the last pixel, as in RNADE; {_NOT_COMPARABLE}',
  )  # fmt: skip


def _newsgroups(name, path):
  archive = Archive(path)
  vocabulary = archive.names('vocab', None)

  def read(part):
    starts = archive.array(f'{part}_indptr', np.integer, None)
    words = archive.array(f'{part}_indices', np.integer, None)
    counts = archive.array(f'{part}_counts', np.integer, len(words))
    lengths = np.diff(starts)
    if not len(starts) or starts[0] != 0 or starts[-1] != len(words) or (lengths < 0).any():
      raise DataError(f'{path}: {part}_indptr does not cut the {len(words)} entries into documents')
    if len(words) and words.max() >= len(vocabulary):
      raise DataError(f'{path}: {part}_indices has word {words.max()} of a vocabulary of {len(vocabulary)}')
    x = np.zeros((len(lengths), len(vocabulary)), np.uint16)
    x[np.repeat(np.arange(len(lengths)), lengths), words] = counts
    return x, archive.labels(f'{part}_y')

  train, test = read('train'), read('test')
  valid, train = cut(*train, min(1000, len(train[0]) // 10))
  return Dataset(
    name, train, valid, Split(*test), shape=(len(vocabulary),), kind='counts', levels=None, num_classes=20,
    feature_names=vocabulary,
    provenance='20 Newsgroups by date as in NVDM, 2000 words; 1000 training documents, cut by us, are for validation; '
    'published tables use nearly the same preprocessing, and other validation documents',
  )  # fmt: skip


def _fsdd(name, path, *, window: int = 2048):
  if window < 1:
    raise DataError(f'window={window}: give 1 sample or more')
  archive = Archive(path)
  audio = archive.array('audio', np.int16, None)
  starts = archive.array('offsets', np.integer, None)
  if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(audio) or (np.diff(starts) <= 0).any():
    raise DataError(f'{path}: offsets does not cut the {len(audio)} samples into recordings')
  labels, takes = (archive.array(part, np.integer, len(starts) - 1) for part in ('label', 'index'))

  def windows(first_take, last_take):
    x, y = [], []
    for recording in np.flatnonzero((takes >= first_take) & (takes < last_take)):
      wave = audio[starts[recording] : starts[recording + 1]]
      # A rest of less than half a window is left out; a longer one, or a short recording, ends in silence.
      num = max(1, (2 * len(wave) + window) // (2 * window))
      wave = np.pad(wave[: num * window], (0, max(0, num * window - len(wave))))
      x.append(wave.reshape(num, window))
      y.append(np.repeat(labels[recording], num))
    if not x:
      raise DataError(f'{path}: has no takes from {first_take} on, where one split was to come from')
    return Split(np.concatenate(x).astype(np.float32) / 2**15, np.concatenate(y))

  return Dataset(
    name, windows(10, np.inf), windows(5, 10), windows(0, 5), shape=(window,), kind='audio', levels=None,
    num_classes=10, sample_rate=int(archive.array('sample_rate', np.integer)),
    provenance=f'Free Spoken Digit Dataset in windows of {window} samples that do not overlap, labels are digits; '
    'takes 0-4 of each speaker and digit are the test as its repository has it, takes 5-9 for validation, our choice',
  )  # fmt: skip


# What a set is read from, below the folder of data, and how.
_READERS: dict[str, tuple[str, Reader]] = {
  'mnist': ('mnist', _mnist),
  'stacked_mnist': ('mnist', _stacked_mnist),
  'binarized_mnist': (
    'binarized_mnist.npz',
    functools.partial(
      _binary_images,
      provenance=f'MNIST in the fixed binarisation of Salakhutdinov and Murray, their split; {_COMPARABLE}',
    ),
  ),
  'omniglot28': ('omniglot_28x28.npz', _omniglot28),
  'caltech101_silhouettes': (
    'caltech101_silhouettes_28.npz',
    functools.partial(
      _binary_images, num_classes=101,
      provenance=f'Caltech-101 silhouettes 28 x 28, official split 1 (Marlin et al. 2010), object = 1; {_COMPARABLE}',
    ),
  ),
  'cifar10_subset': ('cifar10_subset.npz', _cifar10_subset),
  'fsdd': ('fsdd.npz', _fsdd),
  **{f'uci/{table}': ('uci_rnade.npz', _uci) for table in (*_UCI_DROPPED, 'ionosphere')},
  'miniboone_valtest': ('miniboone_valtest.npz', _miniboone_valtest),
  'bsds300_patches': ('bsds300_patches.npz', _bsds300_patches),
  '20newsgroups': ('20newsgroups_bow2000.npz', _newsgroups),
}  # fmt: skip
_FIRST_FILES = dict.fromkeys(('mnist', 'stacked_mnist'), 'train-images-idx3-ubyte.gz')
NAMES = (*_READERS, 'debd/<name>')


def _find(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, Reader] | None:
  """The file or folder of a set and its reader, if the file is there."""
  if name.startswith('debd/'):
    path, reader = folder / f'{name}.npz', _debd
  elif name in _READERS:
    path, reader = folder / _READERS[name][0], _READERS[name][1]
  else:
    return None
  return (path, reader) if (path / _FIRST_FILES.get(name, '')).exists() else None


def has(name: str, folder: pathlib.Path) -> bool:
  """Whether a folder has the plain file of a set."""
  return _find(name, folder) is not None


def available(folder: pathlib.Path) -> list[str]:
  """Names of the sets that a folder has plain files of."""
  names = [*_READERS, *sorted(f'debd/{path.stem}' for path in folder.glob('debd/*.npz'))]
  return [name for name in names if has(name, folder)]


def load(name: str, folder: pathlib.Path, **options) -> Dataset:
  """Reads a data set from its plain file.

  Args:
    name: one of ``available(folder)``.
    folder: the folder of data.
    **options: ``window`` of ``'fsdd'``, samples in an example.

  Raises:
    DataError: if the file is not there, is damaged, or does not hold what it should; names the file and the problem.
  """
  found = _find(name, folder)
  if not found:
    raise DataError(f'{folder}: has no file of data set {name!r}')
  path, reader = found
  if unknown := set(options) - ({'window'} if name == 'fsdd' else set()):
    raise DataError(f'{", ".join(sorted(unknown))}: data set {name!r} has no such option')
  try:
    return check(reader(name, path, **options), str(path))
  except DataError as error:
    raise error if str(path) in str(error) else DataError(f'{path}: {error}') from error
