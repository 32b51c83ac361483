"""Flows against their peers: processor milliseconds and ratios, each case in a process of its own.

  python -m benchmarks.flows                       all groups, as a table
  python -m benchmarks.flows maf_sample            some of them
  taskset -c 0 python -m benchmarks.flows          on one core, which is the fairest on a busy machine
  python -m benchmarks.flows depth                 inversion error over depth, and seconds to compile

Five layers with two hidden layers of 100 units, 63 dimensions, batches of 512. The cases of a group run in turn,
``ROUNDS`` times over, and the least time of each counts; ratios are to the first case, which is ours. Peers that are
not installed are left out: nflows, normflows, flowjax.
"""

import functools
import time

from benchmarks import groups

NUM_DIMENSIONS, NUM_LAYERS, HIDDEN, BATCH = 63, 5, 100, 512


def data():
  """Correlated data."""
  import jax

  keys = jax.random.split(jax.random.key(0))
  return jax.random.normal(keys[0], (BATCH, NUM_DIMENSIONS)) @ jax.random.normal(keys[1], (NUM_DIMENSIONS,) * 2) / 8


def ours(kind):
  """A flow as the peers have it: no normalisation."""
  from gm_jax.flows import iaf, maf, realnvp

  builders = {'maf': functools.partial(maf.maf, batch_norm=False), 'iaf': iaf.iaf, 'realnvp': realnvp.dense}
  return builders[kind](NUM_DIMENSIONS, NUM_LAYERS, (HIDDEN, HIDDEN))


def trained(kind):
  """The flow after 200 steps, its step, and its state: what sampling costs depends on what was learnt."""
  import jax
  import optax

  from gm_jax.base import Batch
  from gm_jax.flows import flow
  from gm_jax.training.rules import descent

  module = ours(kind)
  algorithm = descent(*flow.objective(module), optax.adam(1e-3))
  state, step = jax.jit(algorithm.init)(jax.random.key(0), Batch(data())), jax.jit(algorithm.step)
  for _ in range(200):
    state, _ = step(jax.random.key(0), state, Batch(data()))
  return module, step, state


def gm_jax_train(kind):
  import jax

  from gm_jax.base import Batch

  _, step, state = trained(kind)
  batch = Batch(data())
  return lambda: jax.block_until_ready(step(jax.random.key(0), state, batch))


def gm_jax_sample(kind):
  import jax

  from gm_jax.base import bind

  module, _, state = trained(kind)
  sample = jax.jit(lambda key: bind(module, 'sample')(state.params, key, BATCH))
  return lambda: sample(jax.random.key(1)).block_until_ready()


def gm_jax_log_prob(kind):
  import jax

  from gm_jax.base import bind

  module, _, state = trained(kind)
  log_prob, x = jax.jit(lambda x: bind(module, 'log_prob')(state.params, x)), data()
  return lambda: log_prob(x).block_until_ready()


def flowjax_flow(kind, steps=200):
  """A flow of flowjax after as many steps, its step and its parameters."""
  import equinox as eqx
  import jax
  import jax.numpy as jnp
  import optax
  import paramax
  from flowjax.distributions import Normal
  from flowjax.flows import coupling_flow, masked_autoregressive_flow

  build = coupling_flow if kind == 'realnvp' else masked_autoregressive_flow
  flow = build(
    jax.random.key(0), base_dist=Normal(jnp.zeros(NUM_DIMENSIONS)), flow_layers=NUM_LAYERS, nn_width=HIDDEN, nn_depth=2,
    invert=kind != 'iaf',
  )  # fmt: skip
  params, static = eqx.partition(
    flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
  )
  whole = lambda params: paramax.unwrap(eqx.combine(params, static))
  optimizer = optax.adam(1e-3)

  @eqx.filter_jit
  def step(params, opt_state, x):
    value, gradient = eqx.filter_value_and_grad(lambda p: -whole(p).log_prob(x).mean())(params)
    updates, opt_state = optimizer.update(gradient, opt_state)
    return eqx.apply_updates(params, updates), opt_state, value

  opt_state = optimizer.init(params)
  for _ in range(steps):
    params, opt_state, _ = step(params, opt_state, data())
  return whole, step, params, opt_state


def flowjax_train(kind):
  import jax

  _, step, params, opt_state = flowjax_flow(kind)
  x = data()
  return lambda: jax.block_until_ready(step(params, opt_state, x))


def flowjax_sample(kind):
  import equinox as eqx
  import jax

  whole, _, params, _ = flowjax_flow(kind)
  sample = eqx.filter_jit(lambda params, key: whole(params).sample(key, (BATCH,)))
  return lambda: sample(params, jax.random.key(1)).block_until_ready()


def flowjax_log_prob(kind):
  import equinox as eqx

  whole, _, params, _ = flowjax_flow(kind, steps=0)
  log_prob, x = eqx.filter_jit(lambda params, x: whole(params).log_prob(x)), data()
  return lambda: log_prob(params, x).block_until_ready()


def torch_flow(library, kind):
  """A flow of a PyTorch library."""
  import torch

  torch.manual_seed(0)
  torch.set_num_threads(1)
  if library == 'nflows':
    from nflows.flows import MaskedAutoregressiveFlow, SimpleRealNVP

    if kind == 'maf':
      return MaskedAutoregressiveFlow(NUM_DIMENSIONS, HIDDEN, NUM_LAYERS, 1, use_residual_blocks=False)
    return SimpleRealNVP(NUM_DIMENSIONS, HIDDEN, NUM_LAYERS, 1)
  import normflows

  layers = []
  for _ in range(NUM_LAYERS):
    if kind == 'maf':  # as it comes its direction of one pass is that of sampling
      masked = normflows.flows.MaskedAffineAutoregressive(
        NUM_DIMENSIONS, HIDDEN, num_blocks=1, use_residual_blocks=False
      )
      layers.append(normflows.flows.Reverse(masked))
    else:
      sizes = [(NUM_DIMENSIONS + 1) // 2, HIDDEN, HIDDEN, NUM_DIMENSIONS // 2 * 2]
      layers.append(normflows.flows.AffineCouplingBlock(normflows.nets.MLP(sizes, init_zeros=True)))
    layers.append(normflows.flows.Permute(NUM_DIMENSIONS, mode='shuffle'))
  return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(NUM_DIMENSIONS, trainable=False), layers)


def torch_train(library, kind):
  import torch

  flow, x = torch_flow(library, kind), torch.tensor(data().tolist())
  optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)

  def step():
    optimizer.zero_grad(set_to_none=True)
    (-flow.log_prob(x).mean()).backward()
    optimizer.step()

  return step


def torch_sample(library, kind):
  import torch

  flow = torch_flow(library, kind)
  return torch.no_grad()(lambda: flow.sample(BATCH))


def cases(ours, flowjax, torch, kind):
  """The cases of a group."""
  found = {'gm_jax': functools.partial(ours, kind), 'flowjax': functools.partial(flowjax, kind)}
  for library in ('nflows', 'normflows') if torch else ():
    found[library] = functools.partial(torch, library, kind)
  return found


# What is timed, our case, and those of the peers.
GROUPS = {
  'maf_train': ('MAF, a step of Adam', cases(gm_jax_train, flowjax_train, torch_train, 'maf')),
  'maf_sample': ('MAF, 512 samples', cases(gm_jax_sample, flowjax_sample, torch_sample, 'maf')),
  'iaf_log_prob': ('IAF, density of 512 points', cases(gm_jax_log_prob, flowjax_log_prob, None, 'iaf')),
  'realnvp_train': ('Real NVP, a step of Adam', cases(gm_jax_train, flowjax_train, torch_train, 'realnvp')),
  'realnvp_sample': ('Real NVP, 512 samples', cases(gm_jax_sample, flowjax_sample, torch_sample, 'realnvp')),
}


def depth():
  """Seconds to compile a step of learning, passes, and the error of inversion after 100 steps, by number of layers."""
  import jax
  import numpy as np
  import optax

  from gm_jax.base import Batch, bind
  from gm_jax.flows import flow, maf, realnvp
  from gm_jax.training.rules import descent

  x = data()
  for name, build in (('Real NVP', realnvp.dense), ('MAF', functools.partial(maf.maf, batch_norm=False))):
    for num_layers in (2, 8, 32):
      module = build(NUM_DIMENSIONS, num_layers, (HIDDEN, HIDDEN))
      algorithm = descent(*flow.objective(module), optax.adam(1e-3))
      state = jax.jit(algorithm.init)(jax.random.key(0), Batch(x))
      start = time.process_time()
      step = jax.jit(algorithm.step).lower(jax.random.key(0), state, Batch(x)).compile()
      seconds = time.process_time() - start
      for _ in range(100):
        state, _ = step(jax.random.key(0), state, Batch(x))
      residual = np.asarray(jax.jit(bind(module, 'residual'))(state.params, x))
      print(
        f'{name:9} {num_layers:3} layers: compiled in {seconds:.2f} s, greatest residual {residual.max():.1e}, '
        f'median {np.median(residual):.1e}',
        flush=True,
      )


if __name__ == '__main__':
  groups.main('benchmarks.flows', __doc__, GROUPS, {'depth': depth})
