"""Times NADE against its peers, in one run, as ratios.

  OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.nade

784 dimensions, 500 hidden units, float32. A training step (Adam) at batch 100 against a loop over the 784 conditionals
in PyTorch with autograd, which is how public code does it; and the sampler against 784 passes over all conditionals,
compiled as one scan. The cases take turns for a few rounds; the least wall and processor times count. PyTorch is
skipped where it is absent.
"""

import argparse
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.autoregressive import nade
from gm_jax.base import Batch, bind, pure
from gm_jax.training import rules

DIMENSIONS, HIDDEN, BATCH = 784, 500, 100


def bits() -> np.ndarray:
  """A batch as dense as digits."""
  return (np.random.default_rng(0).random((BATCH, DIMENSIONS)) < 0.2).astype(np.float32)


def our_step(loss):
  """A training step on a state that stays as it is."""
  module, batch = nade.NADE(DIMENSIONS, HIDDEN), Batch(jnp.asarray(bits()))
  algorithm = rules.descent(pure(module).init, loss(module), optax.adam(1e-3))
  state, step = algorithm.init(jax.random.key(0), batch), jax.jit(algorithm.step)
  return lambda: jax.block_until_ready(step(jax.random.key(1), state, batch))


def torch_step():
  """The same step as a loop over the conditionals, or None without PyTorch."""
  try:
    import torch
  except ModuleNotFoundError:
    return None
  torch.set_num_threads(1)
  functional = torch.nn.functional
  scales = [1 / math.sqrt(DIMENSIONS), 1 / math.sqrt(HIDDEN)]
  kernel, output = (torch.nn.Parameter(torch.randn(DIMENSIONS, HIDDEN) * scale) for scale in scales)
  bias, output_bias = (torch.nn.Parameter(torch.zeros(size)) for size in (HIDDEN, DIMENSIONS))
  optimizer, x = torch.optim.Adam([kernel, output, bias, output_bias], lr=1e-3), torch.from_numpy(bits())

  def step():
    optimizer.zero_grad(set_to_none=True)
    a, total = bias.expand(BATCH, -1), 0.0
    for d in range(DIMENSIONS):
      logits = torch.sigmoid(a) @ output[d] + output_bias[d]
      total = total + functional.binary_cross_entropy_with_logits(logits, x[:, d], reduction='sum')
      a = a + x[:, d, None] * kernel[d]
    (total / BATCH).backward()
    optimizer.step()

  return step


def samplers(num: int):
  """The sampler, and 784 passes over all conditionals; checked to draw the same bits."""
  module = nade.NADE(DIMENSIONS, HIDDEN)
  params = pure(module).init(jax.random.key(0), Batch(jnp.zeros((1, DIMENSIONS))))
  conditionals, key = bind(module, 'conditionals'), jax.random.key(1)

  @jax.jit
  def naive(params, key):
    def step(x, now):
      d, key = now
      return x.at[:, d].set(module.head.sample(key, conditionals(params, x)[:, d])), None

    keys = jax.random.split(key, DIMENSIONS)
    return jax.lax.scan(step, jnp.zeros((num, DIMENSIONS)), (jnp.arange(DIMENSIONS), keys))[0]

  ours = jax.jit(lambda params, key: bind(module, 'sample')(params, key, num))
  one_pass = jax.jit(conditionals)
  x = ours(params, key)
  return {
    f'sample {num}': lambda: jax.block_until_ready(ours(params, key)),
    f'one pass over {num}': lambda: jax.block_until_ready(one_pass(params, x)),
    f'sample {num} naively': lambda: np.testing.assert_array_equal(naive(params, key), x),
  }


def likelihood_loss(module):
  """By way of ``log_prob``, whose gradient is a sweep of its own."""
  return rules.likelihood_loss(pure(module).log_prob)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=3, help='how often the cases take turns')
  parser.add_argument('--only', default='', help='run the cases whose name begins so: step, or sample')
  args = parser.parse_args()
  cases = {}
  if 'step'.startswith(args.only):
    cases |= {
      'step': our_step(nade.loss),
      'step by log_prob': our_step(likelihood_loss),
      'step by PyTorch': torch_step(),
    }
  if 'sample'.startswith(args.only):
    cases |= {**samplers(16), **samplers(100)}
  cases = {name: run for name, run in cases.items() if run}
  slow = {name for name in cases if 'naively' in name}
  best = dict.fromkeys(cases, (math.inf, math.inf))
  for name, run in cases.items():
    if name not in slow:
      run()  # compiles
  for i in range(args.rounds):
    for name, run in cases.items():
      for _ in range(1 if name in slow else 5):
        if name in slow and i:
          continue  # these take many seconds, and that once
        start = time.perf_counter(), time.process_time()
        run()
        now = time.perf_counter() - start[0], time.process_time() - start[1]
        best[name] = tuple(map(min, best[name], now))
  print(f'{"case":24}{"wall ms":>12}{"processor ms":>14}')
  for name, (wall, processor) in best.items():
    print(f'{name:24}{1e3 * wall:12.1f}{1e3 * processor:14.1f}')
  pairs = [('step by PyTorch', 'step', 10)]
  pairs += [(f'sample {n} naively', f'sample {n}', 25) for n in (16, 100)]
  pairs += [(f'sample {n}', f'one pass over {n}', None) for n in (16, 100)]
  for peer, ours, goal in pairs:
    if peer in best:
      wall, processor = (a / b for a, b in zip(best[peer], best[ours], strict=True))
      wanted = f' (goal {goal})' if goal else ''
      print(f'{peer} / {ours}: {wall:.1f} by wall, {processor:.1f} by processor{wanted}')


if __name__ == '__main__':
  main()
