"""MADE: masks by the Jacobian, mass by enumeration, samples by the law and against full passes of the network."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import multivariate_normal

from gm_jax.autoregressive import ancestral, made, made_degrees
from gm_jax.base import Batch, pure
from gm_jax.likelihoods import Categorical, Gaussian, MixtureOfGaussians
from gm_jax.training.rules import descent
from tests.models import bits


def start(module, seed=1):
  """Parameters large enough for every unit to matter, and biases that are not zero; drawn without compiling a thing."""
  context = jnp.zeros((2, module.context_size)) if module.context_size else None
  init = lambda key: module.init(key, jnp.zeros((2, module.num_dimensions)), context=context)['params']
  random = np.random.default_rng(seed)
  scale = lambda leaf: 1.5 if leaf.ndim > 1 else 0.5
  draw = lambda leaf: (scale(leaf) * random.standard_normal(leaf.shape)).astype(np.float32)
  return jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


@functools.cache
def drawn(num_dimensions, hidden_sizes, num_masks=4, connectivity='random'):
  key = jax.random.key(7)
  return made_degrees.degrees(
    num_dimensions, hidden_sizes, ordering='random', connectivity=connectivity, num_masks=num_masks, key=key
  )


@pytest.mark.parametrize(('hidden_sizes', 'direct'), [((), True), ((9,), False), ((8, 12), True), ((6, 7, 8), False)])
def test_a_conditional_ignores_what_comes_later_under_every_mask_and_depth(hidden_sizes, direct):
  degrees = drawn(6, hidden_sizes)
  module = made.MADE(degrees, activation=jnp.tanh, direct=direct)
  params, x = start(module), np.linspace(-1, 1, 6, dtype=np.float32)
  outputs = lambda x, index: module.apply({'params': params}, x, index=index, method='conditionals')[:, 0]
  jacobians = np.asarray(jax.jit(jax.vmap(jax.jacrev(outputs), (None, 0)))(x, jnp.arange(4)))
  for jacobian, ordering in zip(jacobians, degrees.orderings, strict=True):
    ordered = jacobian[ordering][:, ordering]
    assert (np.triu(ordered) == 0).all()
    assert (np.tril(ordered, -1) != 0).sum() >= (15 if direct else 5)
  assert len({tuple(ordering) for ordering in degrees.orderings.tolist()}) == 4


def test_the_masses_of_every_mask_and_of_their_mixture_are_one():
  module = made.MADE(drawn(10, (15, 11)), direct=True)
  params = start(module)
  of_mask = lambda index: module.apply({'params': params}, bits(10), index=index, method='log_prob')
  each = np.asarray(jax.jit(jax.vmap(of_mask))(jnp.arange(4)), np.float64)
  mixture = np.asarray(jax.jit(lambda: module.apply({'params': params}, bits(10), method='log_prob'))(), np.float64)
  assert len(np.unique(each[:, 5])) == 4  # the masks do differ
  np.testing.assert_allclose(np.exp(each).sum(1), 1, atol=2e-5)
  np.testing.assert_allclose(np.exp(mixture).sum(), 1, atol=2e-5)
  np.testing.assert_allclose(mixture, np.logaddexp.reduce(each) - math.log(4), rtol=1e-5)


def test_linear_gaussian_conditionals_make_a_multivariate_gaussian():
  """x_d = b_d + sum_i A_id x_i + noise, so x = (1 - A^T)^-1 (b + noise)."""
  ordering, scale = (2, 0, 1), 0.7
  module = made.MADE(made_degrees.degrees(3, (), ordering=ordering), Gaussian(scale), direct=True)
  params = start(module)
  place = np.argsort(ordering)
  kernel = np.asarray(params['shortcut']['kernel'], np.float64) * (place[:, None] < place[None, :])
  inverse = np.linalg.inv(np.eye(3) - kernel.T)
  truth = multivariate_normal(inverse @ np.asarray(params['shortcut']['bias']), scale**2 * inverse @ inverse.T)
  x = np.random.default_rng(3).standard_normal((20, 3)).astype(np.float32)
  found = jax.jit(pure(module).log_prob)(params, x)
  np.testing.assert_allclose(found, truth.logpdf(x), rtol=1e-4)


SAMPLERS = {
  'one layer': made.MADE(made_degrees.degrees(12, (30,))),
  'narrow': made.MADE(made_degrees.degrees(12, (5,), reach_all=False), direct=True),
  'deep, random degrees': made.MADE(drawn(12, (20, 25, 13), 1), activation=jnp.tanh),
  'no layer': made.MADE(made_degrees.degrees(12, (), ordering=tuple(range(11, -1, -1))), direct=True),
  'ensemble': made.MADE(drawn(12, (20, 15), 5), direct=True),
  'one-hot categories with a context': made.MADE(
    drawn(7, (9, 8), 1, 'even'), Categorical(4), one_hot=True, direct=True, context_size=3
  ),
  'mixtures': made.MADE(drawn(7, (12,), 1), MixtureOfGaussians(3), activation=jnp.tanh, direct=True),
}


@pytest.mark.parametrize('name', SAMPLERS)
def test_the_sampler_draws_what_full_passes_draw_under_the_same_noise(name):
  module, num = SAMPLERS[name], 40
  params, key = start(module), jax.random.key(11)
  if isinstance(module.head, MixtureOfGaussians):  # else scales grow from one dimension to the next beyond all floats
    params = jax.tree.map(lambda leaf: 0.2 * leaf, params)
  context = np.random.default_rng(4).standard_normal((num, module.context_size)) if module.context_size else None
  context = context if context is None else context.astype(np.float32)

  @jax.jit
  def both(key):
    index_key, draw_key = jax.random.split(key)
    index = jax.random.randint(index_key, (num,), 0, module.num_masks)
    apply = functools.partial(module.apply, {'params': params})

    def passes(key, index, context):
      row = None if context is None else context[None]
      conditionals = lambda x: apply(x, context=row, index=index, method='conditionals')
      ordering = jnp.asarray(module.degrees.orderings)[index]
      return ancestral.sample_by_passes(conditionals, module.head, ordering, key[None])[0]

    return apply(key, num, context=context, method='sample'), jax.vmap(passes)(
      jax.random.split(draw_key, num), index, context
    )

  found, expected = both(key)
  assert len(np.unique(found, axis=0)) > 5
  if isinstance(module.head, MixtureOfGaussians):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  else:
    np.testing.assert_array_equal(found, expected)


def test_every_hidden_unit_is_computed_once_and_even_degrees_need_twice_one_pass_at_most():
  for num_dimensions, size in ((784, 783), (784, 784), (784, 1500), (10, 500)):
    blocks = made_degrees.degrees(num_dimensions, (size,)).blocks[0]
    covered = np.concatenate([np.arange(s, s + c) for s, c in zip(blocks.start[0], blocks.count[0], strict=True)])
    np.testing.assert_array_equal(covered, np.arange(size))
    assert num_dimensions * blocks.size <= 2 * size


@pytest.mark.parametrize('num_masks', [1, 3])
def test_completions_follow_the_conditional_given_what_comes_first(num_masks):
  """Orderings that all begin with dimensions 3 and 1; truth by enumeration over the other four."""
  orderings = np.array([[3, 1, 0, 2, 4, 5], [1, 3, 5, 4, 0, 2], [3, 1, 2, 0, 5, 4]])[:num_masks]
  hidden = drawn(6, (10,), num_masks).hidden
  module = made.MADE(made_degrees.Degrees(orderings, np.argsort(orderings, axis=1) + 1, hidden), direct=True)
  params, num = start(module), 20_000
  observed = np.isin(np.arange(6), [3, 1])
  given = np.where(observed, [0, 1, 0, 1, 0, 0], 0.5).astype(np.float32)  # one half: must not be looked at
  model = pure(module)
  found = np.asarray(jax.jit(model.complete)(params, jax.random.key(5), np.tile(given, (num, 1)), observed))
  assert (found[:, [1, 3]] == 1).all()
  states = bits(6)
  mass = np.exp(np.asarray(jax.jit(model.log_prob)(params, states), np.float64))
  p = np.where((states[:, [1, 3]] == 1).all(1), mass, 0)
  p /= p.sum()
  counts = np.bincount((found @ 2 ** np.arange(6)).astype(int), minlength=64)
  expected = np.sqrt(p * (1 - p) / num * 2 / np.pi).sum() / 2  # as in the law of samples
  assert np.abs(counts / num - p).sum() / 2 < expected + 4 * np.sqrt(1 / num) / 2


def test_training_with_many_masks_keeps_every_weight_and_takes_them_in_turn():
  """What one mask hides, another one still needs: no stored weight may become zero."""
  module = made.MADE(drawn(6, (12,), 8))
  init, loss = made.objective(module, 'cycle')
  algorithm, batch = descent(init, loss, optax.sgd(0.1)), Batch(bits(6))
  first = jax.jit(algorithm.init)(jax.random.key(0), batch)
  run = lambda state: jax.lax.scan(lambda s, _: (algorithm.step(jax.random.key(1), s, batch)[0],) * 2, state, length=9)
  states = jax.jit(run)(first)[1]
  kernels = np.concatenate([first.params['hidden_0']['kernel'][None], states.params['hidden_0']['kernel']])
  assert (kernels != 0).all()
  moved = np.diff(kernels, axis=0) != 0
  for step in range(9):
    mask = module.degrees.inputs[step % 8][:, None] <= module.degrees.hidden[0][step % 8]
    assert not moved[step][~mask].any()
  assert moved.any(0).mean() > 0.8 and all(0.1 < one.mean() < 0.9 for one in moved)


def test_degrees_are_a_function_of_the_key_and_of_the_range_of_the_paper():
  degrees = drawn(9, (40, 30))
  again = made_degrees.degrees(
    9, (40, 30), ordering='random', connectivity='random', num_masks=4, key=jax.random.key(7)
  )
  for one, other in zip(degrees.hidden, again.hidden, strict=True):
    np.testing.assert_array_equal(one, other)
  for mask in range(4):
    lowest = 1
    for layer in degrees.hidden:
      assert lowest <= layer[mask].min() and layer[mask].max() <= 8
      lowest = layer[mask].min()
    np.testing.assert_array_equal(degrees.inputs[mask][degrees.orderings[mask]], np.arange(1, 10))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: made_degrees.degrees(3, (4,), ordering=(0, 1, 1)), r'ordering=\[0, 1, 1\] is no permutation of 0, ..., 2'),
    (lambda: made_degrees.degrees(6, (4,)), r'layer of 4 units cannot bear each of the degrees 1, \.\.\., 5'),
    (lambda: made_degrees.degrees(3, (4,), ordering='raster'), "ordering='raster': choose"),
    (lambda: made_degrees.degrees(3, (4,), connectivity='full'), "connectivity='full': choose"),
    (lambda: made_degrees.degrees(3, (4,), connectivity='random'), 'key=None'),
    (lambda: made_degrees.degrees(3, (4,), num_masks=2), 'num_masks=2, but neither'),
    (lambda: made_degrees.degrees(3, (4, 0)), r'hidden_sizes=\(4, 0\)'),
    (lambda: made.MADE(made_degrees.degrees(3, ())), 'direct=False without a hidden layer'),
    (lambda: made.MADE(made_degrees.degrees(3, (4,)), one_hot=True), 'one_hot=True needs a Categorical head'),
    (lambda: made.objective(SAMPLERS['one layer'], masks='all'), "masks='all'"),
    (lambda: SAMPLERS['one layer'].init(jax.random.key(0), jnp.zeros((2, 5))), r'x.shape=\(2, 5\)'),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
