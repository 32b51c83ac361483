"""Scores that say what kind of number they are, and means over a data set that count every example once.

Log-likelihoods are in nats per example; only ``bits_per_dimension`` leaves that unit, and only for reports.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Key, Params

KINDS = ('exact', 'bracket', 'lower bound', 'upper bound', 'estimate')


class Score(NamedTuple):
  """A number of a report; made by ``score``, which checks it."""

  value: float
  kind: str  # one of KINDS
  stderr: float | None  # standard error of value, in its unit; None where there is none to give
  n: int  # number of examples it was measured on
  unit: str
  lower: float | None = None  # the truth lies in [lower, upper]: always there for a bracket
  upper: float | None = None


def score(
  value: float,
  kind: str,
  *,
  stderr: float | None,
  n: int,
  unit: str = 'nats',
  lower: float | None = None,
  upper: float | None = None,
) -> Score:
  """A ``Score`` of plain Python numbers, checked.

  Numbers that are not finite pass: a run that diverged has a score too, and ``to_json`` writes it as null.

  Args:
    value: the number itself.
    kind: ``'exact'``, ``'bracket'``, ``'lower bound'``, ``'upper bound'`` or ``'estimate'``, with respect to the
      quantity that the score is named after.
    stderr: standard error of ``value``, or None.
    n: number of examples.
    unit: ``'nats'`` per example unless told otherwise.
    lower: lower end of a bracket, or of an interval around an estimate.
    upper: upper end.

  Raises:
    ValueError: if ``kind`` is unknown, ``n`` is below 1, ``stderr`` is negative, a bracket lacks an end, an exact
      number or a bound has an interval, only one end is given, or ``value`` is outside of its interval. Two noisy
      bounds may cross: widen each by its own error first, or report an ``'estimate'``.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r}: a score is one of {", ".join(map(repr, KINDS))}')
  if int(n) != n or n < 1:
    raise ValueError(f'n={n!r}: a score is measured on 1 example or more')
  if stderr is not None and stderr < 0:
    raise ValueError(f'stderr={stderr!r}: a standard error is not negative; give None if it is not known')
  if (lower is None) != (upper is None):
    raise ValueError(f'lower={lower!r}, upper={upper!r}: give both ends of an interval or neither')
  if kind == 'bracket' and lower is None:
    raise ValueError("kind='bracket' needs lower and upper")
  if kind not in ('bracket', 'estimate') and lower is not None:
    raise ValueError(f'kind={kind!r} has no interval: leave out lower and upper, or call it a bracket')
  if lower is not None and (lower > upper or value < lower or value > upper):
    raise ValueError(
      f'value={value!r} is not inside [lower={lower!r}, upper={upper!r}]: widen the ends by their errors'
    )
  plain = [None if number is None else float(number) for number in (stderr, lower, upper)]
  return Score(float(value), kind, plain[0], int(n), unit, *plain[1:])


def to_json(score: Score) -> dict[str, Any]:
  """A score as the entry of ``report.json``; what is not finite becomes null, an interval is there if it exists."""
  entry = {'value': _finite(score.value), 'kind': score.kind, 'stderr': _finite(score.stderr), 'n': score.n}
  entry['unit'] = score.unit
  if score.lower is not None:
    entry.update(lower=_finite(score.lower), upper=_finite(score.upper))
  return entry


def is_closed(score: Score, width: float = 1.0) -> bool:
  """Whether a score pins its quantity down: exact, or a bracket no wider than ``width`` (in the score's unit)."""
  return score.kind == 'exact' or (score.kind == 'bracket' and score.upper - score.lower <= width)


def name_of_test_score(kind: str) -> str:
  """The name under which a test log-likelihood of this kind is reported.

  ``test_log_prob`` if it is exact or bracketed, ``test_bound`` if it bounds from one side only, and ``test_estimate``
  if it does neither, so that no table ever sets an estimate beside a likelihood.

  Raises:
    ValueError: if ``kind`` is unknown.
  """
  names = dict(zip(KINDS, ('test_log_prob', 'test_log_prob', 'test_bound', 'test_bound', 'test_estimate'), strict=True))
  if kind not in names:
    raise ValueError(f'kind={kind!r}: a score is one of {", ".join(map(repr, KINDS))}')
  return names[kind]


def describe(score: Score) -> str:
  """A score in one line: value, error, unit, kind, interval, number of examples.

  Example:
    >>> describe(score(-84.913, 'bracket', stderr=0.402, n=10000, lower=-85.02, upper=-84.80))
    '-84.91 ± 0.40 nats (bracket [-85.02, -84.80], n = 10000)'
  """
  digits = decimals(score.stderr)
  kind = score.kind
  if score.lower is not None:
    kind += f' [{score.lower:.{digits}f}, {score.upper:.{digits}f}]'
  if score.kind == 'bracket' and score.unit == 'nats' and not is_closed(score):
    kind += ', not closed'
  error = '' if _finite(score.stderr) is None else f' ± {score.stderr:.{digits}f}'
  return f'{score.value:.{digits}f}{error} {score.unit} ({kind}, n = {score.n})'


class Mean(NamedTuple):
  """The mean of a function over a data set."""

  mean: float
  stderr: float  # std(values, ddof=1) / sqrt(n); NaN for one example
  n: int
  values: np.ndarray  # [n] float64, one per example, in the order of the data

  def score(self, kind: str, unit: str = 'nats') -> Score:
    """The mean as a ``Score`` of the given kind."""
    return score(self.mean, kind, stderr=self.stderr, n=self.n, unit=unit)


def summarise(values) -> Mean:
  """Mean and standard error of values (one per example, any shape), computed in float64."""
  values = np.asarray(values, np.float64).ravel()
  if not values.size:
    raise ValueError('values is empty: a mean needs 1 example or more')
  with np.errstate(invalid='ignore'):  # a single -inf makes the mean -inf and the error NaN, which is the right answer
    stderr = values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else math.nan
    return Mean(float(values.mean()), float(stderr), values.size, values)


def evaluator(function: Callable, *, block_size: int, stochastic: bool = False) -> Callable:
  """Compiles the mean over a data set of a function of examples, such as ``model.log_prob``.

  The data go through in blocks of ``block_size`` under one scan. The last block is filled up with copies of the last
  example, whose values are cut off again: each example counts exactly once. One evaluator compiles once per shape of
  the data, so make it once and call it with new parameters as often as needed.

  Args:
    function: ``(params, x) -> [B]`` for ``x`` of ``[B, ...]``, or ``(params, key, x) -> [B]`` if ``stochastic``; it
      takes ``context=`` if the data have one. It may return a tree (such as a dict) of ``[B]``.
    block_size: examples per block, which bounds the memory needed.
    stochastic: whether the function draws random numbers; each block then has a key of its own.

  Returns:
    ``evaluate(params, x, context=None, key=None) -> Mean``, or the same tree of ``Mean``. Mean and error are taken on
    the host in float64.

  Raises:
    ValueError: if ``block_size`` is below 1; and, from ``evaluate``, if ``x`` is empty, ``context`` is not as long as
      ``x``, a stochastic function is not given a key or another one is, or the function's value is not one number per
      example.
  """
  if block_size < 1:
    raise ValueError(f'block_size={block_size}: a block holds 1 example or more')

  @jax.jit
  def per_example(params, x, context, key):
    n = x.shape[0]
    size = min(block_size, n)

    def block(index):
      rows = jnp.minimum(index * size + jnp.arange(size), n - 1)
      kwargs = {} if context is None else {'context': jnp.take(context, rows, axis=0)}
      args = (jax.random.fold_in(key, index),) if stochastic else ()
      values = function(params, *args, jnp.take(x, rows, axis=0), **kwargs)
      for leaf in jax.tree.leaves(values):
        if leaf.shape != (size,):
          raise ValueError(
            f'the function gave shape {leaf.shape} for {size} examples: it must give one number for each'
          )
      return values

    values = jax.lax.map(block, jnp.arange(-(-n // size)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:n], values)

  def evaluate(params: Params, x, context=None, key: Key | None = None):
    if not len(x):
      raise ValueError('x is empty: a mean needs 1 example or more')
    if context is not None and len(context) != len(x):
      raise ValueError(f'context has {len(context)} rows for {len(x)} examples: give one for each')
    if stochastic != (key is not None):
      raise ValueError(f'key={key!r}: a stochastic function needs a key, and no other takes one')
    return jax.tree.map(summarise, jax.device_get(per_example(params, x, context, key)))

  return evaluate


def over_seeds(scores: Sequence[Score]) -> Score:
  """The mean of the same score over independent runs, with the standard error over runs in place of its own.

  The new error tells how far another set of seeds would land on the same test examples; ``n`` stays the number of
  those. Ends of intervals are averaged. One score alone comes back as it is.

  Raises:
    ValueError: if there is no score, or they differ in kind, unit or number of examples.
  """
  if not scores:
    raise ValueError('scores is empty: give the score of 1 run or more')
  if len({(one.kind, one.unit, one.n, one.lower is None) for one in scores}) > 1:
    raise ValueError('scores differ in kind, unit or number of examples, so they have no common mean')
  if len(scores) == 1:
    return scores[0]
  first, over = scores[0], summarise([one.value for one in scores])
  ends = [
    None if first.lower is None else summarise(end).mean for end in zip(*(one[-2:] for one in scores), strict=True)
  ]
  return first._replace(value=over.mean, stderr=over.stderr, lower=ends[0], upper=ends[1])


class LogMean(NamedTuple):
  """The logarithm of a mean of weights, from their logarithms; each field has the shape of all axes but one."""

  value: np.ndarray  # log (1/k) sum_i w_i, float64; below the log of the expectation in the mean
  stderr: np.ndarray  # by the jackknife
  corrected: np.ndarray  # value with its bias of order 1/k removed by the jackknife: an estimate and no bound
  effective_sample_size: np.ndarray  # (sum w)^2 / sum w^2, between 1 and k


def log_mean_exp(log_weights, axis: int = -1) -> LogMean:
  """The log-mean-exp of ``k`` weights, log (1/k) sum_i exp(log_weights_i), with its jackknife error, in float64.

  With L the value from all weights and L_(i) the one without weight i,
  stderr^2 = (k-1)/k sum_i (L_(i) - mean L_(.))^2 and corrected = k L - (k-1) mean L_(.) (Quenouille 1956, Tukey 1958).
  The L_(i) come from sums to the left and to the right of i, so one dominant weight costs no precision.

  Args:
    log_weights: ``[..., k, ...]`` logarithms of importance weights, nats; independent along ``axis``.
    axis: the axis of the weights.

  Raises:
    ValueError: if there are fewer than two weights.
  """
  log_weights = np.moveaxis(np.asarray(log_weights, np.float64), axis, 0)
  k = len(log_weights)
  if k < 2:
    raise ValueError(f'log_weights has {k} along axis={axis}: the jackknife needs 2 weights or more')
  nothing = np.full((1, *log_weights.shape[1:]), -np.inf)
  left = np.concatenate([nothing, np.logaddexp.accumulate(log_weights)])
  right = np.concatenate([np.logaddexp.accumulate(log_weights[::-1])[::-1], nothing])
  value = left[-1] - math.log(k)
  without = np.logaddexp(left[:-1], right[1:]) - math.log(k - 1)
  stderr = np.sqrt((k - 1) * without.var(axis=0))
  corrected = k * value - (k - 1) * without.mean(axis=0)
  ess = np.exp(2 * left[-1] - np.logaddexp.reduce(2 * log_weights, axis=0))
  return LogMean(value, stderr, corrected, ess)


def bits_per_dimension(log_prob, num_dimensions: int, *, log_det=0.0, levels: float = 1):
  """Nats per example of what the model saw, as bits per dimension of the original data.

  A model of y = T(x / levels) that gives y a log-density of ``log_prob`` gives the original x
  log p(x) = log_prob + log|det dT| - D log(levels), and this returns -log p(x) / (D log 2). For dequantised integers
  (``levels`` = 256 for 8-bit images) it bounds the code length of the integers from above.

  Args:
    log_prob: log-density in the space of the model, nats; a number or an array ``[...]``.
    num_dimensions: D, the number of dimensions of an example (channels count).
    log_det: sum of the log-dets of the transforms T from ``x / levels`` to the model's space, of the shape of
      ``log_prob``. Where it differs between examples, convert each example and then take the mean.
    levels: what the original values were divided by.

  Raises:
    ValueError: if ``num_dimensions`` is below 1 or ``levels`` is not positive.

  Example:
    >>> bits_per_dimension(0.0, 784, levels=256)  # the uniform density on the unit cube
    8.0
  """
  if num_dimensions < 1:
    raise ValueError(f'num_dimensions={num_dimensions}: an example has 1 dimension or more')
  if not levels > 0:
    raise ValueError(f'levels={levels}: give the positive number that the data were divided by')
  return -(log_prob + log_det) / (num_dimensions * math.log(2)) + math.log2(levels)


def score_in_bits(score: Score, num_dimensions: int, *, log_det: float = 0.0, levels: float = 1) -> Score:
  """A score of log-likelihood (nats) as bits per dimension: the sign turns, so bounds and ends change sides.

  Arguments are those of ``bits_per_dimension``; ``log_det`` must be the same for every example.

  Raises:
    ValueError: if the score is not in nats.
  """
  if score.unit != 'nats':
    raise ValueError(f'unit={score.unit!r}: bits per dimension are made from nats')
  value, upper, lower = (
    None if nats is None else bits_per_dimension(nats, num_dimensions, log_det=log_det, levels=levels)
    for nats in (score.value, score.lower, score.upper)
  )
  stderr = None if score.stderr is None else score.stderr / (num_dimensions * math.log(2))
  turned = {'lower bound': 'upper bound', 'upper bound': 'lower bound'}
  return Score(value, turned.get(score.kind, score.kind), stderr, score.n, 'bits/dim', lower, upper)


def _finite(number: float | None) -> float | None:
  return number if number is not None and math.isfinite(number) else None


def decimals(stderr: float | None) -> int:
  """How many decimals show two significant digits of an error; two where there is no error to go by."""
  if _finite(stderr) is None or stderr == 0:
    return 2
  return min(max(1 - math.floor(math.log10(stderr)), 0), 9)
