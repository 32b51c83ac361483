"""Two-sample tests against their definitions in double precision, scipy, and their own nulls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.evaluation import two_sample


def draws(seed, *shape, shift=0.0):
  return (np.random.default_rng(seed).standard_normal(shape) + shift).astype(np.float32)


def definition(kernel, x, y):
  """The U-statistic with all matrices, in float64."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  n, m = len(x), len(y)
  within = lambda z: (kernel(z, z).sum() - np.trace(kernel(z, z))) / len(z) / (len(z) - 1)
  return within(x) + within(y) - 2 * kernel(x, y).sum() / n / m


@pytest.mark.parametrize('shift', [0.0, 30.0])  # far from the origin the naive sum of float32 loses every digit
def test_mmd_is_the_full_statistic(shift):
  x, y = draws(0, 130, 5, shift=shift), draws(1, 71, 5, shift=shift + 0.3)
  polynomial = lambda a, b: (a @ b.T / 5 + 1) ** 3
  found = jax.jit(lambda x, y: two_sample.mmd(x, y, block_size=37))(x, y)
  assert float(found.value) == pytest.approx(definition(polynomial, x, y), rel=3e-4)
  gaussian = lambda a, b: np.exp(-0.5 * ((a[:, None] - b) ** 2).sum(-1) / 4)
  found = jax.jit(lambda x, y: two_sample.mmd(x, y, kernel=two_sample.gaussian(2.0), block_size=64))(x, y)
  assert float(found.value) == pytest.approx(definition(gaussian, x, y), abs=1e-5)


@pytest.mark.parametrize('shift', [0.0, 0.5])
def test_mmd_knows_its_error(shift):
  """With and without a difference, at unequal numbers, the error is the spread over 80 draws."""
  x, y = draws(2, 80, 100, 4), draws(3, 80, 60, 4, shift=shift)
  found = jax.device_get(jax.jit(lambda x, y: jax.lax.map(lambda pair: two_sample.mmd(*pair), (x, y)))(x, y))
  spread = found.value.std(ddof=1)
  assert found.stderr.mean() == pytest.approx(spread, rel=3 / np.sqrt(160))
  if not shift:
    assert abs(found.value.mean()) < 3 * spread / np.sqrt(80)
    assert found.null_stderr.mean() == pytest.approx(spread, rel=3 / np.sqrt(160))


def test_permutations_give_a_level():
  def p_values(x, y):
    keys = jax.random.split(jax.random.key(0), len(x))
    test = lambda args: two_sample.permutation_test(*args, num_permutations=39, block_size=64)
    return jax.lax.map(test, (keys, x, y))

  p_values = jax.jit(p_values)
  null = p_values(draws(4, 100, 30, 3), draws(5, 100, 20, 3))
  assert stats.kstest(np.asarray(null.p_value) - np.random.default_rng(0).random(100) / 40, 'uniform').pvalue > 0.01
  x, y = draws(6, 100, 30, 3), draws(7, 100, 20, 3, shift=1.5)
  found = p_values(x, y)
  assert np.median(found.p_value) == pytest.approx(1 / 40)
  polynomial = lambda a, b: (a @ b.T / 3 + 1) ** 3
  assert float(found.value[0]) == pytest.approx(definition(polynomial, x[0], y[0]), rel=1e-4)


@pytest.mark.parametrize('m', [40, 25])
def test_wasserstein_on_a_line(m):
  x, y = draws(8, 40), 2 * draws(9, m) + 1
  # Repeating each point until both have equally many is an exact way to unequal numbers.
  long = np.sort(np.repeat(x, m)), np.sort(np.repeat(y, 40))
  expected = ((long[0].astype(float) - long[1]) ** 2).mean()
  assert float(jax.jit(two_sample.wasserstein)(x, y)) == pytest.approx(expected, rel=1e-5)


def test_sliced_wasserstein_of_a_shift():
  x = draws(10, 400, 3)
  sliced = jax.jit(lambda key, x, y: two_sample.sliced_wasserstein(key, x, y, num_projections=64))
  shifted = sliced(jax.random.key(0), x, x + np.array([3.0, 0, 0], np.float32))
  assert float(shifted.value) == pytest.approx(9 / 3, abs=4 * 9 * np.sqrt(4 / 45 / 64))  # var of a squared cosine
  same = sliced(jax.random.key(0), x, draws(11, 400, 3))
  assert abs(same.value - same.null) < 3 * same.null_stderr
  assert shifted.value - shifted.null > 10 * shifted.null_stderr


@pytest.mark.slow
def test_a_classifier_tells_what_differs_and_nothing_else():
  options = {'hidden_sizes': (8,), 'num_steps': 200, 'batch_size': 32, 'learning_rate': 0.02}
  test = jax.jit(lambda key, x, y: two_sample.classifier_test(key, x, y, **options))
  x = draws(12, 600, 2)
  x = x[np.argsort(x[:, 0])]  # sorted examples must not be halved as they are
  same, other = test(jax.random.key(0), x, draws(13, 600, 2)), test(jax.random.key(0), x, draws(14, 500, 2, shift=2.0))
  assert abs(same.value - 0.5) < 3 * same.null_stderr
  assert float(other.value) > stats.norm.cdf(2**0.5) - 3 * float(other.stderr)  # the best that any classifier can do
  assert float(same.null_stderr) == pytest.approx(0.5 / np.sqrt(600))


def test_median_distance():
  x = draws(15, 50, 3)
  above = np.triu_indices(50, 1)
  expected = np.median(np.sqrt(((x[:, None] - x) ** 2).sum(-1))[above])
  assert float(two_sample.median_distance(jnp.asarray(x))) == pytest.approx(expected, rel=1e-5)
