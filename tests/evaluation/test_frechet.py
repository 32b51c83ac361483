"""The Fréchet distance against scipy in double precision, and its null by simulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from gm_jax.evaluation import frechet

score = jax.jit(frechet.frechet)


def exact(x, y):
  """The textbook formula in float64, by the symmetric root, which is real whatever the rank."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  a, b = np.cov(x.T), np.cov(y.T)
  w, v = np.linalg.eigh(a)
  root = v * np.sqrt(np.clip(w, 0, None)) @ v.T
  trace = np.sqrt(np.clip(linalg.eigvalsh(root @ b @ root), 0, None)).sum()
  return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * trace


def draws(seed, n, spectrum, shift=0.0):
  rng = np.random.default_rng(seed)
  return (rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum) + shift).astype(np.float32)


CASES = {
  'steep spectrum far from the origin': (
    draws(0, 400, 10.0 ** -np.arange(16.0), 3.0), draws(1, 300, 10.0 ** -np.arange(16.0), 3.1),
  ),
  'rank-deficient': (
    np.repeat(draws(2, 400, np.ones(8)), 2, 1), np.pad(draws(3, 300, np.ones(8)), [(0, 0), (0, 8)]),
  ),
  'fewer examples than features': (draws(4, 12, np.ones(16)), draws(5, 9, np.ones(16))),
  'samples collapsed to a point': (draws(6, 400, np.ones(16)), np.full((300, 16), 0.5, np.float32)),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_single_precision_agrees_with_scipy_in_double(case):
  x, y = CASES[case]
  found, expected = score(x, y), exact(x, y)
  scale = np.cov(x.T).trace() + np.cov(y.T).trace()
  assert float(found.value) == pytest.approx(expected, abs=3e-6 * scale)
  assert np.isfinite(found.stderr)
  assert np.isnan(found.null) == (len(x) < 32)


@pytest.mark.filterwarnings('ignore:Matrix is')
def test_the_textbook_formula_in_single_precision_would_not_pass():
  """The tolerance above is one that forming covariances in float32 misses."""
  x, y = CASES['steep spectrum far from the origin']
  a, b = (jnp.asarray(np.cov(z.T), jnp.float32) for z in (x, y))
  root = np.asarray(linalg.sqrtm(np.asarray(a @ b))).real
  textbook = float(((x.mean(0) - y.mean(0)) ** 2).sum() + jnp.trace(a) + jnp.trace(b) - 2 * np.trace(root))
  assert abs(textbook - exact(x, y)) > 3e-6 * float(jnp.trace(a) + jnp.trace(b))


def test_moments_merge_in_any_order():
  x = draws(7, 500, np.ones(6), 2.0)
  whole = frechet.moments(jnp.asarray(x))

  @jax.jit
  def in_parts(x):
    streamed = frechet.moments(x, block_size=77)  # the last block is filled up
    first, second, third = frechet.moments(x[:3]), frechet.moments(x[3:200]), frechet.moments(x[200:])
    return streamed, frechet.merge(third, frechet.merge(second, first))

  for part in in_parts(x):
    np.testing.assert_allclose(part.mean, whole.mean, rtol=1e-5)
    np.testing.assert_allclose(part.factor.T @ part.factor, whole.factor.T @ whole.factor, rtol=1e-4, atol=1e-3)
    assert part.n == 500
  assert float(jax.jit(frechet.distance)(whole, part)) < 1e-5


@functools.cache
def simulated(ratio):
  """60 scores of 256 against 128 draws in 16 dimensions; the samples' spread is ``ratio``."""
  spectrum = 1 / np.arange(1.0, 17)
  pairs = [(draws(2 * i, 256, spectrum), ratio * draws(2 * i + 1, 128, spectrum)) for i in range(60)]
  stack = jax.jit(lambda x, y: jax.lax.map(lambda pair: frechet.frechet(*pair), (x, y)))
  return jax.device_get(stack(*(np.stack(part) for part in zip(*pairs, strict=True))))


def test_a_perfect_sampler_scores_the_null():
  found = simulated(1.0)
  spread = found.value.std(ddof=1)
  assert found.value.mean() == pytest.approx(found.null.mean(), abs=3 * spread / np.sqrt(60))
  assert found.null_stderr.mean() == pytest.approx(spread, rel=3 / np.sqrt(120))  # the error of a spread of 60


def test_the_error_of_a_wrong_sampler():
  found = simulated(1.5)
  assert found.stderr.mean() == pytest.approx(found.value.std(ddof=1), rel=3 / np.sqrt(120))
  assert ((found.value - found.null) / found.null_stderr).min() > 3


def test_extrapolation_takes_the_bias_away():
  x, y = draws(8, 800, np.ones(16)), draws(9, 800, np.ones(16))
  infinite = jax.jit(frechet.extrapolated)(jax.random.key(0), x, y)
  plain = score(x, y)
  assert abs(infinite.value) < 3 * infinite.stderr
  assert float(plain.value - infinite.value) == pytest.approx(float(plain.null), abs=3 * float(infinite.stderr))
  assert plain.null > 5 * plain.null_stderr
  with pytest.raises(ValueError, match='leave 7 examples for 16 features'):
    frechet.extrapolated(jax.random.key(0), x[:30], y[:30])


def test_bad_input():
  with pytest.raises(ValueError, match=r'fake of shape \(5,\)'):
    frechet.frechet(np.zeros((5, 2)), np.zeros(5))
  with pytest.raises(ValueError, match='real 2, fake 3'):
    frechet.frechet(np.zeros((5, 2)), np.zeros((5, 3)))
  with pytest.raises(ValueError, match='fake has features that are not finite'):
    frechet.frechet(np.zeros((5, 2)), np.full((5, 2), np.nan))
