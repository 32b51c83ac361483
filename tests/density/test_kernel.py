"""Kernel density estimates against scipy, scikit-learn, float64 direct sums and integrals on grids."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn.neighbors import KernelDensity as Reference

from gm_jax.base import Batch
from gm_jax.density import bandwidth, kernel, kernel_shapes
from gm_jax.density.kernel_shapes import Kernel

log_prob = jax.jit(kernel.log_prob, static_argnames='block_size')
sample = jax.jit(kernel.sample, static_argnums=2)
leave_one_out = jax.jit(kernel.leave_one_out, static_argnames='block_size')
cross_validate = jax.jit(bandwidth.cross_validate, static_argnames='num_folds')
adapt = jax.jit(bandwidth.adapt, static_argnums=1)
log_profile = jax.jit(kernel_shapes.log_profile, static_argnums=0)
PLANAR = [(2, name, False) for name in kernel_shapes.KERNELS] + [(2, 'linear', True), (2, 'exponential', True)]
COMPACT = ('epanechnikov', 'tophat', 'linear', 'cosine')


def _clusters(d, num=10_000, queries=200):
  generator = np.random.default_rng(d)
  means = 3 * generator.standard_normal((8, d))
  points = means[generator.integers(8, size=num)] + generator.standard_normal((num, d))
  return points, means[generator.integers(8, size=queries)] + generator.standard_normal((queries, d))


def _direct_sum(points, queries, width):
  d = points.shape[1]
  log_terms = np.stack([special.logsumexp(-0.5 * ((points - q) ** 2).sum(1) / width**2) for q in queries])
  return log_terms - math.log(len(points)) - d * math.log(width * math.sqrt(2 * math.pi))


@pytest.mark.parametrize('d', [1, 2, 3, 4, 8, 64, 784])
@pytest.mark.parametrize('name', kernel_shapes.KERNELS)
def test_normaliser_is_the_integral(name, d):
  """Quadrature over the radius, of an integrand brought to height one; covers the cosine in even dimensions."""

  def log_integrand(r):
    squared = r**2
    log_k = {
      'gaussian': -0.5 * squared,
      'exponential': -r,
      'tophat': 0.0,
      'epanechnikov': np.log1p(-min(squared, 1 - 1e-16)),
      'linear': np.log1p(-min(r, 1 - 1e-16)),
      'cosine': np.log(max(np.cos(0.5 * np.pi * r), 1e-300)),
    }[name]
    return log_k + (d - 1) * np.log(r)

  stop = 1.0 if name in COMPACT else d + 40 * math.sqrt(d) + 40
  radii = np.linspace(1e-6, stop, 20_001)
  peak = radii[np.argmax([log_integrand(r) for r in radii])]
  height = log_integrand(peak)
  spread = {'gaussian': 1.0, 'exponential': math.sqrt(d)}.get(name, 1 / d)
  low, high = max(peak - 30 * spread, 0), min(peak + 30 * spread, stop)
  edges = sorted({low, max(low, peak - 5 * spread), peak, min(high, peak + 5 * spread), high})
  value = sum(
    integrate.quad(lambda r: np.exp(log_integrand(r) - height) if r > 0 else float(d == 1), a, b)[0]
    for a, b in zip(edges[:-1], edges[1:], strict=True)
  )
  surface = math.log(2) + d / 2 * math.log(math.pi) - special.gammaln(d / 2)
  expected = surface + height + math.log(value)
  assert kernel_shapes.log_normaliser(Kernel(name, False), d) == pytest.approx(expected, abs=1e-7)


def test_cosine_is_not_scikit_learns_in_even_dimensions():
  """Whose recursion gives a kernel with integral 0.363 in the plane, where ours has one."""
  points = np.zeros((1, 2))
  axis = np.linspace(-1, 1, 401)
  grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
  cell = (axis[1] - axis[0]) ** 2
  ours = float(jnp.exp(log_prob(kernel.fit(points, 1.0, kernel='cosine'), grid)).sum() * cell)
  assert ours == pytest.approx(1.0, abs=1e-4)
  theirs = np.exp(Reference(kernel='cosine', bandwidth=1.0).fit(points).score_samples(grid)).sum() * cell
  assert abs(theirs - 1) > 0.5


@pytest.mark.parametrize('name', kernel_shapes.KERNELS)
@pytest.mark.parametrize('d', [2, 3])
def test_scikit_learn_where_it_is_right(name, d):
  if name == 'cosine' and d == 2:
    pytest.skip('wrong there')
  generator = np.random.default_rng(0)
  points, queries = generator.standard_normal((300, d)), generator.standard_normal((50, d))
  weights = generator.uniform(0, 2, 300)
  expected = Reference(kernel=name, bandwidth=0.7, rtol=0, atol=0).fit(points, sample_weight=weights)
  ours = log_prob(kernel.fit(points, 0.7, kernel=name, weights=weights), queries)
  # Where the last compact kernel ends within rounding of a query the logarithm has no digits.
  np.testing.assert_allclose(ours, expected.score_samples(queries), atol=2e-4)


@pytest.mark.parametrize('full', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
def test_scipy_with_both_rules(full, weighted):
  generator = np.random.default_rng(1)
  points = generator.standard_normal((400, 2)) @ np.array([[1.0, 2.0], [0.0, 30.0]]) + 100
  weights = generator.uniform(0.1, 3, 400) if weighted else None
  queries = points[:50] + 1.0
  for name, rule in (('scott', kernel.scott), ('silverman', kernel.silverman)):
    reference = stats.gaussian_kde(points.T, name, weights=weights)
    if full:
      matrix = rule(points, weights, full=True)
      np.testing.assert_allclose(matrix @ matrix.T, reference.covariance, rtol=1e-3)
      ours = log_prob(kernel.fit(points, matrix, weights=weights), queries)
      np.testing.assert_allclose(ours, reference.logpdf(queries.T), atol=1e-3)
    else:
      expected = np.sqrt(np.diagonal(reference.covariance))
      np.testing.assert_allclose(rule(points, weights), expected, rtol=1e-4)
      np.testing.assert_allclose(kernel.fit(points, name, weights=weights).bandwidth, expected, rtol=1e-4)


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e5])
def test_rules_follow_the_scale_of_the_data(scale):
  """scikit-learn's rules do not: its Scott bandwidth of these points is 0.25 for every scale."""
  points = np.random.default_rng(0).standard_normal((1000, 1))
  queries = np.random.default_rng(1).standard_normal((1000, 1))
  mean = float(log_prob(kernel.fit(scale * points), scale * queries).mean()) + math.log(scale)
  truth = stats.norm.logpdf(queries).mean()
  assert truth - 0.05 < mean < truth + 0.01


def test_64_dimensions_against_the_float64_direct_sum():
  """Where scikit-learn's tree is wrong by 4.7 nats in the mean."""
  points, queries = _clusters(64)
  ours = log_prob(kernel.fit(points.astype('f'), 1.0), queries.astype('f'))
  expected = _direct_sum(points.astype('f').astype(float), queries.astype('f').astype(float), 1.0)
  np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_far_from_the_origin_keeps_its_digits():
  """The expansion of squares is about the mean of the points: without it these would be wrong by hundreds of nats."""
  points, queries = _clusters(16, 500, 50)
  points, queries = (points + 1000).astype('f'), (queries + 1000).astype('f')
  ours = log_prob(kernel.fit(points, 1.0), queries)
  np.testing.assert_allclose(ours, _direct_sum(points.astype(float), queries.astype(float), 1.0), atol=1e-3)


def test_tails_do_not_underflow():
  """Where scipy's pdf is zero, and scikit-learn's default is off by hundreds of nats."""
  points = np.random.default_rng(3).standard_normal((500, 64))
  queries = 3 * np.random.default_rng(4).standard_normal((20, 64))
  ours = log_prob(kernel.fit(points, 0.5), queries)
  np.testing.assert_allclose(ours, _direct_sum(points, queries, 0.5), rtol=1e-6)
  assert np.all(np.asarray(ours) < -800)
  distant = log_prob(kernel.fit(points, 0.5), 1e6 * np.ones((1, 64)))
  assert np.isfinite(distant).all()


@pytest.mark.parametrize(('d', 'name', 'product'), [(1, n, False) for n in kernel_shapes.KERNELS] + PLANAR)
def test_integral_in_one_and_two_dimensions(d, name, product):
  count = {1: 4001, 2: 401}[d]
  points = np.random.default_rng(d).uniform(-1, 1, (7, d))
  estimator = kernel.fit(points, np.linspace(0.5, 0.8, d), kernel=name, product=product, weights=np.arange(1, 8.0))
  estimator = estimator._replace(log_scales=jnp.linspace(-0.3, 0.3, 7))
  reach = 12 if name in ('gaussian', 'exponential') else 2.5
  axis = np.linspace(-reach, reach, count)
  grid = np.stack(np.meshgrid(*[axis] * d), -1)
  integral = float(jnp.exp(log_prob(estimator, grid)).sum() * (axis[1] - axis[0]) ** d)
  assert integral == pytest.approx(1.0, abs=5e-3 if name == 'tophat' else 2e-3)


@pytest.mark.parametrize('name', kernel_shapes.KERNELS)
def test_integral_in_four_dimensions(name):
  """A grid for what is smooth; the exponential's long tail asks for importance sampling from a Student t."""
  full = np.tril(0.3 * np.ones((4, 4)), -1) + np.diag([0.8, 1.0, 1.2, 0.9])
  estimator = kernel.fit(np.zeros((1, 4)), full, kernel=name)
  if name in ('gaussian', 'exponential'):
    draws = stats.multivariate_t(shape=9 * full @ full.T, df=3, seed=0)
    x = draws.rvs(200_000)
    ratio = np.exp(np.asarray(log_prob(estimator, x), float) - draws.logpdf(x))
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / math.sqrt(len(ratio)))
    return
  axis = np.linspace(-2, 2, 28)
  grid = np.stack(np.meshgrid(*[axis] * 4), -1).reshape(-1, 4)
  integral = float(jnp.exp(log_prob(estimator, grid)).sum() * (axis[1] - axis[0]) ** 4)
  assert integral == pytest.approx(1.0, abs=2e-2)


def test_naive_and_parzen_count():
  points = np.array([[0.1], [0.4], [0.8], [2.0]])
  density = jnp.exp(log_prob(kernel.naive(points, 0.5), np.array([[0.5], [1.2], [5.0]])))
  np.testing.assert_allclose(density, [3 / 4, 1 / 4, 0.0], rtol=1e-5)
  square = np.array([[0.0, 0.0], [0.4, 0.4], [0.9, 0.1]])
  density = jnp.exp(log_prob(kernel.parzen_window(square, [1.0, 0.5]), np.array([[0.45, 0.2], [0.45, 0.0]])))
  np.testing.assert_allclose(density, [3 / 3 / 0.5, 2 / 3 / 0.5], rtol=1e-5)


def test_product_kernel_is_the_product_of_one_dimensional_ones():
  points, queries = np.zeros((1, 10)), np.random.default_rng(0).uniform(-0.9, 0.9, (20, 10))
  widths = np.linspace(1.0, 2.0, 10)
  for name in ('epanechnikov', 'cosine', 'exponential'):
    joint = log_prob(kernel.fit(points, widths, kernel=name, product=True), queries)
    alone = sum(log_prob(kernel.fit(points[:, :1], widths[j], kernel=name), queries[:, j : j + 1]) for j in range(10))
    np.testing.assert_allclose(joint, alone, rtol=1e-5)


def test_full_bandwidth_is_a_mixture_of_gaussians():
  generator = np.random.default_rng(2)
  points, queries = generator.standard_normal((5, 3)), generator.standard_normal((10, 3))
  matrix, scales = generator.standard_normal((3, 3)), generator.uniform(0.5, 2, 5)
  estimator = kernel.fit(points, matrix)._replace(log_scales=jnp.log(scales))
  expected = np.mean(
    [stats.multivariate_normal(p, s**2 * matrix @ matrix.T).pdf(queries) for p, s in zip(points, scales, strict=True)],
    0,
  )
  np.testing.assert_allclose(log_prob(estimator, queries), np.log(expected), rtol=1e-4)


@pytest.mark.parametrize(
  ('name', 'product'), [(name, False) for name in kernel_shapes.KERNELS] + [('epanechnikov', True)]
)
def test_sample_agrees_with_the_kernel(name, product):
  """The distribution function of the radius (of a feature, for a product) by Kolmogorov and Smirnov, and directions."""
  d, num = 4, 4000
  estimator = kernel.fit(np.zeros((1, d)), 1.0, kernel=name, product=product)
  draws = np.asarray(sample(estimator, jax.random.key(3), num))
  n = 1 if estimator.kernel.product else d
  values = np.abs(draws[:, 0]) if n == 1 else np.linalg.norm(draws, axis=1)
  radii = np.linspace(0, 1 if name in COMPACT else 40, 20_001)[1:]
  density = np.exp(np.asarray(log_profile(Kernel(name, False), radii**2), float)) * radii ** (n - 1)
  cumulative = np.concatenate([[0], np.cumsum(density)]) / density.sum()
  assert stats.kstest(values, lambda r: np.interp(r, np.concatenate([[0], radii]), cumulative)).pvalue > 1e-3
  deviation = math.exp(0.5 * kernel_shapes.log_variance(estimator.kernel, d))
  assert np.abs(draws.mean(0)).max() < 4 * deviation / math.sqrt(num)
  assert np.abs((draws**2).mean(0) / deviation**2 - 1).max() < 4 * (draws**2 / deviation**2).std() / math.sqrt(num)


def test_sample_chooses_points_by_weight_scale_and_matrix():
  points = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
  matrix = np.array([[1.0, 0.0], [2.0, 0.5]])
  estimator = kernel.fit(points, matrix, weights=[1.0, 3.0, 0.0])._replace(log_scales=jnp.log(jnp.array([1, 2.0, 1])))
  draws = np.asarray(sample(estimator, jax.random.key(0), 4000))
  second = draws[:, 0] > 50
  assert abs(second.mean() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)
  assert draws[:, 1].max() < 50
  covariance = np.cov(draws[second].T)
  # The standard error of a covariance is at most sqrt(2 / n) of the greatest variance.
  assert np.abs(covariance - 4 * matrix @ matrix.T).max() < 4 * math.sqrt(2 / 3000) * 17


def test_leave_one_out_is_what_it_says():
  generator = np.random.default_rng(5)
  points, weights = generator.standard_normal((40, 2)), generator.uniform(0.1, 1, 40)
  estimator = kernel.fit(points, 0.4, weights=weights, kernel='exponential')
  ours = np.asarray(leave_one_out(estimator, block_size=7))
  np.testing.assert_allclose(leave_one_out(estimator, np.array([3, 31])), ours[np.array([3, 31])], rtol=1e-5)
  for i in (0, 13, 39):
    rest = np.delete(np.arange(40), i)
    other = kernel.fit(points[rest], 0.4, weights=weights[rest], kernel='exponential')
    assert float(ours[i]) == pytest.approx(float(log_prob(other, points[i])), abs=1e-4)


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_statsmodels_density_and_leave_one_out_likelihood():
  peer = pytest.importorskip('statsmodels.nonparametric.kernel_density')
  points = np.random.default_rng(5).standard_normal((40, 2))
  queries, widths = points[:10] + 0.3, np.array([0.4, 0.7])
  reference = peer.KDEMultivariate(points, 'cc', bw=widths)
  estimator = kernel.fit(points, widths)
  np.testing.assert_allclose(log_prob(estimator, queries), np.log(reference.pdf(queries)), atol=1e-4)
  # Its sum has a minus, and sums of kernels in it that are not divided by the 39 other points.
  expected = -reference.loo_likelihood(widths, func=np.log) - 40 * math.log(39)
  np.testing.assert_allclose(leave_one_out(estimator).sum(), expected, rtol=1e-4)


def test_blocks_do_not_change_the_answer():
  points, queries = _clusters(3, 101, 53)
  for name, product in (('gaussian', False), ('epanechnikov', True)):
    estimator = kernel.fit(points, 2.0, kernel=name, product=product)
    whole = log_prob(estimator, queries)
    for size in (10, 1) if product else (10,):
      np.testing.assert_allclose(log_prob(estimator, queries, block_size=size), whole, rtol=1e-5)
  np.testing.assert_allclose(log_prob(estimator, queries.reshape(1, 53, 1, 3)), whole.reshape(1, 53, 1), rtol=1e-5)
  np.testing.assert_allclose(log_prob(estimator, queries[0]), whole[0], rtol=1e-5)


@pytest.mark.parametrize('d', [2, 64])
def test_memory_is_bounded(d):
  """100,000 queries on 100,000 points: 40 GB as a matrix, forwards and backwards."""
  points = jax.ShapeDtypeStruct((100_000, d), jnp.float32)
  estimator = jax.eval_shape(lambda x: kernel.fit(x, 1.0), points)
  inputs = 4 * 100_000 * d

  def bytes_of(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes

  tile = 4 * 1024 * 1024
  assert bytes_of(kernel.log_prob, estimator, points) < 6 * tile + 6 * inputs

  def objective(width, estimator):
    return kernel.leave_one_out(estimator._replace(bandwidth=width)).mean()

  # Backwards each of the 98 blocks of points keeps the running total of all queries.
  totals = 4 * 100_000 * 98
  assert bytes_of(jax.grad(objective), estimator.bandwidth, estimator) < 12 * tile + 12 * inputs + 3 * totals


def test_gradient_finds_the_leave_one_out_maximum():
  points = np.random.default_rng(6).standard_normal((150, 2)) @ np.array([[1.0, 3.0], [0.0, 2.0]])
  start = kernel.fit(points, 2.0)
  objective = jax.jit(lambda b: kernel.leave_one_out(start._replace(bandwidth=b)).mean())
  best = {}
  for shape in ('scalar', 'diagonal', 'full'):
    fitted, history = jax.jit(bandwidth.select_bandwidth, static_argnums=1)(start, shape)
    best[shape] = float(objective(fitted.bandwidth))
    assert best[shape] >= float(history[0])
    # No other bandwidth is better: along the scale, along a feature, and along the skew of a full one.
    for step in (-0.05, 0.05):
      assert float(objective(fitted.bandwidth * math.exp(step))) < best[shape]
      if shape != 'scalar':
        scale = jnp.exp(jnp.array([step, 0.0]))
        moved = scale[:, None] * fitted.bandwidth if shape == 'full' else scale * fitted.bandwidth
        assert float(objective(moved)) < best[shape]
      if shape == 'full':
        assert float(objective(fitted.bandwidth @ jnp.array([[1.0, 0.0], [2 * step, 1.0]]))) < best[shape]
  assert best['full'] > best['diagonal'] + 0.05 and best['diagonal'] > best['scalar']


def test_cross_validation_scores_are_held_out_densities():
  points = np.random.default_rng(7).standard_normal((61, 1))
  key = jax.random.key(2)
  factors = np.array([0.2, 0.5, 1.0, 3.0])
  chosen, scores = cross_validate(kernel.fit(points, 0.8), factors, key, num_folds=61)
  # As many folds as points is leaving one out, whatever the order.
  expected = [leave_one_out(kernel.fit(points, 0.8 * f)).mean() for f in factors]
  np.testing.assert_allclose(scores, expected, rtol=1e-4)
  assert float(chosen.bandwidth[0]) == pytest.approx(0.8 * factors[int(np.argmax(expected))])
  wide = kernel.fit(points, 0.8, kernel='epanechnikov')
  five, scores = cross_validate(wide, np.array([0.01, 4.0]), key)
  assert np.isneginf(scores[0]) and np.isfinite(scores[1]) and float(five.bandwidth[0]) == pytest.approx(3.2)


def test_adaptive_scales_are_abramsons():
  points = np.random.default_rng(8).standard_cauchy((300, 1))
  pilot = kernel.fit(points, 0.5)
  adaptive = adapt(pilot)
  density = np.exp(np.asarray(log_prob(pilot, points), float))
  expected = (density / stats.gmean(density)) ** -0.5
  np.testing.assert_allclose(jnp.exp(adaptive.log_scales), expected, rtol=1e-4)
  # Long tails are what it is for.
  held_out = np.random.default_rng(9).standard_cauchy((300, 1))
  assert float(log_prob(adaptive, held_out).mean()) > float(log_prob(pilot, held_out).mean()) + 1
  unchanged = log_prob(adapt(pilot, 0.0), held_out)
  np.testing.assert_allclose(unchanged, log_prob(pilot, held_out), rtol=1e-5)


def test_subspace_and_constant_data_give_numbers():
  """scipy's estimate fails on data in a subspace."""
  line = np.random.default_rng(0).standard_normal((50, 1)) * np.array([[1.0, 2.0, 0.0]])
  fit = jax.jit(kernel.fit, static_argnums=1)
  silverman = jax.jit(kernel.silverman, static_argnames='full')
  for estimator in (fit(line, 'scott'), kernel.fit(line, silverman(line, full=True))):
    assert np.isfinite(log_prob(estimator, line)).all()
  constant = np.ones((5, 2))
  for estimator in (fit(constant, 'scott'), fit(constant[:1], 'scott')):
    assert np.isfinite(log_prob(estimator, constant)).all()


def test_model_and_jit():
  points = np.random.default_rng(0).standard_normal((30, 2))
  model = kernel.model('silverman', kernel='linear')
  estimator = jax.jit(model.init)(jax.random.key(0), Batch(jnp.asarray(points)))
  np.testing.assert_allclose(estimator.bandwidth, kernel.fit(points, 'silverman', kernel='linear').bandwidth, rtol=1e-5)
  assert jax.eval_shape(lambda: model.sample(estimator, jax.random.key(1), 5)).shape == (5, 2)


@pytest.mark.parametrize(
  ('name', 'call'),
  [
    ('bandwidth=0', lambda x: kernel.fit(x, 0.0)),
    ('bandwidth=', lambda x: kernel.fit(x, [1.0, -1.0])),
    ('bandwidth=', lambda x: kernel.fit(x, float('nan'))),
    ('bandwidth=', lambda x: kernel.naive(x, -1.0)),
    ("bandwidth='best'", lambda x: kernel.fit(x, 'best')),
    ('bandwidth of shape', lambda x: kernel.fit(x, [1.0, 1.0, 1.0])),
    ('bandwidth is a singular', lambda x: kernel.fit(x, np.ones((2, 2)))),
    ("kernel='box'", lambda x: kernel.fit(x, 1.0, kernel='box')),
    ('points of shape', lambda x: kernel.fit(x[0], 1.0)),
    ('points of shape', lambda x: kernel.fit(x[:0], 1.0)),
    ('weights of shape', lambda x: kernel.fit(x, 1.0, weights=np.ones(3))),
    ('weights with', lambda x: kernel.fit(x, 1.0, weights=-np.ones(10))),
    ('x of shape', lambda x: kernel.log_prob(kernel.fit(x, 1.0), np.ones((4, 3)))),
    ('block_size=0', lambda x: kernel.log_prob(kernel.fit(x, 1.0), x, block_size=0)),
    ('1 point', lambda x: kernel.leave_one_out(kernel.fit(x[:1], 1.0))),
    ("kernel='tophat'", lambda x: bandwidth.select_bandwidth(kernel.fit(x, 1.0, kernel='tophat'))),
    ("shape='square'", lambda x: bandwidth.select_bandwidth(kernel.fit(x, 1.0), 'square')),
    ("shape='diagonal'", lambda x: bandwidth.select_bandwidth(kernel.fit(x, np.eye(2)))),
    ('num_folds=1', lambda x: bandwidth.cross_validate(kernel.fit(x, 1.0), [1.0], jax.random.key(0), num_folds=1)),
    ('num_folds=11', lambda x: bandwidth.cross_validate(kernel.fit(x, 1.0), [1.0], jax.random.key(0), num_folds=11)),
    ('factors=', lambda x: bandwidth.cross_validate(kernel.fit(x, 1.0), [0.0], jax.random.key(0))),
    ('context', lambda x: kernel.model().log_prob(kernel.fit(x, 1.0), x, context=x)),
    ('context', lambda x: kernel.model().sample(kernel.fit(x, 1.0), jax.random.key(0), 1, context=x)),
    ('sensitivity=2', lambda x: bandwidth.adapt(kernel.fit(x, 1.0), 2.0)),
  ],
)
def test_errors_name_the_argument(name, call):
  with pytest.raises(ValueError, match=name.replace('(', r'\(')):
    call(np.random.default_rng(0).standard_normal((10, 2)))
