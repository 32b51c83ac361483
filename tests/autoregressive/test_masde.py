"""Structures against brute force, and MASDE against enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoregressive import masde, structure
from gm_jax.base import pure
from gm_jax.nn import masked
from tests.models import bits


def random_graph(rng, num, density=0.35):
  upper = np.triu(rng.random((num, num)) < density, 1)
  return upper | upper.T


def reachable(graph, start, blocked):
  """What can be reached from ``start`` without entering what is blocked."""
  seen, front = {start}, [start]
  while front:
    for j in np.flatnonzero(graph[front.pop()]):
      if j not in seen and j not in blocked:
        seen.add(int(j))
        front.append(int(j))
  return seen


def smallest_separator(graph, ordering, place):
  """The smallest set of predecessors that separates a variable from its other predecessors, by trying all."""
  before = [int(j) for j in ordering[:place]]
  for size in range(place + 1):
    for chosen in itertools.combinations(before, size):
      if not reachable(graph, int(ordering[place]), set(chosen)) & (set(before) - set(chosen)):
        return set(chosen)
  raise AssertionError


@pytest.mark.parametrize('seed', range(12))
def test_blankets_are_the_smallest_separators(seed):
  rng = np.random.default_rng(seed)
  graph, ordering = random_graph(rng, 7), rng.permutation(7)
  blankets = structure.looking_back_blankets(graph, ordering)
  for place, i in enumerate(ordering):
    assert set(blankets[i]) == smallest_separator(graph, ordering, place)


def field(graph, rng, scale=1.5):
  """The probabilities of all states of a random Ising model on a graph."""
  couplings = np.where(graph, scale * rng.standard_normal(graph.shape), 0)
  states = bits(len(graph)).astype(np.float64)
  energy = np.einsum('ni,ij,nj->n', 2 * states - 1, np.triu(couplings), 2 * states - 1) + states @ rng.standard_normal(
    len(graph)
  )
  p = np.exp(energy - energy.max())
  return states, p / p.sum()


def test_conditionals_of_a_field_depend_on_the_blanket_and_on_all_of_it():
  rng = np.random.default_rng(0)
  graph, ordering = random_graph(rng, 6), rng.permutation(6)
  states, p = field(graph, rng)
  blankets = structure.looking_back_blankets(graph, ordering)

  def conditional(i, given):
    """p(x_i = 1 | the given variables), for all states."""
    code = states[:, given] @ (2.0 ** np.arange(len(given)))
    return np.array([(p * (states[:, i] == 1) * (code == c)).sum() / (p * (code == c)).sum() for c in code])

  for place, i in enumerate(ordering):
    truth = conditional(i, list(ordering[:place]))
    np.testing.assert_allclose(conditional(i, list(blankets[i])), truth, rtol=1e-9)
    for j in blankets[i]:
      assert np.abs(conditional(i, [k for k in blankets[i] if k != j]) - truth).max() > 1e-4


def test_a_tree_is_found_and_has_blankets_of_one():
  rng = np.random.default_rng(1)
  tree = np.zeros((8, 8), bool)
  for i in range(1, 8):
    j = rng.integers(i)
    tree[i, j] = tree[j, i] = True
  couplings = np.where(tree, 1.0, 0)
  states = bits(8).astype(np.float64)
  p = np.exp(np.einsum('ni,ij,nj->n', 2 * states - 1, np.triu(couplings), 2 * states - 1))
  x = states[rng.choice(len(p), 5000, p=p / p.sum())]
  np.testing.assert_array_equal(structure.chow_liu(x), tree)
  np.testing.assert_array_equal(structure.l1_neighbourhoods(x, 0.05), tree)
  blankets = structure.looking_back_blankets(tree, structure.ordering_of_small_blankets(tree))
  assert sorted(map(len, blankets)) == [0] + [1] * 7


def test_chow_liu_is_the_most_probable_of_all_trees():
  rng = np.random.default_rng(2)
  x = rng.integers(0, 3, (60, 4))
  x[:, 2] = np.where(rng.random(60) < 0.6, x[:, 0], x[:, 2])

  def information(i, j):
    joint = np.zeros((3, 3)) + 1 / 9
    np.add.at(joint, (x[:, i], x[:, j]), 1)
    joint /= joint.sum()
    return (joint * np.log(joint / joint.sum(1, keepdims=True) / joint.sum(0))).sum()

  pairs = list(itertools.combinations(range(4), 2))
  trees = [t for t in itertools.combinations(pairs, 3) if set(itertools.chain(*t)) == set(range(4))]
  trees = [t for t in trees if len(reachable(edges(t), 0, set())) == 4]
  best = max(trees, key=lambda tree: sum(information(*pair) for pair in tree))
  np.testing.assert_array_equal(structure.chow_liu(x, num_states=3), edges(best))


def edges(pairs):
  graph = np.zeros((4, 4), bool)
  for i, j in pairs:
    graph[i, j] = graph[j, i] = True
  return graph


def model_of(graph, ordering, hidden_sizes):
  blankets = structure.looking_back_blankets(graph, ordering)
  return masde.MASDE(blankets, hidden_sizes, activation=jnp.tanh)  # no unit of which is ever dead


@functools.cache
def case(seed, hidden_sizes):
  rng = np.random.default_rng(seed)
  graph, ordering = random_graph(rng, 8, 0.3), rng.permutation(8)
  module = model_of(graph, ordering, hidden_sizes)
  params = module.init(jax.random.key(seed), jnp.zeros((1, 8)))['params']
  return module, jax.tree.map(lambda leaf: leaf + 0.5 * rng.standard_normal(leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize('hidden_sizes', [(16,), (19, 12)])
@pytest.mark.parametrize('seed', [0, 1])
def test_an_output_sees_its_blanket_and_nothing_else(seed, hidden_sizes):
  module, params = case(seed, hidden_sizes)
  outputs = lambda x: module.apply({'params': params}, x, method='conditionals')[..., 0]
  x = jax.random.normal(jax.random.key(1), (50, 8))
  seen = np.abs(jax.jit(jax.vmap(jax.jacrev(outputs)))(x)).max(0) > 0
  np.testing.assert_array_equal(seen, masde.membership(module.blankets))
  total = np.exp(np.asarray(jax.jit(pure(module).log_prob)(params, bits(8)), np.float64)).sum()
  assert total == pytest.approx(1, abs=1e-5)


def test_samples_are_those_of_one_variable_at_a_time():
  module, params = case(0, (16,))
  assert masde.levels(module.blankets).max() < 7  # so that there is something to save
  samples = np.asarray(jax.jit(lambda key: pure(module).sample(params, key, 40_000))(jax.random.key(3)))
  p = np.exp(np.asarray(jax.jit(pure(module).log_prob)(params, bits(8)), np.float64))
  counts = np.bincount((samples @ 2 ** np.arange(8)).astype(int), minlength=256)
  expected = np.sqrt(p * (1 - p) / 40_000 * 2 / np.pi).sum() / 2
  assert np.abs(counts / 40_000 - p).sum() / 2 < expected + 4 * np.sqrt(1 / 40_000) / 2


def test_the_complete_graph_gives_the_masks_of_made():
  ordering = np.array([2, 0, 3, 1])
  found = masde.masks(structure.looking_back_blankets(structure.complete(4), ordering), (6, 9))
  degrees, first, second = masked.input_degrees(ordering), masked.even_degrees(6, 4), masked.even_degrees(9, 4)
  rank_first, rank_second = np.argsort(found[0].sum(0)), np.argsort(-found[2].sum(1))  # units have no names
  np.testing.assert_array_equal(found[0][:, rank_first], masked.hidden_mask(degrees, first))
  np.testing.assert_array_equal(found[1][rank_first][:, rank_second], masked.hidden_mask(first, second))
  np.testing.assert_array_equal(found[2][rank_second], masked.output_mask(second, degrees))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: structure.check_graph(np.eye(3)), r'graph of shape \(3, 3\)'),
    (lambda: structure.looking_back_blankets(structure.grid(1, 3), [0, 0, 1]), 'no permutation'),
    (lambda: model_of(structure.complete(5), range(5), (3,)), r'hidden_sizes=\(3,\): there are 4'),
    (lambda: masde.MASDE(((1,), (0,)), (4,)), 'in a circle'),
    (lambda: masde.MASDE(((), (0,)), ()), 'hidden_sizes is empty'),
    (lambda: structure.l1_neighbourhoods(np.zeros((4, 2)), 0.0), 'penalty=0.0'),
  ],
)
def test_what_makes_no_sense_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
