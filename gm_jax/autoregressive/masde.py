"""MASDE: a masked autoencoder whose outputs see a Markov blanket each, for structured data.

MADE lets the conditional of x_i see all predecessors. If the data come from a Markov random field, a few of them, the
looking-back blanket B_i (``structure.py``), say all there is to say, and a network without the other paths has less to
learn from few examples (Khajenezhad, Madani & Beigy 2021)::

  log p(x) = sum_i log p(x_i | x_B_i)

Each hidden unit k bears a *set* S_k of inputs that it may depend on, one of the blankets; with inclusion in place of
the order of MADE's degrees::

  input j   -> unit k    if j in S_k
  unit k    -> unit l    if S_k is a subset of S_l
  unit k    -> output i  if S_k is a subset of B_i
  input j   -> output i  if j in B_i

so that a path from j to output i exists if and only if j is in B_i. The paper's own masks could not be compared with:
this construction is ours. With the graph that joins everything it is MADE's.

Variables whose blankets are drawn can be drawn at once, so sampling takes as many passes as the longest chain of
blankets, not D.

Example, four lines of learning:
  >>> import jax, numpy as np, optax
  >>> from gm_jax.autoregressive import masde, structure
  >>> from gm_jax.base import Batch, pure
  >>> from gm_jax.training import rules
  >>> x = np.tile(np.array([[0.0, 0, 1, 1], [1, 1, 0, 0]], np.float32), (8, 1))
  >>> blankets = structure.looking_back_blankets(structure.grid(1, 4), range(4))
  >>> model = pure(masde.MASDE(blankets, hidden_sizes=(32,)))
  >>> algorithm = rules.descent(model.init, rules.likelihood_loss(model.log_prob), optax.adam(0.05))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(100):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.8)  # log 2 = 0.69 is the entropy of two patterns
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.autoregressive.structure import Blankets
from gm_jax.base import Array, Key, refuse_context
from gm_jax.likelihoods import Bernoulli, Head
from gm_jax.nn.masked import MaskedDense


def membership(blankets: Blankets) -> np.ndarray:
  """Blankets as a boolean matrix ``[D, D]``: whether j is in B_i, at row i."""
  member = np.zeros((len(blankets), len(blankets)), bool)
  for i, blanket in enumerate(blankets):
    member[i, list(blanket)] = True
  return member


def levels(blankets: Blankets) -> np.ndarray:
  """When each variable can be drawn: 0 without a blanket, else one more than the highest level in it: ``[D]``.

  Raises:
    ValueError: if blankets refer to each other in a circle, so that no ordering has them.
  """
  member, level, known = membership(blankets), np.zeros(len(blankets), int), np.zeros(len(blankets), bool)
  for step in range(len(blankets)):
    ready = ~known & ~(member & ~known).any(1)
    level[ready], known = step, known | ready
    if known.all():
      return level
  raise ValueError(f'blankets={blankets}: some refer to each other in a circle; take those of one ordering')


def masks(blankets: Blankets, hidden_sizes: Sequence[int]) -> list[np.ndarray]:
  """The masks of all layers, ``[num_in, num_out]`` each, from the inputs to the D outputs.

  Raises:
    ValueError: if a hidden layer has fewer units than there are different blankets.
  """
  member = membership(blankets)
  sets = np.unique(member[member.any(1)], axis=0)
  if not len(sets):
    sets = member[:1]
  below, found = np.eye(len(member), dtype=bool), []
  for size in hidden_sizes:
    if size < len(sets):
      raise ValueError(
        f'hidden_sizes={tuple(hidden_sizes)}: there are {len(sets)} different blankets, and each layer needs a unit '
        'for each of them'
      )
    units = sets[np.arange(size) * len(sets) // size]
    found.append(_is_subset(below, units))
    below = units
  return [*found, _is_subset(below, member)]


def _is_subset(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Whether each row of ``one`` is a subset of each row of ``other``: ``[n, D], [m, D] -> [n, m]``."""
  return one.astype(np.float32) @ (~other).astype(np.float32).T == 0


class MASDE(nn.Module):
  """A masked autoencoder over variables with given looking-back blankets.

  Attributes:
    blankets: B_i for each of the D variables, see ``structure.looking_back_blankets``.
    hidden_sizes: units of each hidden layer, one layer or more; each at least the number of different blankets.
    head: the distribution of a variable given the outputs of its conditional.
    activation: nonlinearity of the hidden layers.
  """

  blankets: Blankets
  hidden_sizes: Sequence[int]
  head: Head = Bernoulli()
  activation: Callable[[Array], Array] = nn.relu

  def __post_init__(self):
    if not self.hidden_sizes:
      raise ValueError('hidden_sizes is empty: give 1 layer or more')
    levels(self.blankets)
    masks(self.blankets, self.hidden_sizes)
    super().__post_init__()

  @property
  def num_dimensions(self) -> int:
    """D."""
    return len(self.blankets)

  def setup(self):
    """Masked layers, hidden ones with weights that keep the variance of the few units seen; and a direct one."""
    *hidden, output = masks(self.blankets, self.hidden_sizes)
    repeat = lambda mask: np.repeat(mask, self.head.size, axis=1)
    self.hidden_masks, self.output_mask = hidden, repeat(output)
    self.direct_mask = repeat(membership(self.blankets).T)
    scales = [1 / np.sqrt(max(mask.sum(0).mean(), 1)) for mask in hidden]
    self.hidden = [
      MaskedDense(size, kernel_init=nn.initializers.normal(scale))
      for size, scale in zip(self.hidden_sizes, scales, strict=True)
    ]
    self.output = MaskedDense(self.output_mask.shape[1])
    self.direct = MaskedDense(self.output_mask.shape[1], use_bias=False, kernel_init=nn.initializers.zeros)

  def __call__(self, x: Array, *, context=None) -> Array:
    """The log-probability; touches every parameter."""
    return self.log_prob(x, context=context)

  def conditionals(self, x: Array, *, context=None) -> Array:
    """The outputs of p(x_i | x_B_i) for each i: ``[..., D] -> [..., D, head.size]``."""
    refuse_context(context)
    if x.shape[-1] != self.num_dimensions:
      raise ValueError(f'x.shape={x.shape}: the last axis must be the {self.num_dimensions} variables of the blankets')
    hidden = x
    for layer, mask in zip(self.hidden, self.hidden_masks, strict=True):
      hidden = self.activation(layer(hidden, mask))
    outputs = self.output(hidden, self.output_mask) + self.direct(x, self.direct_mask)
    return outputs.reshape(*x.shape, self.head.size)

  def log_prob(self, x: Array, *, context=None) -> Array:
    """The exact log p(x) in nats: ``[..., D] -> [...]``."""
    return self.head.log_prob(self.conditionals(x, context=context), x).sum(-1)

  def sample(self, key: Key, num: int, *, context=None) -> Array:
    """``[num, D]`` exact draws, by one pass for each level of the blankets."""
    refuse_context(context)
    level = levels(self.blankets)
    module, variables = self.unbind()

    def draw_level(x, now):
      outputs = module.apply(variables, x, method='conditionals')
      return jnp.where(level == now, self.head.sample(jax.random.fold_in(key, now), outputs), x), None

    return jax.lax.scan(draw_level, jnp.zeros((num, self.num_dimensions)), jnp.arange(level.max() + 1))[0]
