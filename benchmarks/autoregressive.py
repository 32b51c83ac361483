"""Autoregressive models against their peers: processor milliseconds and ratios, each case in a process of its own.

  python -m benchmarks.autoregressive                  all groups, as a table
  python -m benchmarks.autoregressive made_sample_16   some of them
  taskset -c 0 python -m benchmarks.autoregressive     on one core, which is the fairest on a busy machine

The cases of a group run in turn, ``ROUNDS`` times over, and the least time of each counts; ratios are to the first
case, which is ours. A case prepares, and returns the function to be timed; it has one thread.
"""

import functools

from benchmarks import groups

NUM_PIXELS, NUM_HIDDEN, BATCH = 784, 500, 100


def module(num_layers):
  """A MADE of 500 units a layer, with parameters."""
  import jax
  import jax.numpy as jnp

  from gm_jax.autoregressive import made, made_degrees

  degrees = made_degrees.degrees(NUM_PIXELS, (NUM_HIDDEN,) * num_layers, reach_all=False)
  model = made.MADE(degrees)
  return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, NUM_PIXELS)))


def made_sample(num, num_layers):
  import jax

  model, variables = module(num_layers)
  sample = jax.jit(lambda key: model.apply(variables, key, num, method='sample'))
  return lambda: sample(jax.random.key(1)).block_until_ready()


def made_sample_by_passes(num, num_layers):
  """The naive loop, compiled the same way, with the masked weights made once."""
  import jax

  from gm_jax.autoregressive import ancestral

  model, variables = module(num_layers)
  layers = [variables['params'][name] for name in [f'hidden_{i}' for i in range(num_layers)] + ['output']]
  layers = [(layer['kernel'] * mask, layer['bias']) for layer, mask in zip(layers, model.masks(), strict=True)]

  def conditionals(x):
    for kernel, bias in layers[:-1]:
      x = jax.nn.relu(x @ kernel + bias)
    return (x @ layers[-1][0] + layers[-1][1])[..., None]

  sample = jax.jit(lambda keys: ancestral.sample_by_passes(conditionals, model.head, model.degrees.orderings[0], keys))
  return lambda: sample(jax.random.split(jax.random.key(1), num)).block_until_ready()


def torch_network(num_layers):
  """The same network in PyTorch, masked weights made at each call of ``forward`` if it trains."""
  import torch

  model, variables = module(num_layers)
  names = [f'hidden_{i}' for i in range(num_layers)] + ['output']
  copy = lambda leaf: torch.tensor(leaf.tolist(), dtype=torch.float32)
  kernels = [copy(variables['params'][name]['kernel']).requires_grad_() for name in names]
  biases = [copy(variables['params'][name]['bias']).requires_grad_() for name in names]
  return kernels, biases, [copy(mask) for mask in model.masks()]


def torch_sample(num, num_layers):
  import torch

  kernels, biases, masks = torch_network(num_layers)
  kernels = [(kernel * mask).detach() for kernel, mask in zip(kernels, masks, strict=True)]

  @torch.no_grad()
  def sample():
    x = torch.zeros(num, NUM_PIXELS)
    for t in range(NUM_PIXELS):
      h = x
      for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        h = torch.relu(torch.addmm(bias, h, kernel))
      logits = torch.addmm(biases[-1], h, kernels[-1])
      x[:, t] = torch.bernoulli(torch.sigmoid(logits[:, t]))

  return sample


def made_train():
  import jax
  import optax

  from gm_jax.autoregressive import made
  from gm_jax.base import Batch
  from gm_jax.training.rules import descent

  model, _ = module(1)
  algorithm = descent(*made.objective(model), optax.adam(1e-3))
  batch = Batch(jax.random.bernoulli(jax.random.key(0), 0.13, (BATCH, NUM_PIXELS)).astype('float32'))
  state = algorithm.init(jax.random.key(0), batch)
  many = jax.jit(lambda state: jax.lax.scan(lambda s, key: algorithm.step(key, s, batch), state, length=20))
  return lambda: jax.block_until_ready(many(state))


def torch_train():
  import torch

  kernels, biases, masks = torch_network(1)
  optimizer = torch.optim.Adam([*kernels, *biases], lr=1e-3)
  x = (torch.rand(BATCH, NUM_PIXELS) < 0.13).float()

  def many():
    for _ in range(20):
      optimizer.zero_grad(set_to_none=True)
      h = torch.relu(x @ (kernels[0] * masks[0]) + biases[0])
      logits = h @ (kernels[1] * masks[1]) + biases[1]
      torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction='sum').div(BATCH).backward()
      optimizer.step()

  return many


def _sampling(num, num_layers):
  return (
    f'{num} samples of 784 pixels, MADE with {num_layers} x 500 hidden units',
    {
      'gm_jax': functools.partial(made_sample, num, num_layers),
      'gm_jax by 784 passes': functools.partial(made_sample_by_passes, num, num_layers),
      'PyTorch by 784 passes': functools.partial(torch_sample, num, num_layers),
    },
  )


# Group: what is timed, our case, and those of the peers.
GROUPS = {
  **{f'made_sample_{num}{"_deep" * (n == 2)}': _sampling(num, n) for num in (16, 100) for n in (1, 2)},
  'made_train': (
    '20 steps of Adam, MADE 784-500-784, batches of 100',
    {'gm_jax': made_train, 'PyTorch': torch_train},
  ),
}


if __name__ == '__main__':
  groups.main('benchmarks.autoregressive', __doc__, GROUPS)
