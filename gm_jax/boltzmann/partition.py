"""log Z of machines with hidden units: exact by enumeration, or bracketed by annealing from both ends.

Annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008) walks from a machine of independent units, whose
Z_0 is known, to the machine in question along f_beta, beta = 0..1. Every chain is weighted first and moved after::

  log w = sum_k [log f_{beta_{k+1}}(v_k) - log f_{beta_k}(v_k)],    v_{k+1} ~ T_{beta_{k+1}}(. | v_k)
  E[w] = Z / Z_0,    so that  log Z_0 + log mean w   is too low in expectation (Jensen),

and the walk back from samples of the machine itself has E[1 / w] = Z_0 / Z, so that ``log Z_0 - log mean (1 / w)`` is
too high in expectation. A log-likelihood computed with the first is too good and with the second too bad: together they
are a bracket (Burda, Grosse & Salakhutdinov 2015). The second needs exact samples to start from; chains that have not
reached some mode spoil its guarantee, see ``forward_and_reverse``.

For a machine of binary hidden units the hidden layer is summed out, and the path interpolates the visible natural
parameters from those of the base to those of the machine while the hidden logits grow with beta. The one product v W
of a move serves both the next weight and the next move.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from gm_jax.boltzmann import rbm
  >>> machine = rbm.RBM(num_visible=6, num_hidden=3, kernel_scale=1.0)
  >>> params = jax.jit(machine.init)(jax.random.key(0), jnp.zeros((1, 6)))['params']
  >>> path = annealed_path(machine, params, jnp.zeros(6))
  >>> estimate = ais(path, temperatures(100), jax.random.key(1), num_chains=200)
  >>> exact = machine.apply({'params': params}, method='log_partition')
  >>> bool(abs(estimate.log_z - exact) < 0.05)
  True
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from gm_jax.base import Array, Key, Params, as_variables
from gm_jax.likelihoods import sample_bernoulli, softplus_gap

MAX_BITS = 20
_SCHEDULES = {'salakhutdinov': ((0.5, 500), (0.9, 4000), (1.0, 10_000))}


def log_sum_over_states(log_weight: Callable[[Array], Array], num_sites: int, num_states: int = 2) -> Array:
  """The log of the sum of ``exp(log_weight(s))`` over all configurations s of discrete sites, 4096 at a time.

  Args:
    log_weight: ``[n, num_sites] -> [n]``, of states 0..num_states-1 as floats.
    num_sites: number of sites.
    num_states: states per site.

  Raises:
    ValueError: if there are more than 2^20 configurations.
  """
  if num_sites * math.log2(num_states) > MAX_BITS:
    raise ValueError(
      f'{num_states}^{num_sites} states cannot be summed over: at most 2^{MAX_BITS}; estimate log Z by ais instead'
    )
  total = num_states**num_sites
  size = min(total, 4096)
  place_values = num_states ** jnp.arange(num_sites, dtype=jnp.int32)

  @jax.checkpoint
  def chunk(log_sum, first):
    index = first + jnp.arange(size, dtype=jnp.int32)
    states = (index[:, None] // place_values % num_states).astype(jnp.float32)
    terms = jnp.where(index < total, log_weight(states), -jnp.inf)
    return jnp.logaddexp(log_sum, logsumexp(terms)), None

  return jax.lax.scan(chunk, jnp.float32(-jnp.inf), jnp.arange(0, total, size, dtype=jnp.int32))[0]


class Path(NamedTuple):
  """A path of distributions f_beta from one whose Z is known (beta = 0) to the model (beta = 1).

  States are trees of arrays whose leading axes are chains; ``beta`` broadcasts against these axes.
  """

  log_z: Array  # log Z at beta = 0
  start: Callable[[Key, int], Any]  # (key, num) -> exact samples at beta = 0
  place: Callable[[Array], Any]  # v -> the state that holds v
  visible: Callable[[Any], Array]  # state -> v
  gap: Callable[[Any, Array, Array], Array]  # (state, low, high) -> log f_high - log f_low, for low <= high
  move: Callable[[Key, Any, Array], Any]  # (key, state, beta) -> state after a transition that leaves f_beta invariant


class RBMState(NamedTuple):
  """Visible units with what weight and move need of them."""

  v: Array  # [..., D]
  logits: Array  # [..., H] hidden logits at beta = 1
  contrast: Array  # [...] log-potential of v under the machine's own biases minus that under the base


def annealed_path(machine, params: Params, base: Any) -> Path:
  """The path from independent visible units to a machine of ``rbm.py``.

  ::

    log f_beta(v) = (1 - beta) base potential(v) + beta bias potential(v) + sum_j softplus(beta logits_j(v))

  Args:
    machine: the module.
    params: its parameters, or ``Variables``.
    base: natural parameters of the independent units, see ``base_natural``.
  """
  variables = {'params': as_variables(params).params}

  def call(method, *args):
    return machine.apply(variables, *args, method=method)

  contrast = jax.tree.map(jnp.subtract, call('visible_natural'), base)  # potentials are linear in these

  def place(v):
    return RBMState(v, call('hidden_logits', v), call('potential', v, contrast))

  def start(key, num):
    natural = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), base)
    return place(call('natural_sample', key, natural))

  def gap(state, low, high):
    low, high = jnp.asarray(low), jnp.asarray(high)
    hidden = softplus_gap(state.logits, low[..., None], high[..., None])
    return (high - low) * state.contrast + jnp.sum(hidden, axis=-1)

  def move(key, state, beta):
    hidden_key, visible_key = jax.random.split(key)
    beta = jnp.asarray(beta)
    h = sample_bernoulli(hidden_key, beta[..., None] * state.logits)

    def mix(cold, hot):
      weight = beta.reshape(beta.shape + (1,) * hot.ndim)
      return weight * cold + (1 - weight) * hot

    natural = jax.tree.map(mix, call('visible_natural', h), base)
    return place(call('natural_sample', visible_key, natural))

  hidden_units = as_variables(params).params['hidden_bias'].shape[-1]
  log_z = call('log_normalizer', base) + hidden_units * math.log(2)
  return Path(log_z, start, place, lambda state: state.v, gap, move)


def base_natural(machine, params: Params, x: Array) -> Any:
  """Natural parameters of independent units with the marginals of the data ``[N, D]``: where annealing starts best."""
  params = {**jax.tree.map(jnp.zeros_like, as_variables(params).params), **machine.marginals(x)}
  return machine.apply({'params': params}, method='visible_natural')


def temperatures(schedule: str | int) -> Array:
  """Inverse temperatures from 0 to 1.

  Args:
    schedule: a number K of equal steps, or ``'salakhutdinov'``: 14,500 steps, of which 500 reach 0.5, 4000 more reach
      0.9 and 10,000 more reach 1 (Salakhutdinov & Murray 2008).

  Returns:
    ``[K + 1]``, increasing.
  """
  if isinstance(schedule, str) and schedule not in _SCHEDULES:
    raise ValueError(f'schedule={schedule!r}: give one of {sorted(_SCHEDULES)} or a number of steps')
  if not isinstance(schedule, str) and schedule < 1:
    raise ValueError(f'schedule={schedule}: the number of steps must be 1 or more')
  pieces = _SCHEDULES[schedule] if isinstance(schedule, str) else ((1.0, schedule),)
  betas, low = [], 0.0
  for high, steps in pieces:
    betas.append(np.linspace(low, high, steps, endpoint=False))
    low = high
  return jnp.asarray(np.concatenate([*betas, [1.0]]), jnp.float32)


class Estimate(NamedTuple):
  """An estimate of log Z from weighted chains."""

  log_z: Array  # [] nats
  lower: Array  # [] end of the bootstrap interval (95 %)
  upper: Array  # []
  effective_sample_size: Array  # [] of num_chains; few means that one weight dominates and the interval is too narrow
  log_weights: Array  # [num_chains]


def anneal(path: Path, betas: Array, key: Key, state: Any) -> tuple[Array, Any]:
  """Walks along the path in either direction, weighting before moving.

  Args:
    path: the path.
    betas: ``[K + 1]``, increasing from 0 or decreasing from 1.
    key: a key.
    state: the state of the chains, distributed as f at ``betas[0]``.

  Returns:
    The sum of ``log f_next - log f_now`` ``[num_chains]``, and the state after the last move, at ``betas[-1]``.
  """

  def step(carry, inputs):
    log_weight, state = carry
    now, after, key = inputs
    gap = path.gap(state, jnp.minimum(now, after), jnp.maximum(now, after))
    return (log_weight + jnp.where(after > now, gap, -gap), path.move(key, state, after)), None

  keys = jax.random.split(key, len(betas) - 1)
  zeros = jnp.zeros_like(path.gap(state, jnp.float32(0), jnp.float32(1)))
  return jax.lax.scan(step, (zeros, state), (betas[:-1], betas[1:], keys))[0]


def ais(path: Path, betas: Array, key: Key, num_chains: int = 100) -> Estimate:
  """Annealed importance sampling: log Z from below in expectation.

  Args:
    path: the path, see ``annealed_path``.
    betas: increasing from 0 to 1, see ``temperatures``.
    key: a key.
    num_chains: number of chains.
  """
  if num_chains < 2:
    raise ValueError(f'num_chains={num_chains}: an interval needs 2 chains or more')
  start_key, walk_key, boot_key = jax.random.split(key, 3)
  log_weights, _ = anneal(path, betas, walk_key, path.start(start_key, num_chains))
  return _estimate(path, boot_key, log_weights, 1)


def reverse_ais(path: Path, betas: Array, key: Key, visible: Array) -> Estimate:
  """Annealed importance sampling backwards: log Z from above in expectation, if it starts from the model.

  Args:
    path: the path.
    betas: increasing from 0 to 1; walked from its end.
    key: a key.
    visible: ``[num_chains, D]`` samples of the model.
  """
  walk_key, boot_key = jax.random.split(key)
  log_weights, _ = anneal(path, betas[::-1], walk_key, path.place(visible))
  return _estimate(path, boot_key, log_weights, -1)


def forward_and_reverse(
  path: Path, betas: Array, key: Key, num_chains: int = 100, num_steps: int = 1000, visible: Array | None = None
) -> tuple[Estimate, Estimate]:
  """AIS, and reverse AIS from samples of the model: both ends of a bracket.

  The samples are the ends of the forward chains, drawn again in proportion to their weights and then moved
  ``num_steps`` times at beta = 1. How honest that is: each end is a sample of the model if the forward chains reached
  all modes and their weights are many (see ``effective_sample_size``). A mode that no forward chain ever saw is missing
  from both ends, which then agree on too small a Z. To check, start from somewhere else: give ``visible``, such as the
  persistent chains of training or training examples.

  Args:
    path: the path.
    betas: increasing from 0 to 1.
    key: a key.
    num_chains: number of chains each way.
    num_steps: moves at beta = 1 before the way back.
    visible: ``[num_chains, D]`` where the way back starts before those moves, in place of the forward chains' ends.

  Returns:
    The two estimates, for ``bracket``.
  """
  start_key, walk_key, boot_key, choice_key, settle_key, back_key = jax.random.split(key, 6)
  log_weights, ends = anneal(path, betas, walk_key, path.start(start_key, num_chains))
  if visible is None:
    chosen = jax.random.categorical(choice_key, log_weights, shape=(num_chains,))
    visible = path.visible(ends)[chosen]
  state, _ = jax.lax.scan(
    lambda state, key: (path.move(key, state, jnp.float32(1)), None),
    path.place(visible),
    jax.random.split(settle_key, num_steps),
  )
  return _estimate(path, boot_key, log_weights, 1), reverse_ais(path, betas, back_key, path.visible(state))


def _estimate(path: Path, key: Key, log_weights: Array, sign: int) -> Estimate:
  """Estimates log Z by log Z_0 + sign * log mean exp(log_weights), with a percentile bootstrap over chains."""
  num = len(log_weights)

  def log_z(log_weights):
    return path.log_z + sign * (logsumexp(log_weights, axis=-1) - math.log(num))

  resampled = log_weights[jax.random.randint(key, (1000, num), 0, num)]
  lower, upper = jnp.quantile(log_z(resampled), jnp.array([0.025, 0.975]))
  size = jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))
  return Estimate(log_z(log_weights), lower, upper, size, log_weights)


class Bracket(NamedTuple):
  """A mean log-likelihood known between two ends, in nats per example."""

  lower: Array  # [] with log Z from reverse AIS, at the upper end of its interval
  upper: Array  # [] with log Z from AIS, at the lower end of its interval
  closed: Array  # [] bool: the two are within a nat


def bracket(mean_energy: Array, forward: Estimate, reverse: Estimate, width: float = 1.0) -> Bracket:
  """The bracket ``[lower, upper]`` of the mean of log p(x).

  Args:
    mean_energy: mean free energy of the examples.
    forward: from ``ais``.
    reverse: from ``reverse_ais``.
    width: how narrow a bracket must be to count as closed.
  """
  high = jnp.maximum(reverse.upper, forward.upper)
  low = jnp.minimum(forward.lower, reverse.lower)
  return Bracket(-mean_energy - high, -mean_energy - low, high - low <= width)
