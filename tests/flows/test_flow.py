"""What flows as a whole must keep: stacks, statistics, dualities, bits per dimension, and where inversion ends."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import flow_data, flows
from gm_jax.base import Batch, as_variables, bind, pure
from gm_jax.data.dataset import Dataset, Split
from gm_jax.flows import flow, glow, iaf, layers, maf, multiscale, nice, normalisation, planar, realnvp, scalar
from gm_jax.training import checkpoint, rules


def data(num_dimensions=3, num=32, seed=0):
  """Correlated data."""
  key, mix_key = jax.random.split(jax.random.key(seed))
  return jax.random.normal(key, (num, num_dimensions)) @ jax.random.normal(mix_key, (num_dimensions,) * 2) + 0.5


def train(module, x, num_steps=40, learning_rate=0.02, context=None):
  """The state after some steps on one batch."""
  optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(learning_rate))
  algorithm = rules.descent(*flow.objective(module), optimizer)
  batch = Batch(x, context)

  @jax.jit
  def run(key):
    state = algorithm.init(key, batch)
    return jax.lax.scan(lambda s, k: (algorithm.step(k, s, batch)[0], None), state, jax.random.split(key, num_steps))[0]

  return run(jax.random.key(0))


@functools.cache
def trained_maf():
  module = maf.maf(3, 2, (8,))
  return module, train(module, data())


def jacobian(function, x):
  return np.asarray(jax.jit(jax.jacfwd(function))(x))


# Stacks.


def test_a_scanned_stack_equals_the_chain_of_its_layers():
  module, state = trained_maf()
  step = module.layers.layer
  params, stats = state.params['layers']['layer'], state.stats['stats']['layers']['layer']
  one = lambda i: jax.tree.map(lambda leaf: leaf[i], {'params': params, 'stats': stats})
  as_is = lambda i: layers.Bound(step, as_variables_of(one(i)))
  chain = distrax.Chain([as_is(1), as_is(0)])  # distrax applies the last one first, as functions compose
  z = jax.random.normal(jax.random.key(1), (4, 3))
  found = jax.jit(lambda z: chain.forward_and_log_det(z))(z)
  expected = jax.jit(lambda z: flow.bijector(module)(state.variables).forward_and_log_det(z))(z)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  swapped = distrax.Chain([as_is(0), as_is(1)]).forward(z)
  assert np.abs(swapped - expected[0]).max() > 0.01


def as_variables_of(tree):
  """Variables of a module's own tree."""
  stats = dict(tree)
  return as_variables(stats.pop('params'))._replace(stats=stats)


def test_a_program_is_as_long_for_many_layers_as_for_few():
  x = jnp.zeros((4, 4))

  def length(num_layers):
    module = realnvp.dense(4, num_layers, (8,))
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    loss = lambda v: module.apply(v, x).mean()
    return jax.jit(jax.grad(loss)).lower(variables).as_text().count('\n')

  assert length(2) == length(32)


def test_orders_alternate_so_that_a_stack_is_not_triangular_although_each_layer_is():
  module, state = trained_maf()
  whole = jacobian(flow.bijector(module)(state.variables).inverse, data()[0])
  assert (np.abs(whole[~np.eye(3, dtype=bool)]) > 1e-6).all()
  layer = maf.maf(3, 1, (8,), batch_norm=False)
  first = train(layer, data())
  one = jacobian(flow.bijector(layer)(first.variables).inverse, data()[0])[::-1]  # the reversal undone
  assert (one[np.triu_indices(3, 1)] == 0).all() and (one[np.tril_indices(3)] != 0).all()


@pytest.mark.parametrize('num_dimensions', [2, 3])
def test_two_couplings_transform_every_dimension(num_dimensions):
  module = realnvp.dense(num_dimensions, 2, (8,))
  state = train(module, data(num_dimensions))
  found = jacobian(flow.bijector(module)(state.variables).inverse, data(num_dimensions)[0])
  assert (np.abs(np.abs(found).max(1) - 1) > 1e-3).all()  # a dimension that is left as it was has a row of 0 and 1


def test_splines_invert_and_keep_their_volume_within_and_beyond_their_ends():
  module = realnvp.dense(3, 2, (8,), transform=scalar.Spline(4, bound=2.0))
  state = train(module, data())
  bijector = flow.bijector(module)(state.variables)
  x = jnp.concatenate([data(num=8), 10 + data(num=2)])

  @jax.jit
  def check(x):
    z, log_det = bijector.inverse_and_log_det(x)
    return bijector.forward(z), log_det, jax.vmap(lambda x: jnp.linalg.slogdet(jax.jacfwd(bijector.inverse)(x))[1])(x)

  back, log_det, expected = check(x)
  np.testing.assert_allclose(back, x, atol=1e-4)
  np.testing.assert_allclose(log_det, expected, atol=1e-4)


# Theory.


def test_the_determinant_of_nice_is_the_product_of_its_scales_everywhere():
  module = nice.nice(3, 2, (8,))
  state = train(module, data())
  _, log_det = jax.jit(bind(module, 'inverse_and_log_det'))(state.params, 3 * data(seed=1))
  scales = np.exp(np.asarray(state.params['layers']['layers_0']['log_scale'], np.float64))
  assert abs(np.log(scales)).max() > 0.1
  np.testing.assert_allclose(np.exp(log_det), np.prod(scales), rtol=1e-5)


def test_iaf_is_the_inverse_of_maf_with_the_same_parameters():
  module = maf.maf(3, 2, (8,), batch_norm=False)
  params = train(module, data()).params
  dual = iaf.dual(module)
  assert jax.tree.structure(params) == jax.tree.structure(pure(dual).init(jax.random.key(0), Batch(data())))
  assert iaf.dual(dual).layers == module.layers
  z = jax.random.normal(jax.random.key(1), (6, 3))

  @jax.jit
  def both(params, z):
    x, log_det = module.apply({'params': params}, z, method='inverse_and_log_det')
    other, other_log_det = dual.apply({'params': params}, z, method='forward_and_log_det')
    log_p = dual.apply({'params': params}, other)
    return x, log_det, other, other_log_det, log_p, dual.apply({'params': params}, other, method='inverse')

  x, log_det, other, other_log_det, log_p, back = both(params, z)
  np.testing.assert_array_equal(x, other)
  np.testing.assert_array_equal(log_det, other_log_det)
  np.testing.assert_allclose(back, z, atol=1e-4)
  np.testing.assert_allclose(log_p, distrax.Normal(0.0, 1.0).log_prob(z).sum(-1) - log_det, atol=1e-4)
  way = jax.jit(bind(dual, 'path'))(params, z)
  there = jax.jit(bind(module, 'path'))(params, way[-1])  # through the same layers from the other end
  assert len(way) == len(there) == 2
  for found, expected in ((way[1], other), (there[0], way[0]), (there[1], z)):
    np.testing.assert_allclose(found, expected, atol=1e-4)
  with pytest.raises(ValueError, match='starts from standard normal noise'):
    iaf.dual(maf.maf(3, num_components=2))


def test_samples_come_with_the_density_that_log_prob_gives_them():
  module = planar.planar(2, 3)
  params = train(module, data(2)).params
  x, log_q = jax.jit(lambda: bind(module, 'sample_and_log_prob')(params, jax.random.key(0), 50))()
  np.testing.assert_allclose(log_q, jax.jit(bind(module, 'log_prob'))(params, x), atol=1e-4)


def test_the_reverse_divergence_of_a_flow_to_its_own_density_is_zero():
  module = planar.planar(2, 3)
  params = train(module, data(2)).params
  own_energy = lambda x: -module.apply({'params': params}, x)
  _, loss = planar.variational(module, own_energy, 20)
  value, _ = jax.jit(lambda: loss(params, jax.random.key(1), None, None))()
  assert abs(float(value)) < 1e-5
  _, off = planar.variational(module, lambda x: own_energy(x) + 1, 20)
  assert abs(float(jax.jit(lambda: off(params, jax.random.key(1), None, None))()[0]) - 1) < 1e-5


# Statistics.


def test_actnorm_standardises_the_first_batch_and_never_measures_again():
  module = flow.Flow(3, layers.Scanned(normalisation.Actnorm(3), 2))
  x = 5 + 3 * data()
  variables = module.init(jax.random.key(0), x)
  z = module.apply(variables, x, method='inverse')
  np.testing.assert_allclose(np.mean(z, 0), 0, atol=1e-5)
  np.testing.assert_allclose(np.std(z, 0), 1, atol=1e-3)
  _, updated = module.apply(variables, 100 + x, mutable=['stats'])
  jax.tree.map(np.testing.assert_array_equal, updated['stats'], variables['stats'])


def test_batch_normalisation_is_of_the_batch_while_learning_and_of_the_training_set_when_calibrated():
  module = flow.Flow(3, normalisation.BatchNorm(3))
  first, second = data(), 2 + 3 * data(seed=1)
  variables = pure(module).init(jax.random.key(0), Batch(first))
  apply = lambda x, **kwargs: module.apply({'params': variables.params, **variables.stats}, x, **kwargs)
  assert np.isfinite(apply(second)).all()

  def expected(x, of):
    scale = jnp.sqrt(jnp.var(of, 0) + 1e-5)
    return distrax.Normal(0.0, 1.0).log_prob((x - jnp.mean(of, 0)) / scale).sum(-1) - jnp.log(scale).sum()

  np.testing.assert_allclose(apply(second), expected(second, first), rtol=1e-4)  # statistics of the first batch
  learning, updated = apply(second, mutable=['stats'])
  np.testing.assert_allclose(learning, expected(second, second), rtol=1e-4)
  halfway = updated['stats']['layers']['mean']  # the first batch weighs as much as the second
  np.testing.assert_allclose(halfway, (first.mean(0) + second.mean(0)) / 2, rtol=1e-4, atol=1e-5)
  calibrated = normalisation.calibrate(module, variables, second)
  np.testing.assert_allclose(bind(module, 'log_prob')(calibrated, first), expected(first, second), rtol=1e-4)


def test_a_stack_is_calibrated_layer_by_layer():
  module, state = trained_maf()
  calibrated = jax.jit(lambda v, x: normalisation.calibrate(module, v, x))(state.variables, data())
  learning, _ = jax.jit(functools.partial(module.apply, mutable=['stats']))(
    {'params': state.params, **state.stats}, data()
  )
  np.testing.assert_allclose(jax.jit(bind(module, 'log_prob'))(calibrated, data()), learning, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_a_flow_answers_the_same(tmp_path):
  module = glow.glow((4, 4, 1), 1, 1, num_hidden=4)
  state = jax.device_get(train(module, data(16), num_steps=3))
  checkpoint.Checkpoints(tmp_path).save(state, {})
  like = jax.device_get(train(module, data(16, seed=3), num_steps=0))
  restored = checkpoint.Checkpoints(tmp_path).restore(like).state
  log_prob = jax.jit(bind(module, 'log_prob'))
  np.testing.assert_array_equal(log_prob(state.variables, data(16)), log_prob(restored.variables, data(16)))
  assert not np.array_equal(log_prob(like.variables, data(16)), log_prob(state.variables, data(16)))


# Images.


def test_checkerboard_and_channel_couplings_keep_what_they_say():
  for mask, kept in (('checkerboard', np.indices((2, 2)).sum(0)[..., None].repeat(2, -1) % 2 == 0),
                     ('channel', np.array([True, False])[None, None].repeat(2, 0).repeat(2, 1))):  # fmt: skip
    for swap in (False, True):
      layer = multiscale.ImageCoupling((2, 2, 2), mask, swap, num_hidden=4)
      variables = layer.init(jax.random.key(0), jnp.ones((2, 2, 2)), method='inverse_and_log_det')
      variables = jax.tree.map(lambda leaf: leaf + 0.3, variables)
      x = jax.random.normal(jax.random.key(1), (2, 2, 2))
      z, _ = layer.apply(variables, x, method='inverse_and_log_det')
      np.testing.assert_array_equal(np.asarray(z == x), kept != swap)


def test_real_nvp_of_images_inverts_given_a_context_and_its_volume_is_that_of_autodiff():
  module = realnvp.images((4, 4, 1), 1, 1, 4, context_size=2)
  context = jnp.arange(32) % 2
  state = train(module, data(16), num_steps=10, context=context)
  bijector, x = flow.bijector(module)(state.variables, context=context[0]), data(16)[0]

  @jax.jit
  def check(x):
    z, log_det = bijector.inverse_and_log_det(x)
    return bijector.forward(z), log_det, jnp.linalg.slogdet(jax.jacrev(bijector.inverse)(x))[1]

  back, log_det, expected = check(x)
  np.testing.assert_allclose(back, x, atol=1e-4)
  np.testing.assert_allclose(log_det, expected, rtol=1e-4)


def test_temperature_scales_the_noise_and_walks_begin_and_end_at_the_examples():
  module, state = trained_maf()
  samples = jax.jit(lambda t: bind(module, 'sample')(state.variables, jax.random.key(0), 4, temperature=t))
  codes = jax.jit(bind(module, 'encode'))
  np.testing.assert_allclose(
    codes(state.variables, samples(0.5)), 0.5 * codes(state.variables, samples(1.0)), atol=1e-4
  )
  first, last = data()[:2]
  walk = jax.jit(lambda a, b: flow.interpolate(module, state.variables, a, b, 5))(first, last)
  np.testing.assert_allclose(np.asarray(walk)[[0, -1]], [first, last], atol=1e-4)


def test_an_attribute_is_the_difference_of_mean_codes():
  module = flow.Flow(2, normalisation.Scale(2))
  params = {'layers': {'log_scale': jnp.array([0.5, -1.0])}}  # a linear map: the way in data is straight, too
  x, there, here = jnp.ones(2), data(2) + 1, data(2, seed=1)
  moved = flow.shift_attribute(module, params, x, there, here, jnp.array([0.0, 1.0]))
  np.testing.assert_allclose(moved, [x, x + there.mean(0) - here.mean(0)], rtol=1e-5)


def test_the_learnt_scale_starts_with_that_of_the_data():
  module = flow.Flow(3, normalisation.Scale(3))
  x = data(3) * jnp.array([1.0, 100.0, 0.01])
  variables = module.init(jax.random.key(0), x)
  codes = module.apply(variables, x, method='encode')
  np.testing.assert_allclose(jnp.std(codes, axis=0), 1, rtol=1e-5)
  constant = module.init(jax.random.key(0), jnp.ones((5, 3)))
  assert np.isfinite(constant['params']['layers']['log_scale']).all()


# Numbers of the original data.


def test_a_uniform_model_has_eight_bits_per_dimension_through_the_whole_pipeline():
  # Logistic noise is the logit of a uniform number, so a flow that leaves it alone is uniform on the unit cube.
  module = flow.Flow(12, layers.Constant(distrax.Block(distrax.ScalarAffine(0.0, 1.0), 1)), flow.Noise(12, 'logistic'))
  x = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 3), np.uint8)
  x[0], x[1] = 0, 255
  grey = Dataset('grey', *[Split(x, None)] * 3, shape=(2, 2, 3), kind='grey', levels=256, provenance='')
  flags = type('Flags', (), {'space': 'logit', 'alpha': 0.0, 'conditional': False})
  prepared = flow_data.prepare(flags, grey)
  found = flows.scorer(flows.exact_density(module, prepared))({}, prepared.splits[2], None, key=jax.random.key(0))
  assert found['bits'].mean == pytest.approx(8.0, abs=1e-5)
  assert found['log_prob'].mean == pytest.approx(-12 * 8 * np.log(2), rel=1e-6)
  y, _ = prepared.to_flow(jax.random.key(1), prepared.splits[2])
  np.testing.assert_array_equal(np.floor(prepared.from_flow(y) + 1e-4), prepared.splits[2])
  # With alpha the logit reaches beyond the data: mass lies where none are, and the model is a little worse.
  flags.alpha = 0.05
  wider = flow_data.prepare(flags, grey)
  found = flows.scorer(flows.exact_density(module, wider))({}, wider.splits[2], None, key=jax.random.key(0))
  assert found['bits'].mean == pytest.approx(8.0 - np.log2(0.9), abs=1e-5)


# Where inversion ends.


def test_half_precision_is_refused_for_it_loses_the_data():
  module, state = trained_maf()
  with pytest.raises(ValueError, match='dtype=bfloat16'):
    bind(module, 'log_prob')(state.variables, data().astype(jnp.bfloat16))
  # What it would have cost: the same layers, called without the check.
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.variables)
  tree, x = {'params': half.params, **half.stats}, data().astype(jnp.bfloat16)
  inverse = lambda m, x: m.layers.inverse_and_log_det(x)[0]
  forward = lambda m, z: m.layers.forward(z)
  z = module.apply(tree, x, method=inverse)
  lost = jnp.abs(module.apply(tree, z, method=forward) - x).max()
  kept = jax.jit(bind(module, 'residual'))(state.variables, data()).max()
  assert float(lost) > 1e-2 and float(kept) < 1e-5


def test_heavy_tails_are_reported_by_the_residual():
  x = jax.random.t(jax.random.key(0), 2.0, (256, 16))
  module = maf.maf(16, 3, (32,), batch_norm=False)
  state = train(module, x, num_steps=60, learning_rate=0.005)
  far = jnp.concatenate([x, 100 * x, 1e30 * x[:8]])
  residual = np.asarray(jax.jit(bind(module, 'residual'))(state.variables, far))
  near, beyond, absurd = residual[:256], residual[256:512], residual[512:]
  assert (near < 1e-3).mean() > 0.99
  assert (beyond > 1e-2).mean() > 0.2  # where an inverse would be nonsense, it says so
  assert not (absurd < 1e-2).any()  # and what is not a number is not small


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: realnvp.dense(1), 'num_dimensions=1'),
    (lambda: nice.nice(2, 0), 'num_layers=0'),
    (lambda: nice.nice(2, 1, noise='cauchy'), "kind='cauchy'"),
    (lambda: maf.maf(8, 2, (4,)), 'cannot bear each of the degrees'),
    (lambda: maf.maf(8, num_components=0), 'num_components=0'),
    (lambda: planar.planar(2, kind='round'), "kind='round'"),
    (lambda: glow.glow((6, 8, 1), 2), 'must be divisible by 4'),
    (lambda: realnvp.images((4, 4, 1), 0), 'num_levels=0'),
    (lambda: multiscale.ImageCoupling((2, 2, 3)), 'number must be even'),
    (lambda: multiscale.ImageCoupling((2, 2, 2), 'stripes'), "mask='stripes'"),
    (lambda: realnvp.dense(3).init(jax.random.key(0), jnp.zeros((2, 4))), 'last axis must have 3'),
  ],
)
def test_bad_input_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
