"""Times the training of adversarial models against plain PyTorch, in one run, as ratios.

  python -m benchmarks.adversarial --core=0

An update, of the critic and of the generator, of a GAN 2-128-128 on points of the plane at batch 256, and of a 28 x 28
DCGAN of base 64 at batch 64; Adam and float32 in both. Every case runs in a process of its own; the processes take
turns for a few rounds and the least time counts. Ours are many updates compiled as one scan, which is how the loop
trains; PyTorch is eager. It uses one batch of samples for both players, as is customary there, and ours draws anew for
each. On a busy machine read the processor times, with one pinned core as above.
"""

import argparse
import json
import os
import subprocess
import sys
import time

MLP_STEPS, DCGAN_STEPS = 1000, 10
CASES = {}


def case(name):
  def register(function):
    CASES[name] = function
    return function

  return register


def timed(function, num_steps, repeats=3):
  """Least wall and processor milliseconds per update of a ``function`` that makes some, the first call apart."""
  function()
  wall, processor = [], []
  for _ in range(repeats):
    start = time.perf_counter(), time.process_time()
    function()
    wall.append(time.perf_counter() - start[0])
    processor.append(time.process_time() - start[1])
  return {'wall': min(wall) / num_steps * 1e3, 'processor': min(processor) / num_steps * 1e3}


def gm_jax_updates(module, data, batch, optimizer, num_steps):
  import jax

  from gm_jax.adversarial import gan
  from gm_jax.base import Batch
  from gm_jax.training.rules import adversarial

  losses = gan.objective(module, gan.GAMES['non_saturating'])
  algorithm = adversarial(*losses, optimizer(), optimizer())
  state = jax.jit(algorithm.init)(jax.random.key(0), Batch(data[:batch]))

  @jax.jit
  def updates(state, data):
    def step(state, key):
      row_key, step_key = jax.random.split(key)
      rows = jax.random.randint(row_key, (batch,), 0, len(data))
      return algorithm.step(step_key, state, Batch(data[rows]))

    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))

  return timed(lambda: jax.block_until_ready(updates(state, data)), num_steps)


def ring(num):
  import numpy as np

  from gm_jax.data import toy

  random = np.random.default_rng(0)
  centres, _ = toy.MODES['gaussians8']
  return (centres[random.integers(0, 8, num)] + 0.02 * random.normal(size=(num, 2))).astype(np.float32)


@case('mlp gm_jax')
def gm_jax_mlp():
  import jax.numpy as jnp
  import optax

  from gm_jax.adversarial import gan

  module = gan.GAN(gan.MLPGenerator((128, 128), (2,)), gan.MLPCritic((128, 128)), 2)
  data = jnp.asarray(ring(100_000))
  return gm_jax_updates(module, data, 256, lambda: optax.adam(1e-3, b1=0.5), MLP_STEPS)


@case('dcgan gm_jax')
def gm_jax_dcgan():
  import jax

  from gm_jax.adversarial import dcgan, gan

  module = gan.GAN(dcgan.Generator((28, 28, 1), (128, 64)), dcgan.Critic((64, 128)), 100)
  data = jax.random.uniform(jax.random.key(2), (128, 28, 28, 1), minval=-1.0)
  return gm_jax_updates(module, data, 64, dcgan.optimizer, DCGAN_STEPS)


def torch_updates(generator, critic, real, codes, rate, num_steps):
  """A function of one update is timed: real() and codes() give the batches."""
  import torch

  optimizers = [torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.999)) for net in (generator, critic)]
  loss = torch.nn.functional.binary_cross_entropy_with_logits

  def update():
    x, fake = real(), generator(codes())
    one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)
    optimizers[1].zero_grad(set_to_none=True)
    (loss(critic(x), one) + loss(critic(fake.detach()), zero)).backward()
    optimizers[1].step()
    optimizers[0].zero_grad(set_to_none=True)
    loss(critic(fake), one).backward()
    optimizers[0].step()

  def updates():
    for _ in range(num_steps):
      update()

  return timed(updates, num_steps)


@case('mlp pytorch')
def torch_mlp():
  import torch
  from torch import nn

  def net(outputs):
    return nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs))

  data = torch.from_numpy(ring(100_000))
  return torch_updates(
    net(2), net(1), lambda: data[torch.randint(len(data), (256,))], lambda: torch.randn(256, 2), 1e-3, MLP_STEPS
  )


@case('dcgan pytorch')
def torch_dcgan():
  import torch
  from torch import nn

  base = 64
  generator = nn.Sequential(
    nn.ConvTranspose2d(100, 2 * base, 7, 1, 0, bias=False), nn.BatchNorm2d(2 * base), nn.ReLU(True),
    nn.ConvTranspose2d(2 * base, base, 4, 2, 1, bias=False), nn.BatchNorm2d(base), nn.ReLU(True),
    nn.ConvTranspose2d(base, 1, 4, 2, 1), nn.Tanh(),
  )  # fmt: skip
  critic = nn.Sequential(
    nn.Conv2d(1, base, 4, 2, 1), nn.LeakyReLU(0.2, True),
    nn.Conv2d(base, 2 * base, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * base), nn.LeakyReLU(0.2, True),
    nn.Flatten(), nn.Linear(2 * base * 49, 1),
  )  # fmt: skip
  real = torch.rand(64, 1, 28, 28) * 2 - 1
  return torch_updates(generator, critic, lambda: real, lambda: torch.randn(64, 100, 1, 1), 2e-4, DCGAN_STEPS)


PAIRS = [('mlp pytorch', 'mlp gm_jax', 4.0), ('dcgan pytorch', 'dcgan gm_jax', 1.0)]


def run_apart(name):
  """One case in its own process, with one thread."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  env = {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': root}
  done = subprocess.run([sys.executable, __file__, '--case', name], capture_output=True, text=True, env=env)
  if done.returncode:
    raise RuntimeError(f'{name} failed:\n{done.stderr}')
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='', help='run the cases whose name begins so')
  parser.add_argument('--rounds', type=int, default=3, help='how often the processes take turns')
  parser.add_argument('--core', type=int, help='pin all cases to this core')
  parser.add_argument('--case', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    print(json.dumps(CASES[args.case]()))
    return
  if args.core is not None:
    os.sched_setaffinity(0, {args.core})
  found = {}
  for _ in range(args.rounds):
    for name in CASES:
      if name.startswith(args.only):
        new, old = run_apart(name), found.get(name, {})
        found[name] = {clock: min(value, old.get(clock, value)) for clock, value in new.items()}
        print(f'{name}: {new}', file=sys.stderr, flush=True)
  print(f'{"case":24}{"wall ms":>10}{"processor ms":>14}')
  for name, times in found.items():
    print(f'{name:24}{times["wall"]:10.3f}{times["processor"]:14.3f}')
  for peer, ours, goal in PAIRS:
    if {peer, ours} <= set(found):
      ratios = [found[peer][clock] / found[ours][clock] for clock in ('wall', 'processor')]
      print(f'{peer} / {ours}: {ratios[0]:.2f} by wall, {ratios[1]:.2f} by processor (goal {goal})')


if __name__ == '__main__':
  main()
