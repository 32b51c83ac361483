"""Generative classifiers against scikit-learn and against the rule of Bayes written out."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import discriminant_analysis, metrics, naive_bayes

from gm_jax.base import Batch, Model
from gm_jax.density import classifier, kernel, neighbors


def _examples(num=300, d=3):
  generator = np.random.default_rng(0)
  labels = np.concatenate([np.arange(3), generator.choice(3, num - 3, p=[0.5, 0.3, 0.2])])
  mixing = np.eye(d) + 0.3 * generator.standard_normal((3, d, d))
  x = 2 * generator.standard_normal((3, d))[labels] + np.einsum(
    'nij,nj->ni', mixing[labels], generator.standard_normal((num, d))
  )
  return x.astype('f'), labels, 2 * generator.standard_normal((40, d)).astype('f')


def _jitted(parts):
  return parts._replace(
    **{name: jax.jit(getattr(parts, name)) for name in ('joint', 'log_prob', 'log_posterior', 'predict')},
    sample=jax.jit(parts.sample, static_argnums=2),
  )


def test_gaussian_naive_bayes_is_scikit_learns():
  x, labels, queries = _examples()
  ours = _jitted(classifier.gaussian_naive_bayes(3, 3))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  theirs = naive_bayes.GaussianNB(var_smoothing=0).fit(x, labels)
  np.testing.assert_allclose(
    ours.log_posterior(params, queries), theirs.predict_log_proba(queries), atol=1e-3, rtol=1e-3
  )
  np.testing.assert_allclose(ours.joint(params, queries), theirs.predict_joint_log_proba(queries), rtol=1e-3, atol=1e-3)


def test_bernoulli_naive_bayes_is_scikit_learns():
  generator = np.random.default_rng(1)
  x, labels = generator.integers(2, size=(100, 6)), np.arange(100) % 4
  ours = _jitted(classifier.bernoulli_naive_bayes(6, 4))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  theirs = naive_bayes.BernoulliNB(alpha=1.0).fit(x, labels)
  np.testing.assert_allclose(ours.log_posterior(params, x), theirs.predict_log_proba(x), atol=1e-4)


def test_linear_discriminant_is_scikit_learns():
  x, labels, queries = _examples()
  ours = _jitted(classifier.linear_discriminant(3, 3))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  theirs = discriminant_analysis.LinearDiscriminantAnalysis(solver='lsqr').fit(x, labels)
  np.testing.assert_allclose(
    ours.log_posterior(params, queries), theirs.predict_log_proba(queries), atol=1e-3, rtol=1e-3
  )
  # Its boundaries are linear: differences of log p(y | x) are affine in x.
  joint = np.asarray(
    ours.joint(params, np.stack([queries[:10], queries[10:20], 0.5 * (queries[:10] + queries[10:20])]))
  )
  contrast = joint[..., 0] - joint[..., 1]
  np.testing.assert_allclose(contrast[2], 0.5 * (contrast[0] + contrast[1]), atol=1e-2)


def test_quadratic_discriminant_is_the_rule_of_bayes():
  x, labels, queries = _examples()
  ours = _jitted(classifier.quadratic_discriminant(3, 3))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  parts = [x[labels == c].astype(float) for c in range(3)]
  joint = np.stack(
    [stats.multivariate_normal(p.mean(0), np.cov(p.T, bias=True)).logpdf(queries) for p in parts], -1
  ) + np.log([len(p) / len(x) for p in parts])
  marginal = special.logsumexp(joint, -1)
  np.testing.assert_allclose(ours.joint(params, queries), joint, rtol=1e-3, atol=1e-2)
  np.testing.assert_allclose(ours.log_prob(params, queries), marginal, rtol=1e-3, atol=1e-2)
  posterior = np.exp(joint - marginal[:, None])
  np.testing.assert_allclose(jnp.exp(ours.log_posterior(params, queries)), posterior, atol=1e-2)
  np.testing.assert_array_equal(ours.predict(params, queries), posterior.argmax(-1))
  chosen = ours.log_prob(params, queries, context=jnp.arange(40) % 3)
  expected = (joint - np.asarray(params.log_prior))[np.arange(40), np.arange(40) % 3]
  np.testing.assert_allclose(chosen, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('model', [kernel.model('scott'), kernel.model(3.0, kernel='epanechnikov'), neighbors.model(5)])
def test_any_density_makes_a_classifier(model):
  x, labels, queries = _examples()
  ours = classifier.generative_classifier(model, 3)
  params = ours.init(jax.random.key(0), Batch(x, labels))
  log_posterior = np.asarray(jax.jit(ours.log_posterior)(params, np.concatenate([x, np.full((1, 3), 1e3)])))
  np.testing.assert_allclose(np.exp(log_posterior).sum(-1), 1.0, atol=1e-5)
  assert np.mean(log_posterior[:-1].argmax(-1) != labels) < 0.35
  joint = np.asarray(jax.jit(ours.joint)(params, queries))
  own = jax.jit(model.log_prob)(model.init(None, Batch(x[labels == 1])), queries)
  np.testing.assert_allclose(joint[:, 1] - float(params.log_prior[1]), own, rtol=1e-4)


def test_a_conditional_model_makes_the_same_classifier():
  """One model with labels as its context, against a model per class."""
  x, labels, queries = _examples()

  def log_prob(params, x, context=None):
    return stats_log_prob(params[context], x)

  def stats_log_prob(mean, x):
    return -0.5 * jnp.sum((x - mean) ** 2, -1)

  def fit(key, batch):
    return jnp.stack([batch.x[batch.context == c].mean(0) for c in range(3)])

  def draw(params, key, num, context=None):
    return params[context] + jax.random.normal(key, (num, 3))

  together = classifier.generative_classifier(Model(fit, log_prob, sample=draw), 3, conditional=True)
  apart = classifier.generative_classifier(Model(lambda key, batch: batch.x.mean(0), stats_log_prob), 3)
  one = together.init(jax.random.key(0), Batch(x, labels))
  many = apart.init(jax.random.key(0), Batch(x, labels))
  np.testing.assert_allclose(together.joint(one, queries), apart.joint(many, queries), rtol=1e-5)
  np.testing.assert_allclose(
    together.log_prob(one, queries, context=labels[:40]), apart.log_prob(many, queries, context=labels[:40]), rtol=1e-5
  )
  assert together.sample(one, jax.random.key(0), 7).shape == (7, 3)


def test_the_marginal_integrates_to_one():
  x, labels, _ = _examples(d=2)
  ours = _jitted(classifier.quadratic_discriminant(2, 3))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  axis = np.linspace(-25, 25, 601)
  grid = np.stack(np.meshgrid(axis, axis), -1)
  assert float(jnp.exp(ours.model.log_prob(params, grid)).sum()) * (axis[1] - axis[0]) ** 2 == pytest.approx(
    1, abs=1e-3
  )


def test_samples_come_from_their_class():
  x, labels, _ = _examples()
  ours = _jitted(classifier.quadratic_discriminant(3, 3))
  params = ours.init(jax.random.key(0), Batch(x, labels))
  wanted = jnp.arange(6000) % 3
  draws = np.asarray(ours.sample(params, jax.random.key(1), 6000, context=wanted))
  for c in range(3):
    part = x[labels == c]
    assert np.all(np.abs(draws[c::3].mean(0) - part.mean(0)) < 4 * part.std(0) / np.sqrt(2000))
  mixed = np.asarray(ours.sample(params, jax.random.key(2), 6000))
  error = np.sqrt(x.var(0) / 6000)
  assert np.all(np.abs(mixed.mean(0) - x.mean(0)) < 4 * error)


def test_a_confident_class_for_an_impossible_example():
  """The question that starts generative modelling: p(y | x) is one, and p(x) says that it means nothing."""
  x, labels, _ = _examples()
  ours = _jitted(classifier.linear_discriminant(3, 3))
  params = ours.init(jax.random.key(0), Batch(x[:200], labels[:200]))
  params = ours.calibrate(params, x[200:], 0.05)
  impossible = np.array([[500.0, -500.0, 500.0]])
  assert float(jnp.exp(ours.log_posterior(params, impossible)).max()) > 0.999
  assert bool(ours.is_unfamiliar(params, impossible)[0])
  assert float(ours.is_unfamiliar(params, x[200:]).mean()) == pytest.approx(0.05, abs=0.011)


def test_auc_is_scikit_learns_with_ties():
  generator = np.random.default_rng(0)
  seen, unseen = generator.integers(3, 12, size=70), generator.integers(0, 9, size=50)
  expected = metrics.roc_auc_score(np.repeat([1, 0], [70, 50]), np.concatenate([seen, unseen]))
  assert float(classifier.familiarity_auc(seen, unseen)) == pytest.approx(expected, abs=1e-6)


def test_fewer_examples_than_features_is_no_nan():
  x, labels = np.random.default_rng(0).integers(2, size=(12, 30)).astype('f'), np.arange(12) % 3
  for make in (classifier.linear_discriminant, classifier.quadratic_discriminant, classifier.gaussian_naive_bayes):
    ours = _jitted(make(30, 3))
    params = ours.init(jax.random.key(0), Batch(x, labels))
    assert np.isfinite(ours.log_posterior(params, 1 - x)).all()
    assert np.isfinite(ours.log_prob(params, 1 - x)).all()


@pytest.mark.parametrize(
  ('name', 'labels'),
  [
    ('context is None', None),
    ('labels of shape', np.zeros(3, int)),
    ('labels of shape', np.zeros(10)),
    ('labels from 0 to 0', np.zeros(10, int)),
    ('labels from 0 to 2', np.arange(10) % 3),
    ('labels from -1', np.arange(10) % 3 - 1),
  ],
)
def test_bad_labels(name, labels):
  with warnings.catch_warnings(), pytest.raises(ValueError, match=name):
    classifier.gaussian_naive_bayes(2, 2).init(jax.random.key(0), Batch(np.zeros((10, 2)), labels))


def test_bad_arguments():
  with pytest.raises(ValueError, match='log_prob'):
    classifier.generative_classifier(Model(init=None), 2)
  with pytest.raises(ValueError, match='num_classes=0'):
    classifier.gaussian_naive_bayes(2, 0)
  with pytest.raises(ValueError, match='quantile=1'):
    classifier.gaussian_naive_bayes(2, 2).calibrate(None, None, 1.0)
