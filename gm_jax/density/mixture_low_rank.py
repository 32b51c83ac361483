"""Low-rank Gaussian components of a mixture: mixtures of probabilistic PCA and of factor analysers.

    p_k(x) = N(x; mu_k, W_k W_k^T + Psi_k),    W_k of shape [D, Q],

between a diagonal and a full covariance in the number of parameters, and without a matrix ``[D, D]`` anywhere. Each
component is the model of ``factor_analysis``, mapped over components.

References:
  Tipping & Bishop (1999), Mixtures of probabilistic principal component analysers; Ghahramani & Hinton (1997), The EM
  algorithm for mixtures of factor analyzers.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.density import factor_analysis, missing
from gm_jax.density.factor_analysis import Factors

COMPONENTS = Factors(None, 0, 0, 0)  # all share the origin


@dataclasses.dataclass(frozen=True)
class LowRank:
  """Factor analysers, or with ``isotropic`` probabilistic PCAs, as components.

  Attributes:
    num_factors: Q, from 1 to D - 1.
    isotropic: one noise variance for all dimensions of a component.
    floor: least noise variance, in squared units of the data.
    prior: weight of the prior on each noise variance (inverse gamma), in pseudo-examples per component and per example
      of the data.
    prior_variance: noise variance of those pseudo-examples, in squared units of the data.
  """

  num_factors: int
  isotropic: bool = False
  floor: float = 1e-6
  prior: float = 0.0
  prior_variance: float = 1.0
  missing = math.nan

  def __post_init__(self):
    factor_analysis.FactorAnalysis(self.num_factors, self.isotropic, self.floor)
    if self.prior < 0:
      raise ValueError(f'prior={self.prior}: pseudo-examples cannot be negative')
    if self.prior_variance <= 0:
      raise ValueError(f'prior_variance={self.prior_variance}: a variance must be positive')

  def data(self, x: Array) -> Array:
    """Examples as floats."""
    return missing.as_floats(x)

  def features(self, x: Array) -> Array:
    """Columns in units of their deviations, gaps filled with the mean."""
    return missing.standardised_columns(x, self.floor)

  def start(self, key: Key, x: Array, rows: Array) -> Factors:
    """Means at the given rows, with loadings and noise of all the data."""
    if self.num_factors >= x.shape[-1]:
      raise ValueError(f'num_factors={self.num_factors} of data in {x.shape[-1]} dimensions: give fewer')
    origin, loadings, noise_scale = factor_analysis.start(
      key, x, self.num_factors, isotropic=self.isotropic, floor=self.floor
    )
    filled, observed = missing.split(x)
    offsets = (observed * (filled - origin))[rows]
    loadings = jnp.broadcast_to(loadings, (len(rows), *loadings.shape))
    return Factors(origin, offsets, loadings, jnp.broadcast_to(noise_scale, (len(rows), *noise_scale.shape)))

  def log_prob(self, components: Factors, x: Array, observed: Array | None) -> Array:
    """``[N, K]``."""
    return jax.vmap(factor_analysis.log_prob_of, (COMPONENTS, None, None), out_axes=1)(components, x, observed)

  def statistics(self, components: Factors, x: Array, observed: Array | None, responsibilities: Array):
    """Those of ``factor_analysis.statistics_of``, with a leading axis of components."""
    return jax.vmap(factor_analysis.statistics_of, (COMPONENTS, None, None, 1))(
      components, x, observed, responsibilities
    )

  def maximize(self, components: Factors, statistics, mass: Array) -> Factors:
    """Regressions of the dimensions on the factors, component by component."""
    del mass

    def maximize(params, statistics):
      return factor_analysis.maximize(
        params, statistics, floor=self.floor, prior=self.prior, prior_variance=self.prior_variance
      )

    return jax.vmap(maximize, (COMPONENTS, 0), out_axes=COMPONENTS)(components, statistics)

  def log_prior(self, components: Factors) -> Array:
    """Of all noise variances."""
    scale = components.noise_scale
    repeats = components.offset.shape[-1] if self.isotropic else 1
    return -self.prior * repeats * (0.5 * self.prior_variance / scale**2 + jnp.log(jnp.abs(scale))).sum()

  def sample(self, components: Factors, key: Key, which: Array) -> Array:
    """Factors, then noise."""

    def draw(params, key):
      return factor_analysis.sample(params, key, 1)[0]

    keys = jax.random.split(key, len(which))
    return jax.vmap(draw, (COMPONENTS, 0))(self._select(components, which), keys)

  def complete(self, components: Factors, key: Key, x: Array, which: Array) -> Array:
    """Factors from their posterior, then noise."""

    def draw(params, key, x):
      return factor_analysis.complete(params, key, x[None])[0]

    keys = jax.random.split(key, len(which))
    return jax.vmap(draw, (COMPONENTS, 0, 0))(self._select(components, which), keys, x)

  def _select(self, components, which):
    return components._replace(
      offset=components.offset[which],
      loadings=components.loadings[which],
      noise_scale=components.noise_scale[which],
    )

  def mean(self, components: Factors) -> Array:
    """``[K, D]``."""
    return components.origin + components.offset

  def num_parameters(self, components: Factors) -> int:
    """Loadings count up to rotation."""
    num, dim, rank = components.loadings.shape
    return num * (dim + dim * rank - rank * (rank - 1) // 2) + components.noise_scale.size
