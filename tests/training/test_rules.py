import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.base import Batch, Extra, Variables, pure
from gm_jax.training import rules


def run(algorithm, key, batch, num_steps):
  """``num_steps`` on one batch in one scan; returns the last state and the metrics of each step."""
  state = algorithm.init(key, batch)

  def one(state, index):
    return algorithm.step(jax.random.fold_in(key, index), state, batch)

  return jax.jit(lambda state: jax.lax.scan(one, state, jnp.arange(num_steps)))(state)


class LinearVAE(nn.Module):
  """x = a z + b + s noise with scalar z ~ N(0, 1), and a Gaussian q(z | x): an ELBO that can be tight."""

  @nn.compact
  def __call__(self, x):
    scalar = lambda name: self.param(name, nn.initializers.normal(0.5), ())
    a, b, log_s = scalar('a'), scalar('b'), scalar('log_s')
    mean, log_q = scalar('w') * (x - b), scalar('log_q')
    kl = 0.5 * (jnp.exp(2 * log_q) + mean**2 - 1) - log_q
    squared_error = (x - b - a * mean) ** 2 + (a * jnp.exp(log_q)) ** 2
    reconstruction = -0.5 * (squared_error * jnp.exp(-2 * log_s) + 2 * log_s + jnp.log(2 * jnp.pi))
    return reconstruction - kl


def test_descent_on_a_linear_vae_reaches_the_gaussian_maximum_likelihood():
  x = 1.0 + 2.0 * jax.random.normal(jax.random.key(0), (500,))
  model = pure(LinearVAE())
  bound = lambda params, x: LinearVAE().apply({'params': params}, x)
  algorithm = rules.descent(model.init, rules.likelihood_loss(bound), optax.adam(0.02))
  _, metrics = run(algorithm, jax.random.key(1), Batch(x), 2000)
  best = -0.5 * (np.log(2 * np.pi * np.var(x)) + 1)
  assert -metrics['loss'][-1] == pytest.approx(best, abs=1e-4)
  assert (-metrics['loss'] <= best + 1e-5).all()


def test_descent_reports_norms_of_gradient_update_and_parameters():
  def loss(params, key, batch, state):
    return jnp.sum(params**2), Extra(metrics={'seen': state.step.astype(float)})

  algorithm = rules.descent(lambda key, batch: jnp.array([3.0, 4.0]), loss, optax.sgd(0.25))
  state, metrics = algorithm.step(jax.random.key(0), algorithm.init(jax.random.key(0), None), None)
  assert float(metrics['grad_norm']) == 10.0
  assert float(metrics['update_norm']) == 2.5
  assert float(metrics['param_norm']) == 5.0
  assert float(metrics['loss']) == 25.0
  assert float(metrics['seen']) == 0.0
  np.testing.assert_array_equal(state.params, [1.5, 2.0])


def gan_losses():
  """Data N(3, 1); generator mean + z; the optimal critic of such a pair is linear in x."""

  def critic(params, x):
    return params['w'] * x + params['b']

  def generator_loss(players, key, batch, state):
    fake = players.generator + jax.random.normal(key, batch.x.shape)
    return jnp.mean(jax.nn.softplus(-critic(players.critic, fake))), Extra()

  def critic_loss(players, key, batch, state):
    fake = players.generator + jax.random.normal(key, batch.x.shape)
    real_part = jax.nn.softplus(-critic(players.critic, batch.x))
    return jnp.mean(real_part + jax.nn.softplus(critic(players.critic, fake))), Extra()

  return generator_loss, critic_loss


def start_players(key, batch):
  return rules.Players(generator=jnp.float32(0), critic={'w': jnp.float32(0), 'b': jnp.float32(0)})


def test_a_one_dimensional_gan_finds_the_mean_of_the_data():
  x = 3.0 + jax.random.normal(jax.random.key(0), (2048,))
  algorithm = rules.adversarial(start_players, *gan_losses(), optax.sgd(0.05), optax.sgd(0.1), critic_steps=4)
  state, metrics = run(algorithm, jax.random.key(1), Batch(x), 1500)
  # At the equilibrium the mean of the samples is that of the data, and the critic's loss is 2 log 2.
  standard_error = 1 / np.sqrt(512)
  assert abs(state.params.generator - x.mean()) < 4 * standard_error
  assert metrics['critic_loss'][-200:].mean() == pytest.approx(2 * np.log(2), abs=4 * standard_error / np.sqrt(200))


def test_the_critic_moves_alone_and_sees_each_example_once():
  def critic_loss(players, key, batch, state):
    return players.critic['w'] * jnp.mean(batch.x), Extra()

  def generator_loss(players, key, batch, state):
    return players.generator * (1.0 + 0 * players.critic['w']), Extra()

  algorithm = rules.adversarial(
    start_players, generator_loss, critic_loss, optax.sgd(1.0), optax.sgd(1.0), critic_steps=3
  )
  batch = Batch(jnp.array([1.0, 2.0, 30.0, 40.0, 500.0, 600.0]))
  state, _ = algorithm.step(jax.random.key(0), algorithm.init(jax.random.key(0), batch), batch)
  assert float(state.params.critic['w']) == -(1.5 + 35 + 550)
  assert float(state.params.generator) == -1.0
  assert int(state.step) == 1


def test_adversarial_refuses_what_it_cannot_do():
  with pytest.raises(ValueError, match='critic_steps=0'):
    rules.adversarial(start_players, *gan_losses(), optax.sgd(1.0), optax.sgd(1.0), critic_steps=0)
  algorithm = rules.adversarial(start_players, *gan_losses(), optax.sgd(1.0), optax.sgd(1.0), critic_steps=3)
  batch = Batch(jnp.ones(8))
  with pytest.raises(ValueError, match='batch of 8 does not divide into critic_steps=3'):
    algorithm.step(jax.random.key(0), algorithm.init(jax.random.key(0), batch), batch)


def two_gaussians():
  """EM of a mixture of two Gaussians of unit variance: weights and means."""

  def log_joint(params, x):
    return jnp.log(params['weights']) - 0.5 * (x[:, None] - params['means']) ** 2 - 0.5 * jnp.log(2 * jnp.pi)

  def e_step(params, batch):
    joint = log_joint(params, batch.x)
    responsibility = jax.nn.softmax(joint)
    statistics = {'n': responsibility.mean(0), 'x': (responsibility * batch.x[:, None]).mean(0)}
    return statistics, jax.nn.logsumexp(joint, axis=1).mean()

  def m_step(params, statistics):
    return {'weights': statistics['n'], 'means': statistics['x'] / statistics['n']}

  def init(key, batch):
    return {'weights': jnp.array([0.5, 0.5]), 'means': jnp.array([-1.0, 1.0])}

  return init, e_step, m_step


def mixture_data(key, num):
  which, noise = jax.random.split(key)
  return jnp.where(jax.random.bernoulli(which, 0.3, (num,)), 4.0, -1.0) + jax.random.normal(noise, (num,))


def test_em_equals_em_by_hand_and_never_lowers_the_likelihood():
  x = mixture_data(jax.random.key(0), 400)
  algorithm = rules.expectation_maximization(*two_gaussians())
  state, metrics = run(algorithm, jax.random.key(1), Batch(x), 40)
  weights, means, data = np.array([0.5, 0.5]), np.array([-1.0, 1.0]), np.asarray(x, np.float64)
  for _ in range(40):
    density = weights * np.exp(-0.5 * (data[:, None] - means) ** 2) / np.sqrt(2 * np.pi)
    responsibility = density / density.sum(1, keepdims=True)
    weights = responsibility.mean(0)
    means = (responsibility * data[:, None]).mean(0) / weights
  np.testing.assert_allclose(state.params['means'], means, rtol=1e-5)
  np.testing.assert_allclose(state.params['weights'], weights, rtol=1e-5)
  assert (np.diff(metrics['loss']) <= 1e-6).all()


def test_stepwise_em_on_small_batches_finds_the_same_mixture():
  x = mixture_data(jax.random.key(2), 4000)
  algorithm = rules.expectation_maximization(*two_gaussians(), step_size=lambda step: (step + 2.0) ** -0.7)
  state = algorithm.init(jax.random.key(0), Batch(x[:100]))
  state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, x: algorithm.step(None, s, Batch(x)), s, x.reshape(40, 100)))(
    state
  )
  full, _ = run(rules.expectation_maximization(*two_gaussians()), jax.random.key(1), Batch(x), 100)
  # Each mean is learnt from 1200 examples or more; one pass of stepwise EM loses a factor of about two against that.
  np.testing.assert_allclose(state.params['means'], full.params['means'], atol=4 * 2 / np.sqrt(1200))


def test_the_first_step_of_stepwise_em_forgets_the_empty_memory():
  x = mixture_data(jax.random.key(2), 100)
  slow = rules.expectation_maximization(*two_gaussians(), step_size=0.1)
  full = rules.expectation_maximization(*two_gaussians())
  states = [a.step(None, a.init(jax.random.key(0), Batch(x)), Batch(x))[0] for a in (slow, full)]
  np.testing.assert_array_equal(states[0].params['means'], states[1].params['means'])


@pytest.mark.parametrize('rule', ['descent', 'adversarial', 'em'])
def test_a_step_under_pmap_equals_a_step_on_the_whole_batch(rule):
  x = mixture_data(jax.random.key(3), 64)
  init, e_step, m_step = two_gaussians()

  def make(axis_name):
    if rule == 'em':
      return rules.expectation_maximization(init, e_step, m_step, axis_name=axis_name)
    loss = lambda params, key, batch, state: (-e_step(params, batch)[1], Extra())
    if rule == 'descent':
      return rules.descent(init, loss, optax.adam(0.1), axis_name=axis_name)
    start = lambda key, batch: rules.Players(init(key, batch), init(key, batch))
    own = lambda name: lambda p, k, b, s: loss(getattr(p, name), k, b, s)
    return rules.adversarial(
      start, own('generator'), own('critic'), optax.adam(0.1), optax.sgd(0.1), critic_steps=1, axis_name=axis_name
    )

  state = make(None).init(jax.random.key(0), Batch(x))
  key = jax.random.key(1)
  expected, _ = jax.jit(make(None).step)(key, state, Batch(x))
  halves = Batch(x.reshape(2, 32))
  step = jax.pmap(make('devices').step, axis_name='devices', in_axes=(None, None, 0))
  found, _ = step(key, state, halves)
  for device in range(2):
    jax.tree.map(
      lambda a, b, device=device: np.testing.assert_allclose(a[device], b, rtol=2e-5, atol=1e-6),
      found.params,
      expected.params,
    )


def test_averaged_parameters_are_what_inference_sees_and_leave_the_learning_alone():
  def loss(params, key, batch, state):
    return jnp.sum((params - 1.0) ** 2), Extra(stats={'seen': state.stats['seen'] + 1})

  init = lambda key, batch: Variables(jnp.array([4.0, -2.0]), {'seen': 0})
  plain = rules.descent(init, loss, optax.sgd(0.2))
  state, metrics = run(plain, jax.random.key(0), None, 5)
  found, found_metrics = run(rules.averaged(plain, 0.3), jax.random.key(0), None, 5)
  np.testing.assert_allclose(found.params, state.params, rtol=1e-6)
  np.testing.assert_allclose(found_metrics['loss'], metrics['loss'], rtol=1e-6)
  values = [np.array([4.0, -2.0])]
  for _ in range(5):
    values.append(values[-1] - 0.4 * (values[-1] - 1))
  average = values[0]
  for step, value in enumerate(values[1:], 1):
    decay = min(0.3, step / (9 + step))
    average = decay * average + (1 - decay) * value
  params, stats, _ = found.variables
  np.testing.assert_allclose(params, average, rtol=1e-6)
  assert set(stats) == {'seen'}
  assert int(stats['seen']) == 5
  with pytest.raises(ValueError, match='decay=1'):
    rules.averaged(plain, 1.0)
