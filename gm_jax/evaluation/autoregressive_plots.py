"""Pictures of models that go through the dimensions one by one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import DPI, INK, SMALL


def value_map(values, *, label: str, title: str = '') -> Figure:
  """One number for each pixel, with its scale: where an image is hard to predict.

  Args:
    values: ``[H, W]``.
    label: what the numbers are, with their unit.
    title: set above.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise ValueError(f'values has shape {values.shape}: give [H, W]')
  figure = Figure(figsize=(3.6, 3.0), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  image = axes.imshow(values, cmap='cividis', interpolation='nearest')
  axes.set(xticks=[], yticks=[])
  axes.set_title(title, fontsize=SMALL, color=INK)
  bar = figure.colorbar(image, ax=axes, shrink=0.85)
  bar.set_label(label, fontsize=SMALL, color=INK)
  bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
  return figure


def masks(matrices: Sequence, names: Sequence[str], *, title: str = '') -> Figure:
  """Which units see which: a panel for each layer, units below to the right, own units downwards, dark where joined.

  Args:
    matrices: ``[units below, own units]`` booleans for each layer.
    names: of the layers.
    title: set above.
  """
  if len(matrices) != len(names):
    raise ValueError(f'names has {len(names)} entries for {len(matrices)} masks: give one for each')
  figure = Figure(figsize=(2.4 * len(names) + 0.4, 2.9), dpi=DPI, layout='constrained')
  for axes, matrix, name in zip(figure.subplots(1, len(names), squeeze=False)[0], matrices, names, strict=True):
    matrix = np.asarray(matrix)
    axes.imshow(matrix.T, cmap='Greys', vmin=0, vmax=1, aspect='auto', interpolation='nearest')
    axes.set_title(f'{name}, {matrix.mean():.0%} joined', fontsize=SMALL, color=INK)
    axes.tick_params(labelsize=SMALL - 1, labelcolor=INK)
  figure.suptitle(title, fontsize=SMALL, color=INK)
  return figure
