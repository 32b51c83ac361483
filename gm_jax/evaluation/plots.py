"""Pictures: arrays in, a matplotlib ``Figure`` out; ``save`` writes it.

Nothing here touches pyplot or any other global state, so pictures can be made from any thread and without a display.
Curves, bars and planes are here, tables of images in ``image_plots.py``, and what a family alone draws in a file of its
own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe & Ito (2008), told apart with every common kind of colour vision; the last two widen it to ten classes.
COLOURS = (
  '#0072b2', '#e69f00', '#009e73', '#d55e00', '#56b4e9', '#cc79a7', '#000000', '#882255', '#7f7f7f', '#5d3a9b',
)  # fmt: skip
SPLITS = {'train': COLOURS[0], 'valid': COLOURS[1], 'test': COLOURS[2]}
INK, FAINT = '#333333', '#dddddd'
MASS = (0.95, 0.8, 0.6, 0.4, 0.2)  # what the shades of a density hold
DPI = 150
SMALL = 8  # points


def save(figure: Figure, path: str | Path) -> Path:
  """Writes a figure as PNG and returns its path."""
  path = Path(path)
  figure.savefig(path, format='png', metadata={'Software': None})
  return path


def learning_curves(history: Iterable[Mapping[str, float]], *, units: Mapping[str, str] | None = None) -> Figure:
  """One panel per quantity over the number of updates; splits of the same quantity share a panel.

  Args:
    history: rows such as ``{'step': 100, 'train/loss': 3.2, 'valid/loss': 3.4}``; what comes before the first slash is
      the split. Rows need not hold every quantity. What is not a number is left out, what is not finite is a gap. A
      ``valid/loss_stderr`` is drawn as a band about ``valid/loss``.
    units: the unit of a quantity, by its name without the split.

  Raises:
    ValueError: if no row has a number.
  """
  panels: dict[str, dict[str, list]] = {}
  for row in history:
    for name, value in row.items():
      is_band = name.endswith('_stderr') and name.removesuffix('_stderr') in row
      if name == 'step' or is_band or isinstance(value, bool) or not isinstance(value, int | float | np.number | None):
        continue
      split, _, quantity = name.rpartition('/') if '/' in name else ('', '', name)
      value = float(value) if value is not None and math.isfinite(value) else math.nan
      panels.setdefault(quantity, {}).setdefault(split, []).append(
        (row['step'], value, row.get(f'{name}_stderr') or 0.0)
      )
  if not panels:
    raise ValueError('history has no row with a number in it: there is no curve to draw')
  # What several splits have comes first: it is what is looked for.
  panels = dict(sorted(panels.items(), key=lambda item: -len(item[1])))
  columns = 2 if len(panels) == 4 else min(3, len(panels))
  rows = math.ceil(len(panels) / columns)
  figure = Figure(figsize=(3.5 * columns + 0.4 * (columns == 1), 2.4 * rows), dpi=DPI, layout='constrained')
  grid = figure.subplots(rows, columns, squeeze=False).ravel()
  for place, (axes, (quantity, splits)) in enumerate(zip(grid, panels.items(), strict=False)):
    spare = iter([*COLOURS[3:], *COLOURS] * len(splits))
    for split in sorted(splits, key=lambda name: ([*SPLITS, name].index(name), name)):
      steps, values, errors = np.array(splits[split], float).T
      few = np.isfinite(values).sum() <= 30
      style = {'marker': 'o', 'markersize': 3} if few else {}
      colour = SPLITS.get(split or 'train') or next(spare)
      axes.plot(steps, values, color=colour, linewidth=1.3 if len(steps) <= 200 else 0.8, label=split, **style)
      axes.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.25, linewidth=0)
    only = next(iter(splits)) if len(splits) == 1 else ''
    unit = (units or {}).get(quantity, '')
    title = quantity.replace('_', ' ') + (f', {only}' if only else '') + (f' ({unit})' if unit else '')
    tidy(axes, title=title, xlabel='updates' if place + columns >= len(panels) else '')
    if len(splits) > 1:
      axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.2)
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  for axes in grid[len(panels) :]:
    axes.remove()
  return figure


def histogram(values: Mapping[str, Sequence[float]], xlabel: str, *, bins: int = 40, title: str = '') -> Figure:
  """Histograms of several sets of numbers over common bins, as densities; the bands are one standard error each way.

  Args:
    values: name to numbers; those that are not finite are left out.
    xlabel: what the numbers are, with their unit.
    bins: number of bins over the common range.
    title: set above.

  Raises:
    ValueError: if a set has no finite number.
  """
  values = {name: np.asarray(v, np.float64).ravel() for name, v in values.items()}
  values = {name: v[np.isfinite(v)] for name, v in values.items()}
  for name, v in values.items():
    if not v.size:
      raise ValueError(f'values[{name!r}] has no finite number: there is nothing to count')
  edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
  figure, axes = _single()
  for colour, (name, v) in zip(COLOURS, values.items(), strict=False):
    share = np.histogram(v, edges)[0] / v.size
    stderr = np.sqrt(share * (1 - share) / v.size)
    width = np.diff(edges)
    axes.stairs(share / width, edges, color=colour, linewidth=1.5, label=f'{name} (n = {v.size:,})')
    low, high = (share - stderr) / width, (share + stderr) / width
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.25, linewidth=0)
  tidy(axes, title=title, xlabel=xlabel, ylabel='density')
  axes.set_ylim(0)
  axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK)
  return figure


def bars(names: Sequence[str], values, stderr=None, *, ylabel: str, reference=None, title: str = '') -> Figure:
  """Bars from zero with error bars: counts, frequencies, shares.

  Args:
    names: one for each bar.
    values: ``[N]`` heights.
    stderr: ``[N]`` standard errors, or None.
    ylabel: what the heights are, with their unit.
    reference: ``[N]`` heights to be compared with, drawn as black dashes, or None.
    title: set above.
  """
  figure, axes = _single(width=max(3.2, 0.45 * len(names) + 1.2))
  places = np.arange(len(names))
  axes.bar(
    places, values, 0.7, yerr=stderr, color=COLOURS[4], error_kw={'ecolor': INK, 'capsize': 3, 'elinewidth': 1.2}
  )
  if reference is not None:
    axes.hlines(reference, places - 0.42, places + 0.42, color=COLOURS[6], linewidth=1.6, label='expected')
    axes.margins(y=0.18)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc='upper right')
  tidy(axes, title=title, ylabel=ylabel)
  axes.grid(visible=False, axis='x')
  axes.set_xticks(places, names)
  return figure


def intervals(names: Sequence[str], values, stderr, *, xlabel: str, title: str = '') -> Figure:
  """Scores to be compared, as points with error bars of one standard error, the first on top.

  Args:
    names: one for each score.
    values: ``[N]``.
    stderr: ``[N]``; NaN for a score without an error, such as a published one: it is drawn hollow.
    xlabel: what the scores are, with their unit.
    title: set above.
  """
  values, stderr = np.asarray(values, float), np.asarray(stderr, float)
  figure, axes = _single(width=5.2, height=0.32 * len(names) + 0.9)
  for place, (value, error) in enumerate(zip(values, stderr, strict=True)):
    known = math.isfinite(error)
    axes.errorbar(
      value, place, xerr=error if known else None, fmt='o', markersize=4.5, color=COLOURS[0], capsize=3,
      markerfacecolor=COLOURS[0] if known else 'white',
    )  # fmt: skip
  tidy(axes, title=title, xlabel=xlabel)
  axes.grid(visible=False, axis='y')
  axes.set_yticks(range(len(names)), names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.margins(x=0.08)
  return figure


def scatter(points, classes=None, *, names=None, xlabel: str, ylabel: str, title: str = '') -> Figure:
  """Points of the plane, coloured by class and the class named at its median.

  Args:
    points: ``[N, 2]``.
    classes: ``[N]`` integers, or None; with more than ten classes the colours repeat, and the names tell them apart.
    names: the name of each class, indexed by its integer; the integer itself without them.
    xlabel: what the first coordinate is.
    ylabel: what the second is.
    title: set above.
  """
  points = plane(points)
  figure, axes = _single(width=4.4, height=4.2)
  size = float(np.clip(12000 / len(points), 2, 16))
  style = {'s': size, 'linewidths': 0, 'rasterized': True}
  if classes is None:
    axes.scatter(*points.T, color=COLOURS[0], alpha=0.6, **style)
  else:
    classes = np.asarray(classes)
    present = np.unique(classes)
    colours = {one: COLOURS[i % len(COLOURS)] for i, one in enumerate(present)}
    axes.scatter(*points.T, c=[colours[one] for one in classes], alpha=0.65, **style)
    for one in present:
      centre = np.median(points[classes == one], axis=0)
      halo = withStroke(linewidth=4, foreground='white')
      name = str(one) if names is None else names[one]
      axes.text(
        *centre, name, color=colours[one], fontsize=13, weight='bold', ha='center', va='center'
      ).set_path_effects([halo])
  tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
  return figure


def density(x, y, log_density, points=None, *, xlabel: str = '$x_1$', ylabel: str = '$x_2$', title: str = '') -> Figure:
  """A density over the plane, as regions of highest density, with data over it.

  The regions are the smallest that hold 20, 40, 60, 80 and 95 % of the mass on the grid, the darkest the densest.

  Args:
    x: ``[X]`` grid of the first coordinate, evenly spaced.
    y: ``[Y]`` grid of the second.
    log_density: ``[Y, X]`` in nats, normalised or not; -inf is no mass.
    points: ``[N, 2]`` data drawn over it, or None.
    xlabel: what the first coordinate is.
    ylabel: what the second is.
    title: set above.

  Raises:
    ValueError: if ``log_density`` does not fit the grid, or has no finite mass.
  """
  x, y, log_density = (np.asarray(array, np.float64) for array in (x, y, log_density))
  if log_density.shape != (len(y), len(x)):
    raise ValueError(f'log_density has shape {log_density.shape}: the grid wants [Y, X] = {(len(y), len(x))}')
  if np.isnan(log_density).any() or not math.isfinite(log_density.max()):
    raise ValueError('log_density has NaN or +inf in it, or no mass at all')
  mass = np.exp(log_density - log_density.max())
  # A hair below, so that a plateau lies inside its level and not on its edge.
  levels = mass_levels(mass, MASS) * (1 - 1e-9)
  figure, axes = _single(width=4.4, height=4.4)
  shades = matplotlib.colormaps['Blues'](np.linspace(0.2, 0.85, len(levels)) if len(levels) > 1 else [0.4])
  axes.contourf(x, y, mass, [*levels, 1 + 1e-9], colors=shades)
  if mass.min() < levels[0]:
    axes.contour(x, y, mass, levels[:1], colors=[COLOURS[0]], linewidths=0.7)
  if points is not None:
    points = plane(points)
    size = float(np.clip(1500 / len(points), 1, 8))
    axes.scatter(*points.T, s=size, color=COLOURS[3], alpha=0.6, linewidths=0)
  tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
  axes.grid(visible=False)
  axes.set_xlim(x[0], x[-1])
  axes.set_ylim(y[0], y[-1])
  axes.set_aspect('equal')
  shares = ', '.join(f'{share:.0%}'[:-1] for share in reversed(MASS))
  figure.supxlabel(f'shades: smallest regions with {shares} % of the mass', fontsize=7, color=INK)
  return figure


def mass_levels(mass, shares: Sequence[float]) -> np.ndarray:
  """The heights above which an array of masses holds at least the given shares of its sum; equal ones once, rising."""
  falling = np.sort(np.ravel(mass))[::-1]
  cumulative = np.cumsum(falling)
  return np.unique([falling[np.searchsorted(cumulative, share * cumulative[-1])] for share in shares])


def _single(width: float = 4.8, height: float = 3.0):
  figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
  return figure, figure.subplots()


def plane(points) -> np.ndarray:
  """Points of the plane as float64, ``[N, 2]``, or a ``ValueError``."""
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not len(points):
    raise ValueError(f'points has shape {points.shape}: give [N, 2] with at least one point')
  return points


def tidy(axes, *, title: str = '', xlabel: str = '', ylabel: str = '') -> None:
  """Takes away what does not inform and makes the rest quiet."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color('#999999')
  axes.tick_params(labelsize=SMALL, colors=INK, length=3, color='#999999')
  axes.grid(color=FAINT, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.set_title(title, fontsize=10, color=INK)
  axes.set_xlabel(xlabel, fontsize=9, color=INK)
  axes.set_ylabel(ylabel, fontsize=9, color=INK)
