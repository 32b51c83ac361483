"""Densities against their peers: seconds and ratios, each case in a process of its own.

  python -m benchmarks.density                    all groups, as a table
  python -m benchmarks.density mixture pca        some of them
  python -m benchmarks.density --plot=cost.png    beside it, cost against N, D and K

The cases of a group run in turn, ``ROUNDS`` times over, and the least time of each counts: on a shared machine all of
them meet the same neighbours. A case is a function that prepares, and returns the function to be timed.
"""

import argparse
import json
import math
import subprocess
import sys
import time

import numpy as np

ROUNDS = 2
REPEATS = 3  # timed calls of a case in one round, after one that is not; fewer if they take longer than
PATIENCE = 10.0  # seconds


def gaussian_data(num=50_000, dim=16, clusters=10):
  """Draws from a mixture of full Gaussians."""
  rng = np.random.default_rng(3)
  means = 2 * rng.standard_normal((clusters, dim))
  factors = rng.standard_normal((clusters, dim, dim)) / math.sqrt(dim)
  which = rng.integers(clusters, size=num)
  return (means[which] + np.einsum('nij,nj->ni', factors[which], rng.standard_normal((num, dim)))).astype(np.float32)


def factor_data(num=20_000, dim=784, rank=50):
  """A low-rank signal in noise."""
  rng = np.random.default_rng(4)
  signal = rng.standard_normal((num, rank)) @ rng.standard_normal((rank, dim))
  return (signal + 0.5 * rng.standard_normal((num, dim))).astype(np.float32)


def mixture_ours(num=50_000, dim=16, components=10):
  import jax
  import jax.numpy as jnp

  from gm_jax.base import Batch
  from gm_jax.density.mixture import Mixture
  from gm_jax.density.mixture_gaussian import Full
  from gm_jax.training.rules import expectation_maximization

  x = jnp.asarray(gaussian_data(num, dim))
  mixture = Mixture(Full(), components, start='random')
  em = expectation_maximization(mixture.init, mixture.e_step, mixture.m_step)

  @jax.jit
  def fit(key, x):
    return jax.lax.scan(lambda s, _: em.step(None, s, Batch(x)), em.init(key, Batch(x)), length=50)

  return lambda: jax.block_until_ready(fit(jax.random.key(0), x))


def mixture_sklearn(dtype):
  import warnings

  from sklearn.mixture import GaussianMixture

  warnings.simplefilter('ignore')  # 50 iterations are not convergence
  x = gaussian_data().astype(dtype)
  model = GaussianMixture(10, max_iter=50, tol=0, init_params='random_from_data', random_state=0)
  return lambda: model.fit(x)


def pca_ours(method):
  import jax
  import jax.numpy as jnp

  from gm_jax.density import pca

  x = jnp.asarray(factor_data())
  key = jax.random.key(0) if method == 'randomized' else None
  fit = jax.jit(lambda x: pca.principal_components(x, 50, method=method, key=key))
  return lambda: jax.block_until_ready(fit(x))


def pca_sklearn(solver):
  from sklearn.decomposition import PCA

  x = factor_data()
  return lambda: PCA(50, svd_solver=solver, random_state=0).fit(x)


def kernel_data(dim, num=10_000, queries=2_000):
  """Points and queries from eight round clusters."""
  rng = np.random.default_rng(dim)
  means = 3 * rng.standard_normal((8, dim))
  return tuple(means[rng.integers(8, size=n)] + rng.standard_normal((n, dim)) for n in (num, queries))


def kernel_ours(dim=2, num=10_000, queries=2_000):
  import jax
  import jax.numpy as jnp

  from gm_jax.density import kernel

  points, x = (jnp.asarray(rows, jnp.float32) for rows in kernel_data(dim, num, queries))
  estimator, log_prob = kernel.fit(points), jax.jit(kernel.log_prob)
  return lambda: log_prob(estimator, x).block_until_ready()


def kernel_sklearn(dim, **tolerance):
  from sklearn.neighbors import KernelDensity

  points, x = kernel_data(dim)
  estimator = KernelDensity(bandwidth=0.3 if dim == 2 else 1.0, **tolerance).fit(points)
  return lambda: estimator.score_samples(x)


def kernel_scipy(dim, method):
  from scipy.stats import gaussian_kde

  points, x = kernel_data(dim)
  evaluate = getattr(gaussian_kde(points.T), method)
  return lambda: evaluate(x.T)


def kernel_statsmodels(dim):
  from statsmodels.nonparametric.kernel_density import KDEMultivariate

  points, x = kernel_data(dim)
  estimator = KDEMultivariate(points, 'c' * dim, bw='normal_reference')
  return lambda: estimator.pdf(x)


# Group: what is timed, our case, and those of the peers.
GROUPS = {
  'mixture': (
    '50 steps of EM, 10 full Gaussians, 50,000 x 16',
    {
      'gm_jax float32': mixture_ours,
      'scikit-learn float64': lambda: mixture_sklearn('float64'),
      'scikit-learn float32': lambda: mixture_sklearn('float32'),
    },
  ),
  'pca': (
    '50 principal components of 20,000 x 784, float32',
    {
      'gm_jax covariance': lambda: pca_ours('covariance'),
      'scikit-learn covariance_eigh': lambda: pca_sklearn('covariance_eigh'),
    },
  ),
  'randomized_pca': (
    'the same by randomised subspaces',
    {
      'gm_jax randomized': lambda: pca_ours('randomized'),
      'scikit-learn randomized': lambda: pca_sklearn('randomized'),
    },
  ),
  'kernel_2': (
    'log-density of a Gaussian kernel estimate, 2,000 queries, 10,000 x 2',
    {
      'gm_jax float32': lambda: kernel_ours(2),
      'scikit-learn': lambda: kernel_sklearn(2),
      'scikit-learn rtol=1e-4': lambda: kernel_sklearn(2, rtol=1e-4),
      'scipy logpdf': lambda: kernel_scipy(2, 'logpdf'),
      'scipy pdf (underflows)': lambda: kernel_scipy(2, 'pdf'),
      'statsmodels pdf': lambda: kernel_statsmodels(2),
    },
  ),
  'kernel_64': (
    'the same in 64 dimensions',
    {
      'gm_jax float32': lambda: kernel_ours(64),
      'scikit-learn (wrong by 4.7 nats)': lambda: kernel_sklearn(64),
      'scipy logpdf': lambda: kernel_scipy(64, 'logpdf'),
      'scipy pdf (underflows)': lambda: kernel_scipy(64, 'pdf'),
    },
  ),
}

# Cost of one function against each of its sizes, the others as they are.
SWEEPS = {
  'mixture': (
    mixture_ours,
    {'num': (6_250, 12_500, 25_000, 50_000), 'dim': (4, 8, 16, 32), 'components': (5, 10, 20, 40)},
  ),
  'kernel': (
    kernel_ours,
    {'num': (5_000, 10_000, 20_000, 40_000), 'dim': (2, 8, 32, 128), 'queries': (1_000, 2_000, 4_000, 8_000)},
  ),
}


def measure(prepare):
  """The least seconds of a few calls."""
  function = prepare()
  function()
  times = []
  while len(times) < REPEATS and sum(times) < PATIENCE:
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return min(times)


def in_own_process(*name):
  """Seconds of a case, measured by a fresh interpreter; NaN if the peer is not installed."""
  command = [sys.executable, '-m', 'benchmarks.density', '--case', json.dumps(name)]
  return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def run_case(name):
  """The measurement of one process: ``[group, case]`` or ``[sweep, argument, value]``."""
  if len(name) == 2:
    try:
      return measure(GROUPS[name[0]][1][name[1]])
    except ModuleNotFoundError:
      return math.nan
  sweep, argument, value = name
  return measure(lambda: SWEEPS[sweep][0](**{argument: value}))


def compare(groups):
  """Prints a table for each group; ratios are to the first case, which is ours."""
  for group in groups:
    title, cases = GROUPS[group]
    times = {case: math.inf for case in cases}
    for _ in range(ROUNDS):
      for case in cases:
        times[case] = min(times[case], in_own_process(group, case))
    ours = next(iter(times.values()))
    print(f'{title}')
    for case, seconds in times.items():
      found = f'{seconds:9.4f} s  x {seconds / ours:6.2f}' if math.isfinite(seconds) else 'no time: failed or absent'
      print(f'  {case:32} {found}', flush=True)


def plot(path):
  """Draws the cost of each sweep, one panel for each size."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  panels = [(sweep, argument, values) for sweep, (_, sizes) in SWEEPS.items() for argument, values in sizes.items()]
  figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False, layout='constrained')
  for axis, (sweep, argument, values) in zip(axes[0], panels, strict=True):
    axis.loglog(values, [in_own_process(sweep, argument, value) for value in values], 'o-')
    axis.set(xlabel=argument, ylabel='seconds', title=sweep)
    axis.set_xticks(values, [f'{value:,}' for value in values])
    axis.minorticks_off()
  figure.savefig(path, dpi=120)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('groups', nargs='*', choices=[[], *GROUPS], help='what to compare; all if not given')
  parser.add_argument('--plot', help='PNG file for the cost against N, D and K')
  parser.add_argument('--case', type=json.loads, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    print(run_case(args.case))
  else:
    compare(args.groups or GROUPS)
    if args.plot:
      plot(args.plot)
