"""The contract between models, learning rules, the loop and the evaluation.

A *model* says what can be computed: a density, a sample, a code. A *rule* says how parameters are learnt. Both are
NamedTuples of pure functions, so that the same model trains under ``jit``, ``vmap`` (seeds) and ``pmap`` (devices), and
so that any rule can be put to any model that has what the rule needs.

The laws (tested over every model in ``tests/test_laws.py``):

* ``init`` is a function of its key; ``step`` keeps structure, shapes and dtypes, and adds one to ``state.step``.
* Batch dimensions lead: ``[..., D]`` goes in and ``[...]`` comes out. Losses and statistics are means over examples,
  so the mean over devices is the mean over the batch.
* What inference needs is ``params`` and ``stats``; what only learning needs is ``opt_state`` and ``chains``.
* Every leaf of ``chains`` has the number of chains as its first axis; that axis is what is split over devices.
* Randomness comes in as a key. Nothing here has a default key.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array
Params = Any
Metrics = dict[str, Array]


class Batch(NamedTuple):
  """Examples, and what they are conditioned on."""

  x: Array  # [B, ...]
  context: Array | None = None  # [B, C] features or [B] integer labels


class Variables(NamedTuple):
  """The variables of a model whose state is more than what gradients teach.

  ``init`` functions may return one of these in place of bare parameters, and the functions of a ``Model`` take one
  wherever they take parameters.
  """

  params: Params
  stats: Mapping[str, Any] = {}  # learnt without gradients: running averages, data-dependent initialisations
  chains: Any = ()  # persistent Markov chains; every leaf is [num_chains, ...]


class Players(NamedTuple):
  """Parameters, optimiser states or optimisers of a two-player game."""

  generator: Params
  critic: Params


class TrainState(NamedTuple):
  """Everything that a step of learning reads and writes."""

  step: Array  # [] int32, number of updates made
  params: Params  # learnt by the rule
  opt_state: Any  # the rule's own memory
  stats: Mapping[str, Any]  # see Variables
  chains: Any  # see Variables

  @property
  def variables(self) -> Params | Variables:
    """What the functions of a ``Model`` take as ``params``; the running average of these if there is one."""
    stats = dict(self.stats)
    params = stats.pop('average', self.params)
    return Variables(params, stats) if stats else params


class Extra(NamedTuple):
  """What a loss returns beside its value: the new non-gradient state, and things to log.

  ``None`` leaves ``stats`` or ``chains`` as they were.
  """

  stats: Mapping[str, Any] | None = None
  chains: Any = None
  metrics: Metrics = {}


Loss = Callable[[Params, Key, Batch, TrainState], tuple[Array, Extra]]


class Model(NamedTuple):
  """What a model can do, as pure functions. A capability that it lacks is ``None``, and the evaluation asks.

  ``params`` stands for bare parameters, or for ``Variables`` where the model has ``stats``. Each function takes the
  keyword ``context=None``; a model built without a context refuses one, and the other way round. A context is features
  ``[..., C]`` or integer labels ``[...]``, one for each example, or for each of the ``num`` samples.
  """

  init: Callable  # (key, batch) -> params, or Variables
  log_prob: Callable | None = None  # (params, x) -> [...]           exact and normalised, nats
  bound: Callable | None = None  # (params, key, x) -> [...]         stochastic lower bound on log_prob, nats
  energy: Callable | None = None  # (params, x) -> [...]             -log p(x) up to a constant, nats
  sample: Callable | None = None  # (params, key, num) -> [num, ...]
  encode: Callable | None = None  # (params, x) -> z
  decode: Callable | None = None  # (params, z) -> x
  complete: Callable | None = None  # (params, key, x, observed) -> x  draws what is not observed given what is


class Algorithm(NamedTuple):
  """A learning rule bound to a model."""

  init: Callable[[Key, Batch], TrainState]
  step: Callable[[Key, TrainState, Batch], tuple[TrainState, Metrics]]


def as_variables(initial: Params | Variables) -> Variables:
  """Bare parameters become ``Variables`` without statistics or chains."""
  return initial if isinstance(initial, Variables) else Variables(initial)


def refuse_context(context: Any) -> None:
  """For the functions of a model of p(x) alone.

  Raises:
    ValueError: if ``context`` is given.
  """
  if context is not None:
    raise ValueError('context is given, but this model has no conditions: leave context=None')


def context_features(context: Array | None, context_size: int, batch_shape: tuple[int, ...]) -> Array | None:
  """The features that a conditional model joins to its inputs.

  Args:
    context: features ``[*batch_shape, C]``, or integer labels ``[*batch_shape]`` below C, which become one-hot rows.
    context_size: C; 0 for a model of p(x) alone.
    batch_shape: of the examples that are conditioned.

  Returns:
    ``[*batch_shape, C]`` floats, or None for a model of p(x) alone.

  Raises:
    ValueError: if a context is given to a model that has no conditions, is missing where there are some, or has
      another shape.
  """
  if not context_size:
    return refuse_context(context)
  if context is None:
    raise ValueError(f'context is missing: this model is conditioned on context_size={context_size} features or labels')
  context = jnp.asarray(context)
  if jnp.issubdtype(context.dtype, jnp.integer):
    expected, features = batch_shape, jax.nn.one_hot(context, context_size)
  else:
    expected, features = (*batch_shape, context_size), context
  if context.shape != expected:
    raise ValueError(
      f'context has shape {context.shape} and type {context.dtype}: for examples of batch shape {batch_shape} give '
      f'integer labels of that shape, or features of shape {(*batch_shape, context_size)}'
    )
  return features


def bind(module: nn.Module, method: str) -> Callable:
  """The method of a Flax module as a pure function ``(params, *args, **kwargs)``.

  Example:
    >>> import jax, jax.numpy as jnp, flax.linen as nn
    >>> double = bind(nn.Dense(2, use_bias=False), '__call__')
    >>> double({'kernel': 2 * jnp.eye(2)}, jnp.ones(2)).tolist()
    [2.0, 2.0]
  """

  def function(params, *args, **kwargs):
    params, stats, _ = as_variables(params)
    return module.apply({'params': params, **stats}, *args, method=method, **kwargs)

  function.__name__ = method
  function.__doc__ = getattr(type(module), method).__doc__
  return function


def pure(module: nn.Module) -> Model:
  """A Flax module as a ``Model``.

  The methods of the module that bear the names of a capability become that capability; ``__call__(x)`` (with
  ``context=`` for a conditional model) must touch every parameter, and serves to create them.

  Args:
    module: a linen module whose methods are its formulas.

  Returns:
    A ``Model``; its ``init`` returns bare parameters, or ``Variables`` if the module has other collections.
  """

  def init(key, batch):
    kwargs = {} if batch.context is None else {'context': batch.context}
    stats = dict(module.init(key, batch.x, **kwargs))
    params = stats.pop('params')
    return Variables(params, stats) if stats else params

  capabilities = {name: bind(module, name) for name in Model._fields if name != 'init' and hasattr(type(module), name)}
  return Model(init=init, **capabilities)
