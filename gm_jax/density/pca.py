"""Principal components, and their probabilistic reading in closed form.

The rows u_1 .. u_Q of ``components`` are the eigenvectors of the covariance S with the largest eigenvalues; of all
linear codes of length Q, ``z = U (x - mean)`` is the one whose reconstruction ``mean + U^T z`` has the least square
error, the sum of the discarded eigenvalues. As a density (probabilistic PCA) the maximum of likelihood is

    p(x) = N(x; mean, W W^T + sigma^2 I),    sigma^2 = mean of the discarded eigenvalues,
    W = U^T (Lambda - sigma^2 I)^(1/2).

Covariances are divided by N, as maximum likelihood has it (scikit-learn divides by N - 1). With missing values use
``factor_analysis.FactorAnalysis(isotropic=True)``, which reaches the same maximum by EM.

References:
  Tipping & Bishop (1999), Probabilistic principal component analysis; Halko, Martinsson & Tropp (2011), Finding
  structure with randomness: probabilistic algorithms for constructing approximate matrix decompositions.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.density import factor_analysis, pca
  >>> x = jax.random.normal(jax.random.key(0), (1000, 3)) * jnp.array([3.0, 1.0, 1.0])
  >>> found = pca.principal_components(x, 1)
  >>> pca.project(found, x).shape
  (1000, 1)
  >>> f'{pca.explained_variance_ratio(found)[0]:.1f}'
  '0.8'
  >>> params = pca.probabilistic(found)
  >>> factor_analysis.log_prob(params, x).shape
  (1000,)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.base import Array, Batch, Key, Model
from gm_jax.density.factor_analysis import FactorAnalysis, Factors

BLOCK_ROWS, BLOCK_COLUMNS = 512, 112  # of the covariance: a block of rows stays in cache
OVERSAMPLING = 10  # further directions that a randomised search carries along
POWER_ITERATIONS = 4


class Principal(NamedTuple):
  """Principal components of data in D dimensions, variances in squared units of the data."""

  mean: Array  # [D]
  components: Array  # [Q, D], orthonormal rows by falling variance
  variance: Array  # [Q], eigenvalues of the covariance
  discarded: Array  # [], mean of the other D - Q eigenvalues; 0 if there are none
  total: Array  # [], sum of all eigenvalues


def principal_components(
  x: Array, num_components: int, *, method: str = 'covariance', key: Key | None = None
) -> Principal:
  """The first principal components of ``x`` ``[N, D]``.

  Args:
    x: data without gaps.
    num_components: Q, from 1 to min(N, D).
    method: 'covariance' (eigenvectors of ``[D, D]``: fastest where D is below a few thousand), 'svd' (of the centred
      data: exact also for variances far below the largest, and for D above N) or 'randomized' (a subspace iteration
      for few components of many dimensions).
    key: for the randomised method.

  Returns:
    ``Principal``; the sign of each component is such that its largest entry is positive.

  Raises:
    ValueError: for a number of components out of range, an unknown method, or a randomised one without a key.
  """
  if x.ndim != 2 or not 1 <= num_components <= min(x.shape):
    raise ValueError(f'num_components={num_components} for data of shape {x.shape}: give [N, D] and 1 to min(N, D)')
  if method not in METHODS:
    raise ValueError(f'method={method!r} is none of {sorted(METHODS)}')
  if (method == 'randomized') != (key is not None):
    raise ValueError(f'method={method!r} with key={key}: a key belongs to the randomised method, and to that alone')
  mean = x.mean(0)
  with jax.default_matmul_precision('highest'):
    components, variance, rest = METHODS[method](x, mean, num_components, key)
  largest = jnp.take_along_axis(components, jnp.abs(components).argmax(1)[:, None], 1)
  components = components * jnp.where(largest < 0, -1, 1)
  discarded = rest / max(x.shape[1] - num_components, 1)
  return Principal(mean, components, variance, discarded, variance.sum() + rest)


def project(params: Principal, x: Array) -> Array:
  """Codes ``[..., Q]`` of data ``[..., D]``; with Q = 2, the plane that shows most of the variance."""
  return (x - params.mean) @ params.components.T


def reconstruct(params: Principal, z: Array) -> Array:
  """Data ``[..., D]`` from codes ``[..., Q]``."""
  return params.mean + z @ params.components


def explained_variance_ratio(params: Principal) -> Array:
  """Share of the total variance along each component, ``[Q]``."""
  return params.variance / params.total


def probabilistic(params: Principal, *, floor: float = 1e-6) -> Factors:
  """Probabilistic PCA at its maximum of likelihood, as parameters for the functions of ``factor_analysis``.

  Args:
    params: fewer components than dimensions.
    floor: least noise variance, in squared units of the data.

  Raises:
    ValueError: if no dimension is left for the noise.
  """
  num_components, dim = params.components.shape
  if num_components >= dim:
    raise ValueError(f'{num_components} components of {dim} dimensions leave none to learn the noise from')
  noise = jnp.maximum(params.discarded, floor)
  loadings = params.components.T * jnp.sqrt(jnp.maximum(params.variance - noise, 0))
  return Factors(params.mean, jnp.zeros_like(params.mean), loadings, jnp.sqrt(noise))


def model(num_components: int, *, floor: float = 1e-6) -> Model:
  """Probabilistic PCA under the names of the contract; ``init`` fits it to its batch in closed form."""

  def init(key: Key, batch: Batch) -> Factors:
    del key
    return probabilistic(principal_components(batch.x, num_components), floor=floor)

  return FactorAnalysis(num_components, isotropic=True, floor=floor).model()._replace(init=init)


def _upper_covariance(x, mean):
  """The upper triangle of the covariance ``[D, D]``, zeros somewhere below.

  XLA has no symmetric product; blocks of columns leave most of the lower half undone, and blocks of rows are centred
  where they are read. Together that takes two thirds of the time of ``(x - mean).T @ (x - mean)``.
  """
  starts = range(0, x.shape[1], BLOCK_COLUMNS)
  num_rows = min(BLOCK_ROWS, len(x))

  def products(rows):
    centred = rows - mean
    return [centred[:, start : start + BLOCK_COLUMNS].T @ centred[:, start:] for start in starts]

  def add(i, sums):
    rows = jax.lax.dynamic_slice_in_dim(x, i * num_rows, num_rows)
    return jax.tree.map(jnp.add, sums, products(rows))

  num_blocks = len(x) // num_rows
  sums = jax.lax.fori_loop(0, num_blocks, add, products(x[num_blocks * num_rows :]))
  return jnp.concatenate([jnp.pad(rows, [(0, 0), (start, 0)]) for rows, start in zip(sums, starts, strict=True)]) / len(
    x
  )


def _by_covariance(x, mean, num_components, key):
  """Components, their variances, and the sum of the others."""
  del key
  values, vectors = jnp.linalg.eigh(_upper_covariance(x, mean), UPLO='U', symmetrize_input=False)
  values = jnp.maximum(values[::-1], 0)
  return vectors[:, ::-1][:, :num_components].T, values[:num_components], values[num_components:].sum()


def _by_svd(x, mean, num_components, key):
  del key
  centred = x - mean
  _, singular, vectors = jnp.linalg.svd(centred, full_matrices=False)
  values = singular**2 / len(centred)
  return vectors[:num_components], values[:num_components], values[num_components:].sum()


def _by_random_subspace(x, mean, num_components, key):
  """Power iteration of a random subspace, and the exact components within it."""
  centred, (num, dim) = x - mean, x.shape
  width = min(num_components + OVERSAMPLING, num, dim)
  start = jax.random.normal(key, (dim, width), centred.dtype)

  def power(_, basis):
    basis, _ = jnp.linalg.qr(centred @ basis)
    basis, _ = jnp.linalg.qr(centred.T @ basis)
    return basis

  basis = jax.lax.fori_loop(0, POWER_ITERATIONS, power, start)
  _, singular, vectors = jnp.linalg.svd(centred @ basis, full_matrices=False)
  values = singular[:num_components] ** 2 / num
  total = (centred**2).sum() / num
  return (vectors @ basis.T)[:num_components], values, jnp.maximum(total - values.sum(), 0)


METHODS = {'covariance': _by_covariance, 'svd': _by_svd, 'randomized': _by_random_subspace}
