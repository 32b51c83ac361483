"""Inception scores, Parzen windows, memorisation, the neural-net divergence, and the answer that all of them give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.density import kernel
from gm_jax.evaluation import divergence, inception, likelihood, memorisation, parzen, sample_metrics, sample_score
from gm_jax.evaluation.extractors import Features


def draws(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


inception_score = jax.jit(inception.inception_score, static_argnames='num_splits')


def sure(labels, num_classes=10):
  """Logits of a classifier that rules every other class out."""
  return np.where(np.arange(num_classes) == labels[:, None], 0.0, -np.inf).astype(np.float32)


def test_the_inception_score_of_sure_answers():
  labels = np.random.default_rng(0).integers(0, 10, 1000)
  found = inception_score(jax.random.key(0), sure(labels), num_splits=10)
  assert float(found.value) == pytest.approx(10 * np.exp(-9 / 200), abs=4 * float(found.stderr))
  assert float(inception_score(jax.random.key(0), sure(labels * 0), num_splits=10).value) == pytest.approx(1)


def test_the_order_of_the_samples_is_of_no_account():
  """Sorted by class, splits would each miss classes; and a split that misses one is no NaN."""
  labels = np.random.default_rng(1).integers(0, 10, 300)
  value = lambda rows: float(inception_score(jax.random.key(0), rows, num_splits=10).value)
  soft = draws(2, 300, 10) + 5 * np.eye(10, dtype=np.float32)[labels]
  assert value(soft) == pytest.approx(value(soft[np.argsort(labels)]), rel=1e-5)
  sorted_score = value(sure(np.sort(labels)))
  assert 7 < sorted_score < 10  # unshuffled splits of one class each would score 1


def test_the_inception_score_by_its_definition():
  logits = draws(3, 50, 4)
  p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
  expected = np.exp((p * np.log(p / p.mean(0))).sum(1).mean())
  found = inception_score(jax.random.key(0), logits, draws(4, 50, 4), num_splits=1)
  assert float(found.value) == pytest.approx(expected, rel=1e-5)
  assert abs(found.value - found.null) < 4 * found.null_stderr
  with pytest.raises(ValueError, match='num_splits=30: 50 samples leave 1 in a split'):
    inception.inception_score(jax.random.key(0), logits, num_splits=30)


def test_class_divergence_and_its_null():
  rng = np.random.default_rng(5)
  score = jax.jit(lambda q, p: jax.lax.map(lambda pair: inception.class_divergence(*pair), (q, p)))
  labels = rng.integers(0, 10, (2, 60, 400))
  found = jax.device_get(score(*(np.stack([sure(row) for row in half]).clip(-1e3) for half in labels)))
  assert found.value.mean() == pytest.approx(found.null[0], abs=3 * found.value.std() / np.sqrt(60))
  missing = score(*(np.stack([sure(row) for row in half[:1]]).clip(-1e3) for half in (labels[0] % 5, labels[1])))
  assert float(missing.value[0]) == pytest.approx(np.log(2), abs=4 * float(missing.stderr[0]))


def test_parzen_windows_are_kernel_densities():
  samples, x = draws(6, 70, 20), draws(7, 31, 20)
  ours = jax.jit(lambda s, x: parzen.log_prob(s, x, (0.2, 1.0), block_size=16))(samples, x)
  for row, bandwidth in zip(ours, (0.2, 1.0), strict=True):
    expected = stats.multivariate_normal(cov=bandwidth**2 * np.eye(20))
    pairs = expected.logpdf((x[:, None] - samples).astype(float))
    np.testing.assert_allclose(row, np.logaddexp.reduce(pairs, 1) - np.log(70), rtol=2e-5)
  estimator = kernel.fit(samples, 1.0)
  np.testing.assert_allclose(ours[1], jax.jit(kernel.log_prob)(estimator, x), rtol=1e-5)


def test_the_parzen_protocol():
  samples, valid, test = draws(8, 3, 200, 5)
  found = jax.jit(parzen.parzen)(samples, valid, test)
  assert len(found.by_bandwidth) == 10 and float(found.bandwidth) == pytest.approx(
    parzen.BANDWIDTHS[int(np.argmax(found.by_bandwidth))]
  )
  values = np.asarray(parzen.log_prob(jnp.asarray(samples), jnp.asarray(test), found.bandwidth[None])[0])
  assert float(found.log_prob.value) == pytest.approx(values.mean(), rel=1e-5)
  assert float(found.log_prob.stderr) == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=1e-5)


@functools.cache
def copying():
  return jax.jit(lambda *sets: jax.lax.map(
    lambda args: (memorisation.copying_test(*args, num_cells=3), memorisation.copies(*args[1:])), sets
  ))  # fmt: skip


def test_a_perfect_sampler_does_not_copy():
  keys = jax.random.split(jax.random.key(0), 60)
  c_t, copies = jax.device_get(copying()(keys, draws(9, 60, 80, 2), draws(10, 60, 60, 2), draws(11, 60, 60, 2)))
  # Samples and test examples share their training set, so all pairs have the null's mean.
  assert abs(c_t.value.mean()) < 3 * c_t.value.std() / np.sqrt(60)
  assert c_t.value.std() == pytest.approx(c_t.null_stderr.mean(), rel=3 / np.sqrt(120))
  assert copies.value.mean() == pytest.approx(copies.null.mean(), abs=0.01)


def test_copies_are_found_and_noise_is_not_copying():
  train, test = draws(12, 80, 2), draws(13, 60, 2)
  sets = (np.stack([train] * 2), np.stack([test] * 2), np.stack([train[:60] + 0.01, 3 * draws(14, 60, 2)]))
  c_t, copies = copying()(jax.random.split(jax.random.key(0)), *sets)
  assert c_t.value[0] < -3 * c_t.null_stderr[0] and c_t.value[1] > 3 * c_t.null_stderr[1]
  assert copies.value[0] > 0.2 and copies.value[1] < 0.1


def test_mann_whitney_of_scipy_with_ties():
  rng = np.random.default_rng(15)
  x, y = rng.integers(0, 6, 40).astype(np.float32), rng.integers(1, 8, 30).astype(np.float32)
  x_in, y_in = rng.random(40) < 0.7, rng.random(30) < 0.7
  z = float(jax.jit(memorisation.mann_whitney)(x, y, x_in, y_in))
  test = stats.mannwhitneyu(x[x_in], y[y_in], alternative='less', method='asymptotic', use_continuity=False)
  assert stats.norm.cdf(z) == pytest.approx(test.pvalue, rel=1e-4)


def test_the_neural_net_divergence_punishes_memorising():
  """A few examples, repeated, are told from fresh ones more easily than as many fresh ones are."""
  options = {'hidden_sizes': (32, 32), 'num_steps': 200, 'batch_size': 32, 'learning_rate': 3e-3}
  score = jax.jit(lambda real, fake: jax.lax.map(
    lambda x: divergence.neural_net_divergence(jax.random.key(0), real, x, **options), fake
  ))  # fmt: skip
  fake = np.stack([draws(16, 256, 8), np.tile(draws(17, 32, 8), (8, 1))])
  fresh, memorised = score(draws(18, 256, 8), fake).value
  assert 0 < fresh < 0.6 * memorised
  with pytest.raises(ValueError, match='batch_size=128 is larger than a set of 20'):
    divergence.neural_net_divergence(jax.random.key(0), draws(0, 20, 2), draws(1, 30, 2))


def test_scores_meet_their_controls_and_reports():
  score, control = sample_score.sample_score(3.0, 0.1), sample_score.sample_score(1.0, 0.2)
  compared = sample_metrics.with_control(
    {'a': score, 'b': control._replace(null=jnp.float32(0))}, {'a': control, 'b': score}
  )
  assert float(sample_score.deviations(compared['a'])) == pytest.approx(2 / (0.2 * 2**0.5))
  assert compared['b'].null == 0
  assert sample_score.to_report(score, 10, 'nats') == likelihood.score(
    np.float32(3.0), 'estimate', stderr=np.float32(0.1), n=10
  )


def test_every_metric_has_a_direction_and_takes_what_it_needs():
  rng = np.random.default_rng(19)
  sets = [Features(draws(i, 60, 3), sure(rng.integers(0, 4, 60), 4).clip(-50)) for i in range(3)]
  names = ['neighbourhoods', 'class_divergence', 'memorisation']
  found = sample_metrics.scorer(names)(jax.random.key(0), sample_metrics.Sets(*sets))
  assert set(found) < set(sample_metrics.DIRECTIONS) and len(found) == 8
  assert all(np.isfinite(one.value) and one.stderr >= 0 for one in found.values())
  without = sample_metrics.scorer(['neighbourhoods', 'parzen', 'inception_score'])(
    jax.random.key(0), sample_metrics.Sets(None, Features(sets[1].codes), Features(sets[2].codes))
  )
  assert set(without) == {'precision', 'recall', 'density', 'coverage', 'nearest_accuracy'}
  with pytest.raises(ValueError, match="metrics has 'fid'"):
    sample_metrics.scorer(['fid'])
