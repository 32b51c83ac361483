"""The masked autoencoder for distribution estimation, MADE (Germain, Gregor, Murray & Larochelle 2015).

An autoencoder whose weights are masked so that output d depends on nothing but the dimensions before d in an ordering::

  h^0 = x      h^l = g(b^l + h^(l-1) (W^l * M^l))      outputs = c + h^L (V * M^V) + x (A * M^A)

  M^l_jk = [m^(l-1)(j) <= m^l(k)]      M^V_jd = [m^L(j) < m^0(d)]      M^A_id = [m^0(i) < m^0(d)]

  log p(x) = sum_d log p(x_d | outputs_d)

Each unit bears a degree m (``made_degrees.py``): for an input its place 1..D in the ordering, for a hidden unit a
number in 1..D-1 that is spread evenly or drawn at random. The direct connections A are optional.

*Ensembles.* The same weights serve under M sets of degrees, which may differ in ordering, in connectivity or in both.
Training uses one of them at each step; the density is that of the mixture, ``logsumexp_m log p_m(x) - log M``.

*Samples for the price of one pass.* When dimension t becomes known, exactly the hidden units of degree t have seen all
they will ever see. So each is computed once, when its degree is reached, from units that are final: blocks of equal
degree, layer by layer, then the one output that comes next. Units that wait are zero, so no mask is needed.

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.autoregressive import made, made_degrees
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), (50, 1))
  >>> model = made.MADE(made_degrees.degrees(num_dimensions=4, hidden_sizes=(8,)))
  >>> algorithm = descent(*made.objective(model), optax.adam(0.1))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.71)  # two patterns have -log 1/2 = 0.69 each
  True
"""

import itertools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.autoregressive import ancestral
from gm_jax.autoregressive.made_degrees import Degrees
from gm_jax.base import Array, Extra, Key, Loss, bind, context_features
from gm_jax.likelihoods import Bernoulli, Categorical, Head, sample_categorical
from gm_jax.nn import masked


class MADE(nn.Module):
  """A masked autoencoder.

  A context is joined to every hidden layer, and to the outputs, for the first dimension sees no hidden unit.

  Attributes:
    degrees: of all units, under each mask; they fix D and the sizes of the layers.
    head: the distribution of a dimension.
    activation: g.
    direct: whether inputs and outputs are joined directly, too.
    one_hot: whether categories enter as one-hot rows. Otherwise they enter as numbers between 0 and 1.
    context_size: number of features or classes that the model is conditioned on; 0 for none.
  """

  degrees: Degrees
  head: Head = Bernoulli()
  activation: Callable[[Array], Array] = nn.relu
  direct: bool = False
  one_hot: bool = False
  context_size: int = 0

  def __post_init__(self):
    if not self.degrees.hidden and not self.direct:
      raise ValueError('direct=False without a hidden layer: no dimension would see another; give direct=True')
    if self.one_hot and not isinstance(self.head, Categorical):
      raise ValueError(f'one_hot=True needs a Categorical head, not {self.head}')
    super().__post_init__()

  @property
  def num_dimensions(self) -> int:
    """D."""
    return self.degrees.num_dimensions

  @property
  def num_masks(self) -> int:
    """M."""
    return self.degrees.num_masks

  def setup(self):
    """The layers; that of the direct connections has a bias only if there is no hidden layer to have it."""
    sizes = [layer.shape[1] for layer in self.degrees.hidden]
    num_outputs = self.num_dimensions * self.head.size
    self.hidden = [masked.MaskedDense(size) for size in sizes]
    if sizes:
      self.output = masked.MaskedDense(num_outputs)
    if self.direct:
      self.shortcut = masked.MaskedDense(num_outputs, use_bias=not sizes)
    if self.context_size:
      self.conditions = [nn.Dense(size, use_bias=False) for size in (*sizes, num_outputs)]

  def __call__(self, x: Array, *, context=None) -> Array:
    """The log-density under the first mask; touches every parameter."""
    return self._log_prob(x, context, 0)

  def features(self, x: Array) -> Array:
    """What the network sees of each dimension: ``[...] -> [..., C]``."""
    if self.one_hot:
      return jax.nn.one_hot(x.astype(jnp.int32), self.head.num_classes)
    scale = self.head.num_classes - 1 if isinstance(self.head, Categorical) else 1
    return (x / scale)[..., None]

  @property
  def _num_features(self) -> int:
    return self.head.num_classes if self.one_hot else 1

  def masks(self, index: Array | int = 0) -> list[Array]:
    """The masks ``[units below, units]`` of all layers, that of the direct connections last."""
    places = jnp.asarray(self.degrees.inputs)[index]
    inputs, outputs = jnp.repeat(places, self._num_features), jnp.repeat(places, self.head.size)
    layers = [inputs, *(jnp.asarray(layer)[index] for layer in self.degrees.hidden)]
    masks = [masked.hidden_mask(below, own) for below, own in itertools.pairwise(layers)]
    masks += [masked.output_mask(layers[-1], outputs)] if len(layers) > 1 else []
    return masks + ([masked.output_mask(inputs, outputs)] if self.direct else [])

  # Density.

  def conditionals(self, x: Array, *, context=None, index: Array | int = 0) -> Array:
    """Outputs of the head for each dimension, those of p(x_d | earlier): ``[..., D] -> [..., D, size]``.

    Args:
      x: ``[..., D]``.
      context: see ``base.context_features``.
      index: which mask, below M.
    """
    if x.shape[-1] != self.num_dimensions:
      raise ValueError(f'x.shape={x.shape}: the last axis must have {self.num_dimensions} dimensions; flatten images')
    c = context_features(context, self.context_size, x.shape[:-1])
    *shifts, outputs = [layer(c) for layer in self.conditions] if self.context_size else [0.0] * (len(self.hidden) + 1)
    masks = self.masks(index)
    h = inputs = self.features(x).reshape(*x.shape[:-1], -1)
    for layer, mask, shift in zip(self.hidden, masks, shifts, strict=False):
      h = self.activation(layer(h, mask) + shift)
    if self.hidden:
      outputs = outputs + self.output(h, masks[len(self.hidden)])
    if self.direct:
      outputs = outputs + self.shortcut(inputs, masks[-1])
    return outputs.reshape(*x.shape, self.head.size)

  def _log_prob(self, x, context, index):
    return jnp.sum(self.head.log_prob(self.conditionals(x, context=context, index=index), x), axis=-1)

  def log_prob(self, x: Array, *, context=None, index: Array | int | None = None) -> Array:
    """The exact log p(x) in nats, ``[..., D] -> [...]``: of one mask, or without ``index`` of the mixture of all."""
    if index is not None or self.num_masks == 1:
      return self._log_prob(x, context, 0 if index is None else index)
    module, variables = self.unbind()
    of_mask = lambda index: module.apply(variables, x, context, index, method='_log_prob')
    return jax.nn.logsumexp(jax.lax.map(of_mask, jnp.arange(self.num_masks)), axis=0) - math.log(self.num_masks)

  # Sampling.

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` exact samples, each under a mask of its own drawing, for the arithmetic of about one pass."""
    index_key, draw_key = jax.random.split(key)
    index = jax.random.randint(index_key, (num,), 0, self.num_masks)
    return self._draw(jax.random.split(draw_key, num), index, context)[0]

  def complete(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """Draws the dimensions of x that are not ``observed``.

    Each is drawn given all that come before it in the ordering. That is the exact conditional if the observed ones come
    first; an observed dimension that comes later is not looked ahead to. An ensemble draws one candidate under each
    mask and keeps one of them with a chance in proportion to the likelihood that it gives what is observed, which is
    exact where the observed dimensions come first in all orderings, and else importance resampling from M candidates.

    Args:
      key: a key.
      x: ``[..., D]``; what it holds where not observed does not matter.
      observed: boolean, broadcastable to x.
      context: see ``base.context_features``.
    """
    draw_key, choice_key = jax.random.split(key)
    rows = x.reshape(-1, self.num_dimensions)
    seen = jnp.broadcast_to(observed, x.shape).reshape(rows.shape)
    c = context_features(context, self.context_size, x.shape[:-1])
    c = None if c is None else c.reshape(len(rows), -1)
    given = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.num_masks, axis=0), (c, rows, seen))
    index = jnp.tile(jnp.arange(self.num_masks), len(rows))
    drawn, log_weights = self._draw(jax.random.split(draw_key, len(index)), index, *given)
    shape = (len(rows), self.num_masks)
    chosen = sample_categorical(choice_key, log_weights.reshape(shape))
    return jnp.take_along_axis(drawn.reshape(*shape, -1), chosen[:, None, None], axis=1).reshape(x.shape)

  def _draw(self, keys, index, context=None, x=None, observed=None):
    """One example per key, under the mask of its index, and the log-weights of what was observed."""
    context = context_features(context, self.context_size, keys.shape)
    if self.num_masks == 1:
      return jax.vmap(self._sampler(0))(keys, context, x, observed)
    sampler = lambda args: self._sampler(args[0])(*args[1:])
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(self.variables['params']))
    at_once = max(2**24 // num_weights, 1)  # each example has the weights in an order of its own: bound the memory
    return jax.lax.map(sampler, (index, keys, context, x, observed), batch_size=at_once)

  def _sampler(self, index):
    """``(key, context, x, observed) -> (x, log-weight)`` of one example under one mask."""
    num_dimensions, num_layers, blocks = self.num_dimensions, len(self.hidden), self.degrees.blocks
    pick = lambda table: jnp.asarray(table)[index]
    orders = [pick(block.order) for block in blocks]
    pads = [block.size for block in blocks]  # rows of zeros behind the last unit, so that no block is cut off

    def weights(layer, name):
      return jnp.asarray(layer.variables['params'][name])

    def incoming(layer, l, order):
      """Kernel ``[units, units below]`` of a layer, both sides by rising degree."""
      kernel = weights(layer, 'kernel').T
      kernel = kernel if l == 0 else jnp.pad(kernel[:, orders[l - 1]], ((0, 0), (0, pads[l - 1])))
      return kernel if order is None else jnp.pad(kernel[order], ((0, pads[l]), (0, 0)))

    kernels = [incoming(layer, l, orders[l]) for l, layer in enumerate(self.hidden)]
    biases = [weights(layer, 'bias') for layer in self.hidden]
    starts, counts = [pick(block.start) for block in blocks], [pick(block.count) for block in blocks]
    by_dimension = lambda leaf: leaf.reshape(num_dimensions, self.head.size, *leaf.shape[1:])
    last = self.output if num_layers else self.shortcut
    readout = by_dimension(incoming(last, num_layers, None))
    shortcut = by_dimension(weights(self.shortcut, 'kernel').T) if num_layers and self.direct else None
    output_bias = weights(last, 'bias')
    conditions = [weights(layer, 'kernel') for layer in self.conditions] if self.context_size else []

    def one(key, context, x, observed):
      shifts = [context @ kernel for kernel in conditions] or [0.0] * (num_layers + 1)
      shifted = [jnp.pad((b + s)[o], (0, pad)) for b, s, o, pad in zip(biases, shifts, orders, pads, strict=False)]
      output_shift = by_dimension(output_bias + shifts[-1])

      def conditional(state, t, dimension):
        inputs, hidden = state
        below, hidden = inputs.ravel(), list(hidden)
        for l in range(num_layers):
          start, size = starts[l][t], pads[l]
          rows, bias = (jax.lax.dynamic_slice_in_dim(leaf, start, size) for leaf in (kernels[l], shifted[l]))
          block = jnp.where(jnp.arange(size) < counts[l][t], self.activation(rows @ below + bias), 0.0)
          below = hidden[l] = jax.lax.dynamic_update_slice_in_dim(hidden[l], block, start, 0)
        outputs = readout[dimension] @ below + output_shift[dimension]
        if shortcut is not None:
          outputs = outputs + shortcut[dimension] @ inputs.ravel()
        return (inputs, hidden), outputs

      def absorb(state, dimension, value):
        return state[0].at[dimension].set(self.features(value)), state[1]

      state = (jnp.zeros((num_dimensions, self._num_features)), [jnp.zeros_like(bias) for bias in shifted])
      return ancestral.draw(key, self.head, pick(self.degrees.orderings), state, conditional, absorb, x, observed)

    return one


def objective(module: MADE, masks: str = 'cycle') -> tuple[Callable, Loss]:
  """Initialisation and loss for ``descent``: -log p under one mask at each step, in nats per example.

  Args:
    module: the network.
    masks: ``'cycle'`` takes the masks in turn, ``'draw'`` one at random.

  Raises:
    ValueError: if ``masks`` is neither.
  """
  if masks not in ('cycle', 'draw'):
    raise ValueError(f"masks={masks!r}: choose 'cycle' or 'draw'")
  log_prob = bind(module, 'log_prob')

  def init(key, batch):
    return module.init(key, batch.x, context=batch.context)['params']

  def loss(params, key, batch, state):
    index = state.step % module.num_masks if masks == 'cycle' else jax.random.randint(key, (), 0, module.num_masks)
    index = 0 if module.num_masks == 1 else index
    return -jnp.mean(log_prob(params, batch.x, context=batch.context, index=index)), Extra()

  return init, loss
