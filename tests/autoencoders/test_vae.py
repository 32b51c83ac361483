"""Variational autoencoders against probabilistic PCA, quadrature and closed forms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import data
from gm_jax.autoencoders import diagnostics, iwae, latents, vae
from gm_jax.base import Batch, TrainState, bind, pure
from gm_jax.density import factor_analysis, pca
from gm_jax.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian
from gm_jax.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from gm_jax.training.rules import descent
from tests import models

NOISE = 0.5
LOADINGS = np.array([[1.0, 0.3], [-0.8, 0.5], [0.2, 1.1], [0.6, -0.7]], np.float32)
OFFSET = np.array([0.1, -0.2, 0.3, 0.0], np.float32)


@functools.cache
def linear():
  """A linear VAE that is probabilistic PCA with its exact posterior: module, params, examples, exact log p(x)."""
  module = vae.mlp(4, 2, (), head=Gaussian(scale=NOISE), posterior=latents.FullCovariance())
  covariance = np.linalg.inv(np.eye(2) + LOADINGS.T @ LOADINGS / NOISE**2)
  to_mean, factor = LOADINGS @ covariance / NOISE**2, np.linalg.cholesky(covariance)
  bias = np.concatenate([-OFFSET @ to_mean, np.log(np.diag(factor)), factor[[1], [0]]])
  params = {
    'encoder': {'Dense_0': {'kernel': np.pad(to_mean, ((0, 0), (0, 3))), 'bias': bias}},
    'decoder': {'Dense_0': {'kernel': LOADINGS.T, 'bias': OFFSET}},
  }
  params = jax.tree.map(jnp.float32, params)
  factors = factor_analysis.Factors(jnp.zeros(4), jnp.asarray(OFFSET), jnp.asarray(LOADINGS), jnp.float32(NOISE))
  x = factor_analysis.sample(factors, jax.random.key(0), 6)
  return module, params, x, np.asarray(factor_analysis.log_prob(factors, x))


@functools.cache
def small():
  """A VAE of three bits with one latent, all states, and their exact log p(x) by quadrature.

  Parameters are random but for a q that is wider than the posterior, so that importance weights have a variance.
  """
  module = vae.mlp(3, 1, (4,))
  x = jnp.asarray(models.bits(3))
  params = jax.tree.map(lambda leaf: 1.5 * leaf, module.init(jax.random.key(3), x)['params'])
  params['encoder']['Dense_1'] = {'kernel': 0.5 * params['encoder']['Dense_1']['kernel'], 'bias': jnp.array([0.2, 0.1])}
  return module, params, x, np.asarray(jax.jit(models.quadrature(module))(params, x))


def many(function, num):
  """The function over ``num`` keys, compiled."""
  return jax.jit(lambda *args: jax.vmap(lambda key: function(key, *args))(jax.random.split(jax.random.key(1), num)))


def assert_mean(values, expected, sigmas=4.5):
  values = np.asarray(values, np.float64)
  stderr = values.std(0) / np.sqrt(len(values))
  assert (np.abs(values.mean(0) - expected) < sigmas * stderr + 1e-6).all()


def test_a_linear_vae_learns_what_probabilistic_pca_has_in_closed_form():
  """On the embedded digits, with a posterior that can be exact."""
  x = data.load('digits').train.x.reshape(-1, 64).astype(np.float32) / 16
  optimum = pca.model(3).init(jax.random.key(0), Batch(x))
  exact = np.asarray(factor_analysis.log_prob(optimum, x), np.float64)
  module = vae.mlp(64, 3, (), head=Gaussian(scale=float(optimum.noise_scale)), posterior=latents.FullCovariance())
  algorithm = descent(*vae.objective(module), optax.adam(optax.cosine_decay_schedule(0.02, 2000)))

  @jax.jit
  def learn(key):
    state = algorithm.init(key, Batch(x))
    step = lambda state, key: (algorithm.step(key, state, Batch(x))[0], None)
    state, _ = jax.lax.scan(step, state, jax.random.split(key, 2000))
    keys = jax.random.split(jax.random.fold_in(key, 1), 50)
    return jax.lax.map(lambda key: pure(module).bound(state.params, key, x).mean(), keys)

  bounds = np.asarray(learn(jax.random.key(0)), np.float64)
  stderr = bounds.std() / np.sqrt(len(bounds))
  assert bounds.mean() < exact.mean() + 4 * stderr
  assert bounds.mean() > exact.mean() - exact.std() / np.sqrt(len(x))


def test_with_the_exact_posterior_every_draw_gives_the_exact_likelihood():
  module, params, x, expected = linear()
  terms = jax.jit(functools.partial(bind(module, 'terms'), estimator='sampled'))(params, jax.random.key(1), x)
  np.testing.assert_allclose(terms.log_likelihood - terms.divergence[..., 0], expected, atol=2e-5)
  np.testing.assert_allclose(jax.jit(iwae.bound(module, 5))(params, jax.random.key(2), x), expected, atol=2e-5)
  assert_mean(many(lambda key: module.apply({'params': params}, key, x, method='bound'), 1000)(), expected)


def test_the_bound_and_the_gap_to_the_posterior_add_up_to_the_likelihood_term_by_term():
  """With a q that is wrong in mean, scale and correlation; each term against its closed form in float64."""
  module, params, x, expected = linear()
  params = jax.tree.map(lambda leaf: leaf, params)
  params['encoder']['Dense_0']['bias'] = params['encoder']['Dense_0']['bias'] + jnp.array([0.3, -0.2, 0.4, -0.5, 0.2])
  q = module.apply({'params': params}, x, method='posterior_given')
  true = module.apply({'params': linear()[1]}, x, method='posterior_given')
  terms = many(lambda key: module.apply({'params': params}, key, x, method='terms'), 3000)()
  rest = np.asarray(x - OFFSET - q.mean @ LOADINGS.T, np.float64)
  covariance = np.asarray(q.factor @ np.swapaxes(q.factor, -1, -2), np.float64)
  spread = np.einsum('di,nij,dj->n', LOADINGS, covariance, LOADINGS)
  log_likelihood = -0.5 * ((rest**2).sum(-1) + spread) / NOISE**2 - 2 * np.log(2 * np.pi * NOISE**2)
  divergence = kl_of_gaussians(q.mean, covariance, np.zeros(2), np.eye(2))
  gap = kl_of_gaussians(q.mean, covariance, true.mean, np.asarray(true.factor @ np.swapaxes(true.factor, -1, -2)))
  assert_mean(terms.log_likelihood, log_likelihood)
  np.testing.assert_allclose(terms.divergence[0, :, 0], divergence, atol=1e-5)
  np.testing.assert_allclose(log_likelihood - divergence + gap, expected, atol=2e-5)
  assert (gap > 0.1).all()


def kl_of_gaussians(mean, covariance, other_mean, other):
  precision, difference = np.linalg.inv(other), np.asarray(other_mean - mean, np.float64)
  trace = np.trace(precision @ covariance, axis1=-2, axis2=-1)
  distance = np.einsum('...i,...ij,...j->...', difference, precision, difference)
  return 0.5 * (trace + distance - 2 + np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1])


def test_divergences_equal_integrals():
  points, cell = models.square(-9, 9, 361)
  p = latents.DiagonalGaussian(jnp.array([0.3, -0.1]), jnp.array([0.9, 1.4]))
  diagonal = latents.DiagonalGaussian(jnp.array([0.5, -1.0]), jnp.array([0.4, 1.2]))
  full = latents.FullGaussian(jnp.array([0.5, -1.0]), jnp.array([[0.7, 0.0], [-0.6, 0.8]]))
  for q in (diagonal, full):
    log_q, log_p = (np.asarray(one.log_prob(points), np.float64) for one in (q, p))
    assert latents.divergence(q, p).sum() == pytest.approx((np.exp(log_q) * (log_q - log_p)).sum() * cell, abs=1e-5)
  assert latents.divergence(diagonal, p).shape == (2,)
  assert latents.divergence(full, p).shape == (1,)


def test_distributions_of_the_code_are_those_of_scipy():
  factor = np.array([[0.7, 0.0], [-0.6, 0.8]])
  mean = np.array([0.5, -1.0])
  outputs = jnp.array([*mean, *np.log(np.diag(factor)), factor[1, 0]], jnp.float32)
  full = latents.FullCovariance()(outputs)
  np.testing.assert_allclose(full.factor, factor, rtol=1e-6)
  z, log_q = full.sample_and_log_prob(jax.random.key(0), 5000)
  expected = stats.multivariate_normal(mean, factor @ factor.T)
  np.testing.assert_allclose(log_q, expected.logpdf(z), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(full.log_prob(z), log_q, rtol=1e-4, atol=1e-4)
  assert_mean(np.asarray(z)[:, :, None] * np.asarray(z)[:, None, :], factor @ factor.T + np.outer(mean, mean))
  components = latents.DiagonalGaussian(jnp.array([[0.0, 2.0], [1.0, -1.0]]), jnp.array([[1.0, 0.5], [0.3, 2.0]]))
  mixture = latents.Mixture(jnp.log(jnp.array([1.0, 3.0])), components)
  z, log_p = mixture.sample_and_log_prob(jax.random.key(0), 5000)
  each = [stats.norm(m, s).pdf(z).prod(-1) for m, s in zip(*map(np.asarray, components), strict=True)]
  np.testing.assert_allclose(log_p, np.log(0.25 * each[0] + 0.75 * each[1]), rtol=1e-4, atol=1e-4)
  assert_mean(z, 0.25 * np.array([0.0, 2.0]) + 0.75 * np.array([1.0, -1.0]))


def test_the_gradient_of_stl_is_unbiased_and_silent_at_the_exact_posterior():
  module, params, x, _ = small()
  terms = bind(module, 'terms')

  def gradient(estimator, module_terms, params, x):
    def mean_bound(params, key):
      log_likelihood, divergence = module_terms(params, key, x, estimator=estimator)
      return (log_likelihood - divergence.sum(-1)).mean()

    return lambda key, params: jax.value_and_grad(mean_bound)(params, key)

  values, gradients = zip(
    *(many(gradient(e, terms, params, x), 1500)(params) for e in ('sampled', 'stl', 'analytic')), strict=True
  )
  np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
  for other in gradients[1:]:
    jax.tree.map(lambda a, b: assert_mean(np.asarray(a) - np.asarray(b), 0), gradients[0], other)
  module, params, x, _ = linear()
  terms = bind(module, 'terms')
  noisy, silent = (jax.jit(gradient(e, terms, params, x))(jax.random.key(0), params)[1] for e in ('sampled', 'stl'))
  norm = lambda tree: float(optax.tree.norm(tree['encoder']))
  assert norm(silent) < 1e-4 < 0.1 < norm(noisy)


def test_learning_minimises_minus_the_bound_and_weighs_the_divergence_as_told():
  module, params, x, _ = small()
  key = jax.random.key(5)
  log_likelihood, divergence = bind(module, 'terms')(params, key, x)
  state = TrainState(jnp.int32(3), params, (), {}, ())
  value = lambda **kwargs: float(vae.objective(module, **kwargs)[1](params, key, Batch(x), state)[0])
  bound = bind(module, 'bound')(params, key, x)
  assert value() == pytest.approx(-float(bound.mean()), rel=1e-6)
  assert value(beta=0.5) == pytest.approx(float(0.5 * divergence.sum(-1).mean() - log_likelihood.mean()), rel=1e-6)
  assert value(beta=vae.warm_up(6)) == pytest.approx(value(beta=0.5), rel=1e-6)
  assert [float(vae.warm_up(6, 2.0)(step)) for step in (0, 3, 6, 9)] == [0, 1, 2, 2]
  floor = float(divergence.mean()) + 1
  assert value(free_bits=floor) == pytest.approx(floor - float(log_likelihood.mean()), rel=1e-6)
  assert value(free_bits=0.5 * (floor - 1)) == pytest.approx(value(), rel=1e-6)


@pytest.mark.parametrize('prior', [latents.MixturePrior(1, 3), latents.VampPrior(3, 4)])
def test_with_learnt_priors_the_sampled_divergence_is_right_and_the_likelihood_normalised(prior):
  module = vae.mlp(3, 1, (4,), prior=prior)
  x = jnp.asarray(models.bits(3))
  params = jax.tree.map(lambda leaf: 0.5 * leaf + 0.05, module.init(jax.random.key(3), x)['params'])
  exact = np.asarray(jax.jit(models.quadrature(module))(params, x))
  assert np.exp(exact).sum() == pytest.approx(1, abs=1e-4)
  grid = np.linspace(-12, 12, 2001)
  q, p = (module.apply({'params': params}, *args, method=m) for m, args in
          (('posterior_given', (x,)), ('prior_distribution', ())))  # fmt: skip
  log_q, log_p = (np.asarray(one, np.float64) for one in (q.log_prob(grid[:, None, None]), p.log_prob(grid[:, None])))
  expected = (np.exp(log_q) * (log_q - log_p[:, None])).sum(0) * (grid[1] - grid[0])
  found = many(lambda key: module.apply({'params': params}, key, x, method='terms').divergence[..., 0], 2000)()
  assert_mean(found, expected)


@pytest.mark.parametrize('head', [Bernoulli(), Categorical(3), DiscretisedLogistic(3), Gaussian()])
def test_outputs_of_two_hundred_give_finite_values_and_gradients_and_masses_that_sum_to_one(head):
  module = vae.mlp(2, 1, (), head=head)
  size = 2 if isinstance(head, Bernoulli) else 3
  states = jnp.stack(jnp.meshgrid(*[jnp.arange(size, dtype=jnp.float32)] * 2), -1).reshape(-1, 2)
  params = module.init(jax.random.key(0), states)['params']
  params['decoder']['Dense_0']['bias'] = 200.0 * jnp.where(jnp.arange(2 * head.size) % 2, 1.0, -1.0)
  if isinstance(head, Gaussian | DiscretisedLogistic):
    params['decoder']['Dense_0']['bias'] = params['decoder']['Dense_0']['bias'] / 40  # logarithms of scales among them

  @jax.jit
  def both(params):
    value = lambda params: module.apply({'params': params}, jax.random.key(0), states, method='bound').mean()
    log_p = module.apply({'params': params}, states, jnp.zeros((1, 1, 1)), method='log_likelihood')
    return jax.value_and_grad(value)(params), log_p

  found, log_p = both(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  if not isinstance(head, Gaussian):
    assert np.exp(np.asarray(log_p, np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_completion_with_the_exact_posterior_draws_from_the_exact_conditional():
  module, params, x, _ = linear()
  observed = np.array([True, True, False, False])
  joint = LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(4)
  a, b = np.ix_(~observed, observed), np.ix_(observed, observed)
  gain = joint[a] @ np.linalg.inv(joint[b])
  mean = OFFSET[~observed] + gain @ (np.asarray(x[0])[observed] - OFFSET[observed])
  covariance = joint[np.ix_(~observed, ~observed)] - gain @ joint[a].T
  found = jax.jit(bind(module, 'complete'))(params, jax.random.key(0), jnp.tile(x[0], (3000, 1)), observed)
  assert (np.asarray(found)[:, observed] == np.asarray(x[0])[observed]).all()
  free = np.asarray(found, np.float64)[:, ~observed]
  assert_mean(free, mean)
  assert_mean((free - mean)[:, :, None] * (free - mean)[:, None, :], covariance)


def test_a_code_that_is_not_used_is_seen_to_be_collapsed():
  """Dimension 0 names its example among twenty, dimension 1 is the prior."""
  module = vae.mlp(1, 2, (), head=Gaussian(scale=1.0))
  x = jnp.arange(20.0)[:, None]
  encoder = {'Dense_0': {'kernel': jnp.array([[1.0, 0, 0, 0]]), 'bias': jnp.array([0.0, 0, jnp.log(0.01), 0])}}
  params = {'encoder': encoder, 'decoder': module.init(jax.random.key(0), x)['params']['decoder']}
  np.testing.assert_allclose(diagnostics.code_variance(module)(params, x), [x.var(), 0], rtol=1e-5)
  assert diagnostics.active_units(module)(params, x) == 1
  expected = np.mean(0.5 * (np.arange(20.0) ** 2 + 1e-4 - 1) - np.log(0.01))
  np.testing.assert_allclose(diagnostics.divergence_per_dimension(module)(params, x), [expected, 0], rtol=1e-5)
  information = jax.jit(diagnostics.mutual_information(module))
  np.testing.assert_allclose(information(params, jax.random.key(0), x), np.log(20), atol=1e-4)
  params['encoder']['Dense_0']['kernel'] = 0 * encoder['Dense_0']['kernel']
  np.testing.assert_allclose(information(params, jax.random.key(0), x), 0, atol=1e-4)
  full = vae.mlp(4, 2, (), posterior=latents.FullCovariance())
  with pytest.raises(ValueError, match='FullGaussian has no KL per dimension'):
    diagnostics.divergence_per_dimension(full)(
      full.init(jax.random.key(0), jnp.zeros((1, 4)))['params'], jnp.ones((2, 4))
    )


def test_the_named_architectures_are_those_of_the_lectures():
  shapes = lambda module: [
    [layer['kernel'].shape for layer in network.values()]
    for network in jax.eval_shape(pure(module).init, jax.random.key(0), Batch(jnp.zeros((1, 784)))).values()
  ]
  for found, expected in (
    (shapes(vae.one_hidden_layer(20)), ([(784, 300), (300, 40)], [(20, 300), (300, 784)])),
    (shapes(vae.three_linear_layers()), ([(784, 512), (512, 256), (256, 16)], [(8, 256), (256, 512), (512, 784)])),
  ):
    assert sorted(found) == sorted(expected)


def test_convolutional_networks_speak_of_every_pixel_of_odd_images():
  encoder = ConvolutionalEncoder((7, 5, 2), (3, 4), 6)
  module = vae.VAE(encoder, ConvolutionalDecoder((7, 5, 2), (4, 3), 3, nn.tanh), 3, Categorical(3))
  x = jnp.ones((2, 3, 70))
  params = jax.jit(module.init)(jax.random.key(0), x)['params']
  assert jax.eval_shape(bind(module, 'bound'), params, jax.random.key(0), x).shape == (2, 3)
  assert jax.eval_shape(bind(module, 'decode'), params, jnp.zeros((2, 3, 3))).shape == (2, 3, 70)
  outputs = jax.jit(jax.jacrev(lambda z: module.apply({'params': params}, z, method='decode')))(jnp.zeros(3))
  assert (np.abs(outputs).max(1) > 0).all()
  with pytest.raises(ValueError, match=r'images of image_shape=\(7, 5, 2\) have 70'):
    encoder.init(jax.random.key(0), jnp.ones((2, 71)))


def test_what_cannot_be_is_refused():
  module, params, x, _ = small()
  for message, call in {
    'num_latents=0': lambda: vae.mlp(3, 0),
    "estimator='exact'": lambda: vae.objective(module, estimator='exact'),
    'beta=-1': lambda: vae.objective(module, beta=-1),
    'free_bits=-1': lambda: vae.objective(module, free_bits=-1),
    'num_steps=0': lambda: vae.warm_up(0),
    'num_components=0': lambda: latents.MixturePrior(2, 0),
    'its pseudo-inputs have no context': lambda: vae.mlp(3, 1, prior=latents.VampPrior(3, 2), context_size=2),
    'the decoder speaks of 3 dimensions': lambda: bind(module, 'log_likelihood')(
      params, jnp.ones((2, 4)), jnp.ones((2, 1))
    ),
    'the encoder has 2 outputs, but this posterior of num_latents=3 is made from 6': (
      lambda: module.clone(num_latents=3).init(jax.random.key(0), x)
    ),
  }.items():
    with pytest.raises(ValueError, match=message):
      call()
