"""Folds that share no row, and scores of settings on a table small enough to check."""

import jax
import numpy as np

from experiments import cross_validation
from gm_jax.density import mixture, mixture_gaussian


def test_every_row_is_tested_once_and_parts_share_none():
  x = np.arange(60, dtype=np.float32).reshape(30, 2) ** 1.5
  tested = []
  for fold in range(cross_validation.NUM_FOLDS):
    train, valid, test = cross_validation.parts(x, fold)
    assert (len(train), len(valid), len(test)) == (24, 3, 3)
    assert len(np.unique(np.concatenate([train, valid, test])[:, 0])) == 30
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)
    tested.extend(np.flatnonzero(cross_validation.folds(30) == fold))
  assert sorted(tested) == list(range(30))


def test_one_component_scores_as_the_closed_form():
  x = np.random.default_rng(0).standard_normal((100, 2)).astype('f')
  train, valid, test = cross_validation.parts(x, 0)
  fit = cross_validation.make_fit(mixture.Mixture(mixture_gaussian.Full(), 1))
  best, score = fit(jax.random.key(0), train, valid, test)
  mean, covariance = train.mean(0), np.cov(train.T, bias=True)

  def log_prob(rows):
    distance = ((rows - mean) @ np.linalg.inv(covariance) * (rows - mean)).sum(1)
    return np.mean(-0.5 * distance - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance)))

  np.testing.assert_allclose([best, score], [log_prob(valid), log_prob(test)], atol=1e-4)
