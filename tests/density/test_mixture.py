import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

from gm_jax.base import Batch
from gm_jax.density import mixture_starts
from gm_jax.density.mixture import Mixture, aic, best_of, bic
from gm_jax.density.mixture_discrete import Bernoulli, Categorical
from gm_jax.density.mixture_gaussian import Diagonal, Full, Spherical, Tied
from gm_jax.density.mixture_low_rank import LowRank
from gm_jax.training.rules import descent, expectation_maximization

GAUSSIANS = {
  'full': Full,
  'tied': Tied,
  'diagonal': Diagonal,
  'spherical': Spherical,
  'ppca': lambda **kwargs: LowRank(2, isotropic=True, **kwargs),
  'factors': lambda **kwargs: LowRank(1, **kwargs),
}
FAMILIES = GAUSSIANS | {'bernoulli': Bernoulli, 'categorical': lambda **kwargs: Categorical(3, **kwargs)}
SKLEARN = {'full': 'full', 'tied': 'tied', 'diagonal': 'diag', 'spherical': 'spherical'}
DIM = 4


def some(names, *slow):
  """Families for a test; those that go the same way through the code as another are left to ``make test-slow``."""
  return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield


def clusters(num=150, dim=DIM, seed=0):
  rng = np.random.default_rng(seed)
  centres = 3 * rng.normal(size=(3, dim))
  return np.concatenate([rng.normal(size=(num // 3, dim)) @ rng.normal(size=(dim, dim)) + c for c in centres])


def examples(name, gaps=False):
  """Data of the kind that the family is for, as NumPy, 15 % missing if there are gaps."""
  x, hidden = clusters(), np.random.default_rng(1).random((150, DIM)) < (0.15 if gaps else 0)
  if name == 'bernoulli':
    return np.where(hidden, np.nan, x > 0)
  if name == 'categorical':
    return np.where(hidden, -1, np.digitize(x, [-1, 1]))
  return np.where(hidden, np.nan, x)


@functools.cache
def jitted(mixture, method):
  """A compiled method, shared by the tests: outside of jit every call would compile its branches anew."""
  return jax.jit(getattr(mixture, method), static_argnames='num' if method == 'sample' else ())


def random_params(mixture, x):
  """Parameters without any symmetry; drawn by NumPy, since ``init`` takes a second to compile."""
  shapes = jax.eval_shape(mixture.init, jax.random.key(0), Batch(jnp.asarray(x)))
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    name, noise = path[-1].name, rng.normal(size=leaf.shape).astype(leaf.dtype)
    if name == 'origin':
      return jnp.asarray(np.mean(x, axis=0), leaf.dtype)
    if name in ('scale', 'noise_scale'):
      square = leaf.shape[-2:] == (x.shape[-1],) * 2
      return jnp.asarray(0.3 * noise + 2 * (np.eye(x.shape[-1]) if square else 1), leaf.dtype)
    return jnp.asarray(2 * noise if name == 'offsets' else noise)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def dense(family, components):
  """Means and covariances of any Gaussian family, as NumPy."""
  means = np.asarray(family.mean(components))
  num, dim = means.shape
  if isinstance(family, LowRank):
    loadings, noise = np.asarray(components.loadings), np.asarray(components.noise_scale)
    noise = np.broadcast_to(noise.reshape(num, -1), (num, dim))
    return means, loadings @ loadings.transpose(0, 2, 1) + np.stack([np.diag(n**2) for n in noise])
  scale = np.asarray(components.scale)
  if isinstance(family, Diagonal):
    scale = np.broadcast_to(scale.reshape(num, -1), (num, dim))
    return means, np.stack([np.diag(s**2) for s in scale])
  scale = np.broadcast_to(np.tril(scale), (num, dim, dim))
  return means, scale @ scale.transpose(0, 2, 1)


def reference_log_joint(params, family, x):
  """By SciPy, one example and one component at a time, from the observed columns alone."""
  means, covariances = dense(family, params.components)
  log_weights = np.asarray(jax.nn.log_softmax(params.logits))
  result = np.zeros((len(x), len(means)))
  for n, row in enumerate(x):
    o = ~np.isnan(row)
    for k in range(len(means)):
      density = stats.multivariate_normal(means[k][o], covariances[k][np.ix_(o, o)]) if o.any() else None
      result[n, k] = log_weights[k] + (density.logpdf(row[o]) if density else 0)
  return result


@pytest.mark.parametrize('name', GAUSSIANS)
def test_log_prob_and_responsibilities_with_gaps_are_those_of_scipy(name, double):
  x = examples(name, gaps=True)[:12]
  x[3] = np.nan
  x[4:8] = examples(name)[4:8]
  mixture = Mixture(GAUSSIANS[name](), 3, block_size=4)  # the second block is complete, the others are not
  params = random_params(mixture, examples(name))
  expected = reference_log_joint(params, mixture.family, x)
  log_prob, shares = jax.jit(lambda x: (mixture.log_prob(params, x), mixture.responsibilities(params, x)))(x)
  np.testing.assert_allclose(log_prob, np.logaddexp.reduce(expected, 1), rtol=1e-10, atol=1e-10)
  np.testing.assert_allclose(shares, np.exp(expected - np.logaddexp.reduce(expected, 1)[:, None]), atol=1e-10)


@pytest.mark.parametrize('name', SKLEARN)
@pytest.mark.filterwarnings('ignore::sklearn.exceptions.ConvergenceWarning')
def test_em_steps_are_those_of_sklearn(name, double):
  x = examples(name)
  mixture = Mixture(GAUSSIANS[name](), 3)
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)

  @jax.jit
  def run(x):
    first = em.init(jax.random.key(0), Batch(x))
    last, _ = jax.lax.scan(lambda state, _: em.step(None, state, Batch(x)), first, length=4)
    return first, last, mixture.log_prob(last.params, x).mean()

  state, last, score = run(x)
  means, covariances = dense(mixture.family, state.params.components)
  precisions = {
    'full': np.linalg.inv(covariances),
    'tied': np.linalg.inv(covariances[0]),
    'diagonal': 1 / np.diagonal(covariances, axis1=1, axis2=2),
    'spherical': 1 / covariances[:, 0, 0],
  }[name]
  peer = GaussianMixture(
    3, covariance_type=SKLEARN[name], reg_covar=0, tol=0, max_iter=4, weights_init=np.full(3, 1 / 3), means_init=means
  )
  peer.set_params(precisions_init=precisions).fit(x)
  state = last
  np.testing.assert_allclose(jax.nn.softmax(state.params.logits), peer.weights_, rtol=1e-8)
  means, covariances = dense(mixture.family, state.params.components)
  np.testing.assert_allclose(means, peer.means_, rtol=1e-8)
  expected = {
    'full': lambda c: c,
    'tied': lambda c: np.stack([c] * 3),
    'diagonal': lambda c: np.stack([np.diag(d) for d in c]),
    'spherical': lambda c: np.stack([v * np.eye(DIM) for v in c]),
  }[name](peer.covariances_)
  np.testing.assert_allclose(covariances, expected, rtol=1e-8, atol=1e-10)
  number = mixture.num_parameters(state.params)
  np.testing.assert_allclose(bic(score, number, len(x)), peer.bic(x))
  np.testing.assert_allclose(aic(score, number, len(x)), peer.aic(x))


@pytest.mark.parametrize('name', some(FAMILIES, 'tied', 'spherical', 'ppca'))
def test_em_climbs_to_a_stationary_point_with_gaps_weights_and_priors(name, double):
  # With the weights and the prior the objective is that of Mixture.loss; a wrong sufficient statistic, say without
  # the conditional covariance of what is missing, still converges, but not to where the gradient vanishes.
  x = jnp.asarray(examples(name, gaps=True))
  weights = jnp.asarray(np.random.default_rng(2).exponential(size=len(x)))
  batch = Batch(x, weights)
  mixture = Mixture(FAMILIES[name](prior=0.05), 2, prior=0.02, block_size=64)
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)

  @jax.jit
  def run(key):
    def step(state, _):
      value = mixture.loss(state.params, None, batch, None)[0]
      return em.step(None, state, batch)[0], value

    state, losses = jax.lax.scan(step, em.init(key, batch), length=250)
    return losses, jax.grad(lambda params: mixture.loss(params, None, batch, None)[0])(state.params)

  losses, gradient = run(jax.random.key(0))
  assert np.diff(losses).max() < 1e-12
  assert losses[-1] < losses[0] - 0.05
  assert optax.tree.norm(gradient) < 1e-5


def test_the_loss_of_the_rule_is_the_weighted_mean_of_log_prob():
  x, weights = jnp.asarray(examples('full'), jnp.float32), jnp.linspace(0, 2, 150)
  mixture = Mixture(Full(), 2, block_size=32)
  params = random_params(mixture, x)
  _, log_prob = jitted(mixture, 'e_step')(params, Batch(x, weights))
  np.testing.assert_allclose(log_prob, (weights * jitted(mixture, 'log_prob')(params, x)).mean(), rtol=1e-5)


@pytest.mark.parametrize('name', ['full', 'tied', 'diagonal', 'spherical', 'bernoulli', 'categorical'])
def test_one_component_is_the_closed_form(name):
  x = examples(name)
  mixture = Mixture(FAMILIES[name](), 1)
  batch = Batch(jnp.asarray(x, None if name == 'categorical' else jnp.float32))
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)
  first_step = jax.jit(lambda key: em.step(key, em.init(key, batch), batch)[0])
  components = first_step(jax.random.key(0)).params.components
  if name == 'categorical':
    expected = np.stack([(x == c).mean(0) for c in range(3)], -1)[None]
    np.testing.assert_allclose(mixture.family.mean(components), expected, rtol=1e-5)
    return
  np.testing.assert_allclose(mixture.family.mean(components)[0], x.mean(0), rtol=1e-4, atol=1e-5)
  if name != 'bernoulli':
    covariance = np.cov(x.T, bias=True)
    if name == 'spherical':
      covariance = np.eye(DIM) * np.trace(covariance) / DIM
    elif name == 'diagonal':
      covariance = np.diag(np.diag(covariance))
    np.testing.assert_allclose(dense(mixture.family, components)[1][0], covariance, rtol=1e-4, atol=1e-4)


def test_weights_stand_for_repeated_examples(double):
  x, repeats = examples('full')[::3], np.random.default_rng(0).integers(1, 4, size=50)
  mixture = Mixture(Full(), 2)
  params = random_params(mixture, x)
  step = jax.jit(lambda batch: mixture.m_step(params, mixture.e_step(params, batch)[0]))
  weighted = step(Batch(x, repeats / repeats.mean()))
  repeated = step(Batch(np.repeat(x, repeats, axis=0)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), weighted, repeated)


def test_blocks_change_nothing(double):
  x = jnp.asarray(examples('full', gaps=True))
  params = random_params(Mixture(Full(), 3), x)
  mixtures = [Mixture(Full(), 3, block_size=size) for size in (37, 500)]
  results = [jax.jit(mixture.e_step)(params, Batch(x)) for mixture in mixtures]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *results)


def test_pmap_equals_one_device():
  x = jnp.asarray(examples('full'), jnp.float32)
  mixture = Mixture(Diagonal(), 3)
  alone, together = (
    expectation_maximization(mixture.init, mixture.e_step, mixture.m_step, axis_name=name) for name in (None, 'devices')
  )
  assert jax.local_device_count() >= 2
  state = jax.jit(alone.init)(jax.random.key(0), Batch(x))
  many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
  step, parallel_step = jax.jit(alone.step), jax.pmap(together.step, 'devices', in_axes=(None, 0, 0))
  for _ in range(5):
    state, metrics = step(None, state, Batch(x))
    many, many_metrics = jax.block_until_ready(parallel_step(None, many, Batch(x.reshape(2, 75, DIM))))
  np.testing.assert_allclose(many_metrics['loss'], np.full(2, metrics['loss']), rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, jnp.stack([b, b]), rtol=1e-3, atol=1e-4), many.params, state.params
  )


def test_stepwise_em_and_gradient_reach_what_em_reaches():
  x = jnp.asarray(clusters(dim=2), jnp.float32)
  mixture = Mixture(Diagonal(prior=0.01), 3)
  batch = Batch(x)
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)
  stepwise = expectation_maximization(
    mixture.init, mixture.e_step, mixture.m_step, step_size=lambda step: (step + 2.0) ** -0.7
  )
  gradient = descent(mixture.init, mixture.loss, optax.adam(optax.cosine_decay_schedule(0.1, 600)))

  def run(algorithm, num_steps, size):
    def step(state, key):
      rows = jax.random.permutation(key, len(x))[:size] if size < len(x) else jnp.arange(len(x))
      return algorithm.step(key, state, Batch(x[rows]))[0], None

    keys = jax.random.split(jax.random.key(1), num_steps)
    state = jax.lax.scan(step, algorithm.init(jax.random.key(0), batch), keys)[0]
    return mixture.loss(state.params, None, batch, None)[0]

  best = jax.jit(lambda: run(em, 100, len(x)))()
  assert abs(jax.jit(lambda: run(gradient, 600, len(x)))() - best) < 1e-3
  assert -1e-3 < jax.jit(lambda: run(stepwise, 600, 50))() - best < 0.02


def test_restarts_keep_the_best():
  batch = Batch(jnp.asarray(examples('spherical'), jnp.float32))
  mixture = Mixture(Spherical(), 3, start='random')
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)
  state, metrics = jax.jit(lambda: best_of(em, jax.random.key(0), batch, num_restarts=8, num_steps=40))()
  last = np.asarray(metrics['loss'][-1])
  assert last.max() > last.min() + 5e-3  # there is something to choose
  assert -jitted(mixture, 'log_prob')(state.params, batch.x).mean() < last.min() + 1e-4
  with pytest.raises(ValueError, match='num_restarts=0'):
    best_of(em, jax.random.key(0), batch, num_restarts=0, num_steps=1)


def test_kmeans_plus_plus_finds_separate_clusters_and_random_rows_do_not():
  x = jnp.repeat(jnp.arange(8.0), 50)[:, None] * 1e4 + jax.random.normal(jax.random.key(0), (400, 1))
  keys = jax.random.split(jax.random.key(1), 20)

  def clusters_hit(choose):
    rows = jax.jit(jax.vmap(lambda key: choose(key, x, 8)))(keys)
    return [len(set(np.asarray(r) // 50)) for r in rows]

  assert min(clusters_hit(mixture_starts.kmeans_plus_plus)) == 8
  assert max(clusters_hit(mixture_starts.random_rows)) < 8
  choose = jax.jit(mixture_starts.kmeans_plus_plus, static_argnums=2)
  same = choose(keys[0], jnp.zeros((5, 2)), 3)
  assert same.shape == (3,) and np.all((same >= 0) & (same < 5))
  nothing_else = choose(keys[0], x, 2, jnp.zeros(400).at[jnp.array([7, 300])].set(1.0))
  assert set(nothing_else.tolist()) == {7, 300}


@pytest.mark.parametrize('name', some(['full', 'tied', 'diagonal', 'spherical', 'ppca'], 'tied', 'spherical'))
def test_conditionals_integrate_to_one(name):
  x = clusters(dim=3 if name == 'ppca' else 2).astype('float32')
  mixture = Mixture(GAUSSIANS[name](), 3)
  params = random_params(mixture, x)
  width = 200.0
  grid = jnp.linspace(-width, width, 20_001)
  points = jnp.tile(jnp.asarray(x[0]), (len(grid), 1)).at[:, 1].set(grid)
  observed = jnp.arange(x.shape[1]) != 1
  log_prob = jitted(mixture, 'conditional_log_prob')(params, points, observed)
  np.testing.assert_allclose(np.exp(np.asarray(log_prob, float)).sum() * (grid[1] - grid[0]), 1, rtol=1e-3)


@pytest.mark.parametrize('name', ['bernoulli', 'categorical'])
def test_discrete_mixtures_sum_to_one_and_complete_from_their_conditional(name):
  values = (0, 1) if name == 'bernoulli' else (0, 1, 2)
  states = jnp.array(list(itertools.product(values, repeat=DIM)), float if name == 'bernoulli' else int)
  mixture = Mixture(FAMILIES[name](), 3)
  params = random_params(mixture, examples(name))
  observed = jnp.arange(DIM) < 2

  @jax.jit
  def densities(params):
    return mixture.log_prob(params, states), mixture.conditional_log_prob(params, states, observed)

  p, conditional = (np.exp(np.asarray(leaf, float)) for leaf in densities(params))
  np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
  agree = np.all(np.asarray(states[:, :2] == states[-1, :2]), axis=1)
  np.testing.assert_allclose(conditional[agree], p[agree] / p[agree].sum(), rtol=1e-4)
  num = 20_000
  gappy = jnp.where(observed, states[-1], mixture.family.missing)
  completed = jitted(mixture, 'complete')(params, jax.random.key(0), jnp.tile(gappy, (num, 1)), observed)
  samples = jitted(mixture, 'sample')(params, jax.random.key(1), num=num)
  for draws, expected in ((completed, p * agree / p[agree].sum()), (samples, p)):
    index = np.asarray(draws, int) @ (len(values) ** np.arange(DIM)[::-1])
    frequency = np.bincount(index, minlength=len(p)) / num
    assert np.all(np.abs(frequency - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / num) + 1e-9)


@pytest.mark.parametrize('name', some(GAUSSIANS, 'tied', 'ppca', 'factors'))
def test_samples_and_completions_have_the_moments_of_the_density(name):
  x = clusters().astype('float32')
  mixture = Mixture(GAUSSIANS[name](), 2)
  params = random_params(mixture, x)
  params = params._replace(logits=jnp.array([0.0, -1.0]))
  means, covariances = dense(mixture.family, params.components)
  weights = np.asarray(jax.nn.softmax(params.logits))
  num, hidden = 20_000, np.array([1, 3])
  seen = np.array([0, 2])

  def check(draws, weights, means, covariances):
    mean = weights @ means
    second = np.einsum('k,kij->ij', weights, covariances + means[:, :, None] * means[:, None, :])
    centred = np.asarray(draws, float) - mean
    spread = centred.std(0) / np.sqrt(num)
    assert np.all(np.abs(centred.mean(0)) < 4.5 * spread)
    products = centred[:, :, None] * centred[:, None, :]
    expected = second - np.outer(mean, mean)
    assert np.all(np.abs(products.mean(0) - expected) < 4.5 * products.std(0) / np.sqrt(num) + 1e-6)

  check(jitted(mixture, 'sample')(params, jax.random.key(0), num=num), weights, means, covariances)
  gappy = jnp.tile(jnp.asarray(means.mean(0), jnp.float32), (num, 1)).at[:, hidden].set(jnp.nan)
  draws = jitted(mixture, 'complete')(params, jax.random.key(1), gappy, ~jnp.isnan(gappy))
  np.testing.assert_array_equal(draws[:, seen], gappy[:, seen])
  log_joint = reference_log_joint(params, mixture.family, np.asarray(gappy[:1], float))[0]
  shares = np.exp(log_joint - np.logaddexp.reduce(log_joint))
  gain = [c[np.ix_(hidden, seen)] @ np.linalg.inv(c[np.ix_(seen, seen)]) for c in covariances]
  rest = [c[np.ix_(hidden, hidden)] - g @ c[np.ix_(seen, hidden)] for c, g in zip(covariances, gain, strict=True)]
  shifted = [m[hidden] + g @ (np.asarray(gappy[0, seen]) - m[seen]) for m, g in zip(means, gain, strict=True)]
  check(draws[:, hidden], shares, np.stack(shifted), np.stack(rest))


@pytest.mark.parametrize('name', some(FAMILIES, 'tied', 'ppca', 'factors'))
def test_degenerate_data_never_give_nan(name):
  # A constant column, a copied column, fewer different rows than components and fewer examples than dimensions.
  if name == 'categorical':
    x = jnp.array([[0, 1, 1, 2], [0, 1, 1, 2], [0, 2, 2, 0]])
  else:
    x = jnp.array([[1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]], jnp.float32)
  mixture = Mixture(FAMILIES[name](), 3)
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)

  @jax.jit
  def run():
    state, metrics = best_of(em, jax.random.key(0), Batch(x), num_restarts=2, num_steps=30)
    return state, metrics, mixture.log_prob(state.params, x)

  state, metrics, log_prob = run()
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
  assert np.all(np.isfinite(metrics['loss']))
  assert np.all(np.isfinite(log_prob))


@pytest.mark.parametrize('name', some(GAUSSIANS, 'tied', 'spherical', 'ppca', 'factors'))
def test_float32_survives_data_far_from_zero(name):
  x = jnp.asarray(clusters(), jnp.float32)
  x = jnp.round(x * 64) / 64  # so that the shift is exact
  mixture = Mixture(GAUSSIANS[name](), 3)
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)

  @jax.jit
  def losses(x):
    return jax.lax.scan(lambda s, _: em.step(None, s, Batch(x)), em.init(jax.random.key(0), Batch(x)), length=20)[1]

  np.testing.assert_allclose(losses(x + 2.0**14)['loss'], losses(x)['loss'], atol=0.02)


def test_many_examples_and_dimensions_in_one_block_have_the_density_of_a_few():
  # XLA for CPU once answered 1e30 to a product with a matrix of ones, from about a thousand examples on.
  x = jax.random.normal(jax.random.key(0), (1297, 64))
  mixture = Mixture(LowRank(5), 20, block_size=2000)
  params = jitted(mixture, 'init')(jax.random.key(1), Batch(x))
  log_prob = jitted(mixture, 'log_prob')
  np.testing.assert_allclose(log_prob(params, x)[:50], log_prob(params, x[:50]), rtol=1e-4)


def test_a_component_that_lost_its_data_stays_finite_and_where_it_was():
  x = jnp.asarray(examples('full'), jnp.float32)
  mixture = Mixture(Full(), 2)
  params = random_params(mixture, x)
  far = params.components._replace(offsets=params.components.offsets.at[1].set(1e4))
  statistics, _ = jitted(mixture, 'e_step')(params._replace(components=far), Batch(x))
  after = jitted(mixture, 'm_step')(params, statistics)
  assert np.all(np.isfinite(after.logits)) and after.logits[1] < -60
  np.testing.assert_array_equal(after.components.offsets[1], params.components.offsets[1])


def test_leading_dimensions_and_the_contract():
  x = jnp.asarray(examples('full'), jnp.float32)
  mixture = Mixture(Diagonal(), 3)
  model = mixture.model()
  params = random_params(mixture, x)
  cube = x.reshape(5, 30, DIM)
  log_prob = jax.jit(model.log_prob)
  np.testing.assert_allclose(log_prob(params, cube).reshape(-1), log_prob(params, x), rtol=1e-6)
  assert jax.eval_shape(model.log_prob, params, x[0]).shape == ()
  assert jax.eval_shape(model.encode, params, cube).shape == (5, 30, 3)
  assert jax.eval_shape(lambda: model.sample(params, jax.random.key(0), 7)).shape == (7, DIM)
  assert jax.eval_shape(model.complete, params, jax.random.key(0), cube, cube > 0).shape == cube.shape
  np.testing.assert_allclose(log_prob(params, x).mean(), jitted(mixture, 'e_step')(params, Batch(x))[1], rtol=1e-5)
  with pytest.raises(ValueError, match='context'):
    model.log_prob(params, x, context=x)


@pytest.mark.parametrize(
  ('build', 'message'),
  [
    (lambda: Mixture(Full(), 0), 'num_components=0'),
    (lambda: Mixture(Full(), 2, start='middle'), "start='middle'"),
    (lambda: Mixture(Full(), 2, prior=-1.0), 'prior=-1.0'),
    (lambda: Mixture(Full(), 2, block_size=0), 'block_size=0'),
    (lambda: Mixture(Full(), 4).init(jax.random.key(0), Batch(jnp.zeros((3, 2)))), 'num_components=4 exceeds the 3'),
    (lambda: Mixture(Full(), 1).init(jax.random.key(0), Batch(jnp.zeros(3))), r'shape \(3,\)'),
    (lambda: Full(floor=0.0), 'floor=0.0'),
    (lambda: Full(prior=-0.1), 'prior=-0.1'),
    (lambda: Diagonal(prior_variance=0.0), 'prior_variance=0.0'),
    (lambda: LowRank(0), 'num_factors=0'),
    (lambda: LowRank(1, prior=-1.0), 'prior=-1.0'),
    (lambda: LowRank(1, prior_variance=-1.0), 'prior_variance=-1.0'),
    (lambda: Mixture(LowRank(2), 1).init(jax.random.key(0), Batch(jnp.zeros((3, 2)))), 'num_factors=2'),
    (lambda: Bernoulli(prior_mean=1.5), 'prior_mean=1.5'),
    (lambda: Bernoulli(floor=0.7), 'floor=0.7'),
    (lambda: Bernoulli(smooth=0.0), 'smooth=0.0'),
    (lambda: Bernoulli(prior=-1.0), 'prior=-1.0'),
    (lambda: Categorical(1), 'num_categories=1'),
    (lambda: Categorical(3).data(jnp.zeros(3)), 'float32'),
  ],
)
def test_bad_arguments_are_named(build, message):
  with pytest.raises(ValueError, match=message):
    build()
