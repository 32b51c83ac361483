"""Times the training of adversarial models against plain PyTorch, in one run, as ratios.

  python -m benchmarks.adversarial --core=0

An update, of the critic and of the generator, of a GAN 2-128-128 on points of the plane at batch 256, and of a 28 x 28
DCGAN of base 64 at batch 64; Adam and float32 in both. Every case runs in a process of its own; the processes take
turns for a few rounds and the least time counts. Ours are many updates compiled as one scan, which is how the loop
trains; PyTorch is eager. It uses one batch of samples for both players, as is customary there, and ours draws anew for
each. On a busy machine read the processor times, with one pinned core as above.
"""

from benchmarks import pairs

MLP_STEPS, DCGAN_STEPS = 1000, 10
CASES = {}


def case(name):
  def register(function):
    CASES[name] = function
    return function

  return register


def timed(function, num_steps):
  """Milliseconds per update of a ``function`` that makes ``num_steps`` of them."""
  return pairs.timed(function, repeats=3, scale=1e3 / num_steps)


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

  from gm_jax.adversarial import gan, players

  module = gan.GAN(players.MLPGenerator((128, 128), (2,)), players.MLPCritic((128, 128)), 2)
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


if __name__ == '__main__':
  pairs.main('benchmarks.adversarial', __doc__, CASES, PAIRS, OMP_NUM_THREADS='1')
