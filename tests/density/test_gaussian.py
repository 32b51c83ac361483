"""Closed forms against scipy, numpy and each other, and covariances that have no inverse."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.base import Batch, pure
from gm_jax.density import gaussian

MIXING = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0], [0.0, 0.0, 0.3]])


def _examples(num=200):
  return np.random.default_rng(0).standard_normal((num, 3)) @ MIXING + np.array([1.0, -2.0, 3.0])


def _covariance(params, d=3):
  module = gaussian.Gaussian(
    d, 'full' if 'lower' in params else 'diagonal' if params['log_scale'].ndim else 'spherical'
  )
  scale = module.apply({'params': params}, method='scale_tril')
  return np.asarray(scale @ scale.T)


@pytest.mark.parametrize('covariance', gaussian.COVARIANCES)
def test_maximum_likelihood_and_scipy(covariance):
  x = _examples()
  weights = np.random.default_rng(1).uniform(0, 2, len(x))
  model = gaussian.gaussian(3, covariance)
  params = model.init(jax.random.key(0), Batch(x))
  weighted = gaussian.fit_gaussian(x, covariance, weights=weights)
  for fitted, share in ((params, None), (weighted, weights)):
    expected = np.cov(x.T, bias=True, aweights=share)
    if covariance != 'full':
      expected = np.diag(np.diagonal(expected))
    if covariance == 'spherical':
      expected = np.eye(3) * np.trace(expected) / 3
    np.testing.assert_allclose(fitted['mean'], np.average(x, 0, share), rtol=1e-4)
    np.testing.assert_allclose(_covariance(fitted), expected, rtol=1e-3, atol=1e-4)
    reference = stats.multivariate_normal(np.average(x, 0, share), expected)
    np.testing.assert_allclose(model.log_prob(fitted, x.reshape(2, 100, 3)).ravel(), reference.logpdf(x), atol=2e-3)


@pytest.mark.parametrize('covariance', gaussian.COVARIANCES)
def test_the_closed_form_is_a_stationary_point(covariance):
  x = _examples()
  model = gaussian.gaussian(3, covariance)
  params = model.init(None, Batch(x))
  gradient = jax.grad(lambda p: model.log_prob(p, x).mean())(params)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-3


def test_floor_is_the_constrained_maximum():
  """Among covariances with the given eigenvectors and no eigenvalue below the floor, clipping is best."""
  x = np.random.default_rng(0).standard_normal((50, 2)) @ np.array([[1.0, 1.0], [0.01, -0.01]])
  floor = 0.1
  params = gaussian.fit_gaussian(x, floor=floor)
  covariance = _covariance(params, 2)
  least = floor * x.var(0).max()
  assert np.linalg.eigvalsh(covariance)[0] == pytest.approx(least, rel=1e-3)
  values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))

  def likelihood(eigenvalues):
    return stats.multivariate_normal(x.mean(0), (vectors * eigenvalues) @ vectors.T).logpdf(x).mean()

  best = float(gaussian.gaussian(2).log_prob(params, x).mean())
  assert best == pytest.approx(likelihood(np.maximum(values, least)), abs=1e-3)
  assert best > likelihood([least * 1.1, values[1]]) and best > likelihood([least, values[1] * 1.1])


@pytest.mark.parametrize('covariance', gaussian.COVARIANCES)
@pytest.mark.parametrize(
  'x',
  [np.ones((5, 3)), np.ones((1, 3)), np.zeros((2, 3)), np.eye(3)[:2], 1e-12 * np.eye(3), 1e12 * np.eye(3)],
)
def test_singular_covariances_give_numbers(covariance, x):
  model = gaussian.gaussian(3, covariance)
  params = model.init(None, Batch(x))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  assert np.isfinite(model.log_prob(params, x + 1.0)).all()
  assert np.isfinite(model.sample(params, jax.random.key(0), 3)).all()


def test_many_features_and_few_examples():
  x = np.random.default_rng(0).standard_normal((20, 100))
  params = gaussian.fit_gaussian(x, floor=0.01)
  log_prob = pure(gaussian.Gaussian(100)).log_prob(params, x)
  covariance = np.cov(x.T, bias=True)
  values, vectors = np.linalg.eigh(covariance)
  values = np.maximum(values, 0.01 * np.diagonal(covariance).max())
  expected = stats.multivariate_normal(x.mean(0), (vectors * values) @ vectors.T).logpdf(x)
  np.testing.assert_allclose(log_prob, expected, atol=2e-2, rtol=1e-3)


def test_tied_covariance():
  x, labels = _examples(), np.random.default_rng(2).integers(2, size=200)
  params = gaussian.fit_tied(x, labels, 3)
  means = [x[labels == c].mean(0) for c in range(2)]
  within = x - np.stack(means)[labels]
  for c in range(2):
    np.testing.assert_allclose(params[c]['mean'], means[c], rtol=1e-4)
    np.testing.assert_allclose(_covariance(params[c]), within.T @ within / 200, rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(params[2]['mean'], 0.0)


@pytest.mark.parametrize('covariance', gaussian.COVARIANCES)
def test_sample_moments(covariance):
  model = gaussian.gaussian(3, covariance)
  params = model.init(None, Batch(_examples()))
  draws = np.asarray(model.sample(params, jax.random.key(0), 20_000))
  expected = _covariance(params)
  scale = np.sqrt(np.diagonal(expected))
  assert np.all(np.abs(draws.mean(0) - np.asarray(params['mean'])) < 4 * scale / math.sqrt(20_000))
  # The variance of a sample covariance is (s_ii s_jj + s_ij^2) / n.
  error = np.sqrt((np.outer(scale, scale) ** 2 + expected**2) / 20_000)
  assert np.all(np.abs(np.cov(draws.T) - expected) < 4 * error)


def test_completion_is_the_conditional():
  model = gaussian.gaussian(3)
  params = model.init(None, Batch(_examples()))
  mean, covariance = np.asarray(params['mean'], float), _covariance(params).astype(float)
  row, num = np.array([2.0, -1.0, 0.0]), 20_000
  draws = np.asarray(
    model.complete(params, jax.random.key(1), np.tile(row, (num, 1)), np.array([True, False, True])), float
  )
  np.testing.assert_array_equal(draws[:, [0, 2]], row[[0, 2]] * np.ones((num, 1)))
  gain = covariance[1, [0, 2]] @ np.linalg.inv(covariance[np.ix_([0, 2], [0, 2])])
  expected = mean[1] + gain @ (row - mean)[[0, 2]]
  variance = covariance[1, 1] - gain @ covariance[[0, 2], 1]
  assert abs(draws[:, 1].mean() - expected) < 4 * math.sqrt(variance / num)
  assert abs(draws[:, 1].var() / variance - 1) < 4 * math.sqrt(2 / num)
  nothing = model.complete(params, jax.random.key(1), np.zeros((num, 3)), np.zeros(3, bool))
  assert np.abs(np.asarray(nothing).mean(0) - mean).max() < 4 * math.sqrt(covariance.max() / num)


def test_bernoulli_counts_and_sums_to_one():
  x = np.random.default_rng(0).integers(2, size=(7, 4))
  x[:, 0] = 1
  for pseudo_count in (0.0, 1.0, 0.5):
    model = gaussian.bernoulli(4, pseudo_count=pseudo_count)
    params = model.init(None, Batch(x))
    expected = (x.sum(0) + pseudo_count) / (7 + 2 * pseudo_count)
    np.testing.assert_allclose(jax.nn.sigmoid(params['logits']), expected, atol=1e-6)
    states = np.array(list(itertools.product([0, 1], repeat=4)))
    log_prob = model.log_prob(params, states)
    assert float(jnp.exp(log_prob).sum()) == pytest.approx(1.0, abs=1e-5)
    assert not np.isnan(log_prob).any()
  np.testing.assert_allclose(log_prob, stats.bernoulli(expected).logpmf(states).sum(-1), rtol=1e-4)
  draws = model.sample(params, jax.random.key(0), 4000)
  assert np.all(np.abs(draws.mean(0) - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9)
  weighted = gaussian.fit_bernoulli(x, weights=[2, 1, 1, 1, 1, 1, 0], pseudo_count=0.0)
  np.testing.assert_allclose(
    weighted['logits'], gaussian.fit_bernoulli(x[[0, 0, 1, 2, 3, 4, 5]], pseudo_count=0.0)['logits'], rtol=1e-5
  )


def test_categorical_counts_and_sums_to_one():
  x = np.random.default_rng(0).integers(3, size=(9, 2))
  x[:, 0] = np.minimum(x[:, 0], 1)
  states = np.array(list(itertools.product(range(3), repeat=2)))
  for pseudo_count in (0.0, 1.0):
    model = gaussian.categorical(2, 3, pseudo_count=pseudo_count)
    params = model.init(None, Batch(x))
    counts = np.stack([np.bincount(x[:, j], minlength=3) for j in range(2)]) + pseudo_count
    expected = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(params['logits']), expected, atol=1e-6)
    log_prob = np.asarray(model.log_prob(params, states))
    np.testing.assert_allclose(np.exp(log_prob), expected[0, states[:, 0]] * expected[1, states[:, 1]], atol=1e-6)
  draws = np.asarray(model.sample(params, jax.random.key(0), 4000))
  shares = np.stack([np.bincount(draws[:, j], minlength=3) / 4000 for j in range(2)])
  assert np.all(np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000))
  assert np.isneginf(model.log_prob(params, np.array([0, 3])))


@pytest.mark.parametrize('model', [gaussian.bernoulli(4), gaussian.categorical(4, 2)])
def test_discrete_completion_keeps_what_is_observed(model):
  x = np.random.default_rng(0).integers(2, size=(50, 4))
  params = model.init(None, Batch(x))
  observed = np.random.default_rng(1).random((50, 4)) < 0.5
  completed = np.asarray(model.complete(params, jax.random.key(0), x, observed))
  np.testing.assert_array_equal(completed[observed], x[observed])
  assert (completed[~observed] != x[~observed]).any() and set(np.unique(completed)) <= {0, 1}


@pytest.mark.parametrize(
  ('name', 'call'),
  [
    ("covariance='round'", lambda x: gaussian.fit_gaussian(x, 'round')),
    ("covariance='round'", lambda x: gaussian.gaussian(2, 'round')),
    ('floor=0', lambda x: gaussian.fit_gaussian(x, floor=0.0)),
    ('floor=-1', lambda x: gaussian.gaussian(2, floor=-1.0)),
    ('x of shape', lambda x: gaussian.fit_gaussian(x[0])),
    ('x of shape', lambda x: gaussian.fit_bernoulli(x[:0])),
    ('weights of shape', lambda x: gaussian.fit_gaussian(x, weights=np.ones(2))),
    ('pseudo_count=-1', lambda x: gaussian.fit_bernoulli(x, pseudo_count=-1)),
    ('pseudo_count=-1', lambda x: gaussian.fit_categorical(x, 2, pseudo_count=-1)),
  ],
)
def test_errors_name_the_argument(name, call):
  with pytest.raises(ValueError, match=name):
    call(np.zeros((4, 2)))


@pytest.mark.parametrize('model', [gaussian.gaussian(2), gaussian.bernoulli(2), gaussian.categorical(2, 3)])
def test_a_context_is_refused(model):
  x, key = np.zeros((4, 2)), jax.random.key(0)
  params = model.init(key, Batch(x))
  for call in (
    lambda: model.log_prob(params, x, context=x),
    lambda: model.sample(params, key, 1, context=x),
    lambda: model.complete(params, key, x, x > 0, context=x),
  ):
    with pytest.raises(ValueError, match='context'):
      call()
