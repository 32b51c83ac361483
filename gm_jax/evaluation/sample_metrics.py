"""All scores of samples under one table: which sets each one looks at, and which way is better.

Train, test and generated examples have fixed places: fidelity and diversity are measured against *test* examples, which
the sampler has not seen, and memorisation by *train* against test. A score whose null has no closed form is given one
by a *control*: real examples that are in neither set, in the place of the samples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from gm_jax.base import Key
from gm_jax.evaluation import divergence, frechet, inception, memorisation, parzen, precision_recall, two_sample
from gm_jax.evaluation.extractors import Features
from gm_jax.evaluation.sample_score import SampleScore, against

DIRECTIONS = {
  'frechet': 'low', 'frechet_infinity': 'low', 'mmd': 'low', 'sliced_wasserstein': 'low', 'classifier_accuracy': 'low',
  'precision': 'high', 'recall': 'high', 'density': 'high', 'coverage': 'high', 'nearest_accuracy': 'null',
  'curve_recall': 'high', 'curve_precision': 'high', 'inception_score': 'high', 'class_divergence': 'low',
  'authenticity': 'high', 'copies': 'low', 'copying_test': 'null', 'parzen': 'high', 'neural_net_divergence': 'low',
}  # fmt: skip


class Sets(NamedTuple):
  """What a score looks at."""

  train: Features | None
  test: Features
  fake: Features


class Metric(NamedTuple):
  """A function that gives one score or several."""

  function: Callable[[Key, Sets], dict[str, SampleScore]]
  needs_train: bool = False
  needs_logits: bool = False


def _neighbourhoods(key, sets):
  del key
  found = precision_recall.neighbourhoods(sets.test.codes, sets.fake.codes)
  scores = {name: jax.tree.map(lambda leaf: leaf[0], getattr(found, name)) for name in (
    'precision', 'recall', 'density', 'coverage',
  )}  # fmt: skip
  return {**scores, 'nearest_accuracy': found.nearest_accuracy}


def _memorisation(key, sets):
  codes = sets.train.codes, sets.test.codes, sets.fake.codes
  return {'copies': memorisation.copies(*codes), 'copying_test': memorisation.copying_test(key, *codes)}


def _authenticity(key, sets):
  del key
  return {'authenticity': precision_recall.neighbourhoods(sets.train.codes, sets.fake.codes, ks=(1,)).authenticity}


def _curve(key, sets):
  found = precision_recall.cluster_curve(key, sets.test.codes, sets.fake.codes)
  return {'curve_recall': found.recall, 'curve_precision': found.precision}


def _single(name, function):
  return lambda key, sets: {name: function(key, sets)}


METRICS = {
  'frechet': Metric(_single('frechet', lambda key, s: frechet.frechet(s.test.codes, s.fake.codes))),
  'frechet_infinity': Metric(
    _single('frechet_infinity', lambda key, s: frechet.extrapolated(key, s.test.codes, s.fake.codes))
  ),
  'mmd': Metric(_single('mmd', lambda key, s: two_sample.mmd(s.test.codes, s.fake.codes))),
  'sliced_wasserstein': Metric(
    _single('sliced_wasserstein', lambda key, s: two_sample.sliced_wasserstein(key, s.test.codes, s.fake.codes))
  ),
  'classifier_test': Metric(
    _single('classifier_accuracy', lambda key, s: two_sample.classifier_test(key, s.test.codes, s.fake.codes))
  ),
  'neighbourhoods': Metric(_neighbourhoods),
  'curve': Metric(_curve),
  'inception_score': Metric(
    _single('inception_score', lambda key, s: inception.inception_score(key, s.fake.logits, s.test.logits)),
    needs_logits=True,
  ),
  'class_divergence': Metric(
    _single('class_divergence', lambda key, s: inception.class_divergence(s.fake.logits, s.test.logits)),
    needs_logits=True,
  ),
  'authenticity': Metric(_authenticity, needs_train=True),
  'memorisation': Metric(_memorisation, needs_train=True),
  # The bandwidth is chosen by training images, which flatters copies of them; experiments/parzen.py has the protocol.
  'parzen': Metric(
    _single('parzen', lambda key, s: parzen.parzen(s.fake.codes, s.train.codes, s.test.codes).log_prob),
    needs_train=True,
  ),
  'neural_net_divergence': Metric(
    _single(
      'neural_net_divergence',
      lambda key, s: divergence.neural_net_divergence(
        key, 2 * s.test.codes - 1, 2 * s.fake.codes - 1, num_steps=1000, batch_size=min(128, len(s.fake.codes))
      ),
    )
  ),
}
OF_PIXELS = ('parzen', 'neural_net_divergence')  # what has a meaning for pixels in [0, 1] only


def scorer(names: Sequence[str]) -> Callable[[Key, Sets], dict[str, SampleScore]]:
  """Compiles metrics into one function of the sets.

  Args:
    names: of ``METRICS``.

  Returns:
    ``(key, sets) -> {name: SampleScore}``; metrics that need what the sets lack are left out.

  Raises:
    ValueError: for an unknown name.
  """
  if unknown := [name for name in names if name not in METRICS]:
    raise ValueError(f'metrics has {unknown[0]!r}: give names of {", ".join(METRICS)}')
  compiled = {name: jax.jit(METRICS[name].function) for name in names}

  def score(key, sets):
    found = {}
    for name, function in compiled.items():
      metric = METRICS[name]
      if (metric.needs_train and sets.train is None) or (metric.needs_logits and sets.fake.logits is None):
        continue
      found.update(function(key, sets))
    return found

  return score


def with_control(scores: dict[str, SampleScore], control: dict[str, SampleScore]) -> dict[str, SampleScore]:
  """Scores in which a null that is not known is the score of the control."""
  return {
    name: against(one, control[name]) if one.null != one.null and name in control else one
    for name, one in scores.items()
  }


def is_worse(name: str, value, reference, tolerance) -> bool | None:
  """Whether a value is worse than a reference by more than a tolerance: False if it is better by that, else None."""
  gap = float(value - reference)
  if DIRECTIONS[name] == 'null':
    return True if abs(gap) > tolerance else None
  gap = gap if DIRECTIONS[name] == 'low' else -gap
  return None if abs(gap) <= tolerance else gap > 0
