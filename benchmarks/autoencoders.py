"""Times the training of autoencoders against plain PyTorch, in one run, as ratios.

  taskset -c 0 env OMP_NUM_THREADS=1 python -m benchmarks.autoencoders

A step of a variational autoencoder 784-400-20 at batch 128, and of an importance-weighted one 784-200-200-50 with 50
samples at batch 20, Adam and float32 in both; and the memory that a log-likelihood by 5,000 samples takes. Every case
runs in a process of its own; the processes take turns for a few rounds and the least time counts. Ours are epochs
compiled as one scan, which is how the loop trains; PyTorch is eager, with one step in a call. On a busy machine read
the processor times, with one pinned thread as above.
"""

import time

from benchmarks import pairs

STEPS = 20
CASES = {}


def case(name):
  def register(function):
    CASES[name] = function
    return function

  return register


def timed(function):
  """Milliseconds per step of a ``function`` that makes STEPS of them."""
  return pairs.timed(function, repeats=3, scale=1e3 / STEPS)


def rows(batch):
  import numpy as np

  return (np.random.default_rng(0).random((STEPS, batch, 784)) < 0.13).astype(np.float32)


def gm_jax_steps(objective, batch, optimizer):
  import jax

  from gm_jax.base import Batch
  from gm_jax.training.rules import descent

  x = jax.numpy.asarray(rows(batch))
  algorithm = descent(*objective, optimizer)
  state = algorithm.init(jax.random.key(0), Batch(x[0]))

  @jax.jit
  def epoch(state, x):
    def step(state, inputs):
      index, x = inputs
      return algorithm.step(jax.random.fold_in(jax.random.key(1), index), state, Batch(x))

    return jax.lax.scan(step, state, (jax.numpy.arange(STEPS), x))

  return timed(lambda: jax.block_until_ready(epoch(state, x)))


@case('vae gm_jax')
def gm_jax_vae():
  import flax.linen as nn
  import optax

  from gm_jax.autoencoders import vae

  module = vae.mlp(784, 20, (400,), activation=nn.relu)
  return gm_jax_steps(vae.objective(module), 128, optax.adam(1e-3))


def gm_jax_iwae(gradient):
  import optax

  from gm_jax.autoencoders import iwae, vae

  objective = iwae.objective(vae.mlp(784, 50, (200, 200)), 50, gradient=gradient)
  return gm_jax_steps(objective, 20, optax.adam(1e-3, eps=1e-4))


case('iwae gm_jax')(lambda: gm_jax_iwae('plain'))
case('iwae gm_jax dreg')(lambda: gm_jax_iwae('dreg'))


@case('log-likelihood memory')
def memory():
  """Seconds for log p(x) of 1,000 images by 5,000 importance samples each, and the most memory of its process."""
  import resource

  import jax

  from gm_jax.autoencoders import iwae, vae

  module, x = vae.mlp(784, 50, (200, 200)), jax.numpy.asarray(rows(50).reshape(1000, 784))
  params = jax.jit(module.init)(jax.random.key(0), x)['params']
  start = time.process_time()
  jax.block_until_ready(jax.jit(iwae.estimate(module, 5000))(params, jax.random.key(0), x))
  seconds = time.process_time() - start
  return {'processor seconds': seconds, 'gibibytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def torch_steps(sizes, batch, num_samples, activation):
  import torch
  from torch.nn import functional

  def network(sizes):
    layers = []
    for below, above in zip(sizes[:-1], sizes[1:], strict=True):
      layers += [torch.nn.Linear(below, above), activation()]
    return torch.nn.Sequential(*layers[:-1])

  latents = sizes[-1]
  encoder, decoder = network([*sizes[:-1], 2 * latents]), network(sizes[::-1])
  optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
  batches = torch.from_numpy(rows(batch))

  def minus_bound(x):
    mean, log_scale = encoder(x).chunk(2, -1)
    noise = torch.randn(num_samples, *mean.shape)
    z = mean + log_scale.exp() * noise
    logits = decoder(z)
    error = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction='none').sum(-1)
    if num_samples == 1:
      divergence = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale
      return (error + divergence.sum(-1)).mean()
    log_weights = (0.5 * (noise.square() - z.square()) + log_scale).sum(-1) - error
    return -torch.logsumexp(log_weights, 0).mean()

  def epoch():
    for x in batches:
      optimizer.zero_grad(set_to_none=True)
      minus_bound(x).backward()
      optimizer.step()

  return timed(epoch)


@case('vae pytorch')
def torch_vae():
  import torch

  return torch_steps([784, 400, 20], 128, 1, torch.nn.ReLU)


@case('iwae pytorch')
def torch_iwae():
  import torch

  return torch_steps([784, 200, 200, 50], 20, 50, torch.nn.Tanh)


PAIRS = [
  ('vae pytorch', 'vae gm_jax', 2.0),
  ('iwae pytorch', 'iwae gm_jax', 1.5),
  ('iwae pytorch', 'iwae gm_jax dreg', None),
]


if __name__ == '__main__':
  pairs.main('benchmarks.autoencoders', __doc__, CASES, PAIRS)
