"""Scores, means over a data set, and changes of unit."""

import doctest
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.evaluation import likelihood
from gm_jax.evaluation.likelihood import Score, score


def quadratic(params, x, context=None):
  value = jnp.sum(params * x**2, axis=-1)
  return value if context is None else value + 100.0 * context


@pytest.fixture(scope='module')
def data():
  return np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


@pytest.mark.parametrize('block_size', [1, 5, 23, 100])
def test_mean_counts_each_example_once(data, block_size):
  params = np.array([1.0, -2.0, 0.5], np.float32)
  values = (params * data**2).astype(np.float64).sum(-1)
  result = likelihood.evaluator(quadratic, block_size=block_size)(params, data)
  np.testing.assert_allclose(result.values, values, rtol=1e-5)
  assert result.n == 23
  assert result.mean == result.values.mean()
  assert math.isclose(result.stderr, math.sqrt(((result.values - result.mean) ** 2).sum() / 22 / 23), rel_tol=1e-12)
  assert result.values.dtype == np.float64


def test_context_goes_with_its_example(data):
  context = np.arange(23)
  result = likelihood.evaluator(quadratic, block_size=4)(np.zeros(3, np.float32), data, context)
  np.testing.assert_array_equal(result.values, 100.0 * context)


def test_two_calls_trace_once(data):
  traces = []

  def function(params, x):
    traces.append(x.shape)
    return x @ params

  evaluate = likelihood.evaluator(function, block_size=4)
  first = evaluate(np.ones(3, np.float32), data)
  second = evaluate(2 * np.ones(3, np.float32), data)
  assert traces == [(4, 3)]
  assert math.isclose(second.mean, 2 * first.mean, rel_tol=1e-6)


def test_each_block_has_its_own_key(data):
  def noise(params, key, x):
    return jax.random.uniform(key, x.shape[:1])

  evaluate = likelihood.evaluator(noise, block_size=4, stochastic=True)
  values = evaluate(None, data, key=jax.random.key(1)).values
  assert len(set(values)) == 23
  np.testing.assert_array_equal(values, evaluate(None, data, key=jax.random.key(1)).values)
  assert not np.isin(values, evaluate(None, data, key=jax.random.key(2)).values).any()


def test_mean_of_large_float32_values_is_taken_in_float64():
  x = np.tile(np.float32([16777216.0, 1.0]), 500)
  result = likelihood.evaluator(lambda params, x: x, block_size=64)(None, x)
  assert result.mean == 8388608.5


def test_a_tree_of_values_in_one_pass(data):
  def both(params, x):
    return {'sum': x.sum(-1), 'first': x[:, 0]}

  result = likelihood.evaluator(both, block_size=7)(None, data)
  np.testing.assert_array_equal(result['first'].values, data[:, 0])
  np.testing.assert_allclose(result['sum'].values, data.sum(-1), rtol=1e-5, atol=1e-6)


def test_impossible_example_makes_the_mean_minus_infinity():
  result = likelihood.summarise([-1.0, -np.inf])
  assert result.mean == -np.inf and math.isnan(result.stderr)
  assert math.isnan(likelihood.summarise([3.0]).stderr)


def test_a_mean_becomes_a_score():
  assert likelihood.summarise([1.0, 3.0]).score('exact') == Score(2.0, 'exact', 1.0, 2, 'nats')


def test_bad_arguments_of_evaluator(data):
  with pytest.raises(ValueError, match='block_size=0'):
    likelihood.evaluator(quadratic, block_size=0)
  evaluate = likelihood.evaluator(quadratic, block_size=4)
  with pytest.raises(ValueError, match='x is empty'):
    evaluate(None, data[:0])
  with pytest.raises(ValueError, match='22 rows for 23'):
    evaluate(np.zeros(3), data, np.zeros(22))
  with pytest.raises(ValueError, match='no other takes one'):
    evaluate(np.zeros(3), data, key=jax.random.key(0))
  with pytest.raises(ValueError, match='needs a key'):
    likelihood.evaluator(quadratic, block_size=4, stochastic=True)(np.zeros(3), data)
  with pytest.raises(ValueError, match='one number for each'):
    likelihood.evaluator(lambda params, x: x.mean(), block_size=4)(None, data)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'kind': 'guess'}, "kind='guess'"),
    ({'n': 0}, 'n=0'),
    ({'n': 2.5}, 'n=2.5'),
    ({'stderr': -1.0}, 'stderr=-1.0'),
    ({'kind': 'bracket'}, 'needs lower and upper'),
    ({'lower': -2.0}, 'both ends'),
    ({'lower': -2.0, 'upper': 0.0}, 'has no interval'),
    ({'kind': 'bracket', 'lower': 0.0, 'upper': 1.0}, 'not inside'),
    ({'kind': 'bracket', 'lower': -0.5, 'upper': -1.5}, 'not inside'),
  ],
)
def test_score_refuses(arguments, message):
  with pytest.raises(ValueError, match=message):
    score(**{'value': -1.0, 'kind': 'exact', 'stderr': 0.1, 'n': 10, **arguments})


def test_score_to_json_is_plain_and_never_nan():
  one = score(np.float32(-1.5), 'bracket', stderr=jnp.float32(0.25), n=np.int64(10), lower=-np.inf, upper=-1.0)
  assert likelihood.to_json(one) == {
    'value': -1.5, 'kind': 'bracket', 'stderr': 0.25, 'n': 10, 'unit': 'nats', 'lower': None, 'upper': -1.0,
  }  # fmt: skip
  diverged = likelihood.to_json(score(np.nan, 'exact', stderr=None, n=3))
  assert json.loads(json.dumps(diverged, allow_nan=False)) == {
    'value': None, 'kind': 'exact', 'stderr': None, 'n': 3, 'unit': 'nats',
  }  # fmt: skip


def test_names_of_test_scores():
  assert [likelihood.name_of_test_score(kind) for kind in likelihood.KINDS] == [
    'test_log_prob', 'test_log_prob', 'test_bound', 'test_bound', 'test_estimate',
  ]  # fmt: skip
  with pytest.raises(ValueError, match="kind='guess'"):
    likelihood.name_of_test_score('guess')


def test_a_wide_bracket_is_not_closed():
  narrow = score(-85.0, 'bracket', stderr=0.4, n=100, lower=-85.5, upper=-84.5)
  wide = score(-85.0, 'bracket', stderr=0.4, n=100, lower=-86.5, upper=-84.5)
  assert likelihood.is_closed(narrow) and not likelihood.is_closed(wide)
  assert likelihood.is_closed(score(0, 'exact', stderr=None, n=1))
  assert not likelihood.is_closed(score(0, 'lower bound', stderr=None, n=1))
  assert likelihood.describe(wide) == '-85.00 ± 0.40 nats (bracket [-86.50, -84.50], not closed, n = 100)'
  assert likelihood.describe(score(3, 'exact', stderr=None, n=1)) == '3.00 nats (exact, n = 1)'


def test_over_seeds():
  runs = [score(v, 'bracket', stderr=9.0, n=50, lower=v - 1, upper=v + 2) for v in (1.0, 2.0, 6.0)]
  mean = likelihood.over_seeds(runs)
  assert mean == Score(3.0, 'bracket', pytest.approx(math.sqrt(7 / 3)), 50, 'nats', 2.0, 5.0)
  assert likelihood.over_seeds(runs[:1]) == runs[0]
  exact = [score(v, 'exact', stderr=1.0, n=50) for v in (1.0, 3.0)]
  assert likelihood.over_seeds(exact) == Score(2.0, 'exact', pytest.approx(1.0), 50, 'nats')
  with pytest.raises(ValueError, match='no common mean'):
    likelihood.over_seeds([runs[0], exact[0]])
  with pytest.raises(ValueError, match='empty'):
    likelihood.over_seeds([])


def test_log_mean_exp_against_leaving_out_by_hand():
  log_weights = np.random.default_rng(1).normal(size=(2, 6)) * 2 + 900  # exp overflows without care
  result = likelihood.log_mean_exp(log_weights)
  weights = np.exp(log_weights - 900)
  without = np.stack([np.log(np.delete(weights, i, axis=1).mean(1)) for i in range(6)]) + 900
  value = np.log(weights.mean(1)) + 900
  np.testing.assert_allclose(result.value, value, rtol=1e-14)
  np.testing.assert_allclose(result.stderr, np.sqrt(5 / 6 * ((without - without.mean(0)) ** 2).sum(0)), rtol=1e-9)
  np.testing.assert_allclose(result.corrected, 6 * value - 5 * without.mean(0), rtol=1e-12)
  np.testing.assert_allclose(result.effective_sample_size, weights.sum(1) ** 2 / (weights**2).sum(1), rtol=1e-9)
  np.testing.assert_array_equal(likelihood.log_mean_exp(log_weights.T, axis=0).value, result.value)
  with pytest.raises(ValueError, match='2 weights'):
    likelihood.log_mean_exp(log_weights[:, :1])


def test_log_mean_exp_error_is_the_spread_over_repetitions():
  """For log-normal weights the truth is known: log E w = sigma^2 / 2."""
  sigma, k, repetitions = 0.5, 200, 4000
  log_weights = sigma * np.random.default_rng(2).normal(size=(repetitions, k))
  result = likelihood.log_mean_exp(log_weights)
  spread = result.value.std(ddof=1)
  relative_error = 1 / math.sqrt(2 * repetitions)
  assert abs(np.sqrt((result.stderr**2).mean()) / spread - 1) < 4 * relative_error
  bias = result.corrected.mean() - sigma**2 / 2
  assert abs(bias) < 4 * result.corrected.std(ddof=1) / math.sqrt(repetitions)
  assert (result.value.mean() - sigma**2 / 2) < 0


def test_one_dominant_weight_costs_no_precision():
  result = likelihood.log_mean_exp([0.0, -800.0, -800.0])
  without = np.array([-800.0, -math.log(2), -math.log(2)])
  assert math.isclose(result.stderr, math.sqrt(2 * without.var()), rel_tol=1e-12)


def test_uniform_eight_bit_images_cost_eight_bits():
  """Dequantise, scale to [0, 1), logit: the uniform density in pixel space costs log2(256) bits whatever the path."""
  assert likelihood.bits_per_dimension(0.0, 784, levels=256) == 8.0
  x = np.random.default_rng(3).uniform(0.01, 0.99, size=(5, 12))
  log_det = -np.log(x * (1 - x)).sum(-1)  # of the logit
  np.testing.assert_allclose(likelihood.bits_per_dimension(-log_det, 12, log_det=log_det, levels=256), 8.0, rtol=1e-12)
  with pytest.raises(ValueError, match='num_dimensions=0'):
    likelihood.bits_per_dimension(0.0, 0)
  with pytest.raises(ValueError, match='levels=0'):
    likelihood.bits_per_dimension(0.0, 1, levels=0)


def test_score_in_bits_turns_bounds_around():
  nats = score(-20 * math.log(2), 'bracket', stderr=math.log(2), n=5, lower=-30 * math.log(2), upper=-10 * math.log(2))
  bits = likelihood.score_in_bits(nats, 10)
  assert bits == Score(
    *map(pytest.approx, (2.0,)), 'bracket', pytest.approx(0.1), 5, 'bits/dim', *map(pytest.approx, (1, 3))
  )
  assert likelihood.score_in_bits(score(-1.0, 'lower bound', stderr=None, n=5), 10).kind == 'upper bound'
  with pytest.raises(ValueError, match="unit='bits/dim'"):
    likelihood.score_in_bits(bits, 10)


def test_examples_of_the_docstrings():
  assert doctest.testmod(likelihood) == (0, 2)


def test_likelihood_does_not_import_matplotlib():
  code = "import sys, gm_jax.evaluation.likelihood; assert 'matplotlib' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], check=True)
