"""Signals against their true density, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from gm_jax import data
from gm_jax.data import signals


def test_the_density_of_the_network_is_that_of_one_large_gaussian():
  x = data.load('network', num_train=4000, num_valid=1, num_test=5)
  stationary, num = signals._stationary(), 3
  np.testing.assert_allclose(
    stationary, signals.COUPLINGS @ stationary @ signals.COUPLINGS.T + signals.NOISE**2 * np.eye(6), atol=1e-12
  )
  # Cov(x_s, x_t) = A^(s - t) S for s >= t.
  covariance = np.block(
    [
      [
        np.linalg.matrix_power(signals.COUPLINGS, s - t) @ stationary
        if s >= t
        else stationary @ np.linalg.matrix_power(signals.COUPLINGS, t - s).T
        for t in range(num)
      ]
      for s in range(num)
    ]
  )
  three = x.test.x[:, :num]
  expected = stats.multivariate_normal(np.zeros(18), covariance).logpdf(three.reshape(5, 18))
  np.testing.assert_allclose(signals.network_log_density(three), expected, rtol=1e-9)
  last = x.train.x[:, -2:].reshape(4000, 12).astype(np.float64)
  products = last[:, :, None] * last[:, None, :]
  error = np.abs(products.mean(0) - covariance[:12, :12]) / (products.std(0) / np.sqrt(4000))
  assert error.max() < 4.5


def test_tones_are_16_bit_samples_of_the_pitch_that_they_are_named_after():
  x = data.load('tones', num_train=40, num_valid=1, num_test=1)
  scaled = x.train.x * 2**15
  np.testing.assert_array_equal(scaled, np.round(scaled))
  spectrum = np.abs(np.fft.rfft(x.train.x, 16 * signals.NUM_SAMPLES))
  peak = spectrum.argmax(1) * signals.SAMPLE_RATE / (16 * signals.NUM_SAMPLES)
  assert (np.abs(peak - signals.PITCHES[x.train.y]) < 4).all()


def test_what_cannot_be_is_refused():
  with pytest.raises(data.DataError, match="option 'size': data set 'tones' has no such option"):
    data.load('tones', size=3)
  with pytest.raises(data.DataError, match='num_test=0'):
    data.load('network', num_test=0)
