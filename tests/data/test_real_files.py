"""The real files, where ``GM_JAX_DATA_DIR`` names a folder that has them: sizes, means, and a known likelihood."""

import os
import pathlib

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data import files

FOLDER = os.environ.get('GM_JAX_DATA_DIR', '')

# Examples in train, valid and test.
SIZES = {
  'mnist': (50_000, 10_000, 10_000),
  'binarized_mnist': (50_000, 10_000, 10_000),
  'omniglot28': (23_000, 1_345, 8_115),
  'caltech101_silhouettes': (4_100, 2_264, 2_307),
  'cifar10_subset': (9_000, 1_000, 2_000),
  'uci/red_wine': (1_281, 159, 159),
  'uci/white_wine': (3_920, 489, 489),
  'uci/parkinsons': (4_701, 587, 587),
  'uci/ionosphere': (281, 35, 35),
  'uci/boston_housing': (406, 50, 50),
  'miniboone_valtest': (2_956, 328, 3_648),
  'bsds300_patches': (100_000, 10_000, 20_000),
  '20newsgroups': (10_268, 1_000, 7_505),
}
SHAPES = {
  'uci/red_wine': (11,), 'uci/white_wine': (11,), 'uci/parkinsons': (15,), 'uci/ionosphere': (32,),
  'uci/boston_housing': (10,), 'miniboone_valtest': (43,), 'bsds300_patches': (63,), '20newsgroups': (2000,),
  'cifar10_subset': (32, 32, 3),
}  # fmt: skip

# Mean test log-likelihood in nats of independent Bernoullis fitted with add-one smoothing.
INDEPENDENT = {
  'binarized_mnist': -205.79, 'caltech101_silhouettes': -380.05, 'debd/ad': -63.82, 'debd/adult': -25.77,
  'debd/bbc': -277.10, 'debd/bnetflix': -64.56, 'debd/book': -41.12, 'debd/c20ng': -172.39, 'debd/connect4': -35.34,
  'debd/cr52': -108.12, 'debd/cwebkb': -179.98, 'debd/dna': -100.39, 'debd/kdd': -2.45, 'debd/kosarek': -13.33,
  'debd/moviereview': -346.90, 'debd/msnbc': -6.77, 'debd/msweb': -11.36, 'debd/mushrooms': -34.23,
  'debd/nips': -294.80, 'debd/nltcs': -9.23, 'debd/ocr_letters': -63.74, 'debd/pumsb_star': -75.86,
  'debd/tmovie': -83.61, 'debd/voting': -738.22, 'debd/web_own_split': -39.76,
}  # fmt: skip


def load(name, **options):
  if not FOLDER or not files.has(name, pathlib.Path(FOLDER)):
    pytest.skip(f'GM_JAX_DATA_DIR has no {name}')
  return data.load(name, **options)


@pytest.mark.parametrize('name', SIZES)
def test_sizes(name):
  dataset = load(name)
  assert tuple(len(split.x) for split in dataset[1:4]) == SIZES[name]
  assert dataset.shape == SHAPES.get(name, (28, 28, 1))


@pytest.mark.parametrize('name', INDEPENDENT)
def test_independent_bernoullis_reach_the_known_likelihood(name):
  dataset = load(name)
  train, test = (split.x.reshape(len(split.x), -1) for split in (dataset.train, dataset.test))
  mean = (train.sum(0) + 1) / (len(train) + 2)
  # The mean of the test examples is all that the mean likelihood depends on.
  ones = test.mean(0)
  assert round(float((ones * np.log(mean) + (1 - ones) * np.log1p(-mean)).sum()), 2) == INDEPENDENT[name]


def test_mnist_means_and_labels():
  dataset = load('mnist')
  x = np.concatenate([dataset.train.x, dataset.valid.x])
  assert (round(x.mean() / 255, 4), round(x.std() / 255, 4)) == (0.1307, 0.3081)
  labels = np.concatenate([dataset.train.y, dataset.valid.y])
  assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_the_means_of_the_other_images():
  assert round(load('omniglot28').train.x.mean() / 255, 3) in (0.080, 0.081)
  for split, mean in zip(load('binarized_mnist')[1:4], (0.1306, 0.1311, 0.1325), strict=True):
    assert round(split.x.mean(), 4) == mean
  for split, mean in zip(load('caltech101_silhouettes')[1:4], (0.449, 0.464, 0.461), strict=True):
    assert round(split.x.mean(), 3) == mean


def test_parkinsons_has_no_pair_above_98_per_cent():
  dataset = load('uci/parkinsons')
  correlations = np.corrcoef(np.concatenate([split.x for split in dataset[1:4]]).T) - np.eye(15)
  assert np.abs(correlations).max() < 0.98


def test_patches_have_mean_zero():
  x = load('bsds300_patches').test.x
  # The pixel left out is minus the sum of the others, and as small as they are.
  assert np.abs(x.sum(1)).max() < 1 and abs(x.mean()) < 1e-3


def test_words_and_documents():
  dataset = load('20newsgroups')
  assert dataset.train.x.dtype == np.uint16 and len(dataset.feature_names) == 2000
  assert 80 < dataset.train.x.sum(1).mean() < 120
  assert len(np.unique(dataset.valid.y)) == 20


def test_spoken_digits():
  dataset = load('fsdd', window=20_000)
  assert [len(split.x) for split in dataset[1:4]] == [2400, 300, 300]
  assert np.bincount(dataset.test.y).tolist() == [30] * 10
  assert dataset.sample_rate == 8000
