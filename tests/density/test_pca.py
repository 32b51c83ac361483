import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import decomposition

from gm_jax.base import Batch
from gm_jax.density import factor_analysis, pca
from gm_jax.density.factor_analysis import FactorAnalysis
from gm_jax.training.rules import expectation_maximization

DIM = 6
principal_components = jax.jit(pca.principal_components, static_argnums=1, static_argnames='method')
log_prob = jax.jit(factor_analysis.log_prob)


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield


def correlated(num=200, dim=DIM, rank=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(num, rank)) @ rng.normal(size=(rank, dim)) * 2 + rng.normal(size=(num, dim)) + 5


def density(params):
  """The same Gaussian as SciPy has it."""
  loadings, noise = np.asarray(params.loadings), np.asarray(params.noise_scale)
  covariance = loadings @ loadings.T + np.diag(np.broadcast_to(noise**2, len(loadings)))
  return np.asarray(params.origin + params.offset), covariance


def converge(model, x, num_steps):
  em = expectation_maximization(model.init, model.e_step, model.m_step)

  @jax.jit
  def run(key, batch):
    return jax.lax.scan(lambda s, _: em.step(None, s, batch), em.init(key, batch), length=num_steps)

  state, metrics = run(jax.random.key(0), Batch(jnp.asarray(x)))
  return state.params, np.asarray(metrics['loss'])


@pytest.mark.parametrize('method', ['covariance', 'svd', 'randomized'])
def test_components_are_those_of_sklearn(method, double):
  x = correlated(dim=30, rank=5)
  key = jax.random.key(0) if method == 'randomized' else None
  found = principal_components(jnp.asarray(x), 4, method=method, key=key)
  peer = decomposition.PCA(4, svd_solver='full').fit(x)
  unbiased = len(x) / (len(x) - 1)
  tolerance = 1e-5 if method == 'randomized' else 1e-10
  np.testing.assert_allclose(np.abs((found.components * peer.components_).sum(1)), 1, atol=tolerance)
  np.testing.assert_allclose(found.variance * unbiased, peer.explained_variance_, rtol=tolerance)
  np.testing.assert_allclose(found.discarded * unbiased, peer.noise_variance_, rtol=tolerance)
  np.testing.assert_allclose(pca.explained_variance_ratio(found), peer.explained_variance_ratio_, rtol=tolerance)
  np.testing.assert_allclose(np.abs(pca.project(found, x)), np.abs(peer.transform(x)), atol=100 * tolerance)
  assert np.all(np.take_along_axis(found.components, np.abs(found.components).argmax(1)[:, None], 1) > 0)


def test_reconstruction_loses_exactly_the_discarded_variance(double):
  x = correlated()
  for num in (1, 3, DIM):
    found = principal_components(jnp.asarray(x), num)
    error = ((pca.reconstruct(found, pca.project(found, x)) - x) ** 2).sum(1).mean()
    np.testing.assert_allclose(error, found.discarded * (DIM - num), rtol=1e-9, atol=1e-12)


def test_more_dimensions_than_examples_and_constant_data():
  x = jnp.asarray(correlated(num=5, dim=8), jnp.float32)
  exact, by_svd = (principal_components(x, 4, method=method) for method in ('covariance', 'svd'))
  np.testing.assert_allclose(exact.variance, by_svd.variance, rtol=1e-4)
  np.testing.assert_allclose(by_svd.components @ by_svd.components.T, np.eye(4), atol=1e-5)
  for method in ('covariance', 'svd'):
    constant = principal_components(jnp.ones((5, 8)), 2, method=method)
    params = pca.probabilistic(constant)
    assert np.all(np.isfinite(log_prob(params, jnp.ones((3, 8)))))


def test_probabilistic_pca_is_the_maximum_that_em_climbs_to(double):
  x = correlated()
  closed = pca.probabilistic(principal_components(jnp.asarray(x), 2))
  values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
  np.testing.assert_allclose(closed.noise_scale**2, values[:-2].mean(), rtol=1e-10)
  best = log_prob(closed, jnp.asarray(x)).mean()
  learnt, losses = converge(FactorAnalysis(2, isotropic=True), x, 500)
  assert np.diff(losses).max() < 1e-12
  assert losses[0] > 0.1 - best
  np.testing.assert_allclose(-losses[-1], best, rtol=1e-12)
  for ours, theirs in zip(density(learnt), density(closed), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_probabilistic_pca_of_all_but_one_dimension_is_the_gaussian(double):
  x = correlated()
  params = pca.probabilistic(principal_components(jnp.asarray(x), DIM - 1))
  expected = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x)
  np.testing.assert_allclose(log_prob(params, jnp.asarray(x)), expected, rtol=1e-10)


def test_log_prob_is_that_of_sklearn(double):
  # scikit-learn divides the covariance by N - 1: data stretched to make up for it have the same covariance as ours.
  x = correlated()
  stretched = x.mean(0) + (x - x.mean(0)) * np.sqrt((len(x) - 1) / len(x))
  params = pca.probabilistic(principal_components(jnp.asarray(x), 2))
  np.testing.assert_allclose(
    log_prob(params, jnp.asarray(x)), decomposition.PCA(2).fit(stretched).score_samples(x), rtol=1e-9
  )


def test_factor_analysis_is_that_of_sklearn(double):
  x = correlated() * np.array([1, 5, 0.2, 1, 1, 3])
  params, losses = converge(FactorAnalysis(2), x, 3000)
  peer = decomposition.FactorAnalysis(2, tol=1e-12, max_iter=10_000, svd_method='lapack').fit(x)
  assert np.diff(losses).max() < 1e-12
  np.testing.assert_allclose(-losses[-1], peer.score(x), atol=1e-6)
  np.testing.assert_allclose(params.noise_scale**2, peer.noise_variance_, rtol=1e-2)


def test_em_with_gaps_climbs_to_where_the_gradient_vanishes(double):
  x = correlated(num=100, rank=1)
  x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
  for isotropic in (False, True):
    params, losses = converge(FactorAnalysis(1, isotropic=isotropic), x, 1000)
    assert np.diff(losses).max() < 1e-12 and losses[0] - losses[-1] > 0.1
    gradient = jax.jit(jax.grad(lambda p: factor_analysis.log_prob(p, jnp.asarray(x)).mean()))(params)
    assert max(np.abs(leaf).max() for leaf in gradient) < 1e-8


def test_posterior_with_and_without_gaps_is_that_of_the_joint_gaussian(double):
  x = correlated(num=3)
  params, _ = converge(FactorAnalysis(2), correlated(), 20)
  mean, covariance = density(params)
  loadings = np.asarray(params.loadings)
  full = jax.jit(factor_analysis.posterior)(params, jnp.asarray(x))
  observed = np.ones_like(x)
  observed[1, [0, 3]] = 0
  gappy = jax.jit(factor_analysis.posterior_with_gaps)(params, jnp.asarray(x * observed), jnp.asarray(observed))
  for n in range(3):
    for o, found in ((np.ones(DIM, bool), full), (observed[n] > 0, gappy)):
      gain = loadings[o].T @ np.linalg.inv(covariance[np.ix_(o, o)])
      factor = np.broadcast_to(found.factor, (3, 2, 2))[n]
      np.testing.assert_allclose(found.mean[n], gain @ (x[n] - mean)[o], rtol=1e-9)
      np.testing.assert_allclose(np.linalg.inv(factor @ factor.T), np.eye(2) - gain @ loadings[o], rtol=1e-9)
  np.testing.assert_allclose(full.mean[0], gappy.mean[0], rtol=1e-9)


def test_the_contract():
  x = jnp.asarray(correlated(), jnp.float32)
  model = pca.model(2)
  params = jax.jit(model.init)(jax.random.key(0), Batch(x))
  cube = x.reshape(10, 20, DIM)
  log_prob = jax.jit(model.log_prob)
  np.testing.assert_allclose(log_prob(params, cube).reshape(-1), log_prob(params, x), rtol=1e-5)
  np.testing.assert_allclose(
    log_prob(params, x)[:5], stats.multivariate_normal(*density(params)).logpdf(x[:5]), rtol=1e-4
  )
  codes = jax.jit(model.encode)(params, cube)
  assert codes.shape == (10, 20, 2)
  # The posterior mean lies nearer the origin than the orthogonal projection, and never decodes to less error.
  straight = principal_components(x, 2)
  error = ((model.decode(params, codes) - cube) ** 2).mean()
  assert error > ((pca.reconstruct(straight, pca.project(straight, x)) - x) ** 2).mean()
  num, hidden = 20_000, np.array([0, 4])
  draws = np.asarray(jax.jit(model.sample, static_argnums=2)(params, jax.random.key(1), num))
  mean, covariance = density(params)
  assert np.all(np.abs(draws.mean(0) - mean) < 4.5 * np.sqrt(np.diag(covariance) / num))
  spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / num)
  assert np.all(np.abs(np.cov(draws.T) - covariance) < 4.5 * spread)
  row = jnp.tile(x[0], (num, 1))
  observed = ~np.isin(np.arange(DIM), hidden)
  filled = np.asarray(jax.jit(model.complete)(params, jax.random.key(2), row, observed))
  np.testing.assert_array_equal(filled[:, observed], row[:, observed])
  gain = covariance[np.ix_(hidden, observed)] @ np.linalg.inv(covariance[np.ix_(observed, observed)])
  left = covariance[np.ix_(hidden, hidden)] - gain @ covariance[np.ix_(observed, hidden)]
  expected = mean[hidden] + gain @ (np.asarray(x[0]) - mean)[observed]
  assert np.all(np.abs(filled[:, hidden].mean(0) - expected) < 4.5 * np.sqrt(np.diag(left) / num))
  spread = np.sqrt((left**2 + np.outer(np.diag(left), np.diag(left))) / num)
  assert np.all(np.abs(np.cov(filled[:, hidden].T) - left) < 4.5 * spread)


@pytest.mark.parametrize(
  ('build', 'message'),
  [
    (lambda: pca.principal_components(jnp.zeros((5, 3)), 4), 'num_components=4'),
    (lambda: pca.principal_components(jnp.zeros(5), 1), r'shape \(5,\)'),
    (lambda: pca.principal_components(jnp.zeros((5, 3)), 2, method='lanczos'), "method='lanczos'"),
    (lambda: pca.principal_components(jnp.zeros((5, 3)), 2, method='randomized'), 'key=None'),
    (lambda: pca.principal_components(jnp.zeros((5, 3)), 2, key=jax.random.key(0)), "method='covariance' with key"),
    (lambda: pca.probabilistic(principal_components(jnp.eye(3), 3)), '3 components of 3 dimensions'),
    (lambda: FactorAnalysis(0), 'num_factors=0'),
    (lambda: FactorAnalysis(1, floor=0.0), 'floor=0.0'),
    (lambda: FactorAnalysis(3).init(jax.random.key(0), Batch(jnp.zeros((5, 3)))), 'num_factors=3'),
    (lambda: pca.model(1).log_prob(None, jnp.zeros(3), context=jnp.zeros(3)), 'context'),
  ],
)
def test_bad_arguments_are_named(build, message):
  with pytest.raises(ValueError, match=message):
    build()
