"""Models whose maximum likelihood has a closed form: the Gaussian, and products of Bernoullis and of categoricals.

Of N examples with weights w_i (a mean over examples, so the weights sum to one)::

  Gaussian      mean = sum_i w_i x_i        covariance = sum_i w_i (x_i - mean)(x_i - mean)^T
  Bernoulli     p_d = (a + n_d) / (2 a + n)                      n_d the count of ones, n that of examples
  categorical   p_dk = (a + n_dk) / (K a + n)                    a the pseudo-count: 1 is Laplace's rule

A covariance is floored: the variance in every direction is at least ``floor`` times the largest variance of a feature
(times 1 if no feature varies). Clipping the eigenvalues is the *exact* maximum of the likelihood under that constraint,
so constant features and fewer examples than dimensions give a density, never NaN.

Reference: Bishop, Pattern Recognition and Machine Learning, sections 2.1-2.3.

``gaussian``, ``bernoulli`` and ``categorical`` give a ``Model`` whose ``init`` is the closed form. The modules below
them learn by gradient too, as parts of other models must:

Example:
  >>> import jax, jax.numpy as jnp, optax
  >>> from gm_jax.base import Batch, pure
  >>> from gm_jax.training.rules import descent, likelihood_loss
  >>> x = jax.random.normal(jax.random.key(0), (100, 2)) @ jnp.array([[1.0, 0.5], [0.0, 2.0]]) + 3.0
  >>> model = pure(Gaussian(num_features=2))
  >>> algorithm = descent(model.init, likelihood_loss(model.log_prob), optax.adam(0.1))
  >>> state = algorithm.init(jax.random.key(1), Batch(x))
  >>> for i in range(300):
  ...   state, metrics = jax.jit(algorithm.step)(jax.random.key(i), state, Batch(x))
  >>> best = -model.log_prob(fit_gaussian(x), x).mean()
  >>> bool(abs(metrics['loss'] - best) < 1e-4)
  True
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from gm_jax.base import Array, Model, Params, pure, refuse_context

COVARIANCES = ('full', 'diagonal', 'spherical')


class Gaussian(nn.Module):
  """N(mean, L L^T), with L lower triangular, its diagonal the exponential of ``log_scale``.

  Attributes:
    num_features: D.
    covariance: ``'full'``; ``'diagonal'``, with L diagonal; or ``'spherical'``, with L a multiple of the identity.

  Raises:
    ValueError: if ``covariance`` is none of these.
  """

  num_features: int
  covariance: str = 'full'

  def setup(self):
    """Creates the parameters."""
    _check_covariance(self.covariance)
    d = self.num_features
    zeros = nn.initializers.zeros
    self.mean = self.param('mean', zeros, (d,))
    self.log_scale = self.param('log_scale', zeros, () if self.covariance == 'spherical' else (d,))
    if self.covariance == 'full':
      self.lower = self.param('lower', zeros, (d, d))  # only what lies under the diagonal counts

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The same as ``log_prob``."""
    return self.log_prob(x, context=context)

  def scale_tril(self) -> Array:
    """L [D, D], the lower triangular square root of the covariance."""
    diagonal = jnp.diag(jnp.broadcast_to(jnp.exp(self.log_scale), (self.num_features,)))
    return jnp.tril(self.lower, -1) + diagonal if self.covariance == 'full' else diagonal

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """Log p(x) = -|L^-1 (x - mean)|^2 / 2 - log|L| - (D / 2) log 2 pi, in nats; [..., D] to [...]."""
    refuse_context(context)
    d = self.num_features
    x = jnp.asarray(x) - self.mean
    if self.covariance == 'full':
      noise = solve_triangular(self.scale_tril(), x.reshape(-1, d).T, lower=True).T.reshape(x.shape)
    else:
      noise = x * jnp.exp(-self.log_scale)
    log_det = jnp.sum(jnp.broadcast_to(self.log_scale, (d,)))
    return -0.5 * jnp.sum(noise**2, -1) - log_det - 0.5 * d * math.log(2 * math.pi)

  def sample(self, key: Array, num: int, *, context: Array | None = None) -> Array:
    """``num`` draws [num, D] of mean + L noise."""
    refuse_context(context)
    noise = jax.random.normal(key, (num, self.num_features), self.mean.dtype)
    return self.mean + noise @ self.scale_tril().T

  def complete(self, key: Array, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws what is not ``observed`` (boolean, as x [..., D]) from its conditional given what is.

    By Matheron's rule: with s a draw of the joint, S the covariance and o the observed features, the completion is
    s + S_:o S_oo^-1 (x_o - s_o), which leaves what is observed as it is.
    """
    refuse_context(context)
    d = self.num_features
    x, observed = jnp.broadcast_arrays(jnp.asarray(x, self.mean.dtype), jnp.asarray(observed, bool))
    rows, masks = x.reshape(-1, d), observed.reshape(-1, d)
    scale = self.scale_tril()
    covariance = scale @ scale.T

    def one(row, mask, draw):
      seen = jnp.where(mask[:, None] & mask, covariance, jnp.eye(d))
      gap = jnp.where(mask, row - draw, 0.0)
      return jnp.where(mask, row, draw + covariance @ jnp.linalg.solve(seen, gap))

    return jax.vmap(one)(rows, masks, self.sample(key, len(rows))).reshape(x.shape)


class Bernoulli(nn.Module):
  """Independent binary features: p(x) = prod_d p_d^x_d (1 - p_d)^(1 - x_d), with p = sigmoid(logits)."""

  num_features: int

  def setup(self):
    """Creates the parameters."""
    self.logits = self.param('logits', nn.initializers.zeros, (self.num_features,))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The same as ``log_prob``."""
    return self.log_prob(x, context=context)

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """Log p(x) = sum_d x_d log p_d + (1 - x_d) log(1 - p_d) in nats; [..., D] of 0 and 1 to [...]."""
    refuse_context(context)
    return x @ self.logits - jnp.sum(jax.nn.softplus(self.logits))

  def sample(self, key: Array, num: int, *, context: Array | None = None) -> Array:
    """``num`` draws [num, D] of zeros and ones."""
    refuse_context(context)
    shape = (num, self.num_features)
    return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits), shape).astype(self.logits.dtype)

  def complete(self, key: Array, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws what is not ``observed`` (boolean, as x [..., D]); the features are independent."""
    refuse_context(context)
    x, observed = jnp.broadcast_arrays(x, observed)
    return jnp.where(observed, x, self.sample(key, x.size // self.num_features).reshape(x.shape))


class Categorical(nn.Module):
  """Independent features with values 0 .. K-1: p(x) = prod_d softmax(logits_d)[x_d]."""

  num_features: int
  num_categories: int

  def setup(self):
    """Creates the parameters."""
    self.logits = self.param('logits', nn.initializers.zeros, (self.num_features, self.num_categories))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The same as ``log_prob``."""
    return self.log_prob(x, context=context)

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """Log p(x) = sum_d log p_d(x_d) in nats; integers [..., D] to [...], and minus infinity outside 0 .. K-1."""
    refuse_context(context)
    x = jnp.asarray(x, jnp.int32)
    table = jax.nn.log_softmax(self.logits)
    taken = table[jnp.arange(self.num_features), jnp.clip(x, 0, self.num_categories - 1)]
    return jnp.sum(jnp.where((x >= 0) & (x < self.num_categories), taken, -jnp.inf), -1)

  def sample(self, key: Array, num: int, *, context: Array | None = None) -> Array:
    """``num`` draws [num, D] of integers."""
    refuse_context(context)
    return jax.random.categorical(key, self.logits, shape=(num, self.num_features))

  def complete(self, key: Array, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws what is not ``observed`` (boolean, as x [..., D]); the features are independent."""
    refuse_context(context)
    x, observed = jnp.broadcast_arrays(x, observed)
    return jnp.where(observed, x, self.sample(key, x.size // self.num_features).reshape(x.shape))


def fit_gaussian(
  x: Array, covariance: str = 'full', *, weights: Array | None = None, floor: float = 1e-6
) -> dict[str, Array]:
  """The parameters of ``Gaussian`` that maximise the likelihood of x [N, D] under the floor of this module.

  Args:
    x: examples [N, D].
    covariance: as in ``Gaussian``.
    weights: [N], not negative, of any sum; equal if ``None``.
    floor: the least variance in any direction, in units of the largest variance of a feature. Features of very
      different scales should be standardised first, or the floor lowered.

  Returns:
    ``mean`` [D], ``log_scale`` [D] or [], and for a full covariance ``lower`` [D, D].

  Raises:
    ValueError: if x is not [N, D] with N at least 1, or ``covariance`` or ``floor`` cannot be meant.
  """
  x, weights = _check_examples(x, weights)
  mean = weights @ x
  return _parameters(mean, x - mean, weights, covariance, floor)


def fit_tied(
  x: Array, labels: Array, num_classes: int, covariance: str = 'full', *, floor: float = 1e-6
) -> tuple[dict[str, Array], ...]:
  """One Gaussian per class with a covariance in common: that of the examples about the mean of their own class.

  Args:
    x: examples [N, D].
    labels: integers [N] from 0 to ``num_classes`` - 1; a class without examples has the mean zero.
    num_classes: C.
    covariance: as in ``Gaussian``.
    floor: as in ``fit_gaussian``.

  Returns:
    C parameters of ``Gaussian``, which share the arrays of their scale.
  """
  x, weights = _check_examples(x, None)
  member = jax.nn.one_hot(labels, num_classes, dtype=x.dtype)
  means = member.T @ x / jnp.maximum(member.sum(0), 1)[:, None]
  params = _parameters(means[0], x - means[labels], weights, covariance, floor)
  return tuple({**params, 'mean': mean} for mean in means)


def fit_bernoulli(x: Array, *, weights: Array | None = None, pseudo_count: float = 1.0) -> dict[str, Array]:
  """The parameters of ``Bernoulli`` from x [N, D] of zeros and ones.

  Args:
    x: examples [N, D] in [0, 1].
    weights: [N], the count that each example stands for; 1 if ``None``.
    pseudo_count: a, imagined examples of each value; 0 is maximum likelihood, with probabilities kept off 0 and 1 by
      the precision of the float.

  Returns:
    ``logits`` [D].

  Raises:
    ValueError: if x is not [N, D] with N at least 1, or ``pseudo_count`` is negative.
  """
  x, weights = _check_counts(x, weights, pseudo_count)
  ones, zeros = weights @ x + pseudo_count, weights @ (1 - x) + pseudo_count
  limit = -jnp.log(jnp.finfo(x.dtype).eps)
  return {'logits': jnp.clip(jnp.log(ones) - jnp.log(zeros), -limit, limit)}


def fit_categorical(
  x: Array, num_categories: int, *, weights: Array | None = None, pseudo_count: float = 1.0
) -> dict[str, Array]:
  """The parameters of ``Categorical`` from integers x [N, D] between 0 and ``num_categories`` - 1.

  Args:
    x: examples [N, D].
    num_categories: K.
    weights: as in ``fit_bernoulli``.
    pseudo_count: as in ``fit_bernoulli``.

  Returns:
    ``logits`` [D, K].

  Raises:
    ValueError: if x is not [N, D] with N at least 1, or ``pseudo_count`` is negative.
  """
  _, weights = _check_counts(x, weights, pseudo_count)
  features = jnp.arange(jnp.shape(x)[1])
  counts = jnp.zeros((len(features), num_categories), weights.dtype)
  counts = counts.at[features, jnp.asarray(x, jnp.int32)].add(weights[:, None]) + pseudo_count
  log_prob = jnp.log(counts) - jnp.log(counts.sum(-1, keepdims=True))
  return {'logits': jnp.maximum(log_prob, jnp.log(jnp.finfo(weights.dtype).eps))}


def gaussian(num_features: int, covariance: str = 'full', *, floor: float = 1e-6) -> Model:
  """The Gaussian as a ``Model`` whose ``init(key, batch)`` is ``fit_gaussian`` of the batch."""
  _check_covariance(covariance)
  _check_floor(floor)
  model = pure(Gaussian(num_features, covariance))
  return model._replace(init=lambda key, batch: fit_gaussian(batch.x, covariance, floor=floor))


def bernoulli(num_features: int, *, pseudo_count: float = 1.0) -> Model:
  """The product of Bernoullis as a ``Model`` whose ``init(key, batch)`` is ``fit_bernoulli`` of the batch."""
  model = pure(Bernoulli(num_features))
  return model._replace(init=lambda key, batch: fit_bernoulli(batch.x, pseudo_count=pseudo_count))


def categorical(num_features: int, num_categories: int, *, pseudo_count: float = 1.0) -> Model:
  """The product of categoricals as a ``Model`` whose ``init(key, batch)`` is ``fit_categorical`` of the batch."""
  model = pure(Categorical(num_features, num_categories))
  return model._replace(init=lambda key, batch: fit_categorical(batch.x, num_categories, pseudo_count=pseudo_count))


def floored_cholesky(covariance: Array, floor: float | Array) -> Array:
  """A lower triangular L with L L^T = ``covariance`` [D, D], its eigenvalues raised to at least ``floor``.

  By an orthogonal factorisation of the square root, which unlike the Cholesky algorithm cannot fail.
  """
  values, vectors = jnp.linalg.eigh(covariance)
  upper = jnp.linalg.qr(jnp.sqrt(jnp.maximum(values, floor))[:, None] * vectors.T, mode='r')
  signs = jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0)
  return (signs[:, None] * upper).T


def _parameters(mean: Array, centred: Array, weights: Array, covariance: str, floor: float) -> Params:
  """Parameters of ``Gaussian`` from the deviations from the mean."""
  _check_covariance(covariance)
  _check_floor(floor)
  variance = weights @ centred**2
  largest = jnp.max(variance)
  least = floor * jnp.where(largest > 0, largest, 1.0)
  if covariance == 'diagonal':
    return {'mean': mean, 'log_scale': 0.5 * jnp.log(jnp.maximum(variance, least))}
  if covariance == 'spherical':
    return {'mean': mean, 'log_scale': 0.5 * jnp.log(jnp.maximum(jnp.mean(variance), least))}
  scale = floored_cholesky((weights[:, None] * centred).T @ centred, least)
  return {'mean': mean, 'log_scale': jnp.log(jnp.diagonal(scale)), 'lower': jnp.tril(scale, -1)}


def _check_examples(x: Array, weights: Array | None) -> tuple[Array, Array]:
  """Examples as floats [N, D] and weights that sum to one."""
  x = jnp.asarray(x)
  x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
  if x.ndim != 2 or not len(x):
    raise ValueError(f'x of shape {x.shape}: give examples as rows, [N, D] with N at least 1')
  if weights is None:
    return x, jnp.full(len(x), 1 / len(x), x.dtype)
  weights = jnp.asarray(weights, x.dtype)
  if weights.shape != x.shape[:1]:
    raise ValueError(f'weights of shape {weights.shape}: {len(x)} examples need weights of shape [{len(x)}]')
  return x, weights / weights.sum()


def _check_counts(x: Array, weights: Array | None, pseudo_count: float) -> tuple[Array, Array]:
  """Examples as floats [N, D] and the count of each."""
  if pseudo_count < 0:
    raise ValueError(f'pseudo_count={pseudo_count}: give 0 (maximum likelihood) or more (1 is the rule of Laplace)')
  x, equal = _check_examples(x, weights)
  return x, equal * len(x) if weights is None else jnp.asarray(weights, x.dtype)


def _check_covariance(covariance: str) -> None:
  if covariance not in COVARIANCES:
    raise ValueError(f'covariance={covariance!r}: give one of {", ".join(COVARIANCES)}')


def _check_floor(floor: float) -> None:
  if not floor > 0:
    raise ValueError(f'floor={floor}: give a positive ratio of variances, such as 1e-6')
