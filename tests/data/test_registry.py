import numpy as np
import pytest

from gm_jax import data
from gm_jax.data import DataError, check, signals, toy


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'none'))
  monkeypatch.delenv('GM_JAX_DATA_DIR', raising=False)


def test_digits():
  digits = check(data.load('digits'))
  assert (digits.shape, digits.kind, digits.levels, digits.num_classes) == ((8, 8, 1), 'grey', 17, 10)
  assert [len(split.x) for split in digits[1:4]] == [1297, 250, 250]
  assert all(split.x.dtype == np.uint8 for split in digits[1:4])
  whole = np.concatenate([split.x for split in digits[1:4]]).reshape(-1, 64)
  from sklearn.datasets import load_digits

  bunch = load_digits()
  rows = lambda x, y: sorted(map(tuple, np.column_stack([x, y]).astype(int)))
  labels = np.concatenate([split.y for split in digits[1:4]])
  assert rows(whole, labels) == rows(bunch.data, bunch.target)
  # Every part has about a tenth of each digit.
  for split in digits[1:4]:
    counts = np.bincount(split.y, minlength=10)
    assert (np.abs(counts - len(split.y) / 10) < 4 * np.sqrt(len(split.y) * 0.09)).all()
  np.testing.assert_array_equal(data.load('digits', seed=5).test.x, digits.test.x)


def write_archive(folder):
  parts = {f'{part}_x': np.packbits(np.eye(3, 16, dtype=np.uint8), axis=1) for part in ('train', 'valid', 'test')}
  (folder / 'debd').mkdir()
  np.savez(folder / 'debd/nltcs.npz', dim=np.int32(16), **parts)


def test_the_folder_comes_from_the_argument_or_the_environment(tmp_path, monkeypatch):
  write_archive(tmp_path)
  assert data.load('debd/nltcs', data_dir=str(tmp_path)).shape == (16,)
  assert data.available(tmp_path) == ['digits', *toy.NAMES, *signals.NAMES, 'debd/nltcs']
  monkeypatch.setenv('GM_JAX_DATA_DIR', str(tmp_path))
  assert data.load('debd/nltcs').shape == (16,)
  assert 'debd/nltcs' in data.available()
  with pytest.raises(DataError, match="data_dir='/nowhere/at/all': there is no such folder"):
    data.load('debd/nltcs', data_dir='/nowhere/at/all')
  monkeypatch.setenv('GM_JAX_DATA_DIR', '/nowhere/at/all')
  with pytest.raises(DataError, match=r"\$GM_JAX_DATA_DIR='/nowhere/at/all': there is no such folder"):
    data.load('debd/nltcs')


@pytest.mark.parametrize(
  'name', ['no_such_set', 'debd/nltcs', 'mnist', 'uci/red_wine', '', '../mnist', 'a/b/c', 'debd/../x']
)
def test_a_set_that_cannot_be_had_lists_those_that_can(name, tmp_path):
  for folder in (None, tmp_path):
    with pytest.raises(DataError) as caught:
      data.load(name, data_dir=folder)
    message = str(caught.value)
    assert '\n' not in message and repr(name) in message
    for at_hand in ('digits', *toy.NAMES, *signals.NAMES):
      assert at_hand in message
    assert '--data_dir' in message and 'GM_JAX_DATA_DIR' in message
  assert isinstance(caught.value, ValueError)


def test_the_list_names_the_files_that_are_there(tmp_path):
  write_archive(tmp_path)
  with pytest.raises(DataError, match='Data sets at hand: digits, .*, debd/nltcs'):
    data.load('debd/nltc', data_dir=tmp_path)


@pytest.mark.parametrize(
  ('name', 'option'), [('digits', 'num_train'), ('rings', 'size'), ('rings', 'window'), ('debd/nltcs', 'window')]
)
def test_options_that_a_set_does_not_have_are_refused(name, option, tmp_path):
  write_archive(tmp_path)
  with pytest.raises(DataError, match=f'{option}.*has no such option'):
    data.load(name, data_dir=tmp_path, **{option: 3})
