"""Which modes of known data a sampler finds, how often, and how well: the protocol of VEEGAN and PacGAN.

A sample is *good* if it lies within three standard deviations of the mode nearest to it (Srivastava et al., "VEEGAN",
2017; Lin et al., "PacGAN", 2018). Three numbers, each with what a perfect sampler would score:

* the number of modes with at least ``min_count`` good samples. With the 1 of the papers a single stray sample counts as
  a mode; ``min_count`` at a tenth of the fair share does not reward that;
* the share of good samples. In D dimensions a perfect sampler has P(chi^2_D < 9), in the plane 1 - exp(-9/2) = 0.98889;
  a share above that comes from modes that are too narrow, so it is no merit;
* the reverse divergence KL(found, true) of the shares of the modes among good samples. A perfect sampler has (K - 1) /
  2n and not zero, for n samples and K modes.

Example, one of two modes:
  >>> found = coverage(np.array([[0.1, 0.0], [0.0, 0.2], [5.0, 5.0]]), np.array([[0.0, 0.0], [9.0, 9.0]]), 0.1)
  >>> found.num_modes, round(found.high_quality, 3), round(found.reverse_kl, 3), found.counts.tolist()
  (1, 0.667, 0.693, [2, 0])
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from gm_jax.evaluation.likelihood import Score, score


class Coverage(NamedTuple):
  """What a sampler makes of K modes."""

  num_modes: int  # that were found
  high_quality: float  # share of good samples
  reverse_kl: float  # KL(found, true) of the shares of the modes, nats; infinite without a good sample
  counts: np.ndarray  # [K] good samples by mode
  num_samples: int


def coverage(samples, centres, stddev: float, *, min_count: int = 1, max_deviations: float = 3.0) -> Coverage:
  """Modes, quality and reverse divergence of samples of a mixture of equally likely round modes.

  Args:
    samples: ``[N, D]``.
    centres: ``[K, D]``.
    stddev: of every mode, along each axis.
    min_count: good samples that make a mode.
    max_deviations: how far a good sample may lie from the nearest centre, in standard deviations.

  Raises:
    ValueError: if the shapes do not fit, ``min_count`` is below 1, or two centres are the same (an angle of a ring that
      is counted twice makes a mode that no sampler can find).
  """
  samples, centres = np.asarray(samples, np.float64), np.asarray(centres, np.float64)
  if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1] != centres.shape[1] or not len(samples):
    raise ValueError(f'samples {samples.shape} and centres {centres.shape}: give [N, D] and [K, D] of one D')
  if min_count < 1:
    raise ValueError(f'min_count={min_count}: a mode needs 1 good sample or more')
  if len(np.unique(centres.round(9), axis=0)) < len(centres):
    raise ValueError(f'centres has {len(centres)} rows, of which some are the same')
  squares = ((samples[:, None] - centres[None]) ** 2).sum(-1)
  good = squares.min(1) < (max_deviations * stddev) ** 2
  counts = np.bincount(squares.argmin(1)[good], minlength=len(centres))
  return of_counts(counts, len(samples), min_count=min_count)


def of_counts(counts, num_samples: int, *, min_count: int = 1) -> Coverage:
  """Coverage from how often each of K modes, or classes of a trusted classifier, was seen among ``num_samples``."""
  counts = np.asarray(counts)
  shares = counts / max(counts.sum(), 1)
  divergence = stats.entropy(shares, np.full(len(counts), 1 / len(counts))) if counts.sum() else math.inf
  return Coverage(
    int((counts >= min_count).sum()), float(counts.sum() / num_samples), float(divergence), counts, num_samples
  )


def best_quality(num_dimensions: int, max_deviations: float = 3.0) -> float:
  """The share of good samples of a perfect sampler."""
  return float(stats.chi2.cdf(max_deviations**2, num_dimensions))


def least_divergence(num_modes: int, num_samples: int) -> float:
  """The mean reverse divergence of a perfect sampler, to first order in 1 / n."""
  return (num_modes - 1) / (2 * num_samples)


def divergence_error(counts) -> float:
  """The standard error of the reverse divergence, by the delta method on multinomial shares."""
  counts = np.asarray(counts, np.float64)
  total = counts.sum()
  seen = counts[counts > 0] / total
  surprise = np.log(seen * len(counts))
  return float(np.sqrt(max((seen * surprise**2).sum() - (seen * surprise).sum() ** 2, 0.0) / total))


def scores(samples, centres, stddev: float) -> dict[str, Score]:
  """The scores of a report: modes by the papers' rule and by a stricter one, quality, and reverse divergence."""
  centres = np.asarray(centres)
  found = coverage(samples, centres, stddev)
  n, num_modes = found.num_samples, len(centres)
  enough = max(n // (10 * num_modes), 1)
  ideal = best_quality(centres.shape[1])
  quality, floor = found.high_quality, least_divergence(num_modes, n)
  entry = lambda value, stderr, unit: score(value, 'estimate', stderr=stderr, n=n, unit=unit)
  return {
    'modes': entry(found.num_modes, None, f'of {num_modes}, with a good sample'),
    'solid_modes': entry(
      (found.counts >= enough).sum(), None, f'of {num_modes}, with a tenth of the fair share of samples'
    ),
    'high_quality': entry(
      100 * quality, 100 * math.sqrt(quality * (1 - quality) / n), f'% (a perfect sampler {100 * ideal:.2f})'
    ),
    'reverse_kl': entry(
      found.reverse_kl,
      divergence_error(found.counts) if found.counts.sum() else None,
      f'nats (a perfect sampler {floor:.4f})',
    ),
  }
