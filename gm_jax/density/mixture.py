"""Finite mixtures of any family of components, learnt by expectation-maximisation or by gradient.

    p(x) = sum_k pi_k p_k(x),    r_k(x) = pi_k p_k(x) / p(x).

``Mixture`` holds what is common: weights, responsibilities, the E- and M-step, starts, sampling and completion. What a
component is comes from a *family* with the methods of ``Family``: ``mixture_gaussian`` has full, tied, diagonal and
spherical Gaussians, ``mixture_low_rank`` probabilistic PCA and factor analysers, ``mixture_discrete`` Bernoullis and
categoricals. All parameters are unconstrained, so EM, stepwise EM and gradient descent move the same ones.

References:
  Dempster, Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm. Missing values are
  left out exactly as in Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach;
  stepwise EM is Cappe & Moulines (2009), On-line expectation-maximization algorithm for latent data models.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.base import Batch
  >>> from gm_jax.density import mixture, mixture_gaussian
  >>> from gm_jax.training.rules import expectation_maximization
  >>> key = jax.random.key(0)
  >>> x = jnp.concatenate([jax.random.normal(key, (200, 2)) - 4, jax.random.normal(key, (200, 2)) + 4])
  >>> two = mixture.Mixture(mixture_gaussian.Full(), num_components=2)
  >>> em = expectation_maximization(two.init, two.e_step, two.m_step)
  >>> state, step = em.init(key, Batch(x)), jax.jit(em.step)
  >>> for _ in range(20):
  ...   state, metrics = step(key, state, Batch(x))
  >>> jax.nn.softmax(state.params.logits).round(2).tolist()
  [0.5, 0.5]
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gm_jax.base import Algorithm, Array, Batch, Extra, Key, Metrics, Model, TrainState, refuse_context
from gm_jax.density import missing, mixture_starts

Components = Any
SMALLEST_MASS = 1e-30  # keeps the logits of a dead component finite


class Family(Protocol):
  """What a mixture needs to know of its components; N examples of D values, K components.

  ``observed`` is ``None`` where no value is NaN, else a mask ``[N, D]`` of 0 and 1, and 0 stands for NaN in ``x``.

  ``prior`` of every family is the weight of a conjugate prior, in pseudo-examples per component *and per example of
  the data*: statistics are means over examples, so two pseudo-counts among 50,000 examples are ``2 / 50_000``.
  """

  missing: float | int  # the value that stands for "not observed"

  def data(self, x: Array) -> Array:
    """The examples in the type that can hold ``missing``."""

  def features(self, x: Array) -> Array:
    """``[N, F]``: where the examples lie for the distances of k-means++."""

  def start(self, key: Key, x: Array, rows: Array) -> Components:
    """Components around the examples with the indices ``rows`` ``[K]``."""

  def log_prob(self, components: Components, x: Array, observed: Array | None) -> Array:
    """Log p_k(x), ``[N, K]``, of the observed values."""

  def statistics(self, components: Components, x: Array, observed: Array | None, responsibilities: Array) -> Any:
    """Expected sufficient statistics, summed over the examples with weights ``responsibilities`` ``[N, K]``."""

  def maximize(self, components: Components, statistics: Any, mass: Array) -> Components:
    """The components that maximise expected likelihood and prior; a component without mass ``[K]`` stays."""

  def log_prior(self, components: Components) -> Array:
    """Log of the prior per example of the data, up to a constant, ``[]``."""

  def sample(self, components: Components, key: Key, which: Array) -> Array:
    """One draw ``[N, D]`` from each of the components ``which`` ``[N]``."""

  def complete(self, components: Components, key: Key, x: Array, which: Array) -> Array:
    """Draws what is missing in ``x`` from component ``which``, given what is observed."""

  def mean(self, components: Components) -> Array:
    """Mean of each component, ``[K, D]`` (``[K, D, C]`` for categoricals)."""

  def num_parameters(self, components: Components) -> int:
    """Free parameters of all components."""


class Parameters(NamedTuple):
  """Of a mixture of K components."""

  logits: Array  # [K]; the weights are their softmax
  components: Components


class Statistics(NamedTuple):
  """Means over examples."""

  mass: Array  # [K] of the responsibilities
  components: Any


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of ``num_components`` members of ``family``.

  ``batch.context``, where given, holds the weight ``[B]`` of each example, 1 being the usual one: statistics and loss
  are then means of ``weight * value``.

  Attributes:
    family: the components, see ``Family``.
    num_components: K, at least 1.
    start: how to choose the examples that components start from: 'kmeans++' or 'random'.
    prior: pseudo-examples of a symmetric Dirichlet prior on the weights, per component and per example of the data.
    block_size: examples handled at a time; bounds the memory of every method to about ``block_size * K * D`` numbers,
      or ``block_size * D * D`` for full covariances with missing values.

  Raises:
    ValueError: for an argument out of range, or from ``init`` for more components than examples.
  """

  family: Family
  num_components: int
  start: str = 'kmeans++'
  prior: float = 0.0
  block_size: int = 1024

  def __post_init__(self):
    if self.num_components < 1:
      raise ValueError(f'num_components={self.num_components}: a mixture has at least one component')
    if self.start not in mixture_starts.STARTS:
      raise ValueError(f'start={self.start!r} is none of {sorted(mixture_starts.STARTS)}')
    if self.prior < 0:
      raise ValueError(f'prior={self.prior}: pseudo-examples cannot be negative')
    if self.block_size < 1:
      raise ValueError(f'block_size={self.block_size}: give at least 1 example per block')

  def init(self, key: Key, batch: Batch) -> Parameters:
    """Equal weights and components around examples of the batch ``[N, D]``."""
    x = self.family.data(batch.x)
    if x.ndim != 2:
      raise ValueError(f'batch.x has shape {x.shape}: a mixture starts from examples [N, D]')
    if self.num_components > len(x):
      raise ValueError(f'num_components={self.num_components} exceeds the {len(x)} examples to start from')
    choose = mixture_starts.STARTS[self.start]
    rows_key, key = jax.random.split(key)
    rows = choose(rows_key, self.family.features(x), self.num_components, batch.context)
    return Parameters(jnp.zeros(self.num_components), self.family.start(key, x, rows))

  def log_joint(self, params: Parameters, x: Array) -> Array:
    """Log pi_k + log p_k(x) in nats, ``[..., D] -> [..., K]``; missing values are integrated out."""
    x = self.family.data(x)
    rows = x.reshape(-1, x.shape[-1])

    def log_joint(block):
      return jax.nn.log_softmax(params.logits) + self.family.log_prob(params.components, *block)

    def of_all(x, observed=None):
      if len(x) <= self.block_size:
        return log_joint((x, observed))
      found = jax.lax.map(log_joint, jax.tree.map(self._blocks, (x, observed)))
      return found.reshape(-1, self.num_components)[: len(x)]

    with jax.default_matmul_precision('highest'):
      return missing.choose(rows, of_all, of_all).reshape(*x.shape[:-1], self.num_components)

  def log_prob(self, params: Parameters, x: Array, *, context: Array | None = None) -> Array:
    """Log p(x) of what is observed in ``x``, in nats, ``[..., D] -> [...]``."""
    refuse_context(context)
    return jax.nn.logsumexp(self.log_joint(params, x), axis=-1)

  def responsibilities(self, params: Parameters, x: Array, *, context: Array | None = None) -> Array:
    """p(k | x), ``[..., D] -> [..., K]``."""
    refuse_context(context)
    return jax.nn.softmax(self.log_joint(params, x), axis=-1)

  def conditional_log_prob(self, params: Parameters, x: Array, observed: Array) -> Array:
    """Log p(x_rest | x_observed) in nats for a mask ``observed`` that broadcasts to ``x`` ``[..., D]``."""
    given = jnp.where(observed, self.family.data(x), self.family.missing)
    return self.log_prob(params, x) - self.log_prob(params, given)

  def sample(self, params: Parameters, key: Key, num: int, *, context: Array | None = None) -> Array:
    """``num`` independent draws, ``[num, D]``."""
    refuse_context(context)
    which_key, key = jax.random.split(key)
    which = jax.random.categorical(which_key, params.logits, shape=(num,))
    return self.family.sample(params.components, key, which)

  def complete(self, params: Parameters, key: Key, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws the values of ``x`` ``[..., D]`` that are not ``observed`` (a mask) given those that are."""
    refuse_context(context)
    x = jnp.where(observed, self.family.data(x), self.family.missing)
    which_key, key = jax.random.split(key)
    which = jax.random.categorical(which_key, self.log_joint(params, x))
    rows = self.family.complete(params.components, key, x.reshape(-1, x.shape[-1]), which.reshape(-1))
    return rows.reshape(x.shape)

  def model(self) -> Model:
    """The mixture under the names of the contract; ``encode`` gives the responsibilities."""
    return Model(self.init, self.log_prob, sample=self.sample, encode=self.responsibilities, complete=self.complete)

  def e_step(self, params: Parameters, batch: Batch) -> tuple[Statistics, Array]:
    """Statistics under the responsibilities, and the mean of log p(x); ``batch.context`` weighs the examples."""
    x = self.family.data(batch.x)
    weights = jnp.ones(len(x)) if batch.context is None else batch.context

    def sums(x, observed, weights):
      log_joint = jax.nn.log_softmax(params.logits) + self.family.log_prob(params.components, x, observed)
      log_prob = jax.nn.logsumexp(log_joint, axis=-1)
      shares = weights[:, None] * jnp.exp(log_joint - log_prob[:, None])
      statistics = Statistics(shares.sum(0), self.family.statistics(params.components, x, observed, shares))
      return statistics, weights @ log_prob

    def of_all(x, observed=None):
      if len(x) <= self.block_size:
        return sums(x, observed, weights)
      blocks = jax.tree.map(self._blocks, (x, observed, weights))
      shapes = jax.eval_shape(sums, x, observed, weights)
      zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
      return jax.lax.scan(lambda total, block: (jax.tree.map(jnp.add, total, sums(*block)), None), zeros, blocks)[0]

    # Gaps are looked for once, outside the scan: inside it the branch would cost half as much as a block.
    with jax.default_matmul_precision('highest'):
      return jax.tree.map(lambda leaf: leaf / len(x), missing.choose(x, of_all, of_all))

  def m_step(self, params: Parameters, statistics: Statistics) -> Parameters:
    """Weights and components that maximise the expected complete likelihood and the priors."""
    mass = jnp.maximum(statistics.mass + self.prior, SMALLEST_MASS)
    with jax.default_matmul_precision('highest'):
      components = self.family.maximize(params.components, statistics.components, statistics.mass)
    return Parameters(jnp.log(mass / mass.sum()), components)

  def log_prior(self, params: Parameters) -> Array:
    """Log of all priors per example of the data, up to a constant: what EM adds to the mean of log p(x)."""
    return self.prior * jax.nn.log_softmax(params.logits).sum() + self.family.log_prior(params.components)

  def loss(self, params: Parameters, key: Key, batch: Batch, state: TrainState) -> tuple[Array, Extra]:
    """What EM minimises, as a loss for ``descent``: the weighted mean of -log p(x), less the log prior."""
    del key, state
    log_prob = self.log_prob(params, batch.x)
    weighted = log_prob if batch.context is None else batch.context * log_prob
    return -jnp.mean(weighted) - self.log_prior(params), Extra()

  def num_parameters(self, params: Parameters) -> int:
    """Free parameters, for ``bic`` and ``aic``."""
    return self.num_components - 1 + self.family.num_parameters(params.components)

  def _blocks(self, x: Array) -> Array:
    """``[N, ...] -> [blocks, block_size, ...]``, the end filled with zeros."""
    padded = jnp.pad(x, [(0, -len(x) % self.block_size)] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(-1, self.block_size, *x.shape[1:])


def bic(mean_log_prob: Array, num_parameters: int, num_examples: int) -> Array:
  """Bayesian information criterion, ``-2 log likelihood + num_parameters * log(num_examples)``; lower is better."""
  return -2 * num_examples * mean_log_prob + num_parameters * math.log(num_examples)


def aic(mean_log_prob: Array, num_parameters: int, num_examples: int) -> Array:
  """Akaike's information criterion, ``-2 log likelihood + 2 num_parameters``; lower is better."""
  return -2 * num_examples * mean_log_prob + 2 * num_parameters


def best_of(
  algorithm: Algorithm, key: Key, batch: Batch, *, num_restarts: int, num_steps: int
) -> tuple[TrainState, Metrics]:
  """Learns from ``num_restarts`` starts at once and keeps the one with the lowest loss.

  Args:
    algorithm: any rule bound to a model; one whose starts depend on the key.
    key: for the starts and the steps.
    batch: all the data, read at every step.
    num_restarts: starts, at least 1.
    num_steps: updates of each, at least 1.

  Returns:
    The state of the best, and the metrics of all, each ``[num_steps, num_restarts]``.

  Raises:
    ValueError: if either number is below 1.
  """
  if num_restarts < 1 or num_steps < 1:
    raise ValueError(f'num_restarts={num_restarts}, num_steps={num_steps}: give at least 1 of each')
  init_key, step_key = jax.random.split(key)
  states = jax.vmap(algorithm.init, (0, None))(jax.random.split(init_key, num_restarts), batch)

  def step(states, key):
    return jax.vmap(algorithm.step, (0, 0, None))(jax.random.split(key, num_restarts), states, batch)

  states, metrics = jax.lax.scan(step, states, jax.random.split(step_key, num_steps))
  last = metrics['loss'][-1]
  best = jnp.argmin(jnp.where(jnp.isfinite(last), last, jnp.inf))
  return jax.tree.map(lambda leaf: leaf[best], states), metrics
