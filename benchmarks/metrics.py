"""Scores of samples against their peers: seconds of processor and clock, memory, and values, each case in its process.

  OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.metrics               all groups
  OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.metrics frechet kid   some of them

The peers are what the common packages do, on arrays: the root of a product of covariances by scipy (pytorch-fid,
clean-fid), neighbourhoods by whole matrices of distances and a partition (prdc), and the mean of MMD over a hundred
random blocks of a thousand (torch-fidelity); prdc itself where it is installed. The cases of a group run in turn,
``--rounds`` times over, and the least time of each counts.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np


def features(n, d, *, seed, shift=0.0, power=1.0):
  """Features with a spectrum that falls like 1 / i, in mixed coordinates, as those of a network do."""
  rng = np.random.default_rng(seed)
  spectrum = np.arange(1, d + 1) ** (-power / 2)
  mixing = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
  return (((rng.standard_normal((n, d)) * spectrum + shift * spectrum) @ mixing) + 0.5).astype(np.float32)


def frechet_data():
  return features(10_000, 2048, seed=1), features(10_000, 2048, seed=2, shift=0.3, power=1.1)


def small_data():
  rng = np.random.default_rng(3)
  return tuple(rng.standard_normal((10_000, 64)).astype(np.float32) for _ in range(2))


def frechet_ours():
  import jax

  from gm_jax.evaluation import frechet

  x, y = (jax.numpy.asarray(z) for z in frechet_data())
  distance = jax.jit(lambda x, y: frechet.distance(frechet.moments(x), frechet.moments(y)))
  return lambda: float(distance(x, y))


def frechet_scipy():
  from scipy import linalg

  x, y = (z.astype(np.float64) for z in frechet_data())

  def distance():
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.trace(linalg.sqrtm(a @ b)).real)

  return distance


def neighbours_ours():
  import jax

  from gm_jax.evaluation import precision_recall

  x, y = (jax.numpy.asarray(z) for z in small_data())
  score = jax.jit(precision_recall.neighbourhoods)
  names = 'precision', 'recall', 'density', 'coverage'

  def run():
    found = jax.block_until_ready(score(x, y))
    return [float(getattr(found, name).value[0]) for name in names]

  return run


def neighbours_matrices(k=5):
  from sklearn.metrics import pairwise_distances

  x, y = small_data()

  def radii(z):
    distances = pairwise_distances(z, z, metric='euclidean')
    return np.take_along_axis(distances, np.argpartition(distances, k + 1, axis=-1)[..., : k + 1], -1).max(-1)

  def run():
    real, fake, across = radii(x), radii(y), pairwise_distances(x, y, metric='euclidean')
    inside = across < real[:, None]
    recalled = (across < fake).any(1)
    found = inside.any(0), recalled, inside.sum(0) / k, across.min(1) < real
    return [float(one.mean()) for one in found]

  return run


def neighbours_prdc():
  from prdc import compute_prdc

  x, y = small_data()
  names = 'precision', 'recall', 'density', 'coverage'

  def run():
    found = compute_prdc(x, y, nearest_k=5)
    return [float(found[name]) for name in names]

  return run


def kid_ours():
  import jax

  from gm_jax.evaluation import two_sample

  x, y = (jax.numpy.asarray(z) for z in small_data())
  score = jax.jit(two_sample.mmd)

  def run():
    found = jax.block_until_ready(score(x, y))
    return [float(found.value), float(found.stderr)]

  return run


def kid_blocks(num=100, size=1000):
  x, y = (z.astype(np.float64) for z in small_data())

  def mmd(x, y):
    n, kernel = len(x), lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    return (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1)) - 2 * xy.mean()

  def run():
    rng = np.random.RandomState(2020)
    pick = lambda z: z[rng.choice(len(z), size, replace=False)]
    values = [mmd(pick(x), pick(y)) for _ in range(num)]
    return [float(np.mean(values)), float(np.std(values))]

  return run


# Group: what is timed, our case, and those of the peers; each gives a number or several to be compared.
GROUPS = {
  'frechet': (
    'Fréchet distance of 10,000 x 2048',
    {'gm_jax float32': frechet_ours, 'scipy root, float64': frechet_scipy},
  ),
  'neighbours': (
    'precision, recall, density, coverage of 10,000 and 10,000 x 64, k = 5 (ours: realism and three more beside them)',
    {'gm_jax float32': neighbours_ours, 'whole matrices, numpy': neighbours_matrices, 'prdc': neighbours_prdc},
  ),
  'kid': (
    'kernel distance of 10,000 and 10,000 x 64: value, and its error (of the blocks: their spread)',
    {'gm_jax float32, all pairs': kid_ours, '100 blocks of 1000, numpy': kid_blocks},
  ),
}


class Memory(threading.Thread):
  """Watches the memory that is resident while it runs; ``peak`` is in MiB beyond what was there before."""

  def __init__(self):
    super().__init__(daemon=True)
    self.before, self.peak, self.running = self.resident(), 0.0, True

  def resident(self):
    """MiB of this process."""
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

  def run(self):
    """Looks every five milliseconds."""
    while self.running:
      self.peak = max(self.peak, self.resident() - self.before)
      time.sleep(0.005)


def run_case(group, case):
  """Seconds of processor and of clock, memory beyond that of the data, and the value of one case."""
  try:
    function = GROUPS[group][1][case]()
  except ModuleNotFoundError:
    return None
  function()
  times, memory = [], Memory()
  memory.start()
  while len(times) < 2 and sum(wall for _, wall in times) < 10:
    start, processor = time.perf_counter(), time.process_time()
    value = function()
    times.append((time.process_time() - processor, time.perf_counter() - start))
  memory.running = False
  return [*min(times), memory.peak, value]


def in_own_process(*name):
  command = [sys.executable, '-m', 'benchmarks.metrics', '--case', json.dumps(name)]
  return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('groups', nargs='*', choices=[[], *GROUPS], help='what to compare; all if not given')
  parser.add_argument('--rounds', type=int, default=2, help='turns of each case (default %(default)s)')
  parser.add_argument('--case', type=json.loads, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    print(json.dumps(run_case(*args.case)))
    return
  for group in args.groups or GROUPS:
    title, cases = GROUPS[group]
    best = {}
    for _ in range(args.rounds):
      for case in cases:
        found = in_own_process(group, case)
        best[case] = min(best.get(case) or found, found) if found else None
    ours = next(iter(best.values()))
    print(title)
    for case, found in best.items():
      if found is None:
        print(f'  {case:28} not installed')
        continue
      processor, wall, memory, value = found
      ratios = f'x {processor / ours[0]:5.2f} processor, x {wall / ours[1]:5.2f} wall'
      print(
        f'  {case:28} {processor:8.2f} s processor {wall:8.2f} s wall  {ratios}  {memory:6.0f} MiB  {value}', flush=True
      )


if __name__ == '__main__':
  main()
