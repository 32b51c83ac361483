"""The whole way of tensorflow-datasets, offline: a builder prepares files, and ``load`` finds them by name."""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gm_jax import data
from gm_jax.data import DataError, batches, transforms

NUM_TRAIN, NUM_TEST = 50, 20
SIZES = {'train': NUM_TRAIN, 'test': NUM_TEST}


def images(part):
  return np.random.RandomState(len(part)).randint(0, 256, (SIZES[part], 6, 5, 1), np.uint8)


class TinyImages(tfds.core.GeneratorBasedBuilder):
  """Grey images with labels, in two parts."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'number': np.int64,
          'image': tfds.features.Image(shape=(6, 5, 1)),
          'label': tfds.features.ClassLabel(names=['a', 'b', 'c']),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {part: self._generate_examples(part) for part in ('train', 'test')}

  def _generate_examples(self, part):
    for i, image in enumerate(images(part)):
      png = io.BytesIO()  # an encoded image passes through; to encode an array, the feature would call TensorFlow
      Image.fromarray(image[..., 0]).save(png, 'PNG')
      png.seek(0)
      yield i, {'number': i, 'image': png, 'label': i % 3}


class TinyVectors(tfds.core.GeneratorBasedBuilder):
  """Vectors without labels in three parts, and in a configuration per type of number."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'first'}
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ('bool', 'float64', 'int64', 'uint8')]

  def _info(self):
    dtype = np.dtype(self.builder_config.name)
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict({'x': tfds.features.Tensor(shape=(3,), dtype=dtype)})
    )

  def _split_generators(self, dl_manager):
    return {part: self._generate_examples(i) for i, part in enumerate(('train', 'validation', 'test'))}

  def _generate_examples(self, part):
    dtype = self.builder_config.name
    for i in range(4):
      x = {'uint8': [0, 1, i % 2], 'bool': [True, False, i == part]}.get(dtype, [i, part, 7])
      yield i, {'x': np.array(x, dtype)}


@contextlib.contextmanager
def silent():
  """Without the notes that preparing prints."""
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    yield


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('prepared')
  with silent():
    TinyImages(data_dir=folder, file_format='array_record').download_and_prepare()
    for config in TinyVectors.BUILDER_CONFIGS:
      TinyVectors(config=config.name, data_dir=folder, file_format='array_record').download_and_prepare()
  assert 'tensorflow' not in sys.modules
  return folder


@pytest.fixture(autouse=True)
def no_default_folder(monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'none'))
  monkeypatch.delenv('GM_JAX_DATA_DIR', raising=False)


@pytest.mark.parametrize('name', ['tiny_images', 'tfds:tiny_images', 'tfds:tiny_images:1.0.0'])
def test_a_prepared_set_loads_by_name(prepared, name):
  dataset = data.load(name, data_dir=prepared)
  assert (dataset.kind, dataset.levels, dataset.shape) == ('grey', 256, (6, 5, 1))
  assert (dataset.num_classes, dataset.class_names) == (3, ('a', 'b', 'c'))
  np.testing.assert_array_equal(dataset.test.x, images('test'))
  np.testing.assert_array_equal(dataset.test.y, np.arange(NUM_TEST) % 3)
  # The validation part is a tenth of the training part.
  assert [len(dataset.train.x), len(dataset.valid.x)] == [NUM_TRAIN - NUM_TRAIN // 10, NUM_TRAIN // 10]
  joined = {image.tobytes(): label for part in dataset[1:3] for image, label in zip(*part, strict=True)}
  assert joined == {image.tobytes(): i % 3 for i, image in enumerate(images('train'))}
  assert 'valid cut by us' in dataset.provenance


def test_the_default_folder_is_looked_into(prepared, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
  np.testing.assert_array_equal(data.load('tiny_images').test.x, images('test'))
  assert 'tiny_images' in data.available()


@pytest.mark.parametrize(
  ('config', 'kind', 'dtype', 'row'),
  [
    ('bool', 'binary', np.uint8, [1, 0, 0]),
    ('uint8', 'binary', np.uint8, [0, 1, 1]),
    ('int64', 'counts', np.int32, [3, 1, 7]),
    ('float64', 'real', np.float32, [3, 1, 7]),
  ],
)
def test_kinds_follow_the_type_and_the_values(prepared, config, kind, dtype, row):
  dataset = data.load(f'tiny_vectors/{config}', data_dir=prepared)
  assert dataset.kind == kind and dataset.train.y is None and 'its own parts' in dataset.provenance
  assert dataset.valid.x.dtype == dtype and dataset.valid.x.shape == (4, 3)
  assert row in dataset.valid.x.tolist()


def test_several_configurations_have_to_be_told_apart(prepared):
  with pytest.raises(DataError, match='name one of tiny_vectors/bool, tiny_vectors/float64'):
    data.load('tiny_vectors', data_dir=prepared)


def test_a_source_reads_what_the_array_holds(prepared):
  array, lazy = (data.load('tiny_images', data_dir=prepared, lazy=lazy) for lazy in (False, True))
  for one, other in zip(array[1:4], lazy[1:4], strict=True):
    assert len(other.x) == len(one.x) and other.x.shape == one.x.shape and other.x.dtype == one.x.dtype
    np.testing.assert_array_equal(other.y, one.y)
    np.testing.assert_array_equal(other.x[:], one.x)
  source, x = lazy.train.x, array.train.x
  for indices in (3, np.int32(4), np.array([5, 0, 5]), slice(2, 30, 7), np.array([], int), -1):
    np.testing.assert_array_equal(source[indices], x[indices])
  with pytest.raises(IndexError):
    source[len(x)]


def test_a_stream_equals_the_array_in_memory(prepared):
  """Training from files that do not fit in memory sees the same batches, in the same order."""
  array, source = (data.load('tiny_images', data_dir=prepared, lazy=lazy).train.x for lazy in (False, True))
  key = jax.random.key(0)
  rows = np.asarray(batches.batch_indices(key, 7, 20, len(array), 8))
  for row, batch in zip(rows, batches.prefetch(lambda row: source[row], rows), strict=True):
    np.testing.assert_array_equal(batch, array[row])


def test_training_from_prepared_files(prepared):
  """A Bernoulli model of thresholded pixels, by gradient steps, reaches the maximum of the likelihood."""
  x = transforms.binarise(data.load('tiny_images', data_dir=prepared), 'threshold').train.x.astype(np.float32)

  def loss(logits, batch):
    return jnp.mean(jax.nn.softplus(logits) - batch * logits)

  @jax.jit
  def run(logits):
    def step(logits, i):
      row = batches.batch_indices(jax.random.key(1), i, 1, len(x), len(x))[0]
      return logits - 100 * jax.grad(loss)(logits, jnp.asarray(x)[row]), None

    return jax.lax.scan(step, logits, jnp.arange(300))[0]

  logits = run(jnp.zeros(x.shape[1:]))
  np.testing.assert_allclose(jax.nn.sigmoid(logits), x.mean(0), atol=1e-3)


def test_a_stock_set_that_is_not_prepared(tmp_path):
  with pytest.raises(DataError, match='stock set of tensorflow-datasets') as caught:
    data.load('fashion_mnist', data_dir=tmp_path)
  message = str(caught.value)
  assert '\n' not in message and 'digits' in message
  call = f"tfds.builder('fashion_mnist', file_format='array_record', data_dir={str(tmp_path)!r}).download_and_prepare()"
  assert call in message and "pip install 'gm_jax[tf]'" in message
  # An explicit tfds:mnist does not mean the plain file.
  with pytest.raises(DataError, match='download_and_prepare'):
    data.load('tfds:mnist', data_dir=tmp_path)


def _train_file(folder):
  return next(folder.rglob('tiny_images-train*'))


@pytest.mark.parametrize(
  'damage',
  [
    lambda folder: os.truncate(_train_file(folder), _train_file(folder).stat().st_size // 2),
    lambda folder: os.truncate(_train_file(folder), 0),
    lambda folder: _train_file(folder).unlink(),
    lambda folder: next(folder.rglob('dataset_info.json')).write_text('{'),
    lambda folder: next(folder.rglob('features.json')).write_text('{}'),
  ],
)
def test_damaged_folders_are_named(prepared, tmp_path, damage):
  folder = tmp_path / 'copy'
  shutil.copytree(prepared / 'tiny_images', folder / 'tiny_images')
  damage(folder)
  with pytest.raises(DataError, match=r'copy/tiny_images/1\.0\.0: ') as caught:
    data.load('tiny_images', data_dir=folder)
  assert '\n' not in str(caught.value)


def test_another_file_format_is_told_apart(prepared, tmp_path):
  shutil.copytree(prepared / 'tiny_images', tmp_path / 'tiny_images')
  info = next(tmp_path.rglob('dataset_info.json'))
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(DataError, match="prepare it again with file_format='array_record'"):
    data.load('tiny_images', data_dir=tmp_path)


def test_loading_is_quiet_and_needs_no_tensorflow(prepared):
  """In a process of its own, that knows nothing of the builder."""
  code = (
    'import sys; from gm_jax import data; '
    f"assert not {{'tensorflow_datasets', 'sklearn', 'tensorflow'}} & set(sys.modules); "
    f'x = data.load("tiny_images", data_dir={str(prepared)!r}).test.x; '
    "assert 'tensorflow' not in sys.modules; print(x.sum())"
  )
  done = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(images('test').sum()), '')


def test_the_log_level_is_left_as_it_was(prepared):
  before = logging.getLogger('absl').level
  data.load('tiny_images', data_dir=prepared)
  assert logging.getLogger('absl').level == before
