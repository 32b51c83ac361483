"""Sounds as files come back as they went, and pictures show what is where."""

import wave

import numpy as np
import pytest

from gm_jax.evaluation import latent_plots, signal_plots


def test_a_wav_file_holds_the_samples_with_silence_between(tmp_path):
  waves = np.array([[0.5, -0.25, 2.0], [-2.0, 0.0, 2**-15]])
  path = signal_plots.save_wav(waves, tmp_path / 'sound.wav', 10, silence=0.2)
  with wave.open(str(path)) as file:
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 10)
    samples = np.frombuffer(file.readframes(100), '<i2')
  assert samples.tolist() == [16384, -8192, 32767, 0, 0, -32768, 0, 1, 0, 0]
  with pytest.raises(ValueError, match=r'waves has shape \(3,\)'):
    signal_plots.save_wav(np.zeros(3), tmp_path / 'sound.wav', 10)
  with pytest.raises(ValueError, match='give finite'):
    signal_plots.save_wav(np.full((1, 2), np.nan), tmp_path / 'sound.wav', 10)


def test_a_spectrogram_is_bright_where_the_tone_is():
  time = np.arange(1024) / 8000
  figure = signal_plots.spectrograms(np.sin(2 * np.pi * 1000 * time)[None, None], 8000, ['tone'])
  image = figure.axes[0].images[0]
  frequency = np.linspace(0, 4, image.get_array().shape[0])[np.asarray(image.get_array()).mean(1).argmax()]
  assert frequency == pytest.approx(1, abs=0.05)  # kilohertz


def test_estimators_are_drawn_from_the_first_samples_of_each():
  log_weights = {'one': np.log(np.arange(1, 9.0))[:, None], 'other': np.zeros((8, 1))}
  value, spread = latent_plots.estimators(log_weights, (2, 8)).axes
  np.testing.assert_allclose(value.lines[0].get_ydata(), np.log([1.5, 4.5]))
  weights = np.arange(1, 9.0)
  expected = [np.sqrt((w**2).sum() / w.sum() ** 2 - 1 / len(w)) for w in (weights[:2], weights)]
  np.testing.assert_allclose(spread.lines[0].get_ydata(), expected)
  np.testing.assert_allclose(spread.lines[1].get_ydata(), 0, atol=1e-6)
