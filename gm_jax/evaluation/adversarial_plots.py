"""Pictures of a game of generator and critic on the plane: samples over time, and how modes come and go."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL, plane, tidy


def points_over_time(snapshots: Mapping[int, np.ndarray], data, *, columns: int = 4) -> Figure:
  """Samples of the plane after some numbers of updates, in orange, over data in grey.

  Args:
    snapshots: number of updates to ``[N, 2]`` samples.
    data: ``[M, 2]``.
    columns: panels per row.
  """
  data = plane(data)
  low, high = data.min(0), data.max(0)
  margin = 0.15 * (high - low)
  columns = min(columns, len(snapshots))
  rows = -(-len(snapshots) // columns)
  figure = Figure(figsize=(2.3 * columns, 2.4 * rows), dpi=DPI, layout='constrained')
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes, (step, points) in zip(panels, snapshots.items(), strict=False):
    axes.scatter(*data.T, s=3, color='#bbbbbb', linewidths=0)
    axes.scatter(*plane(points).T, s=3, color=COLOURS[3], alpha=0.6, linewidths=0)
    tidy(axes, title=f'{step:,} updates')
    axes.grid(visible=False)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set_aspect('equal')
  for axes in panels[len(snapshots) :]:
    axes.remove()
  return figure


def mode_shares(steps, shares, *, title: str = '') -> Figure:
  """The share of samples at each mode over the number of updates: a mode that comes and goes is a broken line.

  Args:
    steps: ``[T]`` rising.
    shares: ``[T, K]``, of which what is missing to one went to no mode.
    title: set above.
  """
  shares = np.asarray(shares, np.float64)
  num_modes = shares.shape[1]
  figure = Figure(figsize=(5.2, 1.4 + 0.13 * num_modes), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  top = max(3 / num_modes, 1e-9)
  edges = np.concatenate([[2 * steps[0] - steps[1] if len(steps) > 1 else 0], steps])
  image = axes.pcolormesh(edges, np.arange(num_modes + 1) - 0.5, shares.T, cmap='Blues', vmin=0, vmax=top)
  bar = figure.colorbar(image, ax=axes, ticks=[0, 1 / num_modes, top], extend='max')
  bar.ax.set_yticklabels(['0', 'fair', '3 x fair'])
  bar.ax.tick_params(labelsize=SMALL, labelcolor=INK)
  tidy(axes, title=title, xlabel='updates', ylabel='mode')
  axes.grid(visible=False)
  return figure
