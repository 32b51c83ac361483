"""Times the restricted Boltzmann machine against its peers, in one run, as ratios.

  python -m benchmarks.rbm                        all cases
  python -m benchmarks.rbm --only=train           those whose name begins so
  python -m benchmarks.rbm --peer_python=PATH     with the peers installed in another environment

One epoch of training over 10,000 synthetic binary rows (784 visible, 500 hidden units, batches and chains of 100,
float32) and annealed importance sampling (100 chains, 1000 temperatures). Every case runs in a process of its own, so
that no library's threads disturb another's; the processes take turns for a few rounds and the least time counts, which
is the fairest that a noisy machine allows. Absent peers are skipped. The last line is the share of this machine's own
matrix-product rate that a step of PCD-1 at batch 500 reaches.
"""

import argparse
import json
import sys

from benchmarks import pairs

NUM_VISIBLE, NUM_HIDDEN, NUM_ROWS, BATCH, RATE = 784, 500, 10_000, 100, 0.05
CASES = {}


def case(name, peer=True):
  def register(function):
    CASES[name] = (function, peer)
    return function

  return register


def timed(function, repeats=5):
  """Seconds of ``function``, which waits for its own work."""
  return pairs.timed(function, repeats)


def rows():
  """Binary rows from a mixture of sparse prototypes, as dense as digits."""
  import numpy as np

  random = np.random.default_rng(0)
  prototypes = np.where(random.random((20, NUM_VISIBLE)) < 0.19, 0.85, 0.02)
  return (random.random((NUM_ROWS, NUM_VISIBLE)) < prototypes[random.integers(20, size=NUM_ROWS)]).astype(np.float32)


def machine_arrays():
  import numpy as np

  random = np.random.default_rng(1)
  kernel = 0.05 * random.standard_normal((NUM_VISIBLE, NUM_HIDDEN))
  visible = -2 + 0.5 * random.standard_normal(NUM_VISIBLE)
  return [array.astype(np.float32) for array in (kernel, visible, 0.1 * random.standard_normal(NUM_HIDDEN))]


def gm_jax_epoch(negative, centered, batch=BATCH):
  import jax
  import jax.numpy as jnp
  import optax

  from gm_jax.base import Batch
  from gm_jax.boltzmann import contrastive, rbm
  from gm_jax.training.rules import descent

  x = jnp.asarray(rows())
  batches = x.reshape(-1, batch, NUM_VISIBLE)
  phase = contrastive.persistent(batch) if negative == 'persistent' else contrastive.divergence()
  objective = contrastive.objective(rbm.RBM(NUM_VISIBLE, NUM_HIDDEN), phase, data=x, centered=centered)
  algorithm = descent(*objective, optax.sgd(RATE))
  state = algorithm.init(jax.random.key(0), Batch(x))

  @jax.jit
  def epoch(state):
    def step(state, i):
      return algorithm.step(jax.random.fold_in(jax.random.key(1), i), state, Batch(batches[i]))

    return jax.lax.scan(step, state, jnp.arange(len(batches)))

  return timed(lambda: jax.block_until_ready(epoch(state)))


case('train gm_jax pcd-1', peer=False)(lambda: gm_jax_epoch('persistent', False))
case('train gm_jax pcd-1 centred', peer=False)(lambda: gm_jax_epoch('persistent', True))
case('train gm_jax cd-1', peer=False)(lambda: gm_jax_epoch('divergence', False))


def sklearn_epoch(dtype):
  from sklearn.neural_network import BernoulliRBM

  x = rows().astype(dtype)
  settings = {'learning_rate': RATE, 'batch_size': BATCH, 'n_iter': 1, 'random_state': 0}
  return timed(lambda: BernoulliRBM(NUM_HIDDEN, **settings).fit(x), repeats=3)


case('train scikit-learn pcd-1 float32')(lambda: sklearn_epoch('float32'))
case('train scikit-learn pcd-1 float64')(lambda: sklearn_epoch('float64'))


@case('train pytorch cd-1')
def torch_epoch():
  import torch

  x = torch.from_numpy(rows())
  kernel = 0.01 * torch.randn(NUM_VISIBLE, NUM_HIDDEN)
  visible_bias, hidden_bias = torch.zeros(NUM_VISIBLE), torch.zeros(NUM_HIDDEN)

  def epoch():
    with torch.no_grad():
      for v in x.split(BATCH):
        hidden = torch.sigmoid(torch.addmm(hidden_bias, v, kernel))
        sample = (torch.rand_like(hidden) < hidden).float()  # faster than torch.bernoulli on a CPU
        end = torch.sigmoid(torch.addmm(visible_bias, sample, kernel.T))
        end = (torch.rand_like(end) < end).float()
        hidden_end = torch.sigmoid(torch.addmm(hidden_bias, end, kernel))
        kernel.addmm_(v.T, hidden, alpha=RATE / BATCH).addmm_(end.T, hidden_end, alpha=-RATE / BATCH)
        visible_bias.add_((v - end).mean(0), alpha=RATE)
        hidden_bias.add_((hidden - hidden_end).mean(0), alpha=RATE)

  return timed(epoch)


@case('train rbms pcd-1 centred')
def rbms_epoch():
  import torch
  from rbms.bernoulli_bernoulli.classes import BBRBM
  from rbms.training.pcd import fit_batch_pcd

  x = torch.from_numpy(rows())
  mean = x.mean(0).clamp(1e-4, 1 - 1e-4)
  kernel = 0.01 * torch.randn(NUM_VISIBLE, NUM_HIDDEN)
  params = BBRBM(weight_matrix=kernel, vbias=torch.log(mean / (1 - mean)), hbias=torch.zeros(NUM_HIDDEN))
  params.init_grad()
  optimizer = torch.optim.SGD(params.parameters(), lr=RATE, maximize=True)
  chains = params.init_chains(BATCH)

  def epoch():
    nonlocal chains
    with torch.no_grad():
      for v in x.split(BATCH):
        optimizer.zero_grad(set_to_none=False)
        chains, _ = fit_batch_pcd((v, torch.ones(len(v))), chains, params, 1, 1.0)
        optimizer.step()

  return timed(epoch)


@case('ais gm_jax', peer=False)
def gm_jax_ais():
  import jax
  import jax.numpy as jnp

  from gm_jax.boltzmann import partition, rbm

  kernel, visible, hidden = (jnp.asarray(array) for array in machine_arrays())
  params = {'kernel': kernel, 'visible_bias': visible, 'hidden_bias': hidden}
  path = partition.annealed_path(rbm.RBM(NUM_VISIBLE, NUM_HIDDEN), params, visible)
  run = jax.jit(lambda key: partition.ais(path, partition.temperatures(1000), key, num_chains=100))
  return timed(lambda: jax.block_until_ready(run(jax.random.key(0))), repeats=3)


@case('ais rbms')
def rbms_ais():
  import torch
  from rbms.bernoulli_bernoulli.classes import BBRBM
  from rbms.partition_function.ais import compute_partition_function_ais

  kernel, visible, hidden = (torch.from_numpy(array) for array in machine_arrays())
  params = BBRBM(weight_matrix=kernel, vbias=visible, hbias=hidden)
  with torch.no_grad():
    return timed(lambda: compute_partition_function_ais(100, 1000, params), repeats=1)


@case('products gm_jax', peer=False)
def jax_products():
  """The matrix products of an epoch of PCD-1 and nothing else: what arithmetic alone costs."""
  import jax
  import jax.numpy as jnp

  both, kernel, h = (
    jnp.ones((2 * BATCH, NUM_VISIBLE)),
    jnp.ones((NUM_VISIBLE, NUM_HIDDEN)),
    jnp.ones((BATCH, NUM_HIDDEN)),
  )
  products = jax.jit(lambda kernel: (both @ kernel, h @ kernel.T, both.T @ (both @ kernel)))
  return timed(lambda: [jax.block_until_ready(products(kernel)) for _ in range(NUM_ROWS // BATCH)])


@case('products pytorch')
def torch_products():
  """The same in PyTorch."""
  import torch

  both, kernel, h = (
    torch.ones(2 * BATCH, NUM_VISIBLE),
    torch.ones(NUM_VISIBLE, NUM_HIDDEN),
    torch.ones(BATCH, NUM_HIDDEN),
  )

  def epoch():
    for _ in range(NUM_ROWS // BATCH):
      logits = both @ kernel
      _ = h @ kernel.T, both.T @ logits

  return timed(epoch)


@case('rate of matrix products', peer=False)
def matmul_rate():
  """The best product rate at batch 500, and what a training step of five such products makes of it."""
  import jax
  import jax.numpy as jnp

  v, kernel, h = jnp.ones((500, NUM_VISIBLE)), jnp.ones((NUM_VISIBLE, NUM_HIDDEN)), jnp.ones((500, NUM_HIDDEN))
  products = [(lambda a, b: a @ b, (v, kernel)), (lambda a, b: a @ b.T, (h, kernel)), (lambda a, b: a.T @ b, (v, h))]
  operations = 2 * 500 * NUM_VISIBLE * NUM_HIDDEN

  def many(product, operands):
    run = jax.jit(product)
    return timed(lambda: [run(*operands).block_until_ready() for _ in range(20)])

  times = [many(*product) for product in products]
  rates = {}
  for clock in ('wall', 'processor'):
    rates[clock] = max(20 * operations / one[clock] for one in times)
  epoch = gm_jax_epoch('persistent', False, batch=500)
  steps = NUM_ROWS // 500
  shares = {clock: 5 * operations * steps / epoch[clock] / rates[clock] for clock in rates}
  return {**epoch, 'share': shares, 'giga_operations_per_second': rates['wall'] / 1e9}


PAIRS = [
  ('train scikit-learn pcd-1 float32', 'train gm_jax pcd-1', 2.5),
  ('train scikit-learn pcd-1 float64', 'train gm_jax pcd-1', 2.5),
  ('train pytorch cd-1', 'train gm_jax cd-1', 2.0),
  ('train pytorch cd-1', 'train gm_jax pcd-1', 2.0),
  ('train rbms pcd-1 centred', 'train gm_jax pcd-1 centred', None),
  ('ais rbms', 'ais gm_jax', 5.0),
  ('products pytorch', 'products gm_jax', None),
]


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='', help='run the cases whose name begins so')
  parser.add_argument('--rounds', type=int, default=3, help='how often the processes take turns')
  parser.add_argument('--peer_python', default=sys.executable, help='interpreter that has the peers')
  parser.add_argument('--case', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    try:
      print(json.dumps(CASES[args.case][0]()))
    except ModuleNotFoundError as error:
      print(json.dumps({'skipped': str(error)}))
    return
  found = {}
  for _ in range(args.rounds):
    for name in CASES:
      if name.startswith(args.only) and 'skipped' not in found.get(name, {}):
        python = args.peer_python if CASES[name][1] else sys.executable
        new, old = pairs.run_apart('benchmarks.rbm', name, python), found.get(name, {})
        least = {clock: min(new[clock], old.get(clock, new[clock])) for clock in ('wall', 'processor') if clock in new}
        found[name] = {**new, **least}
        print(f'{name}: {new}', file=sys.stderr, flush=True)
        if 'share' in new and 'share' in old:
          found[name]['share'] = {clock: max(new['share'][clock], old['share'][clock]) for clock in new['share']}
  print(f'{"case":36}{"wall s":>10}{"processor s":>13}')
  for name, times in found.items():
    if 'skipped' in times:
      print(f'{name:36}  skipped: {times["skipped"]}')
    else:
      print(f'{name:36}{times["wall"]:10.3f}{times["processor"]:13.3f}')
  for peer, ours, goal in PAIRS:
    if 'wall' in found.get(peer, {}) and 'wall' in found.get(ours, {}):
      ratios = [found[peer][clock] / found[ours][clock] for clock in ('wall', 'processor')]
      wanted = f' (goal {goal})' if goal else ''
      print(f'{peer} / {ours}: {ratios[0]:.2f} by wall, {ratios[1]:.2f} by processor{wanted}')
  rate = found.get('rate of matrix products')
  if rate:
    share = rate['share']
    print(
      f'PCD-1 at batch 500 reaches {share["wall"]:.0%} (wall), {share["processor"]:.0%} (processor) of '
      f'{rate["giga_operations_per_second"]:.0f} GFLOP/s (goal 50%)'
    )


if __name__ == '__main__':
  main()
