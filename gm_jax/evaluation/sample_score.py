"""What a score of samples answers with: the value, its error, and what a perfect sampler would score."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array
from gm_jax.evaluation import likelihood


class SampleScore(NamedTuple):
  """A score of samples; every field is an array of one shape, so that scores pass through ``jit`` and ``vmap``.

  A perfect sampler draws from the distribution that the real examples come from. At a finite number of examples its
  score is neither 0 nor 1, and ``null`` says what it is. NaN stands where there is no answer.
  """

  value: Array
  stderr: Array  # standard error of value over draws of the examples
  null: Array  # what a perfect sampler scores in expectation, with as many examples
  null_stderr: Array  # standard deviation of value - null for a perfect sampler


def sample_score(value, stderr=jnp.nan, null=jnp.nan, null_stderr=jnp.nan) -> SampleScore:
  """A score of floats, all of the shape of ``value``."""
  value = jnp.asarray(value, float)
  others = (jnp.broadcast_to(jnp.asarray(other, float), value.shape) for other in (stderr, null, null_stderr))
  return SampleScore(value, *others)


def proportion(value: Array, *nums: float) -> Array:
  """The standard error of a share that depends on independent examples of each of ``nums`` numbers."""
  return jnp.sqrt(value * (1 - value) * sum(1 / num for num in nums))


def against(score: SampleScore, control: SampleScore) -> SampleScore:
  """A score whose null is the score of real examples that stood in the place of the samples, equally many.

  The control is one draw of what a perfect sampler scores; a perfect sampler's score and the control differ by
  sqrt(2) of its standard error.
  """
  return score._replace(null=control.value, null_stderr=jnp.sqrt(2.0) * control.stderr)


def deviations(score: SampleScore) -> Array:
  """By how many of its standard deviations a perfect sampler would have to miss its own mean to score this value."""
  return (score.value - score.null) / score.null_stderr


def to_report(score: SampleScore, n: int, unit: str = '') -> likelihood.Score:
  """A single score as an entry of a report, of kind ``'estimate'``, measured on ``n`` samples."""
  stderr = float(score.stderr)
  return likelihood.score(float(score.value), 'estimate', stderr=None if stderr != stderr else stderr, n=n, unit=unit)


def check_features(**arrays: Array) -> list[Array]:
  """Named arrays as float features [N, D] of one D.

  Raises:
    ValueError: if one is not [N, D] with at least two rows, they differ in D, or one has numbers that are not finite.
  """
  found = {name: jnp.asarray(array) for name, array in arrays.items()}
  found = {name: a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float) for name, a in found.items()}
  first = next(iter(found.values()))
  for name, array in found.items():
    if array.ndim != 2 or len(array) < 2 or not array.shape[1]:
      raise ValueError(f'{name} of shape {array.shape}: give features [N, D] of 2 examples or more')
    if array.shape[1] != first.shape[1]:
      sizes = ', '.join(f'{other} {a.shape[1]}' for other, a in found.items())
      raise ValueError(f'numbers of features differ ({sizes}): all must come from one extractor')
    if not isinstance(array, jax.core.Tracer) and not bool(jnp.isfinite(array).all()):
      raise ValueError(f'{name} has features that are not finite')
  return list(found.values())
