"""Masks: no path from an input to an output that does not come after it, and one from each that comes before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.base import context_features
from gm_jax.nn import masked


@pytest.mark.parametrize('ordering', [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
@pytest.mark.parametrize('hidden_sizes', [[4], [9, 6], [5, 8, 4]])
def test_paths_lead_from_every_earlier_input_and_from_no_other(ordering, hidden_sizes):
  degrees = masked.input_degrees(masked.check_ordering(ordering, 5))
  paths, below = np.eye(5, dtype=int), degrees
  for size in hidden_sizes:
    hidden = masked.even_degrees(size, 5)
    paths, below = paths @ np.asarray(masked.hidden_mask(below, hidden), int), hidden
  paths = paths @ np.asarray(masked.output_mask(below, degrees), int)
  place = np.argsort(ordering)
  np.testing.assert_array_equal(paths > 0, place[:, None] < place[None, :])


def test_degrees_are_all_there_and_even():
  for num_units in (4, 5, 11, 500):
    counts = np.bincount(masked.even_degrees(num_units, 5), minlength=5)[1:]
    assert counts.min() >= 1
    assert np.ptp(counts) <= 1
  with pytest.raises(ValueError, match=r'layer of 3 units cannot bear each of the degrees 1, \.\.\., 4'):
    masked.even_degrees(3, 5)


@pytest.mark.parametrize('ordering', [[0, 1], [0, 1, 1], [1, 2, 3]])
def test_orderings_are_permutations(ordering):
  with pytest.raises(ValueError, match='is no permutation of 0, ..., 2'):
    masked.check_ordering(ordering, 3)


def test_a_masked_layer_multiplies_its_kernel_by_the_mask():
  x, mask = jnp.arange(6.0).reshape(2, 3), np.array([[1, 0], [0, 0], [1, 1]], bool)
  layer = masked.MaskedDense(2)
  params = layer.init(jax.random.key(0), x, mask)
  kernel = np.asarray(params['params']['kernel'])
  assert (kernel != 0).all()  # what is stored knows of no mask
  np.testing.assert_allclose(layer.apply(params, x, mask), x @ (kernel * mask), rtol=1e-6)


def test_contexts():
  np.testing.assert_array_equal(context_features(np.array([2, 0]), 3, (2,)), [[0, 0, 1], [1, 0, 0]])
  np.testing.assert_array_equal(context_features(np.full((2, 3), 0.5), 3, (2,)), np.full((2, 3), 0.5))
  assert context_features(None, 0, (2,)) is None
  for context, size, message in (
    (None, 3, 'context is missing'),
    (np.zeros(2, int), 0, 'context is given'),
    (np.zeros(3, int), 3, r'context has shape \(3,\)'),
    (np.zeros((2, 4)), 3, r'features of shape \(2, 3\)'),
  ):
    with pytest.raises(ValueError, match=message):
      context_features(context, size, (2,))
