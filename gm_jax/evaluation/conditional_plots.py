"""Pictures of conditional densities and of documents: arrays in, a matplotlib ``Figure`` out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL, tidy


def conditional_densities(values, grid, densities, names: Sequence[str], *, num_lines: int = 5) -> Figure:
  """For some dimensions the histogram of the data, the densities of single conditionals, and the mean of all of them.

  Where the model is right, the mean of p(x_d | earlier dimensions of example n) over examples n is the histogram.

  Args:
    values: ``[N, D]`` data.
    grid: ``[D, G]`` places along each dimension.
    densities: ``[N, D, G]`` conditional densities there, given the earlier dimensions of each example.
    names: one for each dimension.
    num_lines: examples whose own conditionals are drawn, with their value marked.
  """
  values, grid, densities = (np.asarray(array, np.float64) for array in (values, grid, densities))
  num = values.shape[1]
  columns = min(3, num)
  rows = math.ceil(num / columns)
  figure = Figure(figsize=(3.3 * columns, 2.3 * rows), dpi=DPI, layout='constrained')
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for d, axes in enumerate(panels[:num]):
    edges = np.linspace(grid[d, 0], grid[d, -1], 31)
    share = np.histogram(values[:, d], edges)[0] / len(values) / np.diff(edges)
    axes.stairs(share, edges, fill=True, color='#cccccc', label='data')
    for n in range(min(num_lines, len(values))):
      colour = COLOURS[1 + n % 5]
      axes.plot(grid[d], densities[n, d], color=colour, linewidth=0.8)
      height = np.interp(values[n, d], grid[d], densities[n, d])
      axes.plot(values[n, d], height, 'o', color=colour, markersize=3)
    mean = densities[:, d].mean(0)
    axes.plot(grid[d], mean, color=COLOURS[0], linewidth=1.8, label='mean of conditionals')
    axes.set_ylim(0, 1.6 * max(share.max(), mean.max()))
    tidy(axes, title=names[d])
  panels[0].legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc='upper right')
  for axes in panels[num:]:
    axes.remove()
  return figure


def retrieval_curves(curves: Mapping[str, tuple], *, chance: float, title: str = '') -> Figure:
  """Precision against recall, recall on a logarithmic axis.

  Args:
    curves: name to ``(recall, precision)``, arrays of one length.
    chance: the precision of documents retrieved at random.
    title: set above.
  """
  figure = Figure(figsize=(4.8, 3.4), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  for colour, (name, (recall, precision)) in zip(COLOURS, curves.items(), strict=False):
    axes.plot(recall, precision, 'o-', color=colour, linewidth=1.4, markersize=3, label=name)
  axes.axhline(chance, color=COLOURS[6], linewidth=1, linestyle='--', label='chance')
  axes.set_xscale('log')
  axes.set_ylim(0)
  axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f'{100 * share:g}%'))
  tidy(axes, title=title, xlabel='recall', ylabel='precision')
  axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK)
  return figure


def word_table(columns: Mapping[str, Sequence[str]], *, per_row: int = 8) -> Figure:
  """Lists of words under their headings, side by side and in as many rows of lists as are needed.

  Args:
    columns: heading to words.
    per_row: lists side by side.
  """
  blocks = [list(columns.items())[i : i + per_row] for i in range(0, len(columns), per_row)]
  heights = [2 + max(len(words) for _, words in block) for block in blocks]
  figure = Figure(figsize=(1.25 * min(per_row, len(columns)) + 0.2, 0.17 * sum(heights) + 0.1), dpi=DPI)
  axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
  axes.set_xlim(0, min(per_row, len(columns)))
  axes.set_ylim(sum(heights), -0.5)
  top = 0
  for block, height in zip(blocks, heights, strict=True):
    for column, (heading, words) in enumerate(block):
      axes.text(column + 0.1, top, heading, fontsize=SMALL, weight='bold', color=COLOURS[0], va='center')
      for line, word in enumerate(words):
        axes.text(column + 0.1, top + 1 + line, word, fontsize=SMALL, color=INK, va='center')
    top += height
  return figure
