"""Pictures of estimators of the likelihood of latent-variable models: arrays in, a matplotlib ``Figure`` out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation import likelihood
from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL, tidy


def estimators(log_weights: Mapping[str, np.ndarray], sizes: Sequence[int]) -> Figure:
  """Estimates of log p(x) by several proposals side by side, as the number of samples grows, and their spread.

  Args:
    log_weights: name of the proposal to ``[S, N]`` log weights of N examples.
    sizes: numbers of samples, from 2 to S: so many of the first are used.
  """
  figure = Figure(figsize=(7.6, 3.0), dpi=DPI, layout='constrained')
  value_axes, spread_axes = figure.subplots(1, 2)
  for colour, (name, log_w) in zip(COLOURS, log_weights.items(), strict=False):
    found = [likelihood.log_mean_exp(log_w[:size], axis=0) for size in sizes]
    spread = [
      np.sqrt(np.maximum(1 / one.effective_sample_size - 1 / size, 0)) for one, size in zip(found, sizes, strict=True)
    ]
    style = {'color': colour, 'linewidth': 1.3, 'marker': 'o', 'markersize': 3, 'label': name}
    value_axes.plot(sizes, [one.value.mean() for one in found], **style)
    spread_axes.plot(sizes, [one.mean() for one in spread], **style)
  tidy(value_axes, xlabel='samples', ylabel='log p(x), nats')
  tidy(spread_axes, xlabel='samples', ylabel='relative deviation of p(x)')
  for axes in (value_axes, spread_axes):
    axes.set_xscale('log')
  spread_axes.set_yscale('log')
  spread_axes.tick_params(which='minor', labelsize=SMALL, colors=INK)
  value_axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK)
  return figure
