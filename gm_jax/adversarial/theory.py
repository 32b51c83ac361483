"""What the game comes to when the critic is at its best, on distributions that can be enumerated or evaluated.

For two distributions p = p_r of the data and q = p_g of the generator (Goodfellow et al. 2014)::

  D*(x) = p(x) / (p(x) + q(x))                  the best discriminator
  V(G, D*) = 2 JSD(p, q) - 2 log 2              never below -2 log 2, and there only if q = p
  D*(x) = (a p(x) + b q(x)) / (p(x) + q(x))     for the targets a on data and b on samples

Where the supports of p and q are apart, JSD = log 2 whatever lies between them: it says nothing of how far to go, and
the gradient that D* passes on vanishes; W_1 grows with the distance, and its slope is one everywhere (Arjovsky &
Bottou, "Towards principled methods for training GANs", 2017). There, too: with D* held fixed, the gradient of E_q log(1
- D*) is that of 2 JSD, and the gradient of E_q[-log D*] is that of KL(q, p) - 2 JSD.

Distributions are arrays of probabilities along the last axis, or log-densities at the points asked for. All values are
in nats.

Example, a generator that prefers the wrong one of two modes:
  >>> import jax.numpy as jnp
  >>> data, generator = jnp.array([0.25, 0.75]), jnp.array([0.75, 0.25])
  >>> optimal_discriminator(data, generator).tolist()
  [0.25, 0.75]
  >>> bool(jnp.isclose(value(data, generator, optimal_discriminator(data, generator)),
  ...                  2 * jensen_shannon(data, generator) - 2 * jnp.log(2)))
  True
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import rel_entr, xlogy

from gm_jax.adversarial.gan import Game
from gm_jax.base import Array
from gm_jax.likelihoods import softplus

MINIMUM = -2 * math.log(2)  # of V(G, D*)


def optimal_discriminator(p: Array, q: Array, real_target: float = 1.0, fake_target: float = 0.0) -> Array:
  """D* at each point, one half where neither distribution has mass: ``[..., K], [..., K] -> [..., K]``.

  Args:
    p: probabilities, or densities, of the data.
    q: those of the generator.
    real_target: what D is taught to answer on data; below one with label smoothing.
    fake_target: what it is taught to answer on samples.
  """
  total = p + q
  return jnp.where(total > 0, (real_target * p + fake_target * q) / jnp.where(total > 0, total, 1.0), 0.5)


def optimal_score(log_p: Array, log_q: Array) -> Array:
  """The log-odds of D*, which are log p(x) - log q(x)."""
  return log_p - log_q


def value(p: Array, q: Array, discriminator: Array) -> Array:
  """V(G, D) = E_p log D + E_q log(1 - D): ``[..., K]`` three times, to ``[...]``."""
  return jnp.sum(xlogy(p, discriminator) + xlogy(q, 1 - discriminator), axis=-1)


def value_of_scores(real_scores: Array, fake_scores: Array) -> Array:
  """V(G, D) estimated from the scores, or log-odds, of data and of samples."""
  return -jnp.mean(softplus(-real_scores)) - jnp.mean(softplus(fake_scores))


def optimality_gap(real_scores: Array, fake_scores: Array, best_real_scores: Array, best_fake_scores: Array) -> Array:
  """V(G, D') - V(G, D), how far the discriminator D falls behind a better one D' on the same data and samples.

  With D' = D* this is V* - V(D), and never negative in the mean. With any other D', such as one from an estimate of
  log p_g, it is a lower bound on that in the mean, as no discriminator has a higher value than D*.
  """
  return value_of_scores(best_real_scores, best_fake_scores) - value_of_scores(real_scores, fake_scores)


def kullback_leibler(p: Array, q: Array) -> Array:
  """KL(p, q): ``[..., K], [..., K] -> [...]``, infinite where p has mass that q has not."""
  return jnp.sum(rel_entr(p, q), axis=-1)


def jensen_shannon(p: Array, q: Array) -> Array:
  """JSD(p, q), from 0 to log 2: ``[..., K], [..., K] -> [...]``."""
  middle = (p + q) / 2
  return (kullback_leibler(p, middle) + kullback_leibler(q, middle)) / 2


def wasserstein(points: Array, p: Array, q: Array) -> Array:
  """The exact W_1 between distributions on points of a line: the area between their distribution functions.

  Args:
    points: ``[K]``, rising.
    p: ``[..., K]`` probabilities.
    q: the same.

  Returns:
    ``[...]``.
  """
  gap = jnp.abs(jnp.cumsum(p - q, axis=-1))[..., :-1]
  return jnp.sum(gap * jnp.diff(points), axis=-1)


def wasserstein_of_samples(x: Array, y: Array) -> Array:
  """The exact W_1 between two samples of a line of one size: ``[N], [N] -> []``, the mean gap of their order."""
  return jnp.mean(jnp.abs(jnp.sort(x) - jnp.sort(y)))


def generator_gradient(game: Game, log_p: Callable, log_q: Callable, x: Array) -> Array:
  """The gradient that the optimal critic passes on to each sample: ``[N, D] -> [N, D]``.

  The mean of its product with dG(z) is the gradient of the generator's loss. ``log_p`` and ``log_q`` are log-densities
  of data and generator, ``[D] -> []``.
  """
  return jax.vmap(jax.grad(lambda point: game.generator(optimal_score(log_p(point), log_q(point)))))(x)


def vanishing_gradients(game: Game, distances: Array, stddev: float = 1.0, num_nodes: int = 100) -> Array:
  """How strongly a generator of N(t, stddev^2) is drawn to data of N(0, stddev^2) by the optimal critic.

  Args:
    game: whose generator.
    distances: ``[K]`` values of t.
    stddev: of both.
    num_nodes: of the quadrature over samples, by Gauss and Hermite.

  Returns:
    ``[K]`` derivatives of the generator's loss by t, with the critic held at its best: exact but for the quadrature.
  """
  nodes, weights = _hermite(num_nodes)
  log_normal = lambda x, mean: -jnp.sum((x - mean) ** 2) / (2 * stddev**2)

  def slope(t):
    x = t + stddev * nodes[:, None]
    return weights @ generator_gradient(game, lambda x: log_normal(x, 0.0), lambda x: log_normal(x, t), x)[:, 0]

  return jax.vmap(slope)(distances)


def _hermite(num_nodes: int) -> tuple[Array, Array]:
  """Nodes and weights of the standard normal distribution."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
  return jnp.asarray(nodes, jnp.float32), jnp.asarray(weights / weights.sum(), jnp.float32)
