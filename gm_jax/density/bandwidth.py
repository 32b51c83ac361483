"""Bandwidths of kernel density estimates that are learnt from the data, and adaptive estimates.

``select_bandwidth`` climbs the leave-one-out likelihood by gradient; ``cross_validate`` picks among multiples of a
bandwidth by held-out points; ``adapt`` gives each point its own scale. The rules of thumb, ``scott`` and
``silverman``, are in ``kernel.py``.

References: Duin, On the choice of smoothing parameters for Parzen estimators (1976); Abramson, On bandwidth variation
in kernel estimates (1982).

Example:
  >>> import jax
  >>> from gm_jax.density import kernel
  >>> points = jax.random.normal(jax.random.key(0), (200, 1))
  >>> start = kernel.fit(points, 3.0)
  >>> learnt, history = select_bandwidth(start, num_steps=50)
  >>> bool(history[-1] > history[0]), learnt.bandwidth.shape
  (True, (1,))
  >>> chosen, scores = cross_validate(start, [0.01, 0.1, 1.0], jax.random.key(1))
  >>> int(scores.argmax())
  1
  >>> adaptive = adapt(learnt)
"""

import jax
import jax.numpy as jnp
import optax

from gm_jax.base import Array, Key
from gm_jax.density.kernel import KernelDensity, leave_one_out, log_prob
from gm_jax.density.kernel_shapes import UNBOUNDED
from gm_jax.distances import BLOCK_SIZE, check_positive


def select_bandwidth(
  estimator: KernelDensity,
  shape: str = 'diagonal',
  *,
  num_steps: int = 200,
  learning_rate: float = 0.1,
  block_size: int = BLOCK_SIZE,
) -> tuple[KernelDensity, Array]:
  """Climbs the mean leave-one-out log-likelihood in the bandwidth, by Adam with a rate that falls to zero.

  Args:
    estimator: where to start; ``fit`` with a rule is a good start. Its kernel must be of infinite support, since the
      leave-one-out likelihood of a compact one has jumps to minus infinity: use ``cross_validate`` there.
    shape: what is learnt of the bandwidth: ``'scalar'``, one factor; ``'diagonal'``, a factor per feature; ``'full'``,
      a triangular matrix that multiplies it from the right.
    num_steps: number of steps.
    learning_rate: the first rate; a step changes a bandwidth by at most about this fraction.
    block_size: as in ``log_prob``.

  Returns:
    The estimator with its new bandwidth, and the objective [num_steps] before each step, in nats.

  Raises:
    ValueError: if the kernel is compact, or ``shape`` is unknown or cannot hold the bandwidth.
  """
  num_features = estimator.points.shape[1]
  if estimator.kernel.name not in UNBOUNDED:
    raise ValueError(f'kernel={estimator.kernel.name!r}: only gaussian and exponential have a gradient everywhere')
  if shape not in ('scalar', 'diagonal', 'full'):
    raise ValueError(f'shape={shape!r}: give scalar, diagonal or full')
  start = estimator.bandwidth
  if shape == 'diagonal' and start.ndim == 2:
    raise ValueError("shape='diagonal': the bandwidth is a full matrix, so give 'full' or 'scalar'")
  if shape == 'full':
    start = jnp.diag(start) if start.ndim == 1 else start

  def bandwidth(factors):
    if shape != 'full':
      return start * jnp.exp(factors)
    return start @ (jnp.tril(factors, -1) + jnp.diag(jnp.exp(jnp.diagonal(factors))))

  def loss(factors):
    log_density = leave_one_out(estimator._replace(bandwidth=bandwidth(factors)), block_size=block_size)
    return -_weighted_mean(estimator.log_weights, log_density)

  optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
  factors = jnp.zeros({'scalar': (), 'diagonal': (num_features,), 'full': (num_features,) * 2}[shape], start.dtype)

  def step(carry, _):
    factors, opt_state = carry
    value, gradient = jax.value_and_grad(loss)(factors)
    update, opt_state = optimizer.update(gradient, opt_state)
    return (factors + update, opt_state), -value

  (factors, _), history = jax.lax.scan(step, (factors, optimizer.init(factors)), None, length=num_steps)
  return estimator._replace(bandwidth=bandwidth(factors)), history


def cross_validate(
  estimator: KernelDensity, factors: Array, key: Key, *, num_folds: int = 5, block_size: int = BLOCK_SIZE
) -> tuple[KernelDensity, Array]:
  """Chooses among multiples of the bandwidth by the mean log density of held-out points.

  Args:
    estimator: what to scale; for a compact kernel begin wide, or every factor may leave a point without density.
    factors: [M], positive.
    key: for the random folds.
    num_folds: between 2 and the number of points.
    block_size: as in ``log_prob``.

  Returns:
    The estimator (of all points) with its bandwidth times the best factor, and the scores [M] in nats per point.

  Raises:
    ValueError: if ``num_folds`` is out of range or a factor is not positive.
  """
  num_points = estimator.points.shape[0]
  if not 2 <= num_folds <= num_points:
    raise ValueError(f'num_folds={num_folds}: give a number between 2 and that of the points, {num_points}')
  factors = check_positive('factors', jnp.asarray(factors, estimator.bandwidth.dtype))
  # Folds of equal size, so that they are mapped over: what fills the last ones up points behind the end.
  size = -(-num_points // num_folds)
  order = jnp.pad(
    jax.random.permutation(key, num_points), (0, num_folds * size - num_points), constant_values=num_points
  )

  def fold_score(factor, fold):
    log_weights = estimator.log_weights.at[fold].set(-jnp.inf, mode='drop')
    rest = estimator._replace(
      log_weights=log_weights - jax.nn.logsumexp(log_weights), bandwidth=factor * estimator.bandwidth
    )
    held_out = jnp.take(estimator.log_weights, fold, mode='fill', fill_value=-jnp.inf)
    queries = jnp.take(estimator.points, fold, axis=0, mode='clip')
    return _weighted_mean(held_out, log_prob(rest, queries, block_size=block_size))

  def score(factor):
    return jnp.sum(jax.lax.map(lambda fold: fold_score(factor, fold), order.reshape(size, num_folds).T))

  scores = jax.lax.map(score, factors)
  return estimator._replace(bandwidth=factors[jnp.argmax(scores)] * estimator.bandwidth), scores


def adapt(estimator: KernelDensity, sensitivity: float = 0.5, *, block_size: int = BLOCK_SIZE) -> KernelDensity:
  """Abramson's adaptive estimate: s_i = (p(x_i) / g)^-sensitivity, p the given (pilot) estimate, g its geometric mean.

  Args:
    estimator: the pilot, whose bandwidth stays the bandwidth at points of average density.
    sensitivity: 0.5 is Abramson's square root law, 0 changes nothing, 1/D is like nearest neighbours.
    block_size: as in ``log_prob``.

  Raises:
    ValueError: if ``sensitivity`` is not between 0 and 1.
  """
  if not 0 <= sensitivity <= 1:
    raise ValueError(f'sensitivity={sensitivity}: give a number between 0 and 1, such as 0.5')
  log_density = log_prob(estimator, estimator.points, block_size=block_size)
  mean = _weighted_mean(estimator.log_weights, log_density)
  return estimator._replace(log_scales=-sensitivity * (log_density - mean))


def _weighted_mean(log_weights: Array, log_density: Array) -> Array:
  """The sum of w_i log p(x_i), in which points without weight do not count even where the density is zero."""
  weights = jnp.exp(log_weights)
  return jnp.sum(jnp.where(weights > 0, weights * log_density, 0.0))
