"""Pictures of scores of samples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import COLOURS, DPI, INK, SMALL
from gm_jax.evaluation.precision_recall import Curve


def precision_recall_curves(curves: Mapping[str, Curve], *, title: str = '') -> Figure:
  """Precision against recall, a line for each named curve.

  Args:
    curves: by name; a control of real examples shows how near to the corner these numbers of examples can come.
    title: set above.
  """
  figure = Figure(figsize=(4.2, 4.0), dpi=DPI, layout='constrained')
  axes = figure.subplots()
  for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
    axes.plot(np.asarray(curve.recall), np.asarray(curve.precision), color=colour, linewidth=1.5, label=name)
  axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='recall', ylabel='precision', title=title, aspect='equal')
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc='lower left')
  return figure
