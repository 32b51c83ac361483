"""Pictures of autoregressive models: ensembles of orderings, and what each dimension costs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.likelihood import Score
from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL


def curve(scores: Mapping[int, Score]) -> Figure:
  """The negative log-likelihood of ensembles against their size.

  Args:
    scores: number of orderings to mean log-likelihood in nats. Its standard error is over test examples, which the
      ensembles share: differences between sizes are known far better.
  """
  figure = Figure(figsize=(4.8, 3.0), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  sizes = list(scores)
  values, errors = (np.array([getattr(one, name) for one in scores.values()]) for name in ('value', 'stderr'))
  axes.errorbar(sizes, -values, yerr=errors, fmt='o-', color=COLOURS[0], markersize=4, capsize=3, linewidth=1.3)
  axes.set_xscale('log', base=2)
  axes.set_xticks(sizes, [str(size) for size in sizes])
  axes.set_xlabel('orderings in the ensemble', fontsize=9, color=INK)
  axes.set_ylabel('-log p (nats)', fontsize=9, color=INK)
  axes.tick_params(labelsize=SMALL, colors=INK)
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(color='#e5e5e5', linewidth=0.6)
  return figure


def likelihood_map(nats, *, title: str = '') -> Figure:
  """What each pixel costs in nats, as an image with its scale.

  Args:
    nats: ``[H, W]``, non-negative.
    title: set above.
  """
  nats = np.asarray(nats, np.float64)
  if nats.ndim != 2:
    raise ValueError(f'nats has shape {nats.shape}: give one number for each pixel, [H, W]')
  figure = Figure(figsize=(4.0, 3.3), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  drawn = axes.imshow(nats, cmap='Blues', vmin=0)
  axes.set(xticks=[], yticks=[])
  axes.set_title(title, fontsize=10, color=INK)
  bar = figure.colorbar(drawn, ax=axes, label='nats per pixel')
  bar.ax.tick_params(labelsize=SMALL, colors=INK)
  return figure
