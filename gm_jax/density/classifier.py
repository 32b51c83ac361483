"""Classifiers from densities: p(y | x) = p(x | y) p(y) / p(x), which also know how likely x itself is.

A discriminative classifier answers with a class, and often with confidence, for an image that can be none of them. A
generative one has log p(x) = log sum_y p(x | y) p(y) beside its answer, so it can say that x is unlike anything seen:
``calibrate`` puts a threshold at a quantile of log p(x) on held-out examples, and ``is_unfamiliar`` compares with it.

``generative_classifier`` makes one of any ``Model`` with a ``log_prob``. The classic ones:

  ====================  ============================================  ====================
  naive Bayes           p(x | y) = prod_d p(x_d | y)                  Gaussian or Bernoulli
  LDA (Fisher 1936)     N(mean_y, covariance)                         linear boundaries
  QDA                   N(mean_y, covariance_y)                       quadratic boundaries
  ====================  ============================================  ====================

Reference: Murphy, Probabilistic Machine Learning: An Introduction (2022), chapter 9.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.base import Batch
  >>> labels = jnp.arange(200) % 2
  >>> x = jax.random.normal(jax.random.key(0), (200, 2)) + 4.0 * labels[:, None]
  >>> classifier = quadratic_discriminant(num_features=2, num_classes=2)
  >>> params = classifier.init(jax.random.key(1), Batch(x, labels))
  >>> classifier.predict(params, jnp.array([[0.0, 0.0], [4.0, 4.0]])).tolist()
  [0, 1]
  >>> params = classifier.calibrate(params, x, 0.01)
  >>> classifier.is_unfamiliar(params, jnp.array([[0.0, 0.0], [40.0, 40.0]])).tolist()
  [False, True]

A model that learns by steps is trained class by class, or once with labels as context; here by gradient:

  >>> import optax
  >>> from gm_jax.base import pure
  >>> from gm_jax.density.gaussian import Gaussian
  >>> from gm_jax.training.rules import descent, likelihood_loss
  >>> model = pure(Gaussian(2))
  >>> algorithm = descent(model.init, likelihood_loss(model.log_prob), optax.adam(0.1))
  >>> def fit(key, batch):
  ...   state, step = algorithm.init(key, batch), jax.jit(algorithm.step)
  ...   for i in range(100):
  ...     state, metrics = step(key, state, batch)
  ...   return state.params
  >>> learnt = generative_classifier(model._replace(init=fit), num_classes=2)
  >>> params = learnt.init(jax.random.key(1), Batch(x, labels))
  >>> bool((learnt.predict(params, x) == labels).mean() > 0.98)
  True
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Batch, Model
from gm_jax.density import gaussian


class ClassConditional(NamedTuple):
  """What a generative classifier has learnt."""

  densities: Any  # of p(x | y): a tuple of parameters per class, or the parameters of one model with a context
  log_prior: Array  # [C], log p(y)
  threshold: Array  # [], x is unfamiliar if log p(x) is below; minus infinity until calibrated


class Classifier(NamedTuple):
  """A generative classifier as pure functions; its ``params`` are a ``ClassConditional``."""

  init: Callable  # (key, batch) -> params             batch.context are the labels [N]
  joint: Callable  # (params, x) -> [..., C]           log p(x, y) in nats
  log_prob: Callable  # (params, x) -> [...]           log p(x) in nats; with context=labels, log p(x | y)
  log_posterior: Callable  # (params, x) -> [..., C]   log p(y | x)
  predict: Callable  # (params, x) -> [...]            the most probable class
  sample: Callable  # (params, key, num) -> [num, ...] from p(x); with context=labels [num], from p(x | y)
  calibrate: Callable  # (params, x, quantile) -> params  threshold at a quantile of log p(x) over held-out x
  is_unfamiliar: Callable  # (params, x) -> [...]      is log p(x) below the threshold?

  @property
  def model(self) -> Model:
    """The marginal p(x), as a ``Model``."""
    return Model(init=self.init, log_prob=self.log_prob, sample=self.sample)


def generative_classifier(model: Model, num_classes: int, *, conditional: bool = False) -> Classifier:
  """The recipe: a density of x for each class, and the frequencies of the classes.

  Args:
    model: its ``init(key, batch)`` must *fit*: it is called with the examples of one class at a time (of the closed
      forms and the estimators in this folder it does; wrap what learns by steps). Its ``log_prob`` and ``sample`` are
      used.
    num_classes: C.
    conditional: the model takes labels as ``context`` instead; ``init`` is then called once, with all examples.

  Raises:
    ValueError: if the model has no ``log_prob``, or ``num_classes`` is below 1. ``init`` raises if there are no labels,
      or some class has no example; it reads the labels, so it cannot be traced.
  """
  if model.log_prob is None:
    raise ValueError('model has no log_prob: class-conditional densities must be exact; a bound would favour a class')
  if num_classes < 1:
    raise ValueError(f'num_classes={num_classes}: give 1 or more')

  def init(key, batch):
    labels = _check_labels(batch, num_classes)
    log_prior = jnp.log(jnp.bincount(jnp.asarray(labels), length=num_classes) / len(labels))
    if conditional:
      densities = model.init(key, batch)
    else:
      keys = jax.random.split(key, num_classes)
      densities = tuple(model.init(keys[c], Batch(batch.x[labels == c])) for c in range(num_classes))
    return ClassConditional(densities, log_prior, jnp.float32(-jnp.inf))

  def log_likelihoods(params, x):
    """Log p(x | y) of every y, [..., C]."""
    if conditional:
      # x is [B, ...]: how many of its axes belong to an example only the model knows.
      return jax.vmap(
        lambda label: model.log_prob(params.densities, x, context=jnp.full(jnp.shape(x)[:1], label)), out_axes=-1
      )(jnp.arange(num_classes))
    return jnp.stack([model.log_prob(density, x) for density in params.densities], -1)

  def joint(params, x):
    return params.log_prior + log_likelihoods(params, x)

  def log_prob(params, x, context=None):
    if context is None:
      return jax.nn.logsumexp(joint(params, x), axis=-1)
    return jnp.take_along_axis(log_likelihoods(params, x), jnp.asarray(context)[..., None], -1)[..., 0]

  def log_posterior(params, x):
    # Where x is impossible under every class, the prior is all that is left.
    log_joint = joint(params, x)
    log_marginal = jax.nn.logsumexp(log_joint, axis=-1, keepdims=True)
    impossible = log_marginal == -jnp.inf
    return jnp.where(impossible, params.log_prior, log_joint - jnp.where(impossible, 0.0, log_marginal))

  def predict(params, x):
    return jnp.argmax(log_posterior(params, x), axis=-1)

  def sample(params, key, num, context=None):
    label_key, sample_key = jax.random.split(key)
    labels = jax.random.categorical(label_key, params.log_prior, shape=(num,)) if context is None else context
    if conditional:
      return model.sample(params.densities, sample_key, num, context=labels)
    keys = jax.random.split(sample_key, num_classes)
    draws = jnp.stack([model.sample(params.densities[c], keys[c], num) for c in range(num_classes)])
    return draws[labels, jnp.arange(num)]

  def calibrate(params, x, quantile=0.01):
    if not 0 <= quantile < 1:
      raise ValueError(f'quantile={quantile}: give the share of held-out examples to call unfamiliar, such as 0.01')
    return params._replace(threshold=jnp.quantile(log_prob(params, x), quantile))

  def is_unfamiliar(params, x):
    return log_prob(params, x) < params.threshold

  return Classifier(init, joint, log_prob, log_posterior, predict, sample, calibrate, is_unfamiliar)


def gaussian_naive_bayes(num_features: int, num_classes: int, *, floor: float = 1e-6) -> Classifier:
  """Features independent and Gaussian given the class; ``floor`` as in ``gaussian.fit_gaussian``."""
  return generative_classifier(gaussian.gaussian(num_features, 'diagonal', floor=floor), num_classes)


def bernoulli_naive_bayes(num_features: int, num_classes: int, *, pseudo_count: float = 1.0) -> Classifier:
  """Features binary and independent given the class; ``pseudo_count`` as in ``gaussian.fit_bernoulli``."""
  return generative_classifier(gaussian.bernoulli(num_features, pseudo_count=pseudo_count), num_classes)


def quadratic_discriminant(num_features: int, num_classes: int, *, floor: float = 1e-6) -> Classifier:
  """QDA: a Gaussian per class; ``floor`` as in ``gaussian.fit_gaussian``."""
  return generative_classifier(gaussian.gaussian(num_features, floor=floor), num_classes)


def linear_discriminant(num_features: int, num_classes: int, *, floor: float = 1e-6) -> Classifier:
  """LDA: a Gaussian per class with one covariance in common; ``floor`` as in ``gaussian.fit_gaussian``."""
  classifier = generative_classifier(gaussian.gaussian(num_features, floor=floor), num_classes)

  def init(key, batch):
    del key
    labels = jnp.asarray(_check_labels(batch, num_classes))
    log_prior = jnp.log(jnp.bincount(labels, length=num_classes) / len(labels))
    densities = gaussian.fit_tied(batch.x, labels, num_classes, floor=floor)
    return ClassConditional(densities, log_prior, jnp.float32(-jnp.inf))

  return classifier._replace(init=init)


def familiarity_auc(seen: Array, unseen: Array) -> Array:
  """The probability that a score of ``seen`` [N] exceeds one of ``unseen`` [M], ties counted half.

  The area under the curve of detecting what is out of distribution by a low log p(x): 1 is perfect, 0.5 is chance, and
  below 0.5 the model finds the strange data *more* likely than its own.
  """
  order = jnp.sort(jnp.asarray(unseen))
  below = jnp.searchsorted(order, seen, side='left')
  up_to = jnp.searchsorted(order, seen, side='right')
  return jnp.mean(0.5 * (below + up_to)) / len(order)


def _check_labels(batch: Batch, num_classes: int) -> np.ndarray:
  """The labels of a batch, concrete; every class must occur."""
  if batch.context is None:
    raise ValueError('batch.context is None: give the labels, integers of shape [N]')
  labels = np.asarray(batch.context)
  if labels.shape != (len(batch.x),) or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'labels of shape {labels.shape} and type {labels.dtype}: give integers of shape [{len(batch.x)}]')
  counts = np.bincount(labels[labels >= 0], minlength=num_classes)
  if labels.min() < 0 or len(counts) > num_classes or not counts.all():
    raise ValueError(
      f'labels from {labels.min()} to {labels.max()} with least count {counts.min()}: '
      f'give labels from 0 to {num_classes - 1}, with an example of each class'
    )
  return labels
