"""DeepNADE: one deep network for the conditionals of every ordering, and ensembles over orderings (EoNADE).

Uria, Murray & Larochelle 2014, "A deep and tractable density estimator". The network sees the dimensions that are
known, with zeros for the others, joined with the mask that tells which are known; m is that mask, with d - 1 ones::

  h_1 = relu(c + W (m * x) + U m)       h_l = relu(c_l + W_l h_{l-1})
  p(x_i | x_m) = head(b_i + V_i h_L)    for every i not in m
  loss = E_d E_{m with d-1 ones} [ D / (D - d + 1) sum_{i not in m} -log p(x_i | x_m) ]

The loss is the mean over all D! orderings o of -log p(x | o), estimated from one pass. Each ordering gives a
distribution of its own, log p(x | o) = sum_t log p(x_{o_t} | x_{o_<t}), and their mixture is one, too::

  p(x) = 1/M sum_m p(x | o_m)

which costs M D passes, in which the first layer changes by one column at a time. Given any dimensions b, any others a
have the conditional distribution p(x_a | x_b, o) in which those of a come after b in the order of o: exactly the
conditional of the joint distribution whose ordering is b, then a, then the rest, each in the order of o.

Example, order-agnostic training in four lines:
  >>> import jax, optax
  >>> from gm_jax.autoregressive import deep_nade
  >>> from gm_jax.base import Batch, pure
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = deep_nade.DeepNADE(num_dimensions=4, hidden_sizes=(16,), orderings=((0, 1, 2, 3), (3, 1, 2, 0)))
  >>> algorithm = descent(pure(model).init, deep_nade.loss(model), optax.adam(0.03))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(pure(model).log_prob(state.params, x).mean() > -0.75)  # two patterns: log 1/2 = -0.69 at best
  True
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoregressive.nade import one_hot_inputs
from gm_jax.base import Array, Extra, Key, Loss, bind, context_features
from gm_jax.likelihoods import Bernoulli, Categorical
from gm_jax.nn.masked import check_ordering


class DeepNADE(nn.Module):
  """DeepNADE over D bits or D categorical variables.

  Attributes:
    num_dimensions: D.
    hidden_sizes: units of each hidden layer, one or more.
    head: ``Bernoulli()``, or ``Categorical(K)`` for classes 0 ... K - 1.
    orderings: those of the ensemble that ``log_prob`` scores and ``sample`` draws from; the natural one if empty.
    context_size: of the features, or number of the labels, that x is conditioned on; 0 for none.
  """

  num_dimensions: int
  hidden_sizes: Sequence[int]
  head: Bernoulli | Categorical = Bernoulli()
  orderings: Sequence[Sequence[int]] = ()
  context_size: int = 0

  def __post_init__(self):
    if self.num_dimensions < 1:
      raise ValueError(f'num_dimensions={self.num_dimensions}: must be 1 or more')
    if not self.hidden_sizes or min(self.hidden_sizes) < 1:
      raise ValueError(
        f'hidden_sizes={tuple(self.hidden_sizes)}: give one hidden layer or more, each of 1 unit or more'
      )
    if not isinstance(self.head, Bernoulli | Categorical):
      raise ValueError(f'head={self.head!r}: DeepNADE is for bits or classes, so give Bernoulli() or Categorical(K)')
    for ordering in self.orderings:
      check_ordering(ordering, self.num_dimensions)
    super().__post_init__()

  def setup(self):
    """Weights of what is seen, of the mask, of the layers and of the outputs."""
    dimensions, outputs, first, last = self.num_dimensions, self.head.size, self.hidden_sizes[0], self.hidden_sizes[-1]
    normal, zeros = nn.initializers.normal, nn.initializers.zeros
    scale = math.sqrt(1 / dimensions)
    self.kernel = self.param('kernel', normal(scale), (dimensions, outputs, first))
    self.mask_kernel = self.param('mask_kernel', normal(scale), (dimensions, first))
    self.hidden_bias = self.param('hidden_bias', zeros, (first,))
    sizes = list(zip(self.hidden_sizes[:-1], self.hidden_sizes[1:], strict=True))
    self.layers = [
      (
        self.param(f'kernel_{i}', nn.initializers.he_normal(), shape),
        self.param(f'bias_{i}', zeros, shape[1:]),
      )
      for i, shape in enumerate(sizes, 2)
    ]
    self.output_kernel = self.param('output_kernel', normal(math.sqrt(1 / last)), (dimensions, outputs, last))
    self.output_bias = self.param('output_bias', zeros, (dimensions, outputs))
    if self.context_size:
      self.context_kernel = self.param('context_kernel', normal(0.01), (self.context_size, first))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The outputs for a half-known x; touches every parameter."""
    return self.outputs(x, jnp.arange(self.num_dimensions) % 2 == 0, context=context)

  def outputs(self, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """What p(x_i | observed dimensions) is made of, for every i that is not observed, in one pass.

    Args:
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean, broadcastable to x.
      context: for each example.

    Returns:
      Raw outputs of the head ``[..., D, O]``.
    """
    hidden = _layers(self.layers, self._start(x, observed, context))
    outputs = jnp.einsum('bh,doh->bdo', hidden, self.output_kernel) + self.output_bias
    return outputs.reshape(*x.shape, self.head.size)

  def order_agnostic_log_prob(self, key: Key, x: Array, *, context: Array | None = None) -> Array:
    """An unbiased estimate, from one pass, of the mean of log p(x | o) over all orderings: ``[..., D] -> [...]``, nats.

    The numbers of known dimensions are spread evenly over the examples, which changes the distribution of none of them.
    """
    dimensions, flat = self.num_dimensions, x.reshape(-1, x.shape[-1])
    number_key, order_key = jax.random.split(key)
    spread = (jax.random.uniform(number_key) + jnp.arange(len(flat)) / len(flat)) % 1
    known = jnp.minimum(jnp.floor(spread * dimensions), dimensions - 1).astype(jnp.int32)
    noise = jax.random.uniform(order_key, flat.shape)
    threshold = jnp.take_along_axis(jnp.sort(noise), known[:, None], axis=1)
    observed = (noise < threshold).reshape(x.shape)
    log_prob = self.head.log_prob(self.outputs(x, observed, context=context), x)
    weight = dimensions / (dimensions - observed.sum(-1))
    return weight * jnp.sum(jnp.where(observed, 0, log_prob), axis=-1)

  def log_prob(self, x: Array, *, orderings: Array | None = None, context: Array | None = None) -> Array:
    """The exact log p(x) of the ensemble in nats, ``[..., D] -> [...]``, one ordering after the other.

    Args:
      x: ``[..., D]``.
      orderings: ``[M, D]``, or one ordering ``[D]``; those of the model if None.
      context: for each example.
    """
    nothing, everything = jnp.zeros(x.shape, bool), jnp.ones(x.shape, bool)
    return self.conditional_log_prob(x, everything, nothing, orderings=orderings, context=context)

  def conditional_log_prob(
    self, x: Array, target: Array, observed: Array, *, orderings: Array | None = None, context: Array | None = None
  ) -> Array:
    """The exact log p(x_a | x_b) in nats, for any disjoint a and b: ``[..., D] -> [...]``.

    With several orderings it is the log of the mean of p(x_a | x_b, o) over them, see the formulas above; without b it
    is a marginal.

    Args:
      x: ``[..., D]``; what it holds outside of a and b does not matter.
      target: boolean, broadcastable to x: a.
      observed: boolean, broadcastable to x: b. Dimensions that are in both count as observed.
      orderings: ``[M, D]``, or one ordering ``[D]``; those of the model if None.
      context: for each example.
    """
    start, target = self._start(x, observed, context), self._rows(target & ~jnp.asarray(observed), x)
    values, (orderings, walk) = self._rows(x, x).astype(jnp.float32), (self._orderings(orderings), self._walk())

    def of_one(ordering):
      columns = (values.T[ordering], target.T[ordering])
      _, log_prob = walk(start, ordering, columns, lambda outputs, now: now)
      return log_prob.sum(0)

    log_probs = jax.lax.map(of_one, orderings)
    return (jax.nn.logsumexp(log_probs, axis=0) - math.log(len(orderings))).reshape(x.shape[:-1])

  def sample(self, key: Key, num: int, *, context: Array | None = None) -> Array:
    """``[num, D]`` exact draws from the ensemble: each by an ordering that is drawn first."""
    x = jnp.zeros((num, self.num_dimensions))
    return self.complete(key, x, jnp.zeros(x.shape, bool), context=context)

  def complete(self, key: Key, x: Array, observed: Array, *, context: Array | None = None) -> Array:
    """Draws what is not observed given what is, exactly from ``conditional_log_prob``.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean, broadcastable to x; it may differ between examples.
      context: for each example.
    """
    which_key, key = jax.random.split(key)
    start, target = self._start(x, observed, context), self._rows(~jnp.asarray(observed), x)
    values, (orderings, walk) = self._rows(x, x).astype(jnp.float32), (self._orderings(None), self._walk())
    chosen = jax.random.randint(which_key, (len(values),), 0, len(orderings))

    def of_one(drawn, inputs):
      """All rows are drawn by this ordering, and those kept that chose it; with one ordering that is all."""
      i, ordering, key = inputs
      keys = jax.random.split(key, self.num_dimensions)
      columns = (values.T[ordering], target.T[ordering], keys)
      draw = lambda outputs, now: (jnp.where(now[1], self.head.sample(now[2], outputs), now[0]), now[1])
      x, _ = walk(start, ordering, columns, draw)
      return jnp.where((chosen == i)[:, None], x.T[:, jnp.argsort(ordering)], drawn), None

    keys = jax.random.split(key, len(orderings))
    drawn, _ = jax.lax.scan(of_one, values, (jnp.arange(len(orderings)), orderings, keys))
    return drawn.reshape(x.shape)

  def conditionals(self, x: Array, *, ordering: Array | None = None, context: Array | None = None) -> Array:
    """The raw outputs of p(x_d | what comes before d in the ordering), ``[..., D] -> [..., D, O]``, in D passes."""
    (ordering,) = self._orderings(jnp.arange(self.num_dimensions) if ordering is None else ordering)
    place = jnp.argsort(ordering)

    def one(d):
      return jnp.take(self.outputs(x, place < place[d], context=context), d, axis=-2)

    return jnp.moveaxis(jax.lax.map(one, jnp.arange(self.num_dimensions)), 0, -2)

  def _orderings(self, orderings: Array | None) -> Array:
    """``[M, D]``."""
    if orderings is None:
      orderings = self.orderings or [range(self.num_dimensions)]
      orderings = [list(ordering) for ordering in orderings]
    orderings = jnp.atleast_2d(jnp.asarray(orderings, jnp.int32))
    if orderings.ndim != 2 or orderings.shape[1] != self.num_dimensions:
      raise ValueError(
        f'orderings has shape {orderings.shape}: give [M, {self.num_dimensions}] permutations of the dimensions'
      )
    return orderings

  def _rows(self, leaf: Array, x: Array) -> Array:
    """What is broadcastable to x as rows: ``[B, D]``."""
    if x.shape[-1:] != (self.num_dimensions,):
      raise ValueError(f'x has shape {x.shape}: its last axis must be num_dimensions={self.num_dimensions}')
    return jnp.broadcast_to(jnp.asarray(leaf), x.shape).reshape(-1, self.num_dimensions)

  def _start(self, x: Array, observed: Array, context: Array | None) -> Array:
    """Pre-activations of the first layer, given what is observed: ``[B, H_1]``."""
    features = context_features(context, self.context_size, x.shape[:-1])
    known = self._rows(observed, x).astype(jnp.float32)
    seen = one_hot_inputs(self.head, self._rows(x, x).astype(jnp.float32)) * known[..., None]
    seen = seen.reshape(len(seen), -1) @ self.kernel.reshape(-1, self.hidden_sizes[0])
    start = self.hidden_bias + seen + known @ self.mask_kernel
    return start if features is None else start + features.reshape(-1, self.context_size) @ self.context_kernel

  def _walk(self):
    """The conditionals one by one along an ordering, as a pure function that can be mapped and scanned."""
    head, layers = self.head, self.layers
    weights = [jnp.asarray(w) for w in (self.kernel, self.mask_kernel, self.output_kernel, self.output_bias)]

    def walk(start, ordering, columns, choose):
      """``choose(outputs, columns_d) -> (x_d, target_d)``; gives x ``[D, B]`` and log p where targeted, else 0."""

      def step(a, now):
        w, u, v, b, column = now
        outputs = _layers(layers, a) @ v.T + b
        x, target = choose(outputs, column)
        column = target[:, None] * (one_hot_inputs(head, x) @ w + u)
        return a + column, (x, jnp.where(target, head.log_prob(outputs, x), 0))

      _, (x, log_prob) = jax.lax.scan(step, start, (*(leaf[ordering] for leaf in weights), columns))
      return x, log_prob

    return walk


def loss(module: DeepNADE) -> Loss:
  """Order-agnostic training for ``descent``: an unbiased estimate of the mean of -log p(x | o) over all orderings."""
  estimate = bind(module, 'order_agnostic_log_prob')

  def minus_mean(params, key, batch, state):
    del state
    kwargs = {} if batch.context is None else {'context': batch.context}
    return -estimate(params, key, batch.x, **kwargs).mean(), Extra()

  return minus_mean


def _layers(layers, a: Array) -> Array:
  """The last hidden layer from the pre-activations of the first."""
  hidden = nn.relu(a)
  for kernel, bias in layers:
    hidden = nn.relu(hidden @ kernel + bias)
  return hidden
