"""Known failures of a sampler, made from real images: what a score of samples must react to.

Each takes real images that nobody else holds (``source``) and their labels, or training images, and gives as many
"samples" as there are source images.
"""

from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
  """Real images, intensities from 0 to 1."""

  images: np.ndarray  # [N, H, W, C], in none of the other sets
  labels: np.ndarray  # [N]
  train: np.ndarray  # [T, H, W, C]


def drop_modes(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Half of the classes are missing; the images of the others are repeated to make up the number."""
  classes = np.unique(source.labels)
  kept = np.flatnonzero(np.isin(source.labels, classes[: (len(classes) + 1) // 2]))
  return source.images[np.resize(rng.permutation(kept), len(source.images))]


def repeat_training(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Training images, few of them: each comes ten times."""
  num = len(source.images)
  return source.train[np.resize(rng.choice(len(source.train), max(num // 10, 1), replace=False), num)]


def copy_training(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Different training images, learnt by heart."""
  num = len(source.images)
  return source.train[np.resize(rng.permutation(len(source.train)), num)]


def add_noise(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Gaussian noise of standard deviation 0.15 on every pixel."""
  return np.clip(source.images + 0.15 * rng.standard_normal(source.images.shape), 0, 1)


def shift(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Everything lies lower by a fourteenth of the height, a pixel at least."""
  del rng
  step = max(1, round(source.images.shape[1] / 14))
  moved = np.roll(source.images, step, axis=1)
  moved[:, :step] = 0
  return moved


def truncate(rng: np.random.Generator, source: Source) -> np.ndarray:
  """Only what is typical: of each class the half nearest to its mean, repeated."""
  kept = []
  for label in np.unique(source.labels):
    rows = np.flatnonzero(source.labels == label)
    distance = ((source.images[rows] - source.images[rows].mean(0)) ** 2).sum((1, 2, 3))
    kept.append(rows[np.argsort(distance)[: (len(rows) + 1) // 2]])
  return source.images[np.resize(rng.permutation(np.concatenate(kept)), len(source.images))]


def invent_classes(rng: np.random.Generator, source: Source) -> np.ndarray:
  """A fifth of the images are two of different classes in one, the brighter pixel of both."""
  images = source.images.copy()
  for row in rng.choice(len(images), len(images) // 5, replace=False):
    other = rng.choice(np.flatnonzero(source.labels != source.labels[row]))
    images[row] = np.maximum(source.images[row], source.images[other])
  return images


CORRUPTIONS = {
  'drop modes': drop_modes,
  'repeat training': repeat_training,
  'copy training': copy_training,
  'noise': add_noise,
  'shift': shift,
  'truncate': truncate,
  'invent classes': invent_classes,
}
