"""The Inception score of a classifier's answers, and how far the classes of samples are from those of real examples.

With p(c | x) the classifier's answer and p(c) its mean over samples::

  IS = exp mean_x KL(p(c | x) || p(c))

between 1 (all answers alike) and the number of classes (sure, and evenly spread). **The mean of few samples flatters
nobody**: p(c) fits its own samples, and a perfect sampler of K equally likely classes, seen by a sure classifier,
scores about K exp(-(K - 1) / 2n) with n samples in a split. Samples are put in an order of their own before they are
shuffled into splits, so that the order in which they come is of no account, and 0 log 0 is 0.

References: Salimans et al., Improved techniques for training GANs (2016); Barratt & Sharma, A note on the Inception
score (2018).

Example:
  >>> import jax, jax.numpy as jnp
  >>> sure = 1e4 * jax.nn.one_hot(jnp.arange(100) % 10, 10)
  >>> score = jax.jit(lambda key, logits: inception_score(key, logits, num_splits=1))(jax.random.key(0), sure)
  >>> round(float(score.value), 3)
  10.0
"""

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.evaluation.sample_score import SampleScore, check_features, sample_score


def inception_score(key: Key, fake: Array, real: Array | None = None, *, num_splits: int = 10) -> SampleScore:
  """The mean over splits of exp(mean KL).

  Args:
    key: of the shuffle into splits.
    fake: [M, K] logits, or logarithms of probabilities, of samples; -inf is a class that is ruled out.
    real: [N, K] of real examples, whose score with splits of the same size is the null; NaN without them.
    num_splits: of the samples; those that are left over by equal splits sit out.

  Returns:
    The score; the error is that of the mean over splits, or by the delta method if there is one split only.

  Raises:
    ValueError: if there are fewer than two samples in a split, of either kind.
  """
  fake_key, real_key = jax.random.split(key)
  size = len(fake) // num_splits if num_splits >= 1 else 0
  if size < 2:
    raise ValueError(f'num_splits={num_splits}: {len(fake)} samples leave {size} in a split; 2 or more are needed')
  value, stderr = _score(fake_key, fake, size)
  if real is None:
    return sample_score(value, stderr)
  if len(real) < size:
    raise ValueError(f'real has {len(real)} examples, fewer than the {size} of a split of the samples')
  null, null_error = _score(real_key, real, size)
  real_splits = len(real) // size
  own_error = null_error * jnp.sqrt(real_splits / num_splits)  # as it would be with as many splits as the samples have
  return sample_score(value, stderr, null, jnp.hypot(null_error, own_error))


def _score(key: Key, logits: Array, size: int) -> tuple[Array, Array]:
  """Mean and standard error over all splits of ``size`` that the examples fill."""
  log_p = jax.nn.log_softmax(jnp.asarray(logits, float), axis=-1)
  # Any order will do that depends on the answers alone.
  direction = jax.random.normal(jax.random.fold_in(key, 0), (log_p.shape[-1],))
  own_order = jnp.argsort(jnp.exp(log_p) @ direction)
  log_p = log_p[own_order][jax.random.permutation(jax.random.fold_in(key, 1), len(log_p))]
  num_splits = len(log_p) // size
  splits = log_p[: num_splits * size].reshape(num_splits, size, -1)
  log_marginal = jax.nn.logsumexp(splits, axis=1, keepdims=True) - jnp.log(size)
  p = jnp.exp(splits)
  divergence = jnp.sum(jnp.where(p > 0, p * (splits - log_marginal), 0.0), -1)  # [splits, size]
  values = jnp.exp(divergence.mean(1))
  if num_splits > 1:
    return values.mean(), values.std(ddof=1) / jnp.sqrt(num_splits)
  return values[0], values[0] * divergence.std(ddof=1) / jnp.sqrt(size)


def class_divergence(fake: Array, real: Array) -> SampleScore:
  """KL(q || p) in nats from the classes p of real examples to those q of samples, by the answers' argmax.

  Shares are smoothed by half an example in each class. A perfect sampler scores about (K - 1) / 2 (1/M + 1/N).

  Args:
    fake: [M, K] logits of samples.
    real: [N, K] of real examples.

  Raises:
    ValueError: see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  num_classes = real.shape[1]

  def shares(logits):
    counts = jnp.zeros(num_classes).at[logits.argmax(1)].add(1.0) + 0.5
    return counts / counts.sum()

  q, p = shares(fake), shares(real)
  slope_q, slope_p = jnp.log(q / p) + 1, -q / p
  variance = lambda slope, share, num: ((slope**2) @ share - (slope @ share) ** 2) / num
  rate = 1 / len(fake) + 1 / len(real)
  null, null_error = 0.5 * (num_classes - 1) * rate, jnp.sqrt(0.5 * (num_classes - 1)) * rate
  stderr = jnp.sqrt(variance(slope_q, q, len(fake)) + variance(slope_p, p, len(real)) + null_error**2)
  return sample_score(jnp.sum(q * jnp.log(q / p)), stderr, null, null_error)
