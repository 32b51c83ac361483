"""Readers against small files of every format, whole and damaged."""

import gzip

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data import DataError, Dataset, Split, check, files

RNG = np.random.RandomState(0)


def bits(num, dim):
  return RNG.randint(0, 2, (num, dim)).astype(np.uint8)


def labels(num, num_classes=10):
  return RNG.randint(0, num_classes, num).astype(np.uint8)


def write_idx(path, array):
  header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture(scope='module')
def mnist(tmp_path_factory):
  """A folder of MNIST's files, with 10,020 blank training images that bear their number, and 30 test images."""
  folder = tmp_path_factory.mktemp('data')
  for part, num in (('train', 10_020), ('t10k', 30)):
    images = np.zeros((num, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(num) % 256, np.arange(num) // 256
    write_idx(folder / f'mnist/{part}-images-idx3-ubyte.gz', images)
    write_idx(folder / f'mnist/{part}-labels-idx1-ubyte.gz', (np.arange(num) % 10).astype(np.uint8))
  return folder


def damaged(folder, file, change, tmp_path):
  """A copy of a folder with one file's content changed."""
  for path in folder.rglob('*.*'):
    copy = tmp_path / path.relative_to(folder)
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(change(path.read_bytes()) if path.name == file else path.read_bytes())
  return tmp_path


def test_mnist_keeps_the_last_10000_for_validation(mnist):
  dataset = data.load('mnist', data_dir=mnist)
  assert (dataset.shape, dataset.kind, dataset.levels, dataset.num_classes) == ((28, 28, 1), 'grey', 256, 10)
  numbers = [s.x[:, 0, 0, 0] + 256 * s.x[:, 0, 1, 0].astype(int) for s in dataset[1:4]]
  for found, expected in zip(numbers, (np.arange(20), np.arange(20, 10_020), np.arange(30)), strict=True):
    np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(dataset.valid.y, np.arange(20, 10_020) % 10)


def test_stacked_digits_bear_the_label_of_their_channels(mnist):
  single, stacked = data.load('mnist', data_dir=mnist), data.load('stacked_mnist', data_dir=mnist)
  assert stacked.train.x.shape == (128_000, 28, 28, 3) and stacked.num_classes == 1000
  labels = {image.tobytes(): set() for image in single.test.x}
  for image, label in zip(single.test.x, single.test.y, strict=True):
    labels[image.tobytes()].add(int(label))
  for image, label in zip(stacked.test.x[:50], stacked.test.y[:50], strict=True):
    for channel, digit in enumerate(f'{label:03}'):
      assert int(digit) in labels[np.ascontiguousarray(image[..., channel : channel + 1]).tobytes()]


@pytest.mark.parametrize(
  ('file', 'change', 'problem'),
  [
    ('train-images-idx3-ubyte.gz', lambda b: b[: len(b) // 2], 'cannot be decompressed'),
    ('t10k-labels-idx1-ubyte.gz', lambda b: b'not gzip', 'cannot be decompressed'),
    (
      'train-labels-idx1-ubyte.gz',
      lambda b: gzip.compress(b'\0\0\x0d\1' + gzip.decompress(b)[4:]),
      'IDX magic 00000801',
    ),
    ('t10k-images-idx3-ubyte.gz', lambda b: gzip.compress(gzip.decompress(b)[:-5]), r'header says \[30, 28, 28\]'),
    ('t10k-labels-idx1-ubyte.gz', lambda b: gzip.compress(gzip.decompress(b)[:6]), 'holds 0 values'),
  ],
)
def test_damaged_idx_files_are_named(mnist, tmp_path, file, change, problem):
  folder = damaged(mnist, file, change, tmp_path)
  with pytest.raises(DataError, match=f'{file}.*{problem}') as caught:
    data.load('mnist', data_dir=folder)
  assert '\n' not in str(caught.value)


def test_idx_files_that_do_not_fit_together(mnist, tmp_path):
  folder = damaged(mnist, '', None, tmp_path)
  write_idx(folder / 'mnist/t10k-labels-idx1-ubyte.gz', labels(29))
  with pytest.raises(DataError, match=r'mnist: test: labels uint8\[29\]'):
    data.load('mnist', data_dir=folder)
  (folder / 'mnist/t10k-labels-idx1-ubyte.gz').unlink()
  with pytest.raises(DataError, match='t10k-labels-idx1-ubyte.gz: this file'):
    data.load('mnist', data_dir=folder)


def packed_splits(num, **extra):
  parts = {part: bits(rows, num) for part, rows in (('train', 6), ('valid', 3), ('test', 4))}
  arrays = {f'{part}_x': np.packbits(x, axis=1) for part, x in parts.items()}
  return parts, {**arrays, **extra}


def check_splits(dataset, parts, shape):
  for split, x in zip(dataset[1:4], parts.values(), strict=True):
    assert split.x.dtype == np.uint8
    np.testing.assert_array_equal(split.x, x.reshape(-1, *shape))
  assert (dataset.shape, dataset.kind, dataset.levels) == (shape, 'binary', 2)


def test_packed_images(tmp_path):
  parts, arrays = packed_splits(784)
  np.savez(tmp_path / 'binarized_mnist.npz', **arrays)
  dataset = data.load('binarized_mnist', data_dir=tmp_path)
  check_splits(dataset, parts, (28, 28, 1))
  assert dataset.train.y is None and dataset.num_classes is None

  names = np.array([f'class {i}' for i in range(101)])
  ys = {f'{part}_y': labels(len(x), 101) for part, x in parts.items()}
  np.savez(tmp_path / 'caltech101_silhouettes_28.npz', class_names=names, **ys, **arrays)
  dataset = data.load('caltech101_silhouettes', data_dir=tmp_path)
  check_splits(dataset, parts, (28, 28, 1))
  np.testing.assert_array_equal(dataset.test.y, ys['test_y'])
  assert dataset.num_classes == 101 and dataset.class_names[7] == 'class 7'


def test_packed_vectors_of_a_width_that_is_no_multiple_of_eight(tmp_path):
  (tmp_path / 'debd').mkdir()
  parts, arrays = packed_splits(17, dim=np.int32(17))
  np.savez(tmp_path / 'debd/some.npz', **arrays)
  check_splits(data.load('debd/some', data_dir=tmp_path), parts, (17,))
  assert 'debd/some' in data.available(tmp_path)
  np.savez(tmp_path / 'debd/web_own_split.npz', **arrays)
  assert 'not comparable' in data.load('debd/web_own_split', data_dir=tmp_path).provenance


def test_rcv1_is_cut_from_its_validation_part(tmp_path):
  (tmp_path / 'debd').mkdir()
  rows = (np.arange(10_000)[:, None] >> np.arange(16)) % 2
  np.savez(tmp_path / 'debd/rcv1_valid_only.npz', valid_x=np.packbits(rows, axis=1), dim=np.int32(16))
  dataset = data.load('debd/rcv1_valid_only', data_dir=tmp_path)
  numbers = [split.x @ (1 << np.arange(16)) for split in dataset[1:4]]
  assert [len(part) for part in numbers] == [8000, 1000, 1000]
  np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(10_000))
  # A prefix of the rows would have a mean far from that of all.
  assert all(abs(part.mean() - 4999.5) < 4 * 2887 / np.sqrt(len(part)) for part in numbers)
  assert 'not comparable' in dataset.provenance


def test_grey_and_colour_archives(tmp_path):
  grey = {f'{part}_x': RNG.randint(0, 256, (5, 28, 28)).astype(np.uint8) for part in ('train', 'valid', 'test')}
  ys = {f'{part}_y': np.arange(5, dtype=np.int16) * 400 for part in ('train', 'valid', 'test')}
  np.savez(tmp_path / 'omniglot_28x28.npz', **grey, **ys)
  dataset = data.load('omniglot28', data_dir=tmp_path)
  assert (dataset.shape, dataset.kind, dataset.levels, dataset.num_classes) == ((28, 28, 1), 'grey', 256, 1623)
  np.testing.assert_array_equal(dataset.valid.x[..., 0], grey['valid_x'])

  x = np.zeros((20, 32, 32, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
  names = np.array(list('abcdefghij'))
  arrays = {'train_x': x, 'train_y': np.arange(20) % 10, 'test_x': x, 'test_y': labels(20), 'class_names': names}
  np.savez(tmp_path / 'cifar10_subset.npz', **arrays)
  dataset = data.load('cifar10_subset', data_dir=tmp_path)
  assert [len(split.x) for split in dataset[1:4]] == [18, 2, 20] and dataset.shape == (32, 32, 3)
  np.testing.assert_array_equal(dataset.train.x[:, 0, 0, 0] % 10, dataset.train.y)
  both = np.concatenate([dataset.train.x, dataset.valid.x])[:, 0, 0, 0]
  np.testing.assert_array_equal(np.sort(both), np.arange(20))


PARKINSONS = 'subject# age sex test_time Jitter:RAP Jitter:DDP Shimmer Shimmer:DDA NHR'.split()


@pytest.fixture
def uci(tmp_path):
  wine, other = RNG.standard_normal((50, 4)), RNG.standard_normal((50, 9))
  wine[:, 3] = np.arange(50) % 11
  ionosphere = RNG.standard_normal((50, 34))
  boston = 'CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT MEDV'.split()
  np.savez(
    tmp_path / 'uci_rnade.npz', red_wine_x=wine, red_wine_cols=np.array(['acid', 'sugar', 'pH', 'quality']),
    parkinsons_x=other, parkinsons_cols=np.array(PARKINSONS), ionosphere_x=ionosphere, ionosphere_y=labels(50, 2),
    boston_housing_x=RNG.standard_normal((50, 14)), boston_housing_cols=np.array(boston),
  )  # fmt: skip
  return tmp_path, wine, other, ionosphere


def test_tables_lose_the_columns_that_rnade_drops(uci):
  folder, wine, other, ionosphere = uci

  def rows(name):
    dataset = data.load(f'uci/{name}', data_dir=folder)
    assert [len(split.x) for split in dataset[1:4]] == [40, 5, 5] and dataset.kind == 'real'
    return dataset, np.concatenate([split.x for split in dataset[1:4]])

  def assert_same_rows(found, expected):
    found, expected = (a[np.argsort(a[:, 0])] for a in (found, expected.astype(np.float32)))
    np.testing.assert_array_equal(found, expected)

  dataset, x = rows('red_wine')
  assert_same_rows(x, wine[:, :3])
  assert dataset.feature_names == ('acid', 'sugar', 'pH')
  by_value = dict(zip(wine[:, 0].astype(np.float32), wine[:, 3], strict=True))
  np.testing.assert_array_equal(dataset.test.y, [by_value[value] for value in dataset.test.x[:, 0]])
  dataset, x = rows('parkinsons')
  assert_same_rows(x, other[:, [3, 8]])
  assert dataset.feature_names == ('test_time', 'NHR')
  assert_same_rows(rows('ionosphere')[1], ionosphere[:, 2:])
  assert rows('boston_housing')[0].feature_names == (
    'CRIM', 'ZN', 'INDUS', 'NOX', 'RM', 'AGE', 'DIS', 'PTRATIO', 'LSTAT', 'MEDV',
  )  # fmt: skip
  again = rows('red_wine')[1]
  np.testing.assert_array_equal(again, rows('red_wine')[1])


def test_nan_in_a_table_is_refused(uci):
  folder, wine, *_ = uci
  wine[3, 1] = np.nan
  np.savez(folder / 'uci_rnade.npz', red_wine_x=wine, red_wine_cols=np.array(['acid', 'sugar', 'pH', 'quality']))
  with pytest.raises(DataError, match=r'uci_rnade.npz: \w+: example \d+ has the value nan where a finite number'):
    data.load('uci/red_wine', data_dir=folder)
  with pytest.raises(DataError, match="uci_rnade.npz: has no array 'parkinsons_x'"):
    data.load('uci/parkinsons', data_dir=folder)


def test_miniboone_learns_from_its_validation_part(tmp_path):
  valid, test = RNG.standard_normal((30, 43)).astype(np.float32), RNG.standard_normal((4, 43)).astype(np.float32)
  np.savez(tmp_path / 'miniboone_valtest.npz', valid_x=valid, test_x=test)
  dataset = data.load('miniboone_valtest', data_dir=tmp_path)
  np.testing.assert_array_equal(dataset.test.x, test)
  both = np.concatenate([dataset.train.x, dataset.valid.x])
  np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(valid, axis=0))
  assert len(dataset.valid.x) == 3


def test_patches_are_63_numbers_about_their_mean(tmp_path):
  pixels = {f'{part}_x': RNG.randint(0, 256, (7, 8, 8)).astype(np.uint8) for part in ('train', 'valid', 'test')}
  np.savez(tmp_path / 'bsds300_patches.npz', **pixels)
  dataset = data.load('bsds300_patches', data_dir=tmp_path)
  flat = pixels['test_x'].reshape(7, 64) / 256.0
  # The noise moves a pixel by up to 1/256, and the mean too.
  assert np.abs(dataset.test.x - (flat - flat.mean(1, keepdims=True))[:, :63]).max() <= 1 / 256
  assert (dataset.shape, dataset.kind) == ((63,), 'real')
  np.testing.assert_array_equal(data.load('bsds300_patches', data_dir=tmp_path).train.x, dataset.train.x)


def newsgroups(tmp_path, **changes):
  counts = RNG.poisson(0.5, (60, 6)).astype(np.uint16)
  counts[4] = 0
  arrays = {'vocab': np.array(list('abcdef'))}
  for part, x in (('train', counts[:40]), ('test', counts[40:])):
    rows, words = np.nonzero(x)
    arrays[f'{part}_indptr'] = np.concatenate([[0], np.cumsum((x > 0).sum(1))]).astype(np.int32)
    arrays[f'{part}_indices'], arrays[f'{part}_counts'] = words.astype(np.uint16), x[rows, words]
    arrays[f'{part}_y'] = (np.arange(len(x)) % 20).astype(np.uint8)
  np.savez(tmp_path / '20newsgroups_bow2000.npz', **{**arrays, **changes})
  return counts


def test_counts_of_words(tmp_path):
  counts = newsgroups(tmp_path)
  dataset = data.load('20newsgroups', data_dir=tmp_path)
  assert dataset.kind == 'counts' and dataset.feature_names == tuple('abcdef') and dataset.num_classes == 20
  assert [len(split.x) for split in dataset[1:4]] == [36, 4, 20]
  np.testing.assert_array_equal(dataset.test.x, counts[40:])
  both = np.concatenate([dataset.train.x, dataset.valid.x])
  np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(counts[:40], axis=0))
  newsgroups(tmp_path, test_indices=np.full(40, 9, np.uint16), test_counts=np.ones(40, np.uint16),
             test_indptr=np.array([0, 40], np.int32))  # fmt: skip
  with pytest.raises(DataError, match='test_indices has word 9 of a vocabulary of 6'):
    data.load('20newsgroups', data_dir=tmp_path)
  newsgroups(tmp_path, train_indptr=np.array([0, 3], np.int32))
  with pytest.raises(DataError, match='train_indptr does not cut'):
    data.load('20newsgroups', data_dir=tmp_path)


def test_recordings_become_windows(tmp_path):
  lengths = [5, 8, 9, 14, 3, 20]
  takes = np.array([0, 7, 10, 11, 4, 49], np.uint8)
  audio = np.arange(1, sum(lengths) + 1).astype(np.int16)
  arrays = {
    'audio': audio, 'offsets': np.concatenate([[0], np.cumsum(lengths)]), 'label': np.arange(6, dtype=np.uint8),
    'index': takes, 'sample_rate': np.int32(8000),
  }  # fmt: skip
  np.savez(tmp_path / 'fsdd.npz', **arrays)
  dataset = data.load('fsdd', data_dir=tmp_path, window=8)
  assert (dataset.kind, dataset.shape, dataset.sample_rate) == ('audio', (8,), 8000)
  scaled = lambda rows: np.array(rows, np.float32) / 2**15
  np.testing.assert_array_equal(dataset.test.x, scaled([[1, 2, 3, 4, 5, 0, 0, 0], [37, 38, 39, 0, 0, 0, 0, 0]]))
  np.testing.assert_array_equal(dataset.test.y, [0, 4])
  np.testing.assert_array_equal(dataset.valid.x, scaled([range(6, 14)]))
  # 9 samples make one window, 14 make two of which the last ends in silence, 20 make three (20 / 8 = 2.5).
  np.testing.assert_array_equal(dataset.train.y, [2, 3, 3, 5, 5, 5])
  np.testing.assert_array_equal(dataset.train.x[2], scaled([31, 32, 33, 34, 35, 36, 0, 0]))
  np.savez(tmp_path / 'fsdd.npz', **{**arrays, 'offsets': np.array([0, 5, 4, 9, 12, 30, 59])})
  with pytest.raises(DataError, match='offsets does not cut the 59 samples'):
    data.load('fsdd', data_dir=tmp_path)
  with pytest.raises(DataError, match='window=0'):
    data.load('fsdd', data_dir=tmp_path, window=0)


@pytest.mark.parametrize(
  ('write', 'problem'),
  [
    (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), 'not a readable .npz'),
    (lambda path: path.write_bytes(b'hello'), 'not a readable .npz'),
    (lambda path: path.write_bytes(b''), 'not a readable .npz'),
    (lambda path: np.savez(path, train_x=np.zeros((5, 98), np.uint8)), "has no array 'valid_x'"),
    (lambda path: np.savez(path, train_x=bits(5, 784)), r'train_x is uint8\[5, 784\] where uint8\[N, 98\]'),
    (lambda path: np.savez(path, train_x=np.zeros((5, 98))), r'train_x is float64\[5, 98\]'),
    (lambda path: np.savez(path, train_x=np.array([{}])), "array 'train_x' cannot be read"),
    (
      lambda path: np.savez(path, **{f'{part}_x': np.zeros((0, 98), np.uint8) for part in ('train', 'valid', 'test')}),
      'train: holds no example',
    ),
  ],
)
def test_damaged_archives_are_named(tmp_path, write, problem):
  path = tmp_path / 'binarized_mnist.npz'
  np.savez(path, **packed_splits(784)[1])
  write(path)
  with pytest.raises(DataError, match=f'binarized_mnist.npz.*{problem}') as caught:
    data.load('binarized_mnist', data_dir=tmp_path)
  assert '\n' not in str(caught.value)


def test_bytes_changed_within_an_archive_are_found(tmp_path):
  path = tmp_path / 'binarized_mnist.npz'
  np.savez_compressed(path, **packed_splits(784)[1])
  content = bytearray(path.read_bytes())
  content[300] ^= 0xFF
  path.write_bytes(content)
  with pytest.raises(DataError, match="array 'train_x' cannot be read, the file is damaged"):
    data.load('binarized_mnist', data_dir=tmp_path)


def small(kind, x, y=None, levels=None, num_classes=None):
  split = Split(x, y)
  return Dataset('small', split, split, split, x.shape[1:], kind, levels, 'test', num_classes)


@pytest.mark.parametrize(
  ('dataset', 'problem'),
  [
    (small('binary', np.array([[0, 1], [1, 2]], np.uint8), levels=2), 'example 1 has the value 2 where 0 or 1'),
    (small('grey', np.array([[0, 17]], np.uint8), levels=17), 'value 17 where an integer from 0 to 16'),
    (small('grey', np.array([[0.5]], np.float32), levels=17), 'type float32 where integers'),
    (small('counts', np.array([[3, -1]])), 'example 0 has the value -1 where a count'),
    (small('real', np.array([[0, np.inf]], np.float32)), 'value inf where a finite number'),
    (small('real', np.zeros((2, 2))), 'type float64 where float32'),
    (small('audio', np.array([[0.5, 1.5]], np.float32)), 'value 1.5 where a value from -1 to 1'),
    (small('real', np.zeros((2, 2), np.float32), labels(3)), r'labels uint8\[3\] where integers \[2\]'),
    (small('real', np.zeros((1, 2), np.float32), np.array([3]), num_classes=3), 'labels from 3 to 3 for num_classes=3'),
    (small('real', np.zeros((1, 2), np.float32))._replace(shape=(3,)), r'shape \(2,\) where \(3,\) was expected'),
  ],
)
def test_values_that_a_kind_does_not_have_are_refused(dataset, problem):
  with pytest.raises(DataError, match=f'small: train: .*{problem}'):
    check(dataset)
  with pytest.raises(DataError, match='a/file.npz: train'):
    check(dataset, 'a/file.npz')


def test_a_cut_is_a_permutation_and_fixed():
  parts = files.cut(np.arange(100), np.arange(100), 10, 30)
  assert [len(part.x) for part in parts] == [10, 30, 60]
  np.testing.assert_array_equal(np.sort(np.concatenate([part.x for part in parts])), np.arange(100))
  for part in parts:
    np.testing.assert_array_equal(part.x, part.y)
  # Written down once: the split of published numbers must not move.
  np.testing.assert_array_equal(parts[0].x, [26, 86, 2, 55, 75, 93, 16, 73, 54, 95])
  assert not any((np.diff(part.x) > 0).all() for part in parts)
  with pytest.raises(DataError, match='3 examples are too few'):
    files.cut(np.arange(3), None, 2, 1)
