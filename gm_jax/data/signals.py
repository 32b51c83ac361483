"""Signals drawn from a key: series of a network whose causes are known, and tones.

``network`` is a stationary vector autoregression x_t = A x_(t-1) + s e_t of six channels, whose exact density and true
graph (which entries of A are not zero) are at hand. ``tones`` are plucked notes of eight pitches, in 16-bit samples.
"""

import math

import numpy as np
from scipy import linalg

from gm_jax.data.dataset import DataError, Dataset, Split

NAMES = ('network', 'tones')
NUM_STEPS, NOISE = 24, 0.5
# Row i holds what drives channel i: a chain 0 -> 1 -> 2, a fork 3 -> 4 and 3 -> 5, a loop 2 -> 3, and 5 -> 0.
COUPLINGS = np.diag(np.full(6, 0.3))
for _target, _source, _weight in ((1, 0, 0.6), (2, 1, -0.6), (3, 2, 0.5), (4, 3, 0.6), (5, 3, -0.5), (0, 5, 0.4)):
  COUPLINGS[_target, _source] = _weight
SAMPLE_RATE, NUM_SAMPLES = 8000, 1024
PITCHES = 220.0 * 2.0 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)  # a major scale from A, in hertz


def network_log_density(x: np.ndarray) -> np.ndarray:
  """The true log-density of series ``[..., T, 6]`` of ``network``, in nats: ``[...]``."""
  x = np.asarray(x, np.float64)
  first, rest = x[..., 0, :], x[..., 1:, :] - x[..., :-1, :] @ COUPLINGS.T
  factor = np.linalg.cholesky(_stationary())
  whitened = linalg.solve_triangular(factor, np.moveaxis(first, -1, 0).reshape(6, -1), lower=True)
  log_first = -0.5 * (whitened**2).sum(0).reshape(first.shape[:-1]) - np.log(np.diag(factor)).sum()
  log_rest = -0.5 * (rest**2).sum((-2, -1)) / NOISE**2 - (x.shape[-2] - 1) * 6 * math.log(NOISE)
  return log_first + log_rest - 0.5 * x.shape[-2] * 6 * math.log(2 * math.pi)


def _stationary() -> np.ndarray:
  """The covariance that the autoregression keeps: S = A S A^T + s^2."""
  return linalg.solve_discrete_lyapunov(COUPLINGS, NOISE**2 * np.eye(6))


def _network(random: np.random.RandomState, num: int) -> Split:
  x = np.empty((num, NUM_STEPS, 6))
  x[:, 0] = random.normal(size=(num, 6)) @ np.linalg.cholesky(_stationary()).T
  for t in range(1, NUM_STEPS):
    x[:, t] = x[:, t - 1] @ COUPLINGS.T + NOISE * random.normal(size=(num, 6))
  return Split(x.astype(np.float32), None)


def _tones(random: np.random.RandomState, num: int) -> Split:
  """Four harmonics that set in together and die away, the higher ones sooner, loud or soft, in a little noise."""
  labels, harmonics = random.randint(len(PITCHES), size=num), np.arange(1, 5)
  time = np.arange(NUM_SAMPLES) / SAMPLE_RATE
  loudness, decay = random.uniform(0.1, 0.4, (num, 1, 1)), random.uniform(8, 24, (num, 1, 1))
  angle = 2 * math.pi * PITCHES[labels][:, None, None] * harmonics[:, None] * time
  waves = loudness / harmonics[:, None] * np.exp(-decay * np.sqrt(harmonics)[:, None] * time) * np.sin(angle)
  x = waves.sum(1) + 0.002 * random.normal(size=(num, NUM_SAMPLES))
  return Split((np.clip(np.round(x * 2**15), -(2**15), 2**15 - 1) / 2**15).astype(np.float32), labels)


def load(name: str, *, seed: int = 0, num_train: int = 2000, num_valid: int = 200, num_test: int = 500) -> Dataset:
  """Draws a set of signals.

  Args:
    name: one of ``NAMES``.
    seed: what to draw it from.
    num_train: how many examples to draw for training.
    num_valid: for validation.
    num_test: for the test.

  Raises:
    DataError: for an unknown name, or a number below 1.
  """
  if name not in NAMES:
    raise DataError(f'{name!r} is no set of signals; there are {", ".join(NAMES)}')
  numbers = {'num_train': num_train, 'num_valid': num_valid, 'num_test': num_test}
  for argument, number in numbers.items():
    if number < 1:
      raise DataError(f'{argument}={number}: give 1 or more')
  draw = _network if name == 'network' else _tones
  # RandomState and not Generator: NumPy promises that its stream stays as it is.
  splits = [draw(np.random.RandomState(3 * seed + i), number) for i, number in enumerate(numbers.values())]
  if name == 'network':
    return Dataset(
      name, *splits, shape=(NUM_STEPS, 6), kind='real', levels=None,
      provenance=f'drawn from seed {seed}; true density and graph are in gm_jax.data.signals',
    )  # fmt: skip
  return Dataset(
    name, *splits, shape=(NUM_SAMPLES,), kind='audio', levels=None, num_classes=len(PITCHES),
    class_names=('A', 'B', 'C sharp', 'D', 'E', 'F sharp', 'G sharp', 'A above'), sample_rate=SAMPLE_RATE,
    provenance=f'drawn from seed {seed}: plucked notes of eight pitches',
  )  # fmt: skip
