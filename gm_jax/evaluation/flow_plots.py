"""Pictures of normalising flows: densities side by side, and the way of points through the layers."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import DPI, INK, MASS, SMALL, mass_levels


def densities(x, y, log_densities: Mapping[str, np.ndarray]) -> Figure:
  """Densities of the plane side by side, as smallest regions with 20, 40, 60, 80 and 95 % of the mass of each.

  Args:
    x: ``[X]`` grid of the first coordinate, evenly spaced.
    y: ``[Y]`` grid of the second.
    log_densities: name to ``[Y, X]`` in nats; -inf is no mass.

  Raises:
    ValueError: if one of them does not fit the grid, or has no finite mass.
  """
  figure = Figure(figsize=(3.4 * len(log_densities), 3.7), dpi=DPI, layout='constrained')
  panels = figure.subplots(1, len(log_densities), squeeze=False)[0]
  for axes, (name, log_density) in zip(panels, log_densities.items(), strict=True):
    log_density = np.asarray(log_density, np.float64)
    if log_density.shape != (len(y), len(x)):
      raise ValueError(f'{name}: log_density has shape {log_density.shape}, the grid wants {(len(y), len(x))}')
    if np.isnan(log_density).any() or not np.isfinite(log_density.max()):
      raise ValueError(f'{name}: log_density has NaN or +inf in it, or no mass at all')
    mass = np.exp(log_density - log_density.max())
    levels = mass_levels(mass, MASS) * (1 - 1e-9)
    shades = matplotlib.colormaps['Blues'](np.linspace(0.2, 0.85, len(levels)) if len(levels) > 1 else [0.4])
    axes.contourf(x, y, mass, [*levels, 1 + 1e-9], colors=shades)
    _plain(axes, name)
  shares = ', '.join(f'{share:.0%}'[:-1] for share in reversed(MASS))
  figure.supxlabel(f'shades: smallest regions with {shares} % of the mass', fontsize=7, color=INK)
  return figure


def path(points: Sequence[np.ndarray], names: Sequence[str], *, columns: int = 5) -> Figure:
  """The way of points from noise to data, one panel for each layer; each point keeps its colour, its angle at first.

  Args:
    points: for each panel ``[N, 2]``.
    names: of the panels.
    columns: panels in a row.
  """
  rows = -(-len(points) // columns)
  shown = min(columns, len(points))
  figure = Figure(figsize=(1.9 * shown, 2.1 * rows), dpi=DPI, layout='constrained')
  panels = figure.subplots(rows, shown, squeeze=False).ravel()
  start = np.asarray(points[0])
  angles = np.arctan2(start[:, 1], start[:, 0])
  for axes, places, name in zip(panels, points, names, strict=False):
    axes.scatter(*np.asarray(places).T, c=angles, cmap='twilight', s=2, linewidths=0)
    _plain(axes, name)
    axes.margins(0.05)
  for axes in panels[len(points) :]:
    axes.set_visible(False)
  return figure


def _plain(axes, title):
  axes.set_title(title, fontsize=9, color=INK)
  axes.tick_params(labelsize=SMALL - 1, colors=INK)
  axes.set_aspect('equal', adjustable='datalim')
