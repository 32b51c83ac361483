"""The table of all models: for each a tiny case, and what is known about it. The laws run over its rows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.autoencoders import autoencoder, iwae, latents, vae
from gm_jax.base import Algorithm, Batch, Model, bind, pure
from gm_jax.boltzmann import contrastive, partition, rbm, tempering, visible
from gm_jax.density import factor_analysis, gaussian, histogram, kernel, mixture, mixture_discrete, mixture_gaussian
from gm_jax.training import rules


class Row(NamedTuple):
  """A model with one way of learning it."""

  name: str
  model: Model
  make: Callable[[str | None], Algorithm] | None  # (axis name of devices) -> algorithm; None if fitted in closed form
  batch: Batch  # of an even number of examples
  states: np.ndarray | None = None  # all values of x, where they can be counted
  grid: tuple[np.ndarray, float] | None = None  # points and the volume of a cell, where x is real
  deterministic: bool = False  # whether a step draws no random numbers
  fixed: tuple[str, ...] = ()  # parameters that are chosen at the start and stay
  num_steps: int = 60
  exact: Callable | None = None  # log_prob by enumeration or quadrature, for a model that has a bound only
  conditionals: Callable | None = None  # (params, x [D], context=) -> [D, ...]: what p(x_d | earlier) is made of
  ordering: tuple[int, ...] | None = None  # of the dimensions of an autoregressive model; 0, 1, ... if not given
  bijector: Callable | None = None  # (params, context=) -> a distrax bijector from noise to x

  @property
  def log_prob(self) -> Callable | None:
    """The exact log-likelihood, by the model or for it; None if it cannot be had."""
    return self.exact or self.model.log_prob


def bits(num: int) -> np.ndarray:
  """All states of ``num`` binary units."""
  return ((np.arange(2**num)[:, None] >> np.arange(num)) & 1).astype(np.float32)


def square(low: float, high: float, num: int) -> tuple[np.ndarray, float]:
  """A grid over a square, and the area of a cell."""
  side = np.linspace(low, high, num, dtype=np.float32)
  points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
  return points, float((side[1] - side[0]) ** 2)


PATTERNS = Batch(np.tile(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.float32), (8, 1)))
CATEGORIES = Batch(np.tile(np.array([[0, 2, 1], [1, 1, 1], [2, 0, 0]], np.float32), (8, 1)))
INTEGERS = Batch(CATEGORIES.x.astype(np.int32))
CLUSTERS = Batch(
  np.asarray(
    jax.random.normal(jax.random.key(0), (24, 2)) * 0.3 + jnp.tile(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), (12, 1))
  )
)


def cells(x: np.ndarray, num: int) -> tuple[np.ndarray, float]:
  """The middles of ``num`` cells a side over the range of the data, and the area of a cell."""
  low, high = x.min(0), x.max(0)
  sides = [a + (b - a) * (np.arange(num, dtype=np.float32) + 0.5) / num for a, b in zip(low, high, strict=True)]
  return np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2), float(np.prod((high - low) / num))


def learn(machine, negative, batch, learning_rate=0.1, **kwargs):
  """Descent for a Boltzmann machine."""

  def make(axis_name):
    return rules.descent(
      *contrastive.objective(machine, negative, data=batch.x, **kwargs), optax.sgd(learning_rate), axis_name=axis_name
    )

  return make


def fast(machine, batch):
  """Persistent chains with fast weights."""

  def make(axis_name):
    objective = contrastive.objective(machine, contrastive.persistent(num_chains=8), data=batch.x)
    return rules.descent(*objective, contrastive.fast_weights(optax.sgd(0.1), 0.05), axis_name=axis_name)

  return make


def em(model):
  """Expectation-maximisation for a model that has the two steps."""

  def make(axis_name):
    return rules.expectation_maximization(model.init, model.e_step, model.m_step, axis_name=axis_name)

  return make


def rows() -> list[Row]:
  """All rows."""
  binary = rbm.RBM(num_visible=4, num_hidden=3, kernel_scale=0.3)
  real = visible.GaussianRBM(num_visible=2, num_hidden=2, kernel_scale=0.3)
  category = visible.CategoricalRBM(num_visible=3, num_hidden=2, num_states=3, kernel_scale=0.3)
  triples = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing='ij'), -1).reshape(-1, 3).astype(np.float32)
  base = partition.base_natural(binary, binary.init(jax.random.key(0), PATTERNS.x)['params'], PATTERNS.x)
  tempered = contrastive.tempered(8, tempering.ladder(3), base)
  machine = rbm.as_model(binary)
  return [
    Row('rbm, exact', machine, learn(binary, contrastive.exact(), PATTERNS), PATTERNS, bits(4), deterministic=True),
    Row('rbm, CD', machine, learn(binary, contrastive.divergence(2), PATTERNS, centered=False), PATTERNS, bits(4)),
    Row('rbm, PCD', machine, learn(binary, contrastive.persistent(8), PATTERNS), PATTERNS, bits(4)),
    Row('rbm, fast PCD', machine, fast(binary, PATTERNS), PATTERNS, bits(4)),
    Row('rbm, tempered', machine, learn(binary, tempered, PATTERNS), PATTERNS, bits(4)),
    Row(
      'gaussian rbm', rbm.as_model(real), learn(real, contrastive.divergence(1), CLUSTERS, 0.02), CLUSTERS,
      grid=square(-8, 8, 161),
    ),
    Row(
      'categorical rbm', rbm.as_model(category), learn(category, contrastive.persistent(8), CATEGORIES), CATEGORIES,
      triples,
    ),
    *density_rows(triples),
    *autoencoder_rows(),
  ]  # fmt: skip


def density_rows(triples: np.ndarray) -> list[Row]:
  """Mixtures, factor analysis, and what is fitted in closed form."""
  plane = square(-8, 8, 321)
  triples, prior = triples.astype(np.int32), 0.02
  families = {
    'full': mixture_gaussian.Full(prior=prior),
    'tied': mixture_gaussian.Tied(prior=prior),
    'diagonal': mixture_gaussian.Diagonal(prior=prior),
    'spherical': mixture_gaussian.Spherical(prior=prior),
  }
  gaussians = {name: mixture.Mixture(family, 2, start='random') for name, family in families.items()}
  bernoulli = mixture.Mixture(mixture_discrete.Bernoulli(prior=prior), 2, start='random')
  categorical = mixture.Mixture(mixture_discrete.Categorical(3, prior=prior), 2, start='random')
  factors = factor_analysis.FactorAnalysis(1)
  return [
    *(
      Row(
        f'mixture of gaussians, {name}',
        one.model(),
        em(one),
        CLUSTERS,
        grid=plane,
        deterministic=True,
        fixed=('origin',),
      )
      for name, one in gaussians.items()
    ),
    Row('mixture of bernoullis', bernoulli.model(), em(bernoulli), PATTERNS, bits(4), deterministic=True),
    Row('mixture of categoricals', categorical.model(), em(categorical), INTEGERS, triples, deterministic=True),
    Row(
      'factor analysis',
      factors.model(),
      em(factors),
      CLUSTERS,
      grid=plane,
      deterministic=True,
      fixed=('origin', 'offset'),
    ),
    Row('gaussian', gaussian.gaussian(2), None, CLUSTERS, grid=plane),
    Row('bernoulli', gaussian.bernoulli(4), None, PATTERNS, bits(4)),
    Row('categorical', gaussian.categorical(3, 3), None, INTEGERS, triples),
    Row('kernel density', kernel.model(), None, CLUSTERS, grid=plane),
    Row('histogram', histogram.model(4), None, CLUSTERS, grid=cells(CLUSTERS.x, 40)),
  ]


def quadrature(module) -> Callable:
  """Log p(x) of a model with one latent dimension, or one in each of two layers: a sum over a grid of them."""
  log_joint = bind(module, 'log_joint')
  two = isinstance(module, iwae.TwoLayerVAE)
  side = np.linspace(-8, 8, 161 if two else 801, dtype=np.float32)
  grid = np.stack(np.meshgrid(*[side] * (2 if two else 1)), -1).reshape(-1, 2 if two else 1)
  log_cell = grid.shape[1] * np.log(side[1] - side[0])

  def log_prob(params, x, *, context=None):
    parts = [grid[:, [i]].reshape(-1, *(1,) * (x.ndim - 1), 1) for i in range(grid.shape[1])]
    return jax.nn.logsumexp(log_joint(params, x, tuple(parts) if two else parts[0], context=context), 0) + log_cell

  return log_prob


def autoencoder_rows() -> list[Row]:
  """Autoencoders whose latent variables can be summed over."""

  def gradient(objective):
    return lambda axis_name: rules.descent(*objective, optax.adam(0.02), axis_name=axis_name)

  labels = Batch(PATTERNS.x, np.tile(np.arange(3), 8))
  plain = vae.mlp(4, 1, (8,))
  conditional = vae.mlp(
    4, 1, (8,), posterior=latents.FullCovariance(), prior=latents.MixturePrior(1, 2), context_size=3, gibbs_steps=3
  )
  two = iwae.two_layer_mlp(4, (1, 1), (6, 6))
  squeeze = autoencoder.mlp(4, 2, (6,))
  return [
    Row('vae', pure(plain), gradient(vae.objective(plain)), PATTERNS, bits(4), exact=quadrature(plain)),
    Row(
      'vae, conditional', pure(conditional), gradient(vae.objective(conditional, estimator='stl')), labels, bits(4),
      exact=quadrature(conditional),
    ),
    Row(
      'iwae, two layers', iwae.as_model(two, 5), gradient(iwae.objective(two, 5, gradient='dreg')), PATTERNS, bits(4),
      exact=quadrature(two),
    ),
    Row('autoencoder', pure(squeeze), gradient(autoencoder.objective(squeeze)), PATTERNS, deterministic=True),
  ]  # fmt: skip
