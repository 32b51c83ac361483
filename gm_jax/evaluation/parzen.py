"""The Parzen-window log-likelihood of a sampler, by the protocol of the GAN paper, with its warning.

Gaussian kernels of one bandwidth sigma stand on the samples s_j, and held-out examples are scored under them::

  log p(x) = log (1/n) sum_j N(x; s_j, sigma^2 I)

Protocol: 10,000 samples; sigma by the mean over the first 1,000 validation examples, on a logarithmic grid of ten
values from 0.1 to 1; mean and standard error over all test examples. Pixels lie in [0, 1].

**Warning.** In high dimensions this number says little about a model. With any affordable number of samples it stays
far from the true likelihood, it rewards blurred prototypes, and it puts the centres of k-means above draws from the
data themselves (Theis, van den Oord & Bethge, A note on the evaluation of generative models, 2016). Report it beside
two controls: training examples, and k-means centres, in the place of the samples (``clusters.kmeans``).

Reference: Goodfellow et al., Generative adversarial nets (2014); Breuleux et al., Quickly generating representative
samples from an RBM-derived process (2011).

Example:
  >>> import jax, jax.numpy as jnp
  >>> samples, valid, test = jax.random.normal(jax.random.key(0), (3, 200, 2))
  >>> found = jax.jit(parzen)(samples, valid, test)
  >>> found.log_prob.value.shape
  ()
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array
from gm_jax.distances import BLOCK_SIZE, split, squared_distance
from gm_jax.evaluation.sample_score import SampleScore, check_features, sample_score

BANDWIDTHS = tuple(np.logspace(-1, 0, 10))
NUM_VALID = 1000


class Parzen(NamedTuple):
  """The score of a sampler and the bandwidth that it was reached with."""

  log_prob: SampleScore  # nats per example
  bandwidth: Array
  by_bandwidth: Array  # [S] mean over the validation examples


def log_prob(samples: Array, x: Array, bandwidths: Array, *, block_size: int = BLOCK_SIZE) -> Array:
  """Log-densities in nats at x [N, D] under kernels on samples [M, D], for each of [S] bandwidths: [S, N].

  Distances are computed once for all bandwidths, in tiles of ``block_size`` squared.
  """
  num, d = samples.shape
  bandwidths = jnp.asarray(bandwidths, samples.dtype)
  centre = samples.mean(0)
  (queries,) = split((x - centre,), block_size, (0.0,))
  points = split((samples - centre, jnp.zeros(num, samples.dtype)), block_size, (0.0, jnp.inf))
  scale = -0.5 / bandwidths[:, None, None] ** 2

  def rows(query):
    def add_points(total, block):
      point, penalty = block  # infinite for what only fills the block
      squared = squared_distance(query, point) + penalty
      return jnp.logaddexp(total, jax.nn.logsumexp(scale * squared, axis=-1)), None

    start = jnp.full((len(bandwidths), len(query)), -jnp.inf, samples.dtype)
    return jax.lax.scan(add_points, start, points)[0]

  sums = jnp.moveaxis(jax.lax.map(rows, queries), 1, 0).reshape(len(bandwidths), -1)[:, : len(x)]
  return sums - jnp.log(num) - d * jnp.log(bandwidths * jnp.sqrt(2 * jnp.pi))[:, None]


def parzen(
  samples: Array, valid: Array, test: Array, *, bandwidths: Array = BANDWIDTHS, block_size: int = BLOCK_SIZE
) -> Parzen:
  """The protocol: a bandwidth by validation, then the mean over the test examples.

  Args:
    samples: [M, D] of the sampler, or of a control in its place; 10,000 in the literature.
    valid: [V, D]; the first 1,000 count. Shuffle what is sorted.
    test: [N, D]; all count.
    bandwidths: [S] to choose from.
    block_size: examples on either side of a tile.

  Returns:
    The score, whose null is NaN: take training examples in the place of the samples as ``against``.

  Raises:
    ValueError: see ``check_features``.
  """
  samples, valid, test = check_features(samples=samples, valid=valid, test=test)
  bandwidths = jnp.asarray(bandwidths, samples.dtype)
  by_bandwidth = log_prob(samples, valid[:NUM_VALID], bandwidths, block_size=block_size).mean(1)
  best = bandwidths[jnp.argmax(by_bandwidth)]
  values = log_prob(samples, test, best[None], block_size=block_size)[0]
  score = sample_score(values.mean(), values.std(ddof=1) / jnp.sqrt(len(test)))
  return Parzen(score, best, by_bandwidth)
