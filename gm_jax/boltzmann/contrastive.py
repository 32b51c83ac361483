"""How restricted Boltzmann machines learn: the data's free energy down, the model's own up.

The gradient of the log-likelihood is a difference of two expectations::

  d/dtheta E_data[log p(x)] = - E_data[dF/dtheta] + E_model[dF/dtheta]

so that the loss is the gap of mean free energies between data and samples of the model, the samples held constant. The
methods differ in where the samples come from, here called the negative phase:

  ``divergence``   k sweeps from the data: contrastive divergence, CD-k (Hinton 2002)
  ``persistent``   chains that live on from step to step: PCD (Tieleman 2008), and with ``fast_weights`` as the
                   optimiser chains that run from what they have just seen: FPCD (Tieleman & Hinton 2009)
  ``tempered``     persistent chains at several temperatures (Desjardins et al. 2010; Cho et al. 2010)
  ``exact``        none: log Z by enumeration, for small machines

Centring (Montavon & Mueller 2012; Melchior, Fischer & Wiskott 2016) writes the energy in ``f(v) - m`` and ``h - l``,
where f are the features of v and m, l their mean activities. It is a change of variables, ``b = b' - W l`` and
``c = c' - W^T m``: the distribution stays, the direction of steepest descent does not. Parameters are always kept in
plain coordinates, so that moving offsets change nothing; the gradient is that of the centred ones carried back.

Example:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.boltzmann import rbm
  >>> from gm_jax.training.rules import descent
  >>> machine, x = rbm.RBM(num_visible=4, num_hidden=3), jax.numpy.eye(4)
  >>> init, loss = objective(machine, persistent(num_chains=10), data=x)
  >>> algorithm = descent(init, loss, optax.sgd(0.1))
  >>> state = jax.jit(algorithm.init)(jax.random.key(0), Batch(x))
  >>> for i in range(3):
  ...   state, metrics = algorithm.step(jax.random.key(i), state, Batch(x))
  >>> state.chains['visible'].shape, sorted(state.stats['offsets'])
  ((10, 4), ['hidden', 'visible'])
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gm_jax.base import Array, Extra, Loss, Params, Variables
from gm_jax.boltzmann import partition, tempering
from gm_jax.boltzmann.rbm import RBM, data_init
from gm_jax.likelihoods import sample_bernoulli


class Negative(NamedTuple):
  """A negative phase: how the model's side of the gradient is had."""

  start: Callable  # (machine, params, key) -> chains
  gap: Callable  # (machine, params, key, x, state) -> (gap, hidden logits of x, chains or None, metrics)


class Objective(NamedTuple):
  """What ``descent`` takes."""

  init: Callable
  loss: Loss


def objective(
  machine: RBM,
  negative: Negative,
  *,
  data: Array | None = None,
  centered: bool = True,
  offset_rate: float = 0.01,
  sparsity_target: float = 0.5,
  sparsity_cost: float = 0.0,
) -> Objective:
  """Init and loss for ``descent``. The loss is the gap of free energies, nats per example.

  Args:
    machine: the module.
    negative: ``divergence(...)``, ``persistent(...)``, ``tempered(...)`` or ``exact()``.
    data: training examples ``[N, D]`` whose marginals give the visible biases and offsets their start; without them
      those of the batch given to ``init``.
    centered: whether to follow the centred gradient. The offsets are ``stats['offsets']``.
    offset_rate: how fast the offsets follow the means of the batches.
    sparsity_target: wanted mean activity of each hidden unit.
    sparsity_cost: weight of the cross-entropy between that and the activity in the batch, summed over units
      (Hinton 2012, section 11).
  """
  if not 0 < sparsity_target < 1:
    raise ValueError(f'sparsity_target={sparsity_target}: an activity lies between 0 and 1')
  if not 0 <= offset_rate <= 1:
    raise ValueError(f'offset_rate={offset_rate}: must lie between 0 and 1')
  start = data_init(machine, data)

  def init(key, batch):
    init_key, chain_key = jax.random.split(key)
    params = start(init_key, batch)
    x = batch.x if data is None else jnp.asarray(data)
    stats = {'offsets': _first_offsets(machine, params, x)} if centered else {}
    return Variables(params, stats, negative.start(machine, params, chain_key))

  def loss(params, key, batch, state):
    if centered:
      params = recenter(params, state.stats['offsets'])
    value, logits, chains, metrics = negative.gap(machine, params, key, batch.x, state)
    active = jax.nn.sigmoid(logits).mean(0)
    if sparsity_cost:
      log_odds = jnp.log(active) - jnp.log1p(-active)
      value = value - sparsity_cost * jnp.sum(sparsity_target * log_odds + jnp.log1p(-active))
    stats = None
    if centered:
      means = {'visible': _features(machine, params, batch.x).mean(0), 'hidden': active}
      stats = {'offsets': optax.incremental_update(means, state.stats['offsets'], offset_rate)}
      stats = jax.lax.stop_gradient(stats)
    return value, Extra(stats, chains, {**metrics, 'hidden_activity': active.mean()})

  return Objective(init, loss)


def divergence(num_steps: int = 1) -> Negative:
  """CD-k: ``num_steps`` sweeps from the batch."""
  _check_positive('num_steps', num_steps)

  def gap(machine, params, key, x, state):
    del state
    logits = _call(machine, params, 'hidden_logits', x)
    fixed = jax.lax.stop_gradient(params)
    hidden_key, chain_key = jax.random.split(key)
    hidden = sample_bernoulli(hidden_key, jax.lax.stop_gradient(logits))
    v = _visible_after(machine, fixed, chain_key, hidden, num_steps)
    value = _free_energy(machine, params, x, logits) - _call(machine, params, 'free_energy', v).mean()
    return value, logits, None, {}

  return Negative(lambda machine, params, key: (), gap)


def persistent(num_chains: int, num_steps: int = 1) -> Negative:
  """PCD-k. ``chains`` holds ``visible`` ``[num_chains, D]`` and ``hidden`` ``[num_chains, H]``.

  A sweep is v given h, then h given v: kept that way round, the hidden logits of the chains' ends serve the gradient
  and the next h alike. If the optimiser is wrapped in ``fast_weights`` the chains run on the sum of slow and fast
  parameters.
  """
  _check_positive('num_chains', num_chains)
  _check_positive('num_steps', num_steps)

  def start(machine, params, key):
    visible_key, hidden_key = jax.random.split(key)
    visible = _call(machine, params, 'start', visible_key, num_chains)
    return {'visible': visible, 'hidden': _call(machine, params, 'sample_hidden', hidden_key, visible)}

  def gap(machine, params, key, x, state):
    fixed = jax.lax.stop_gradient(params)
    fast = optax.tree.get(state.opt_state, 'fast', None)
    sampler = fixed if fast is None else jax.tree.map(jnp.add, fixed, fast)
    visible_key, hidden_key = jax.random.split(key)
    v = _visible_after(machine, sampler, visible_key, state.chains['hidden'], num_steps)
    value, logits, ends = _gap(machine, params, x, v)
    ends = ends if fast is None else _call(machine, sampler, 'hidden_logits', v)
    hidden = sample_bernoulli(hidden_key, jax.lax.stop_gradient(ends))
    return value, logits, {'visible': v, 'hidden': hidden}, {}

  return Negative(start, gap)


def tempered(num_chains: int, betas: Array, base: Any, num_steps: int = 1) -> Negative:
  """Persistent chains under parallel tempering. ``chains`` holds ``visible`` ``[num_chains, T, D]``.

  Args:
    num_chains: how many copies of the ladder.
    betas: ``[T]``, increasing to 1, see ``tempering.ladder``.
    base: natural parameters of the independent units at beta = 0: ``partition.base_natural``.
    num_steps: sweeps and swaps per update.
  """
  _check_positive('num_chains', num_chains)
  _check_positive('num_steps', num_steps)
  betas = jnp.asarray(betas)
  if betas.ndim != 1 or len(betas) < 2 or betas[-1] != 1 or not bool(jnp.all(betas[1:] > betas[:-1])):
    raise ValueError(f'betas={betas}: must be two or more numbers, increasing, the last one 1')

  def start(machine, params, key):
    path = partition.annealed_path(machine, params, base)
    return {'visible': tempering.start(path, key, num_chains, len(betas))}

  def gap(machine, params, key, x, state):
    path = partition.annealed_path(machine, jax.lax.stop_gradient(params), base)
    ends, rates = tempering.parallel_tempering(path, betas, key, state.chains['visible'], num_steps)
    v = path.visible(ends)
    value, logits, _ = _gap(machine, params, x, v[:, -1])
    return value, logits, {'visible': v}, {'swap_rate': rates.mean(), 'lowest_swap_rate': rates.min()}

  return Negative(start, gap)


def exact() -> Negative:
  """The exact gradient: the loss is then -log p(x) itself. Raises ValueError for machines over 2^20 states."""

  def gap(machine, params, key, x, state):
    del key, state
    logits = _call(machine, params, 'hidden_logits', x)
    return _free_energy(machine, params, x, logits) + _call(machine, params, 'log_partition'), logits, None, {}

  return Negative(lambda machine, params, key: (), gap)


# Centring.


def to_plain(params: Params, offsets: Params) -> Params:
  """Centred coordinates to plain ones: ``b = b' - W l``, ``c = c' - W^T m``, everything else as it is."""
  kernel, shape = params['kernel'], params['visible_bias'].shape
  return {
    **params,
    'visible_bias': params['visible_bias'] - (kernel @ offsets['hidden']).reshape(shape),
    'hidden_bias': params['hidden_bias'] - offsets['visible'] @ kernel,
  }


def to_centered(params: Params, offsets: Params) -> Params:
  """Plain coordinates to centred ones, the inverse of ``to_plain``."""
  return to_plain(params, jax.tree.map(jnp.negative, offsets))


@jax.custom_vjp
def recenter(params: Params, offsets: Params) -> Params:
  """The parameters themselves; their gradient becomes that of the centred coordinates, carried back to plain ones.

  With the linear map J of ``to_plain`` the plain gradient g becomes ``J J^T g``, so that a step of gradient descent is
  the one that the centred parameters would have made.
  """
  del offsets
  return params


def _recenter_backward(offsets, gradient):
  flat = gradient['visible_bias'].reshape(-1)
  kernel = (
    gradient['kernel'] - jnp.outer(flat, offsets['hidden']) - jnp.outer(offsets['visible'], gradient['hidden_bias'])
  )
  return to_plain({**gradient, 'kernel': kernel}, offsets), jax.tree.map(jnp.zeros_like, offsets)


recenter.defvjp(lambda params, offsets: (params, offsets), _recenter_backward)


# Fast weights.


class FastWeightsState(NamedTuple):
  """The state of ``fast_weights``."""

  slow: Any
  fast: Params


def fast_weights(
  optimizer: optax.GradientTransformation, learning_rate: float, decay: float = 0.95
) -> optax.GradientTransformation:
  """Adds to an optimiser a second, fast-learning and fast-forgetting copy of the parameters, for ``persistent`` chains.

  ::

    fast <- decay * fast - learning_rate * gradient

  Args:
    optimizer: what teaches the parameters themselves.
    learning_rate: that of the fast weights, large.
    decay: of the fast weights; Tieleman & Hinton (2009) take 19/20.
  """

  def init(params):
    return FastWeightsState(optimizer.init(params), jax.tree.map(jnp.zeros_like, params))

  def update(gradient, state, params=None):
    updates, slow = optimizer.update(gradient, state.slow, params)
    fast = jax.tree.map(lambda f, g: decay * f - learning_rate * g, state.fast, gradient)
    return updates, FastWeightsState(slow, fast)

  return optax.GradientTransformation(init, update)


# What the phases share.


def _call(machine, params, method, *args):
  return machine.apply({'params': params}, *args, method=method)


def _features(machine, params, x):
  return _call(machine, jax.lax.stop_gradient(params), 'features', x)


def _free_energy(machine, params, v, logits):
  return _call(machine, params, 'free_energy', v, logits).mean()


def _visible_after(machine, params, key, hidden, num_steps):
  """Visible units after ``num_steps`` draws of v, with h redrawn between them."""

  def step(hidden, key):
    visible_key, hidden_key = jax.random.split(key)
    visible = _call(machine, params, 'sample_visible', visible_key, hidden)
    return _call(machine, params, 'sample_hidden', hidden_key, visible), None

  last_key, *keys = jax.random.split(key, num_steps)
  if keys:
    hidden, _ = jax.lax.scan(step, hidden, jnp.stack(keys))
  return _call(machine, params, 'sample_visible', last_key, hidden)


def _gap(machine, params, x, v):
  """Mean free energy of x minus that of v, in one product with the couplings; also the hidden logits of both."""
  both = jnp.concatenate([x, v])
  logits = _call(machine, params, 'hidden_logits', both)
  energies = _call(machine, params, 'free_energy', both, logits)
  size = len(x)
  return energies[:size].mean() - energies[size:].mean(), logits[:size], logits[size:]


def _first_offsets(machine, params, x):
  visible = _features(machine, params, x).mean(0)
  return {'visible': visible, 'hidden': jnp.full_like(params['hidden_bias'], 0.5)}


def _check_positive(name, value):
  if value < 1:
    raise ValueError(f'{name}={value}: must be 1 or more')
