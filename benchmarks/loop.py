"""What dispatching costs: update steps per second against the number of steps in one compiled scan.

  python benchmarks/loop.py

An RBM learns by PCD-1 on synthetic binary data, once with 64 visible and 100 hidden units, whose step is short, and
once with 784 and 500. The default of ``Plan.steps_per_dispatch`` is where the short one has levelled out.
"""

import time

import jax
import numpy as np
import optax

from gm_jax.base import Batch
from gm_jax.boltzmann import contrastive, rbm
from gm_jax.training import loop, rules

LENGTHS = (1, 3, 10, 30, 100, 200, 500)


def seconds_of(num_visible: int, num_hidden: int, num_steps: int, length: int) -> float:
  """Wall-clock seconds of ``num_steps`` after as many to compile and warm up."""
  x = (np.random.default_rng(0).random((2000, num_visible)) < 0.2).astype(np.uint8)
  machine = rbm.RBM(num_visible, num_hidden)
  algorithm = rules.descent(*contrastive.objective(machine, contrastive.persistent(100), data=x), optax.sgd(0.05))
  times = []
  plan = loop.Plan(2 * num_steps, 100, num_steps, 2 * num_steps, steps_per_dispatch=length)
  evaluate = lambda step, state: times.append(time.perf_counter()) or {}
  loop.train(algorithm, Batch(x), jax.random.key(0), plan, evaluate=evaluate)
  return times[1] - times[0]


def main():
  for sizes, num_steps in (((64, 100), 3000), ((784, 500), 500)):
    best = {n: min(seconds_of(*sizes, num_steps, n) for _ in range(2)) for n in LENGTHS if num_steps % n == 0}
    fastest = min(best.values())
    print(f'{sizes[0]}-{sizes[1]}, batch 100')
    for length, seconds in best.items():
      rate = num_steps / seconds
      print(f'  {length:4d} steps a dispatch: {rate:8.0f} steps/s, {seconds / fastest:5.2f} x the fastest')


if __name__ == '__main__':
  main()
