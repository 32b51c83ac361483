"""log p(x) of a model with latent variables by annealing from its prior, from below and from above.

Annealed importance sampling (Neal 2001; Wu, Burda, Salakhutdinov & Grosse 2017) walks for every x from p(z) to
p(z | x) along f_beta(z) = p(z) p(x | z)^beta, beta = 0..1; each chain is weighted first and moved after::

  log w = sum_k (beta_(k+1) - beta_k) log p(x | z_k),       z_(k+1) ~ T_(beta_(k+1))(. | z_k)
  E[w] = p(x),        so that the log of a mean of weights is too low in the mean (Jensen)

and the walk back from an *exact* draw of p(z | x) has E[1 / w] = 1 / p(x): minus the log of a mean of inverses is too
high in the mean. Such a draw is at hand for simulated data, (z, x) ~ p(z) p(x | z), and there the two are a bracket
(bidirectional Monte Carlo, Grosse, Ghahramani & Adams 2015) whose width says how far to trust the first on real data.

T is Hamiltonian Monte Carlo with its test of acceptance. The sizes of its steps, one for each temperature and example,
come from a pilot walk with a key of its own, so that the walks that count are Markov chains that leave each f_beta as
it is: nothing in them is tuned by what they see.

Example:
  >>> import jax
  >>> from gm_jax.autoencoders import annealing, vae
  >>> module = vae.mlp(num_visible=6, num_latents=2, hidden_sizes=(8,))
  >>> params = jax.jit(module.init)(jax.random.key(0), jax.numpy.ones((1, 6)))['params']
  >>> walk = jax.jit(annealing.bidirectional(module, num_temperatures=30, num_chains=20), static_argnums=2)
  >>> lower, upper, x = walk(params, jax.random.key(1), 50)
  >>> bool(abs((upper - lower).mean()) < 0.02)  # nats
  True
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoencoders.latent_variables import log_mean
from gm_jax.base import Array, Key, bind

ACCEPTANCE = 0.65  # which the pilot aims at (Neal 2011)
FIRST_STEP_SIZE = 0.2  # which it begins with


class Walk(NamedTuple):
  """A walk of several chains for each example."""

  log_weights: Array  # [num_chains, ...] nats
  z: Any  # [num_chains, ..., M], where it ends
  acceptance: Array  # [K, ...] share of accepted moves at each temperature, over chains


def temperatures(num: int, sharpness: float = 4.0) -> Array:
  """Inverse temperatures ``[num + 1]`` from 0 to 1 along a sigmoid, close together at both ends (Wu et al. 2017).

  Raises:
    ValueError: if ``num`` is below 1.
  """
  if num < 1:
    raise ValueError(f'num_temperatures={num}: must be 1 or more')
  s = jax.nn.sigmoid(sharpness * jnp.linspace(-1.0, 1.0, num + 1))
  return (s - s[0]) / (s[-1] - s[0])


def leapfrog(gradient: Callable, z: Any, momentum: Any, step_size: Array, num_steps: int) -> tuple[Any, Any]:
  """``num_steps`` of the leapfrog integrator for a log-density with the given gradient and unit masses.

  Args:
    gradient: of the log-density, ``z -> `` a tree like z.
    z: positions, a tree of ``[..., M]``.
    momentum: the same.
    step_size: ``[...]``.
    num_steps: full steps.
  """
  move = lambda a, b, size: jax.tree.map(lambda p, q: p + size[..., None] * q, a, b)
  momentum = move(momentum, gradient(z), step_size / 2)

  def step(state, _):
    z, momentum = state
    z = move(z, momentum, step_size)
    return (z, move(momentum, gradient(z), step_size)), None

  (z, momentum), _ = jax.lax.scan(step, (z, momentum), length=num_steps)
  return z, move(momentum, gradient(z), -step_size / 2)  # the last full kick was half a kick too much


def hamiltonian_move(key: Key, log_density: Callable, z: Any, step_size: Array, num_steps: int) -> tuple[Any, Array]:
  """One transition of Hamiltonian Monte Carlo, which leaves ``exp(log_density)`` as it is whatever the step size.

  Args:
    key: a key.
    log_density: ``[..., M] -> [...]``, up to a constant.
    z: where the chains are.
    step_size: ``[...]``.
    num_steps: leapfrog steps.

  Returns:
    The new z, and the probability ``[...]`` with which each move was accepted.
  """
  momentum_key, accept_key = jax.random.split(key)
  leaves, structure = jax.tree.flatten(z)
  keys = jax.random.split(momentum_key, len(leaves))
  draws = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
  momentum = jax.tree.unflatten(structure, draws)
  gradient = jax.grad(lambda z: log_density(z).sum())
  energy = lambda z, momentum: sum(0.5 * (p**2).sum(-1) for p in jax.tree.leaves(momentum)) - log_density(z)
  proposal, end = leapfrog(gradient, z, momentum, step_size, num_steps)
  log_ratio = energy(z, momentum) - energy(proposal, end)
  log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)  # of a trajectory that ran away
  accepted = jnp.log(jax.random.uniform(accept_key, log_ratio.shape)) < log_ratio
  z = jax.tree.map(lambda new, old: jnp.where(accepted[..., None], new, old), proposal, z)
  return z, jnp.exp(jnp.minimum(log_ratio, 0.0))


class Annealer(NamedTuple):
  """The three walks of one model; ``x`` is ``[..., D]``, and each takes ``context=``."""

  tune: Callable  # (params, key, x) -> step sizes [K, ...] by a pilot walk upward
  forward: Callable  # (params, key, x, step_sizes) -> Walk; log E[w] = log p(x)
  backward: Callable  # (params, key, x, z, step_sizes) -> Walk from z [num_chains, ..., M] ~ p(z | x); E[1/w] = 1/p(x)


def annealer(
  module: nn.Module, *, num_temperatures: int = 100, num_chains: int = 16, num_leapfrog: int = 10
) -> Annealer:
  """Annealing between the prior of a ``LatentVariableModel`` and its posterior.

  Args:
    module: the model.
    num_temperatures: K, moves of each chain.
    num_chains: chains for each example.
    num_leapfrog: leapfrog steps of a move.

  Raises:
    ValueError: if one of the numbers is below 1.
  """
  for name, value in (('num_chains', num_chains), ('num_leapfrog', num_leapfrog)):
    if value < 1:
      raise ValueError(f'{name}={value}: must be 1 or more')
  betas = temperatures(num_temperatures)
  names = ('log_likelihood', 'log_prior', 'propose_prior')
  log_likelihood, log_prior, propose_prior = (bind(module, name) for name in names)

  def walk(params, key, x, z, betas, step_sizes, context, pilot=False):
    """From z along ``betas``; the pilot makes its own step sizes, beginning with the first of those given."""

    def one(state, inputs):
      z, log_weights, own_size = state
      now, after, size, key = inputs
      size = own_size if pilot else size
      log_weights += (after - now) * log_likelihood(params, x, z, context=context)

      def log_density(z):
        return log_prior(params, x, z, context=context) + after * log_likelihood(params, x, z, context=context)

      z, acceptance = hamiltonian_move(key, log_density, z, jnp.broadcast_to(size, log_weights.shape), num_leapfrog)
      acceptance = acceptance.mean(0)
      return (z, log_weights, size * jnp.exp(0.5 * (acceptance - ACCEPTANCE))), (acceptance, size)

    keys = jax.random.split(key, num_temperatures)
    state = (z, jnp.zeros((num_chains, *x.shape[:-1])), step_sizes[0])
    (z, log_weights, _), (acceptance, sizes) = jax.lax.scan(one, state, (betas[:-1], betas[1:], step_sizes, keys))
    return Walk(log_weights, z, acceptance), sizes

  def upward(params, key, x, step_sizes, context, pilot=False):
    start_key, key = jax.random.split(key)
    z = propose_prior(params, start_key, x, num_chains, context=context)
    return walk(params, key, x, z, betas, step_sizes, context, pilot)

  def tune(params, key, x, *, context=None):
    first = jnp.full((num_temperatures, *x.shape[:-1]), FIRST_STEP_SIZE)
    return upward(params, key, x, first, context, pilot=True)[1]

  def forward(params, key, x, step_sizes, *, context=None):
    return upward(params, key, x, step_sizes, context)[0]

  def backward(params, key, x, z, step_sizes, *, context=None):
    down = jnp.concatenate([step_sizes[-2::-1], step_sizes[:1]])  # those of betas[K-1], ..., betas[1], and any at 0
    found = walk(params, key, x, z, betas[::-1], down, context)[0]
    return found._replace(log_weights=-found.log_weights)

  return Annealer(tune, forward, backward)


def bidirectional(module: nn.Module, *, num_chains: int = 16, **kwargs) -> Callable:
  """``(params, key, num, context=None) -> (lower, upper, x)``: bounds on log p(x) of ``num`` simulated examples.

  Both bounds ``[num]`` are in nats and hold in the mean over runs; their mean difference is more than what ``forward``
  loses on average, if real data are like simulated ones.

  Args:
    module: a ``LatentVariableModel``.
    num_chains: chains for each example.
    **kwargs: of ``annealer``.
  """
  tune, forward, backward = annealer(module, num_chains=num_chains, **kwargs)
  sample_prior, draw = bind(module, 'sample_prior'), bind(module, 'draw')

  def function(params, key, num, *, context=None):
    prior_key, draw_key, tune_key, up_key, down_key = jax.random.split(key, 5)
    z = sample_prior(params, prior_key, num, context=context)
    x = draw(params, draw_key, z, context=context)
    step_sizes = tune(params, tune_key, x, context=context)
    up = forward(params, up_key, x, step_sizes, context=context)
    chains = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)), z)
    down = backward(params, down_key, x, chains, step_sizes, context=context)
    return log_mean(up.log_weights), -log_mean(-down.log_weights), x

  return function
