import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax.adversarial import conditional, dcgan, gan, players, theory, tricks, wgan
from gm_jax.base import Batch, Players
from gm_jax.training import rules

NON_SATURATING = gan.GAMES['non_saturating']


def test_what_scores_cost():
  scores = jnp.array([-30.0, -1.0, 0.0, 2.0, 90.0])
  d = 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
  with np.errstate(divide='ignore'):
    minus_log_d, minus_log_rest = -np.log(d), np.logaddexp(0, np.asarray(scores, np.float64))
  s = np.asarray(scores)
  expected = {
    'minimax': (minus_log_d, minus_log_rest, -minus_log_rest),
    'non_saturating': (minus_log_d, minus_log_rest, minus_log_d),
    'least_squares': ((s - 1) ** 2 / 2, s**2 / 2, (s - 1) ** 2 / 2),
    'hinge': (np.maximum(0, 1 - s), np.maximum(0, 1 + s), -s),
    'wasserstein': (-s, s, -s),
  }
  for name, game in (*gan.GAMES.items(), ('wasserstein', wgan.WASSERSTEIN)):
    for function, costs in zip(game, expected[name], strict=True):
      np.testing.assert_allclose(function(scores), costs, rtol=1e-5, atol=1e-12)


def run(module, game, batch, critic_optimizer, num_steps, generator_rate=0.0, seed=0, **kwargs):
  """The state after a run, and the metrics over time."""
  losses = gan.objective(module, game, **kwargs)
  algorithm = rules.adversarial(*losses, optax.sgd(generator_rate), critic_optimizer)

  @jax.jit
  def train(key):
    state = algorithm.init(key, Batch(batch(key)))
    step = lambda state, key: algorithm.step(key, state, Batch(batch(key)))
    return jax.lax.scan(step, state, jax.random.split(key, num_steps))

  return train(jax.random.key(seed))


def test_the_critic_learns_the_log_ratio_of_densities_and_the_divergence():
  # Data N(1, 1) against samples N(0, 1): the best score is x - 1/2, which a linear critic can say.
  module = gan.GAN(players.MLPGenerator((), (1,), kernel_init=nn_ones), players.MLPCritic(()), num_latents=1)
  rate = optax.exponential_decay(0.2, 1000, 0.01)
  data = lambda key: 1 + jax.random.normal(jax.random.fold_in(key, 1), (500, 1))
  state, metrics = run(module, NON_SATURATING, data, optax.sgd(rate), 1500)
  layer = state.params.critic['Dense_0']
  # The error of logistic regression on n points is about 2 / sqrt(n); about a hundred batches are remembered.
  error = 4 * 2 / np.sqrt(100 * 500)
  assert layer['kernel'][0, 0] == pytest.approx(1, abs=error)
  assert layer['bias'][0] == pytest.approx(-0.5, abs=error)
  x = np.linspace(-9, 10, 4001)
  p, q = (np.exp(-((x - mean) ** 2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0]) for mean in (1, 0))
  value = 2 * theory.jensen_shannon(p, q) - 2 * np.log(2)
  losses = np.asarray(metrics['critic_loss'][-500:])
  assert -losses.mean() == pytest.approx(float(value), abs=4 * losses.std() / np.sqrt(500) + 1e-4)


def nn_ones(key, shape, dtype=jnp.float32):
  return jnp.ones(shape, dtype)


def test_the_value_of_a_wasserstein_critic_is_the_distance_of_transport_and_what_the_penalty_leaves():
  # Data uniform on (2, 4) against samples N(0, 1). The gap is the integral of the difference F of distribution
  # functions times the slope; with the penalty lambda m(x) (slope - 1)^2 at the density m of the points between, the
  # best slope is 1 + F / (2 lambda m) and the gap W_1 + integral F^2 / (2 lambda m).
  module = gan.GAN(
    players.MLPGenerator((), (1,), kernel_init=nn_ones), players.MLPCritic((32,), output_bias=False), num_latents=1
  )
  data = lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (200, 1), minval=2.0, maxval=4.0)
  optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 600))
  _, metrics = run(module, wgan.WASSERSTEIN, data, optimizer, 600, penalty=wgan.gradient_penalty(10.0))
  gap = np.asarray(metrics['real_score'] - metrics['fake_score'])[-200:]
  random, num = np.random.default_rng(0), 1_000_000
  real, fake, share = random.uniform(2, 4, num), random.normal(size=num), random.random(num)
  between, edges = np.histogram(share * real + (1 - share) * fake, np.linspace(-3, 4, 141), density=True)
  middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
  difference = stats.norm.cdf(middle) - stats.uniform.cdf(middle, 2, 2)
  exact = theory.wasserstein_of_samples(real, fake) + (difference**2 / (20 * between)).sum() * width
  # The slope of a network is a step function, which costs it a little of the best gap.
  assert gap.mean() == pytest.approx(float(exact), abs=4 * gap.std() / np.sqrt(200) + 0.01)


@pytest.mark.parametrize('game', [wgan.WASSERSTEIN, gan.GAMES['hinge']])
def test_samples_move_towards_the_data(game):
  module = gan.GAN(players.MLPGenerator((), (1,), kernel_init=nn_ones), players.MLPCritic(()), num_latents=1)
  data = lambda key: 3 + jax.random.normal(jax.random.fold_in(key, 1), (200, 1))
  clipped = optax.chain(optax.sgd(0.5), wgan.clip_weights(0.5))
  state, _ = run(module, game, data, clipped, 40, generator_rate=0.1)
  assert 1 < state.params.generator['Dense_0']['bias'][0] < 5


def test_slopes_are_taken_over_all_values_of_an_example():
  weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
  x = jnp.ones((5, 2, 3, 4))
  norms = wgan.gradient_norms(lambda x: 2 * jnp.sum(x * weights, (1, 2, 3)), x)
  np.testing.assert_allclose(norms, np.full(5, 2 * np.linalg.norm(weights)), rtol=1e-5)
  packs = wgan.gradient_norms(lambda x: jnp.sum(tricks.pack(x, 2) * jnp.array([3.0, 4.0]), -1), jnp.ones((6, 1)))
  np.testing.assert_allclose(packs, [5.0, 5.0, 5.0], rtol=1e-6)


def test_the_penalty_is_on_slopes_other_than_one():
  real, fake, key = jnp.ones((8, 2)), -jnp.ones((8, 2)), jax.random.key(0)
  cost = lambda slope, **kwargs: wgan.gradient_penalty(10.0, **kwargs)(lambda x: slope * x[:, 0], key, real, fake)
  assert [float(cost(slope)) for slope in (1.0, 3.0, 0.0)] == pytest.approx([0.0, 40.0, 10.0])
  assert [float(cost(slope, one_sided=True)) for slope in (3.0, 0.5)] == pytest.approx([40.0, 0.0])
  assert np.isfinite(jax.grad(cost)(0.0))


def test_weights_are_clipped_after_the_update():
  optimizer = optax.chain(optax.sgd(1.0), wgan.clip_weights(0.1))
  params = {'w': jnp.array([0.05, -0.05, 0.0])}
  updates, _ = optimizer.update({'w': jnp.array([-1.0, 1.0, 0.02])}, optimizer.init(params), params)
  np.testing.assert_allclose(optax.apply_updates(params, updates)['w'], [0.1, -0.1, -0.02], rtol=1e-6)
  with pytest.raises(ValueError, match='limit=-1'):
    wgan.clip_weights(-1)


@pytest.mark.parametrize('layer', [wgan.SpectralDense(5), wgan.SpectralConvolution(5)])
def test_a_spectral_layer_has_norm_one_after_some_steps_and_stays_while_it_is_not_trained(layer):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 2)), jnp.float32)
  variables = layer.init(jax.random.key(0), x)
  step = jax.jit(lambda variables: layer.apply(variables, x, mutable=['spectral'])[1])
  for _ in range(100):
    variables = {**variables, **step(variables)}
  kernel, vector = variables['params']['kernel'], variables['spectral']['vector']
  matrix = np.asarray(kernel).reshape(-1, 5)
  sigma, _ = wgan.power_iteration(jnp.asarray(matrix), vector)
  assert sigma == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)
  slope = jax.grad(lambda kernel: wgan.power_iteration(kernel, vector)[0])(jnp.asarray(matrix))
  left, _, right = np.linalg.svd(matrix)
  np.testing.assert_allclose(slope, np.outer(left[:, 0], right[0]), atol=1e-4)
  larger = {**variables, 'params': {**variables['params'], 'kernel': 7 * kernel}}
  np.testing.assert_allclose(layer.apply(larger, x), layer.apply(variables, x), rtol=1e-4, atol=1e-5)


def test_a_penalty_of_single_examples_is_refused_where_the_critic_judges_batches():
  for critic in (players.MLPCritic((4,), num_kernels=2), conditional.Projected(dcgan.Critic((2, 2)))):
    module = gan.GAN(players.MLPGenerator((4,), (2,)), critic, num_latents=2)
    with pytest.raises(ValueError, match='leave out its batch normalisation and minibatch discrimination'):
      gan.objective(module, wgan.WASSERSTEIN, penalty=wgan.gradient_penalty())


def test_the_generator_matches_mean_features_in_place_of_scores():
  module = gan.GAN(players.MLPGenerator((4,), (2,)), players.MLPCritic((3,)), num_latents=2)
  init, generator_loss, _ = gan.objective(module, NON_SATURATING, feature_matching=True)
  batch = Batch(jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32))
  algorithm = rules.adversarial(init, generator_loss, generator_loss, optax.sgd(0.1), optax.sgd(0.1))
  state = algorithm.init(jax.random.key(0), batch)
  value, _ = generator_loss(state.params, jax.random.key(1), batch, state)
  z = module.apply({}, jax.random.split(jax.random.key(1), 3)[0], 6, method='latents')
  fake = gan.as_model(module).decode(state.params, z)
  layer = state.params.critic['Dense_0']
  features = lambda x: np.maximum(np.asarray(x) @ layer['kernel'] + layer['bias'], 0)
  expected = ((features(batch.x).mean(0) - features(fake).mean(0)) ** 2).sum()
  assert value == pytest.approx(expected, rel=1e-4)


def test_conditions_are_joined_as_planes_or_projected():
  images, condition = jnp.zeros((2, 3, 3, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0]])
  joined = conditional.join(images, condition)
  assert joined.shape == (2, 3, 3, 3)
  np.testing.assert_array_equal(joined[1, ..., 1:], np.broadcast_to([3.0, 4.0], (3, 3, 2)))
  critic = conditional.Projected(players.MLPCritic((3,)))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
  variables = critic.init(jax.random.key(0), x, condition)
  scores, features = critic.apply(variables, x, condition)
  plain, _ = critic.critic.apply({'params': variables['params']['critic']}, x)
  embedded = condition @ variables['params']['embedding']['kernel']
  np.testing.assert_allclose(scores, plain + (embedded * features).sum(-1), rtol=1e-5)


def test_a_conditional_model_asks_for_its_context_and_another_refuses_one():
  with_context = gan.GAN(
    conditional.Joined(players.MLPGenerator((4,), (2,))), conditional.Joined(players.MLPCritic((4,))), 2, context_size=3
  )
  without = gan.GAN(players.MLPGenerator((4,), (2,)), players.MLPCritic((4,)), 2)
  labels = jnp.arange(6) % 3
  model, plain = gan.as_model(with_context), gan.as_model(without)
  params = model.init(jax.random.key(0), Batch(jnp.zeros((6, 2)), labels))
  assert isinstance(params, Players)
  with pytest.raises(ValueError, match='context is missing'):
    model.sample(params, jax.random.key(0), 4)
  with pytest.raises(ValueError, match='context has shape'):
    model.sample(params, jax.random.key(0), 4, context=labels)
  with pytest.raises(ValueError, match='has no conditions'):
    plain.sample(plain.init(jax.random.key(0), Batch(jnp.zeros((6, 2)))), jax.random.key(0), 4, context=labels[:4])
  codes = jax.random.normal(jax.random.key(1), (3, 2, 2))
  decoded = model.decode(params, codes, context=labels.reshape(3, 2))
  flat = model.decode(params, codes.reshape(6, 2), context=labels)
  np.testing.assert_allclose(decoded.reshape(6, 2), flat, rtol=1e-6)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: gan.GAN(players.MLPGenerator((4,), (2,)), players.MLPCritic((4,)), 0), 'num_latents=0'),
    (lambda: gan.GAN(players.MLPGenerator((4,), (2,)), players.MLPCritic((4,)), 1, packing=0), 'packing=0'),
    (lambda: gan.GAN(players.MLPGenerator((4,), (2,)), players.MLPCritic((4,)), 1, prior='cube'), "prior='cube'"),
    (lambda: players.MLPGenerator((4,), (2,), normalisation='layer'), "normalisation='layer'"),
    (lambda: dcgan.Generator((6, 6, 1), (4, 4)), 'height and width must divide by 4'),
    (lambda: dcgan.Generator((4, 4, 1), ()), 'of which there must be one at least'),
    (lambda: dcgan.Critic((4, 4)).init(jax.random.key(0), jnp.zeros((2, 6, 6, 1))), 'must divide by two for each'),
  ],
)
def test_what_cannot_be_built_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_batch_normalised_generator_samples_each_code_by_itself():
  module = gan.GAN(dcgan.Generator((4, 4, 1), (3, 3)), dcgan.Critic((2, 2)), 3, prior='uniform')
  variables = jax.jit(gan.as_model(module).init)(jax.random.key(0), Batch(jnp.zeros((4, 4, 4, 1))))
  decode = jax.jit(gan.as_model(module).decode)
  codes = module.latents(jax.random.key(1), 4)
  np.testing.assert_allclose(decode(variables, codes)[:1], decode(variables, codes[:1]), atol=1e-6)
  assert np.abs(codes).max() <= 1
  kernel = variables.params.generator['TransposedConvolution_0']['kernel']
  assert kernel.std() == pytest.approx(0.02, rel=4 / np.sqrt(2 * kernel.size))


def test_walks_between_codes_and_sums_of_concepts():
  start, end = jnp.array([0.0, 0.0]), jnp.array([1.0, -2.0])
  walk = dcgan.interpolate(start, end, 3)
  np.testing.assert_allclose(walk, [[0, 0], [0.5, -1.0], [1.0, -2.0]])
  groups = [jnp.array([[1.0, 0.0], [3.0, 0.0]]), jnp.array([[0.0, 5.0]]), jnp.array([[1.0, 1.0]])]
  np.testing.assert_allclose(dcgan.arithmetic(groups[:2], groups[2:]), [1.0, 4.0])
  np.testing.assert_allclose(dcgan.arithmetic(groups[:1]), [2.0, 0.0])
