"""Learning: each negative phase against the exact gradient, and centring as a change of variables."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.base import Batch, TrainState
from gm_jax.boltzmann import contrastive, partition, tempering
from gm_jax.boltzmann.rbm import RBM
from gm_jax.boltzmann.visible import CategoricalRBM, GaussianRBM
from gm_jax.training.rules import descent
from tests.boltzmann.enumeration import binary_joint, float64, random_params, states

MACHINE = RBM(6, 3)
PARAMS = random_params(jax.random.key(0), 6, 3, scale=0.7)
JOINT, _ = binary_joint(PARAMS)
X = jnp.asarray(states(6)[[3, 5, 17, 40, 41, 62, 63, 7]], jnp.float32)
OFFSETS = {'visible': jnp.linspace(0.1, 0.9, 6), 'hidden': jnp.array([0.2, 0.5, 0.7])}


def exact_gradient(params, x):
  """d/dtheta of -mean log p(x) from the enumerated joint distribution, in float64."""
  p, joint = float64(params), binary_joint(params)[0]
  v, h = states(6), states(3)
  hidden = 1 / (1 + np.exp(-(np.asarray(x) @ p['kernel'] + p['hidden_bias'])))
  model = {'kernel': v.T @ joint @ h, 'visible_bias': joint.sum(1) @ v, 'hidden_bias': joint.sum(0) @ h}
  data = {'kernel': x.T @ hidden / len(x), 'visible_bias': x.mean(0), 'hidden_bias': hidden.mean(0)}
  return jax.tree.map(lambda m, d: m - np.asarray(d), model, data)


def state_of(params, chains=(), stats=None, opt_state=()):
  return TrainState(jnp.int32(0), params, opt_state, stats or {}, chains)


def gradient_of(loss, params, state):
  return jax.jit(lambda key: jax.grad(loss, has_aux=True)(params, key, Batch(X), state)[0])


def exact_states(params, key, num):
  """Exact draws of (v, h)."""
  joint = binary_joint(params)[0]
  index = jax.random.choice(key, joint.size, (num,), p=jnp.asarray(joint.ravel()))
  v, h = jnp.asarray(states(6), jnp.float32), jnp.asarray(states(3), jnp.float32)
  return v[index // 8], h[index % 8]


def largest_z(gradients, expected):
  """The largest z-score of a mean of gradients (leading axis) from what it should be."""

  def z(g, e):
    g = np.asarray(g, np.float64)
    return np.abs((g.mean(0) - e) / (g.std(0, ddof=1) / math.sqrt(len(g)))).max()

  return max(jax.tree.leaves(jax.tree.map(z, gradients, expected)))


def test_exact_phase_is_the_likelihood():
  _, loss = contrastive.objective(MACHINE, contrastive.exact(), centered=False)
  value, _ = jax.jit(loss)(PARAMS, None, Batch(X), state_of(PARAMS))
  log_prob = jax.jit(lambda x: MACHINE.apply({'params': PARAMS}, x, method='log_prob'))(X)
  np.testing.assert_allclose(value, -log_prob.mean(), rtol=1e-6)
  gradient = gradient_of(loss, PARAMS, state_of(PARAMS))(jax.random.key(0))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), gradient, exact_gradient(PARAMS, X))


def test_divergence_of_many_steps_is_the_exact_gradient_and_of_one_step_is_not():
  keys = jax.random.split(jax.random.key(1), 20_000)
  expected = exact_gradient(PARAMS, X)
  _, loss = contrastive.objective(MACHINE, contrastive.divergence(50), centered=False)
  gradients = jax.jit(jax.vmap(gradient_of(loss, PARAMS, state_of(PARAMS))))(keys)
  assert largest_z(gradients, expected) < 4.5  # 27 parameters
  _, loss = contrastive.objective(MACHINE, contrastive.divergence(1), centered=False)
  assert largest_z(jax.jit(jax.vmap(gradient_of(loss, PARAMS, state_of(PARAMS))))(keys), expected) > 10


def test_persistent_chains_at_equilibrium_give_the_exact_gradient():
  _, loss = contrastive.objective(MACHINE, contrastive.persistent(1), centered=False)
  v, h = exact_states(PARAMS, jax.random.key(2), 20_000)
  chains = {'visible': v[:, None], 'hidden': h[:, None]}

  @jax.jit
  @jax.vmap
  def gradient(key, chains):
    gradient, extra = jax.grad(loss, has_aux=True)(PARAMS, key, Batch(X), state_of(PARAMS, chains))
    return gradient, extra.chains

  gradients, moved = gradient(jax.random.split(jax.random.key(3), 20_000), chains)
  assert largest_z(gradients, exact_gradient(PARAMS, X)) < 4.5
  index = (np.asarray(moved['visible'][:, 0]) @ 2 ** np.arange(6)[::-1]) * 8 + np.asarray(
    moved['hidden'][:, 0]
  ) @ 2 ** np.arange(3)[::-1]
  histogram = np.bincount(index.astype(int), minlength=512) / 20_000
  allowed = np.sqrt(JOINT * (1 - JOINT) / (2 * np.pi * 20_000)).sum() + 2 / math.sqrt(20_000)
  assert 0.5 * np.abs(histogram - JOINT.ravel()).sum() < allowed  # the pair (v, h) is still a joint draw
  far = jax.tree.map(jnp.zeros_like, chains)
  assert largest_z(gradient(jax.random.split(jax.random.key(3), 20_000), far)[0], exact_gradient(PARAMS, X)) > 10


def test_tempered_chains_at_equilibrium_give_the_exact_gradient():
  betas, base = tempering.ladder(3), jnp.zeros(6)
  _, loss = contrastive.objective(MACHINE, contrastive.tempered(1, betas, base), centered=False)
  keys = jax.random.split(jax.random.key(4), 4)
  levels = [jax.tree.map(lambda leaf, beta=beta: beta * leaf, PARAMS) for beta in betas]
  visible = jnp.stack([exact_states(p, key, 20_000)[0] for p, key in zip(levels, keys, strict=False)], axis=1)

  @jax.jit
  @jax.vmap
  def gradient(key, visible):
    state = state_of(PARAMS, {'visible': visible[None]})
    gradient, extra = jax.grad(loss, has_aux=True)(PARAMS, key, Batch(X), state)
    return gradient, extra.metrics

  gradients, metrics = gradient(jax.random.split(keys[3], 20_000), visible)
  assert largest_z(gradients, exact_gradient(PARAMS, X)) < 4.5
  assert 0.2 < float(metrics['lowest_swap_rate'].mean()) <= float(metrics['swap_rate'].mean()) < 1


def centered_energy(centered, offsets, v, h):
  """The energy as Montavon & Mueller write it."""
  v, h = v - offsets['visible'], h - offsets['hidden']
  return -v @ centered['visible_bias'] - h @ centered['hidden_bias'] - jnp.sum((v @ centered['kernel']) * h, -1)


def test_centred_coordinates_are_a_change_of_variables():
  v, h = jnp.asarray(states(6), jnp.float32)[:, None], jnp.asarray(states(3), jnp.float32)[None]
  for offsets in (OFFSETS, jax.tree.map(lambda leaf: 1 - leaf**2, OFFSETS)):
    centered = contrastive.to_centered(PARAMS, offsets)
    score = -np.asarray(centered_energy(centered, offsets, v, h), np.float64)
    np.testing.assert_allclose(np.exp(score - score.max()) / np.exp(score - score.max()).sum(), JOINT, rtol=1e-4)
    back = contrastive.to_plain(centered, offsets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, PARAMS)


def test_a_centred_step_is_the_step_of_the_centred_machine():
  v, h = jnp.asarray(states(6), jnp.float32)[:, None], jnp.asarray(states(3), jnp.float32)[None]

  def centered_loss(centered):
    data = -jax.nn.logsumexp(-centered_energy(centered, OFFSETS, X[:, None], h), axis=1).mean()
    return data + jax.nn.logsumexp(-centered_energy(centered, OFFSETS, v, h))

  centered = contrastive.to_centered(PARAMS, OFFSETS)
  step = jax.tree.map(lambda p, g: p - 0.1 * g, centered, jax.jit(jax.grad(centered_loss))(centered))
  expected = contrastive.to_plain(step, OFFSETS)
  algorithm = descent(*contrastive.objective(MACHINE, contrastive.exact(), offset_rate=0.25), optax.sgd(0.1))
  state = state_of(
    PARAMS, stats={'offsets': OFFSETS}, opt_state=jax.jit(algorithm.init)(jax.random.key(0), Batch(X)).opt_state
  )
  after, _ = jax.jit(algorithm.step)(jax.random.key(0), state, Batch(X))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), after.params, expected)
  np.testing.assert_allclose(after.stats['offsets']['visible'], 0.75 * OFFSETS['visible'] + 0.25 * X.mean(0), rtol=1e-6)
  plain = descent(*contrastive.objective(MACHINE, contrastive.exact(), centered=False), optax.sgd(0.1))
  other, _ = jax.jit(plain.step)(jax.random.key(0), state_of(PARAMS, opt_state=state.opt_state), Batch(X))
  assert float(jnp.abs(other.params['kernel'] - expected['kernel']).max()) > 1e-2


def test_flipping_data_and_offsets_leaves_the_centred_gradient():
  """v -> 1 - v with W -> -W, b -> -b, c -> c + sum_i W_i is the same model; a plain step tells them apart."""

  def flip(params):
    return {
      'kernel': -params['kernel'],
      'visible_bias': -params['visible_bias'],
      'hidden_bias': params['hidden_bias'] + params['kernel'].sum(0),
    }

  flipped_offsets = {**OFFSETS, 'visible': 1 - OFFSETS['visible']}

  def stepped(centered, params, x, offsets):
    _, loss = contrastive.objective(MACHINE, contrastive.exact(), centered=centered)
    state = state_of(params, stats={'offsets': offsets})
    gradient, _ = jax.jit(jax.grad(loss, has_aux=True))(params, None, Batch(x), state)
    return jax.tree.map(lambda p, g: p - g, params, gradient)

  def distance(centered):
    a = flip(stepped(centered, PARAMS, X, OFFSETS))
    b = stepped(centered, flip(PARAMS), 1 - X, flipped_offsets)
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), a, b)))

  assert distance(True) < 5e-6
  assert distance(False) > 1e-2


def test_fast_weights():
  optimizer = contrastive.fast_weights(optax.sgd(0.1), learning_rate=0.3, decay=0.9)
  params, gradient = {'a': jnp.float32(1)}, {'a': jnp.float32(2)}
  state = optimizer.init(params)
  for expected in (-0.6, -0.6 * 0.9 - 0.6):
    updates, state = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(updates['a'], -0.2, rtol=1e-6)
    np.testing.assert_allclose(state.fast['a'], expected, rtol=1e-6)
  wrapped = contrastive.fast_weights(optax.sgd(0.01), 0.01)
  init, loss = contrastive.objective(MACHINE, contrastive.persistent(50), centered=False)
  start = jax.jit(descent(init, loss, wrapped).init)(jax.random.key(0), Batch(X))
  pull = {'kernel': jnp.zeros((6, 3)), 'visible_bias': jnp.full(6, 60.0), 'hidden_bias': jnp.full(3, -60.0)}
  pulled = start._replace(opt_state=start.opt_state._replace(fast=pull))
  value, extra = jax.jit(loss)(PARAMS, jax.random.key(1), Batch(X), pulled)
  chains = extra.chains
  assert bool(jnp.all(chains['visible'] == 1))  # the chains run on the sum of both ...
  assert bool(jnp.all(chains['hidden'] == 0))
  energy = jax.jit(lambda x: MACHINE.apply({'params': PARAMS}, x, method='energy').mean())
  np.testing.assert_allclose(value, energy(X) - energy(jnp.ones((1, 6))), rtol=1e-5)  # ... the gap on the slow ones


def test_sparsity_pulls_on_the_hidden_biases():
  x = jnp.tile(X[:1], (4, 1))
  options = {'centered': False, 'sparsity_target': 0.1}
  costs = {}
  for cost in (0.0, 0.7):
    _, loss = contrastive.objective(MACHINE, contrastive.exact(), sparsity_cost=cost, **options)
    costs[cost] = jax.jit(jax.grad(loss, has_aux=True))(PARAMS, None, Batch(x), state_of(PARAMS))[0]['hidden_bias']
  active = MACHINE.apply({'params': PARAMS}, x[0], method='hidden_mean')
  np.testing.assert_allclose(costs[0.7] - costs[0.0], 0.7 * (active - 0.1), atol=1e-6)


def test_bars_and_stripes_approach_the_entropy_from_below():
  """The 14 patterns of 3 x 3, the two uniform ones twice as likely: at best -2.5993 nats."""
  rows = [np.repeat(np.array(bits)[:, None], 3, 1) for bits in itertools.product([0, 1], repeat=3)]
  x = jnp.asarray(np.array([*rows, *(row.T for row in rows)]).reshape(16, 9), jnp.float32)
  algorithm = descent(*contrastive.objective(RBM(9, 8, kernel_scale=0.3), contrastive.exact()), optax.adam(0.05))
  state = jax.jit(algorithm.init)(jax.random.key(0), Batch(x))

  @jax.jit
  def train(state):
    return jax.lax.scan(lambda state, _: algorithm.step(jax.random.key(0), state, Batch(x)), state, length=1500)

  loss = train(state)[1]['loss']
  assert float(loss.min()) > 2.599301927
  assert float(loss[0]) > 5
  assert float(loss[-1]) < 2.70


@pytest.mark.parametrize(
  ('machine', 'x'),
  [
    (GaussianRBM(4, 3), jax.random.normal(jax.random.key(0), (20, 4))),
    (CategoricalRBM(4, 3, num_states=3), jax.random.randint(jax.random.key(0), (20, 4), 0, 3)),
  ],
)
def test_other_visible_units_learn_with_every_phase(machine, x):
  params = machine.init(jax.random.key(1), x)['params']
  base = partition.base_natural(machine, params, x)
  phases = (
    contrastive.divergence(2),
    contrastive.persistent(5),
    contrastive.tempered(5, tempering.ladder(3), base),
    contrastive.exact(),
  )
  for phase in phases:
    algorithm = descent(*contrastive.objective(machine, phase, data=x), optax.sgd(0.01))
    state = jax.jit(algorithm.init)(jax.random.key(2), Batch(x))
    after, metrics = jax.jit(algorithm.step)(jax.random.key(3), state, Batch(x))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
      lambda leaf: (leaf.shape, leaf.dtype), state
    )
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, state.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert all(bool(jnp.isfinite(value)) for value in metrics.values())


def test_bad_arguments():
  for build in (contrastive.divergence, contrastive.persistent):
    with pytest.raises(ValueError, match='=0: must be 1 or more'):
      build(0)
  with pytest.raises(ValueError, match='num_steps=-2'):
    contrastive.persistent(10, -2)
  with pytest.raises(ValueError, match='increasing'):
    contrastive.tempered(10, jnp.array([0.0, 0.5]), None)
  with pytest.raises(ValueError, match='sparsity_target=1'):
    contrastive.objective(MACHINE, contrastive.exact(), sparsity_target=1)
  with pytest.raises(ValueError, match='offset_rate=2'):
    contrastive.objective(MACHINE, contrastive.exact(), offset_rate=2)
  _, loss = contrastive.objective(RBM(30, 21), contrastive.exact(), centered=False)
  params = RBM(30, 21).init(jax.random.key(0), jnp.zeros((1, 30)))['params']
  with pytest.raises(ValueError, match=r'2\^21 states'):
    loss(params, None, Batch(jnp.zeros((1, 30))), state_of(params))
