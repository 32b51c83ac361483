"""The three learning rules: descent on a loss, a game of two players, expectation-maximisation.

Each builds an ``Algorithm`` from pure functions. ``axis_name`` names a mapped axis of devices: gradients and
statistics, being means over examples, are averaged over it. Persistent chains stay with their device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gm_jax.base import (
  Algorithm,
  Array,
  Batch,
  Extra,
  Key,
  Loss,
  Metrics,
  Params,
  Players,
  TrainState,
  Variables,
  as_variables,
)


def mean_over(axis_name: str | None, tree):
  """The mean of a tree over the devices of a mapped axis; the tree itself if there is none."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def likelihood_loss(log_prob: Callable) -> Loss:
  """Maximum likelihood: the mean of ``-log_prob`` (nats per example) as a loss for ``descent``."""

  def loss(params, key, batch, state):
    del key
    params = Variables(params, state.stats) if state.stats else params
    kwargs = {} if batch.context is None else {'context': batch.context}
    return -jnp.mean(log_prob(params, batch.x, **kwargs)), Extra()

  return loss


def descent(
  init: Callable[[Key, Batch], Params | Variables],
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  axis_name: str | None = None,
) -> Algorithm:
  """Stochastic gradient descent: one step of ``optimizer`` along the gradient of ``loss``.

  Args:
    init: ``(key, batch) -> params`` or ``Variables``.
    loss: ``(params, key, batch, state) -> (value, Extra)``; the value is a mean over examples. ``state`` is the state
      before the step, for those who need its ``step``, ``stats``, ``chains`` or ``opt_state``; the gradient is taken
      with respect to the first argument alone.
    optimizer: any optax transformation.
    axis_name: the mapped axis of devices, if any.

  Returns:
    An ``Algorithm`` whose metrics are ``loss``, the norms of gradient, update and parameters, and the loss's own.
  """

  def start(key, batch):
    params, stats, chains = as_variables(init(key, batch))
    return TrainState(jnp.int32(0), params, optimizer.init(params), stats, chains)

  def step(key, state, batch):
    (value, extra), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, key, batch, state)
    value, gradient, metrics = mean_over(axis_name, (value, gradient, extra.metrics))
    params, opt_state, norms = _update(optimizer, gradient, state.opt_state, state.params)
    state = _advance(state, params, opt_state, extra, axis_name)
    return state, {'loss': value, **norms, **metrics}

  return Algorithm(start, step)


def adversarial(
  init: Callable[[Key, Batch], Params | Variables],
  generator_loss: Loss,
  critic_loss: Loss,
  generator_optimizer: optax.GradientTransformation,
  critic_optimizer: optax.GradientTransformation,
  *,
  critic_steps: int = 1,
  axis_name: str | None = None,
) -> Algorithm:
  """A game: ``critic_steps`` descents of the critic on its loss, then one of the generator on its own.

  The batch is cut into ``critic_steps`` equal parts and each critic step sees one, so an update of the game reads every
  example once; the generator sees the last part (for its context). Both losses take all of ``Players`` as params and
  are differentiated with respect to the one whose turn it is.

  Args:
    init: ``(key, batch) -> Players`` of parameters, or ``Variables`` of them.
    generator_loss: ``(players, key, batch, state) -> (value, Extra)``.
    critic_loss: the same for the critic.
    generator_optimizer: any optax transformation.
    critic_optimizer: any optax transformation.
    critic_steps: updates of the critic per update of the generator, at least 1.
    axis_name: the mapped axis of devices, if any.

  Returns:
    An ``Algorithm`` whose metrics are ``loss`` (the generator's), ``critic_loss`` and the norms of both players, with
    the critic's as of its last step.

  Raises:
    ValueError: if ``critic_steps`` is below 1, or does not divide the batch.
  """
  if critic_steps < 1:
    raise ValueError(f'critic_steps={critic_steps}: the critic must move at least once per step, so give 1 or more')
  optimizers = Players(generator_optimizer, critic_optimizer)

  def start(key, batch):
    players, stats, chains = as_variables(init(key, batch))
    opt_state = Players(*(optimizer.init(params) for optimizer, params in zip(optimizers, players, strict=True)))
    return TrainState(jnp.int32(0), players, opt_state, stats, chains)

  def turn(player: str, loss: Loss, key, state, batch):
    """One descent of one player; everything of the other one stays."""

    def own_loss(params):
      return loss(state.params._replace(**{player: params}), key, batch, state)

    params, opt_state = getattr(state.params, player), getattr(state.opt_state, player)
    (value, extra), gradient = jax.value_and_grad(own_loss, has_aux=True)(params)
    value, gradient, metrics = mean_over(axis_name, (value, gradient, extra.metrics))
    params, opt_state, norms = _update(getattr(optimizers, player), gradient, opt_state, params)
    players = state.params._replace(**{player: params})
    opt_state = state.opt_state._replace(**{player: opt_state})
    norms = {f'{player}_{name}': norm for name, norm in norms.items()}
    moved = _advance(state, players, opt_state, extra, axis_name)._replace(step=state.step)
    return moved, value, {**norms, **metrics}

  def step(key, state, batch):
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % critic_steps:
      raise ValueError(f'a batch of {size} does not divide into critic_steps={critic_steps} equal parts')
    parts = jax.tree.map(lambda leaf: leaf.reshape(critic_steps, -1, *leaf.shape[1:]), batch)
    generator_key, critic_key = jax.random.split(key)

    def critic_turn(state, inputs):
      key, part = inputs
      state, value, metrics = turn('critic', critic_loss, key, state, part)
      return state, (value, metrics)

    state, critic = jax.lax.scan(critic_turn, state, (jax.random.split(critic_key, critic_steps), parts))
    critic_value, critic_metrics = jax.tree.map(lambda leaf: leaf[-1], critic)
    last = jax.tree.map(lambda leaf: leaf[-1], parts)
    state, value, metrics = turn('generator', generator_loss, generator_key, state, last)
    metrics = {'loss': value, 'critic_loss': critic_value, **critic_metrics, **metrics}
    return state._replace(step=state.step + 1), metrics

  return Algorithm(start, step)


def expectation_maximization(
  init: Callable[[Key, Batch], Params],
  e_step: Callable[[Params, Batch], tuple[Params, Array]],
  m_step: Callable[[Params, Params], Params],
  *,
  step_size: float | Callable[[Array], Array] = 1.0,
  axis_name: str | None = None,
) -> Algorithm:
  """Expectation-maximisation, over all data at once or stepwise over batches.

  The E-step gives expected sufficient statistics s(batch), as means over examples; the memory of the rule is their
  running average, ``S <- (1 - eta_t) S + eta_t s(batch)`` (Cappe & Moulines 2009); the M-step answers with the
  parameters that maximise the expected complete likelihood under S. With the default ``eta = 1`` and the whole data set
  as the batch this is the EM of Dempster, Laird & Rubin (1977), and the loss never rises.

  Args:
    init: ``(key, batch) -> params``.
    e_step: ``(params, batch) -> (statistics, log_prob)``: means over examples, the second of log p(x) in nats.
    m_step: ``(params, statistics) -> params``; the old parameters are given for what the statistics leave undetermined.
    step_size: eta, or a schedule of the step count (from 0). The first step always takes eta = 1.
    axis_name: the mapped axis of devices, if any.

  Returns:
    An ``Algorithm`` whose metrics are ``loss`` (mean of -log p(x) before the step) and the norms of update and
    parameters.
  """
  schedule = step_size if callable(step_size) else lambda step: step_size

  def start(key, batch):
    params, stats, chains = as_variables(init(key, batch))
    shapes = jax.eval_shape(e_step, params, batch)[0]
    statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return TrainState(jnp.int32(0), params, statistics, stats, chains)

  def step(key, state, batch):
    del key
    statistics, log_prob = mean_over(axis_name, e_step(state.params, batch))
    eta = jnp.where(state.step == 0, 1.0, schedule(state.step))
    statistics = jax.tree.map(lambda old, new: (1 - eta) * old + eta * new, state.opt_state, statistics)
    params = m_step(state.params, statistics)
    update = jax.tree.map(jnp.subtract, params, state.params)
    norms = {'update_norm': optax.tree.norm(update), 'param_norm': optax.tree.norm(params)}
    state = state._replace(step=state.step + 1, params=params, opt_state=statistics)
    return state, {'loss': -log_prob, **norms}

  return Algorithm(start, step)


def averaged(algorithm: Algorithm, decay: float) -> Algorithm:
  """The same algorithm, with a running average of its parameters that inference uses in their place.

  ``stats['average'] <- d stats['average'] + (1 - d) params`` with ``d = min(decay, (1 + t) / (10 + t))`` at step t, so
  that the first parameters are soon forgotten; ``TrainState.variables`` answers with the average (Polyak & Juditsky
  1992; the schedule of d is customary).

  Raises:
    ValueError: unless ``0 <= decay < 1``.
  """
  if not 0 <= decay < 1:
    raise ValueError(f'decay={decay}: the share of the old average must lie in [0, 1)')

  def start(key, batch):
    state = algorithm.init(key, batch)
    average = jax.tree.map(jnp.copy, state.params)  # a buffer held twice cannot be donated
    return state._replace(stats={**state.stats, 'average': average})

  def step(key, state, batch):
    average, stats = state.stats['average'], {n: s for n, s in state.stats.items() if n != 'average'}
    state, metrics = algorithm.step(key, state._replace(stats=stats), batch)
    rate = 1 - jnp.minimum(decay, state.step / (9.0 + state.step))
    average = jax.tree.map(lambda old, new: old + rate * (new - old), average, state.params)
    return state._replace(stats={**state.stats, 'average': average}), metrics

  return Algorithm(start, step)


def _update(optimizer, gradient, opt_state, params) -> tuple[Params, Params, Metrics]:
  """One step of an optimiser, and the three norms that tell its health."""
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  norms = {'grad_norm': gradient, 'update_norm': updates, 'param_norm': params}
  return optax.apply_updates(params, updates), opt_state, {name: optax.tree.norm(t) for name, t in norms.items()}


def _advance(state, params, opt_state, extra, axis_name) -> TrainState:
  """The state after an update; statistics are averaged over devices, chains are not."""
  stats = state.stats if extra.stats is None else mean_over(axis_name, extra.stats)
  chains = state.chains if extra.chains is None else extra.chains
  return TrainState(state.step + 1, params, opt_state, stats, chains)
