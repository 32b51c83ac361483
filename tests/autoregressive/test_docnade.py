"""DocNADE against enumeration, its formula written out, and identities of bags and orders."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.autoregressive import docnade
from gm_jax.autoregressive.docnade import DocNADE
from gm_jax.data import transforms

ALL_OUTPUTS = pytest.mark.parametrize('output', docnade.OUTPUTS)


def make(output, vocabulary_size=4, seed=0, **kwargs):
  """A module, and random parameters that make its conditionals far from uniform."""
  module = DocNADE(vocabulary_size, 5, output, **kwargs)
  context = {'context': jnp.zeros((1,), int)} if module.context_size else {}
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 2), int), **context))['params']
  leaves, tree = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return module, jax.tree.unflatten(
    tree, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
  )


def call(module, params, method, *args, **kwargs):
  return jax.jit(lambda params: module.apply({'params': params}, *args, method=method, **kwargs))(params)


def all_documents(vocabulary_size, length):
  return np.array([*itertools.product(range(vocabulary_size), repeat=length)], np.int32)


def sigmoid(a):
  return 1 / (1 + np.exp(-a))


def written_out(module, params, document):
  """log p(v), each hidden vector summed anew; the tree is walked from the root by halving the range of leaves."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  kernel, bias = p['words']['kernel'], p['words']['bias']
  total = 0.0
  for i, word in enumerate(document):
    hidden = sigmoid(p['hidden_bias'] + p['embedding'][document[:i]].sum(0))
    logits = kernel @ hidden + bias
    if module.output == 'softmax':
      total += logits[word] - np.log(np.exp(logits).sum())
      continue
    target, node, path = word + module.vocabulary_size - 1, word + module.vocabulary_size - 1, []
    while node:
      path.append(node)
      node = (node - 1) // 2
    for child in path[::-1]:
      total += np.log(sigmoid(logits[(child - 1) // 2] * (1 if child % 2 == 0 else -1)))
    assert path[0] == target
  return total


@ALL_OUTPUTS
def test_log_prob_equals_the_formula(output):
  module, params = make(output, 5)
  x = np.random.RandomState(0).randint(0, 5, (6, 7))
  expected = [written_out(module, params, document) for document in x]
  np.testing.assert_allclose(call(module, params, 'log_prob', x), expected, rtol=1e-5)


@ALL_OUTPUTS
@pytest.mark.parametrize('length', [3, 4])
def test_documents_of_a_length_have_probability_one(output, length):
  module, params = make(output)
  log_prob = np.asarray(call(module, params, 'log_prob', all_documents(4, length)), np.float64)
  np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-5)
  assert log_prob.std() > 0.5


@ALL_OUTPUTS
@pytest.mark.parametrize('vocabulary_size', [2, 3, 6, 8])
def test_words_sum_to_one_and_are_scored_one_by_one_as_all_together(output, vocabulary_size):
  module, params = make(output, vocabulary_size)
  x = all_documents(vocabulary_size, 2)
  each = np.asarray(call(module, params, 'conditionals', x), np.float64)
  assert each.shape == (len(x), 2, vocabulary_size)
  np.testing.assert_allclose(np.exp(each).sum(-1), 1, rtol=1e-5)
  chosen = np.take_along_axis(each, x[..., None], -1)[..., 0].sum(-1)
  np.testing.assert_allclose(call(module, params, 'log_prob', x), chosen, rtol=2e-5, atol=1e-6)


def test_paths_of_the_tree_are_short_and_lead_to_different_leaves():
  for vocabulary_size in (2, 5, 8, 2000):
    nodes, signs = docnade.tree_paths(vocabulary_size)
    depth = np.abs(signs).sum(1)
    assert depth.max() == math.ceil(math.log2(vocabulary_size))
    assert depth.min() == math.floor(math.log2(vocabulary_size))
    assert np.sum(0.5**depth) == 1  # Kraft: every leaf of the tree is a word
    assert len({(tuple(a), tuple(b)) for a, b in zip(nodes, signs, strict=True)}) == vocabulary_size


@ALL_OUTPUTS
def test_a_model_without_knowledge_has_the_perplexity_of_its_vocabulary(output):
  module, params = make(output, 8)
  params = jax.tree.map(jnp.zeros_like, params)
  x = np.array([[1, 2, 3, 4], [7, 0, -1, -1], [5, -1, -1, -1]])
  found = docnade.perplexity(call(module, params, 'log_prob', x), docnade.lengths(x))
  assert found == pytest.approx(8, rel=1e-6)


def test_perplexity_is_that_of_mean_nats_per_word_over_documents():
  log_prob, num = np.array([-1.0, -12.0]), np.array([1, 4])
  assert docnade.perplexity(log_prob, num) == pytest.approx(np.exp(2))  # not exp(13 / 5)
  with pytest.raises(ValueError, match='without words'):
    docnade.perplexity(log_prob, np.array([1, 0]))


@ALL_OUTPUTS
def test_padding_changes_nothing(output):
  module, params = make(output)
  bare, padded = np.array([[3, 0, 2]]), np.array([[3, 0, 2, -1, -1], [-1, 3, -1, 0, 2]])
  for method in ('log_prob', 'encode'):
    one, two = call(module, params, method, bare), call(module, params, method, padded)
    np.testing.assert_allclose(two, np.broadcast_to(one, two.shape), rtol=1e-6)
  gradient = lambda x: jax.grad(lambda params: module.apply({'params': params}, x).mean())(params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), jax.jit(gradient)(bare), jax.jit(gradient)(padded)
  )
  assert docnade.lengths(padded).tolist() == [3, 3]


@ALL_OUTPUTS
def test_the_probability_of_a_bag_is_its_orders_times_their_mean(output):
  """Over all bags of three words it sums to one; the average over many random orders comes near to each."""
  module, params = make(output, 3)
  log_prob = lambda x: module.apply({'params': params}, x)
  table = dict(zip(map(tuple, all_documents(3, 3)), np.asarray(log_prob(all_documents(3, 3))), strict=True))
  bags = np.array([*itertools.combinations_with_replacement(range(3), 3)])
  means, orders = [], []
  for bag in bags:
    values = np.exp([table[order] for order in itertools.permutations(bag.tolist())])
    means.append(values.mean())
    orders.append(6 / np.prod([math.factorial(count) for count in np.bincount(bag)]))
  np.testing.assert_allclose(np.dot(orders, means), 1, rtol=1e-5)
  num = 4000
  found = jax.jit(lambda x: docnade.order_average(log_prob, jax.random.key(0), x, num))(bags)
  spread = [np.exp([table[order] for order in itertools.permutations(bag.tolist())]).std() for bag in bags]
  assert (np.abs(np.exp(found) - means) < 4.5 * np.array(spread) / np.sqrt(num) + 1e-6).all()
  mean_of_logs = [np.mean([table[order] for order in itertools.permutations(bag.tolist())]) for bag in bags]
  assert np.max(np.log(means) - mean_of_logs) > 0.05  # so that the two cannot be confused
  with pytest.raises(ValueError, match='num_orders=0'):
    docnade.order_average(log_prob, jax.random.key(0), bags, 0)


def test_shuffled_words_come_in_every_order_alike_and_padding_stays_behind():
  x = np.tile(np.array([4, -1, 5, 6]), (6000, 1))
  found = np.asarray(docnade.shuffle(jax.random.key(0), x))
  assert (found[:, 3] == -1).all()
  kinds, counts = np.unique(found[:, :3], axis=0, return_counts=True)
  assert len(kinds) == 6
  assert ((counts - 1000) ** 2 / 1000).sum() < 5 + 5 * np.sqrt(10)  # chi-square of five degrees of freedom


@pytest.mark.parametrize('output', ['softmax'])
def test_the_estimate_from_some_positions_is_unbiased(output):
  module, params = make(output)
  x = np.array([[3, 0, 2, 2, 1], [-1, 1, -1, 0, -1]])
  exact = np.asarray(call(module, params, 'log_prob', x))
  estimate = lambda key, num: module.apply({'params': params}, key, x, num, method='estimate')
  all_of_one = jax.jit(lambda key: estimate(key, 10))(
    jax.random.key(0)
  )  # of five words each twice, of two each five times
  np.testing.assert_allclose(all_of_one, exact, rtol=1e-5)
  keys = jax.random.split(jax.random.key(1), 4000)
  found = np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, 3)))(keys))
  assert (np.abs(found.mean(0) - exact) < 4.5 * found.std(0) / np.sqrt(4000) + 1e-6).all()
  assert found.std(0).min() > 0.01
  with pytest.raises(ValueError, match='num_positions=-1'):
    docnade.objective(module, -1)


@ALL_OUTPUTS
def test_samples_have_the_probabilities_of_the_model(output):
  module, params = make(output, 5)
  num = 20_000
  x = np.asarray(call(module, params, 'sample', jax.random.key(2), num, length=2))
  assert x.shape == (num, 2)
  on_host = jax.tree.map(np.asarray, params)
  again = jax.jit(lambda key: module.apply({'params': on_host}, key, num, length=2, method='sample'))(jax.random.key(2))
  np.testing.assert_array_equal(again, x)
  counts = np.bincount(x @ [5, 1], minlength=25)
  p = np.exp(np.asarray(call(module, params, 'log_prob', all_documents(5, 2)), np.float64))
  expected = np.sqrt(p * (1 - p) / num * 2 / np.pi).sum() / 2
  assert np.abs(counts / num - p).sum() / 2 < expected + 4 * np.sqrt(1 / num) / 2
  assert call(make(output, document_length=7)[0], make(output)[1], 'sample', jax.random.key(0), 2).shape == (2, 7)


def test_the_representation_is_the_hidden_layer_behind_the_last_word():
  module, params = make('softmax')
  p = jax.tree.map(np.asarray, params)
  expected = sigmoid(p['hidden_bias'] + p['embedding'][[3, 1, 1]].sum(0))
  np.testing.assert_allclose(call(module, params, 'encode', np.array([3, 1, 1, -1])), expected, rtol=1e-5)


def test_a_context_shifts_the_hidden_bias():
  module, params = make('softmax', context_size=2)
  x = np.array([[3, 0], [2, 2]])
  found = call(module, params, 'log_prob', x, context=jnp.array([1, 1]))
  plain = {name: leaf for name, leaf in params.items() if name != 'context_kernel'}
  plain['hidden_bias'] = params['hidden_bias'] + params['context_kernel'][1]
  np.testing.assert_allclose(found, call(make('softmax')[0], plain, 'log_prob', x), rtol=1e-6)


def test_words_beyond_the_vocabulary_are_refused():
  module, params = make('tree')
  for wrong in (4, -2, 0.5):
    with pytest.raises(ValueError, match=f'x holds {wrong}, which is no word of vocabulary_size=4'):
      module.apply({'params': params}, np.array([[0, wrong]]))
  compiled = jax.jit(lambda x: module.apply({'params': params}, x))
  assert np.isnan(compiled(jnp.array([[0, 1], [4, 1], [1, 4]]))).tolist() == [False, True, True]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'vocabulary_size': 1, 'num_hidden': 2}, 'vocabulary_size=1'),
    ({'vocabulary_size': 3, 'num_hidden': 0}, 'num_hidden=0'),
    ({'vocabulary_size': 3, 'num_hidden': 2, 'output': 'sparse'}, "output='sparse'"),
  ],
)
def test_bad_settings_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    DocNADE(**arguments)


def test_a_bag_becomes_each_of_its_sequences_alike():
  bags = np.tile(np.array([2, 0, 1, 1]), (12_000, 1))
  sequences = np.asarray(jax.jit(transforms.bag_to_sequence, static_argnums=2)(jax.random.key(0), bags, 6))
  assert (sequences[:, 4:] == -1).all()
  kinds, counts = np.unique(sequences[:, :4], axis=0, return_counts=True)
  assert len(kinds) == 12  # 4! / 2!
  assert ((counts - 1000) ** 2 / 1000).sum() < 11 + 5 * np.sqrt(22)
  part = np.asarray(jax.jit(transforms.bag_to_sequence, static_argnums=2)(jax.random.key(1), bags, 2))
  share = np.array([(part == word).mean() for word in range(4)])
  np.testing.assert_allclose(share, [0.5, 0, 0.25, 0.25], atol=4.5 * 0.5 / np.sqrt(24_000))
