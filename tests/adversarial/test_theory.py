import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.adversarial import theory, tricks
from gm_jax.adversarial.gan import GAMES

RANDOM = np.random.default_rng(0)
P, Q = (RANDOM.dirichlet(np.full(6, 0.5)).astype(np.float32) for _ in range(2))


def loss_of_scores(game, scores):
  """What the critic pays for a score at each of the states, over data P and samples Q."""
  return jnp.sum(P * game.real(scores) + Q * game.fake(scores))


def log_odds(d):
  return np.log(d) - np.log1p(-d)


def test_the_value_of_the_optimal_discriminator_is_the_jensen_shannon_divergence():
  best = theory.optimal_discriminator(P, Q)
  divergence = (stats.entropy(P, (P + Q) / 2) + stats.entropy(Q, (P + Q) / 2)) / 2
  assert theory.value(P, Q, best) == pytest.approx(2 * divergence - 2 * np.log(2), abs=1e-5)
  assert theory.jensen_shannon(P, Q) == pytest.approx(divergence, abs=1e-6)
  assert theory.value(P, P, theory.optimal_discriminator(P, P)) == pytest.approx(-1.386294, abs=1e-6)
  others = np.clip(best + 0.1 * RANDOM.normal(size=(200, 6)), 1e-3, 1 - 1e-3).astype(np.float32)
  assert (theory.value(P, Q, others) < theory.value(P, Q, best)).all()


@pytest.mark.parametrize(
  ('name', 'target', 'best'),
  [
    ('non_saturating', 1.0, log_odds(P / (P + Q))),
    ('minimax', 1.0, log_odds(P / (P + Q))),
    ('non_saturating', 0.9, log_odds(0.9 * P / (P + Q))),  # one-sided: only the numerator of the data is scaled
    ('least_squares', 1.0, P / (P + Q)),
  ],
)
def test_no_score_is_better_than_the_optimal_one(name, target, best):
  game = tricks.smoothed(GAMES[name], target)
  slope = jax.grad(lambda scores: loss_of_scores(game, scores))(jnp.asarray(best))
  np.testing.assert_allclose(slope, 0, atol=1e-6)
  if name != 'least_squares':
    formula = theory.optimal_discriminator(P, Q, target, 0.0)
    np.testing.assert_allclose(log_odds(np.asarray(formula)), best, rtol=1e-4, atol=1e-5)


def test_the_optimal_discriminator_of_targets_on_both_sides():
  real, fake = 0.9, 0.1
  paid = lambda d: (
    -P * (real * np.log(d) + (1 - real) * np.log1p(-d)) - Q * (fake * np.log(d) + (1 - fake) * np.log1p(-d))
  )
  best = np.asarray(theory.optimal_discriminator(P, Q, real, fake), np.float64)
  for other in (best - 1e-2, best + 1e-2):
    assert (paid(best) < paid(other)).all()


def test_the_least_hinge_loss_is_twice_the_overlap():
  at_best = loss_of_scores(GAMES['hinge'], jnp.sign(P - Q))
  assert at_best == pytest.approx(2 * np.minimum(P, Q).sum(), abs=1e-6)
  for scores in RANDOM.normal(size=(100, 6)):
    assert loss_of_scores(GAMES['hinge'], scores) >= at_best - 1e-6


def test_disjoint_supports_leave_the_divergence_constant_while_the_distance_grows():
  points = np.arange(9.0)
  data = np.eye(9)[0]
  for place in (1, 4, 8):
    samples = np.eye(9)[place]
    assert theory.jensen_shannon(data, samples) == pytest.approx(np.log(2), abs=1e-6)
    assert theory.value(data, samples, theory.optimal_discriminator(data, samples)) == 0
    assert theory.wasserstein(points, data, samples) == place


def test_distances_of_transport_are_those_of_scipy():
  points = np.sort(RANDOM.normal(size=6))
  assert theory.wasserstein(points, P, Q) == pytest.approx(stats.wasserstein_distance(points, points, P, Q), rel=1e-5)
  x, y = RANDOM.normal(size=(2, 50))
  assert theory.wasserstein_of_samples(x, y) == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-5)


def test_the_gradient_that_the_optimal_critic_passes_on_is_that_of_divergences():
  x, step = np.linspace(-12, 16, 20_001, retstep=True)
  p = stats.norm.pdf(x)

  def divergences(t):
    q = stats.norm.pdf(x, t)
    middle = (p + q) / 2
    js = (stats.entropy(p * step, middle * step) + stats.entropy(q * step, middle * step)) / 2
    return np.array([js, stats.entropy(q * step, p * step)])

  for t in (0.3, 1.0, 3.0):
    js, kl = (divergences(t + 1e-3) - divergences(t - 1e-3)) / 2e-3
    slope = lambda name, t=t: float(theory.vanishing_gradients(GAMES[name], jnp.array([t]))[0])
    assert slope('minimax') == pytest.approx(2 * js, abs=2e-5)
    assert slope('non_saturating') == pytest.approx(kl - 2 * js, abs=2e-5)


def test_the_minimax_gradient_vanishes_with_the_distance_and_the_other_does_not():
  distances = jnp.array([1.0, 4.0, 8.0, 12.0])
  minimax, other = (theory.vanishing_gradients(GAMES[name], distances) for name in ('minimax', 'non_saturating'))
  assert (np.diff(minimax) < 0).all()
  assert minimax[-1] < 1e-5
  assert (np.diff(other) > 0).all()


def test_the_gap_to_the_optimal_scores_is_never_negative_in_the_mean():
  key = jax.random.key(0)
  real, fake = jax.random.normal(key, (20_000,)), 1 + jax.random.normal(jax.random.key(1), (20_000,))
  best = lambda x: 0.5 - x  # log N(x; 0, 1) - log N(x; 1, 1)
  for other in (lambda x: 1 - x, lambda x: -2 * x + 1, lambda x: 0 * x):
    assert theory.optimality_gap(other(real), other(fake), best(real), best(fake)) > 0
  assert theory.optimality_gap(best(real), best(fake), best(real), best(fake)) == 0
