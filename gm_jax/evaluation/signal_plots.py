"""Pictures of series and of sounds, and sounds as files: arrays in, a matplotlib ``Figure`` or a WAV file out."""

import math
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL, tidy


def series(rows, names: Sequence[str], *, given: int = 0, num_channels: int = 6) -> Figure:
  """Multichannel series, one panel each, the channels above each other.

  Args:
    rows: ``[R, K, T, D]``, K series in each of R rows.
    names: of the rows.
    given: the first steps that were seen by the model, shaded; 0 for none.
    num_channels: so many of the D channels are drawn.
  """
  rows = np.asarray(rows, np.float64)[..., :num_channels]
  figure = Figure(figsize=(2.5 * rows.shape[1], 1.9 * len(rows)), dpi=DPI, layout='constrained')
  panels = figure.subplots(*rows.shape[:2], squeeze=False, sharex=True, sharey=True)
  apart = 4 * rows[0].std()
  for panel, one in zip(panels.ravel(), rows.reshape(-1, *rows.shape[2:]), strict=True):
    for channel, values in enumerate(one.T):
      panel.plot(values - apart * channel, color=COLOURS[channel % 6], linewidth=0.9)
    if given:
      panel.axvspan(0, given - 1, color='#dddddd', zorder=0)
    tidy(panel)
    panel.set_yticks([])
  for panel, name in zip(panels[:, 0], names, strict=True):
    panel.set_ylabel(name, fontsize=SMALL, color=INK)
  figure.supxlabel('steps', fontsize=SMALL, color=INK)
  return figure


def matrices(values, names: Sequence[str], *, xlabel: str, ylabel: str) -> Figure:
  """Non-negative matrices side by side, each shaded from zero (white) to its largest value.

  Args:
    values: ``[N, R, C]``.
    names: of the matrices.
    xlabel: what the columns are.
    ylabel: what the rows are.
  """
  figure = Figure(figsize=(2.6 * len(values), 2.8), dpi=DPI, layout='constrained')
  for axes, matrix, name in zip(figure.subplots(1, len(values), squeeze=False)[0], values, names, strict=True):
    axes.imshow(np.asarray(matrix), cmap='Blues', vmin=0, interpolation='nearest')
    tidy(axes, title=name, xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False)
    axes.set_xticks(range(matrix.shape[1]))
    axes.set_yticks(range(matrix.shape[0]))
  return figure


def spectrograms(waves, sample_rate: int, rows: Sequence[str], *, window: int = 128) -> Figure:
  """The energy of waves over time and frequency, in decibels below the loudest of all.

  Args:
    waves: ``[R, K, T]``, K waves in each of R rows.
    sample_rate: samples per second.
    rows: names of the rows.
    window: samples of a frame (Hann, moved by a quarter of it); at most T.
  """
  waves = np.asarray(waves, np.float64)
  window = min(window, waves.shape[-1])
  frames = np.lib.stride_tricks.sliding_window_view(waves, window, axis=-1)[..., :: max(window // 4, 1), :]
  energy = np.abs(np.fft.rfft(frames * np.hanning(window), axis=-1)) ** 2
  decibels = 10 * np.log10(energy / energy.max() + 1e-12)
  figure = Figure(figsize=(1.7 * waves.shape[1] + 0.9, 1.5 * len(waves) + 0.4), dpi=DPI, layout='constrained')
  panels = figure.subplots(*waves.shape[:2], squeeze=False, sharex=True, sharey=True)
  extent = (0, 1e3 * waves.shape[-1] / sample_rate, 0, sample_rate / 2e3)
  for panel, one in zip(panels.ravel(), decibels.reshape(-1, *decibels.shape[2:]), strict=True):
    drawn = panel.imshow(one.T, origin='lower', aspect='auto', extent=extent, cmap='magma', vmin=-70, vmax=0)
    panel.tick_params(labelsize=7, colors=INK)
  for panel, name in zip(panels[:, 0], rows, strict=True):
    panel.set_ylabel(f'{name}\nkHz', fontsize=SMALL, color=INK)
  figure.supxlabel('milliseconds', fontsize=SMALL, color=INK)
  bar = figure.colorbar(drawn, ax=panels, shrink=0.8)
  bar.set_label('dB', fontsize=SMALL, color=INK)
  bar.ax.tick_params(labelsize=7, colors=INK)
  return figure


def save_wav(waves, path: str | Path, sample_rate: int, *, silence: float = 0.1) -> Path:
  """Writes waves one after the other as a WAV file of one channel and 16 bits, which is overwritten.

  Args:
    waves: ``[K, T]`` within [-1, 1]; what lies beyond is cut off.
    path: of the file.
    sample_rate: samples per second.
    silence: seconds between one wave and the next.

  Raises:
    ValueError: if ``waves`` is of another shape, or holds what is no number.
  """
  waves = np.asarray(waves, np.float64)
  if waves.ndim != 2 or not np.isfinite(waves).all():
    raise ValueError(f'waves has shape {waves.shape}: give finite [K, T]')
  padded = np.pad(waves, ((0, 0), (0, math.ceil(silence * sample_rate)))).ravel()
  samples = np.clip(np.round(padded * 2**15), -(2**15), 2**15 - 1).astype('<i2')
  with wave.open(str(path), 'wb') as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(sample_rate)
    file.writeframes(samples.tobytes())
  return Path(path)
