r"""DocNADE: a neural autoregressive model of documents.

A document is a sequence of n words v_1 ... v_n of a vocabulary of V, given its length (Larochelle and Lauly, "A neural
autoregressive topic model", 2012)::

  p(v)          = prod_i p(v_i | v_<i)
  h_i           = g(c + sum_{k < i} W_{v_k})         a running sum of embeddings, so all h_i cost O(n H)
  p(w | v_<i)   = softmax(V h_i + b)_w               plain, O(V H) for each word, or
  p(w | v_<i)   = prod_m sigmoid(+-(V_{l_m} h_i + b_{l_m}))    along the path l_1, l_2, ... from the root of a balanced
                                                               binary tree to the leaf of w: O(H log V)

A bag of words has no order. It is learnt from in an order that is drawn anew at every step, and its probability is that
of its sequences: with counts c_w, p(bag) = n! / prod_w c_w! times the *mean over orders* of p(v). ``order_average``
estimates the mean; the published perplexities leave the multinomial coefficient out.

Documents of different length share an array by padding with -1. Padding anywhere changes nothing.

Example, two kinds of documents that share no word:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> bags = jax.numpy.array([[0, 0, 1, 1, -1], [2, 3, 3, 2, 3]])
  >>> x = jax.numpy.tile(bags, (20, 1))
  >>> module = DocNADE(vocabulary_size=4, num_hidden=4)
  >>> algorithm = descent(*objective(module), optax.adam(0.1))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(100):
  ...   state, metrics = step(jax.random.key(i), state, Batch(shuffle(jax.random.key(i), x)))
  >>> log_prob = module.apply({'params': state.params}, x, method='log_prob')
  >>> bool(perplexity(log_prob, lengths(x)) < 2.5)  # 2 for all words but the first, which tells the kind
  True
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.base import Array, Extra, Key, Loss, Variables, bind, context_features, pure
from gm_jax.likelihoods import sample_bernoulli, sample_categorical, softplus

OUTPUTS = ('softmax', 'tree')


class Softmax(nn.Module):
  """The probability of each of V words from one product with ``[V, H]`` weights."""

  vocabulary_size: int
  num_hidden: int

  def setup(self):
    """The kernel starts small: all words are nearly equal."""
    self.kernel = self.param('kernel', nn.initializers.normal(0.01), (self.vocabulary_size, self.num_hidden))
    self.bias = self.param('bias', nn.initializers.zeros, (self.vocabulary_size,))

  def log_probs(self, hidden: Array) -> Array:
    """Of all words: ``[..., H] -> [..., V]``."""
    return jax.nn.log_softmax(hidden @ self.kernel.T + self.bias)

  def log_prob(self, hidden: Array, words: Array) -> Array:
    """Of one word each: ``[..., H], [...] -> [...]``."""
    return jnp.take_along_axis(self.log_probs(hidden), words[..., None], axis=-1)[..., 0]

  def sample(self, key: Key, hidden: Array) -> Array:
    """``[..., H] -> [...]`` words."""
    return sample_categorical(key, hidden @ self.kernel.T + self.bias)


def tree_paths(vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
  """The way from the root of the balanced tree to the leaf of each word.

  The tree is the complete one of a heap: the children of node i are 2 i + 1 and 2 i + 2, the inner nodes 0 ... V - 2,
  and the leaves V - 1 ... 2 V - 2 the words in their order. No path is longer than another by more than one.

  Returns:
    Nodes ``[V, M]``, from the leaf's parent up to the root, and signs ``[V, M]``: +1 where the path goes to the second
    child, -1 to the first, and 0 (at node 0) behind the end of a path, which is shorter for some words.
  """
  place = np.arange(vocabulary_size) + vocabulary_size - 1
  nodes, signs = [], []
  while (place > 0).any():
    parent = np.maximum(place - 1, 0) // 2
    nodes.append(parent)
    signs.append(np.where(place > 0, np.where(place % 2 == 0, 1, -1), 0))
    place = parent
  return np.stack(nodes, axis=1).astype(np.int32), np.stack(signs, axis=1).astype(np.float32)


class Tree(nn.Module):
  """The probability of a word as that of a walk down a balanced binary tree of V - 1 logistic regressions."""

  vocabulary_size: int
  num_hidden: int

  def setup(self):
    """One row for each inner node."""
    kernel = self.param('kernel', nn.initializers.normal(0.01), (self.vocabulary_size - 1, self.num_hidden))
    bias = self.param('bias', nn.initializers.zeros, (self.vocabulary_size - 1,))
    self.kernel, self.bias = jnp.asarray(kernel), jnp.asarray(bias)  # rows are picked by traced nodes

  def log_probs(self, hidden: Array) -> Array:
    """Of all words, from all nodes: ``[..., H] -> [..., V]``."""
    nodes, signs = tree_paths(self.vocabulary_size)
    logits = hidden @ self.kernel.T + self.bias
    return jnp.sum(-jnp.abs(signs) * softplus(-signs * logits[..., nodes]), axis=-1)

  def log_prob(self, hidden: Array, words: Array) -> Array:
    """Of one word each, from the nodes of its path alone: ``[..., H], [...] -> [...]``."""
    nodes, signs = map(jnp.asarray, tree_paths(self.vocabulary_size))
    nodes, signs = nodes[words], signs[words]
    logits = jnp.einsum('...mh,...h->...m', self.kernel[nodes], hidden) + self.bias[nodes]
    return jnp.sum(-jnp.abs(signs) * softplus(-signs * logits), axis=-1)

  def sample(self, key: Key, hidden: Array) -> Array:
    """``[..., H] -> [...]`` words, by one walk from the root."""
    place = jnp.zeros(hidden.shape[:-1], jnp.int32)
    last = self.vocabulary_size - 2
    for one in jax.random.split(key, (self.vocabulary_size - 1).bit_length()):
      node = jnp.minimum(place, last)
      logits = jnp.sum(self.kernel[node] * hidden, axis=-1) + self.bias[node]
      child = 2 * place + 1 + sample_bernoulli(one, logits).astype(jnp.int32)
      place = jnp.where(place <= last, child, place)
    return place - self.vocabulary_size + 1


class DocNADE(nn.Module):
  """A distribution over documents ``[..., L]`` of word numbers, given their lengths; -1 is padding.

  Attributes:
    vocabulary_size: V.
    num_hidden: H, the number of topics.
    output: one of ``OUTPUTS``.
    activation: g; sigmoid in the paper, tanh in later ones.
    document_length: words of a document that ``sample`` draws, unless it is told.
    context_size: C, of what documents are conditioned on; it adds to c. 0 for a model of documents alone.
  """

  vocabulary_size: int
  num_hidden: int
  output: str = 'softmax'
  activation: Callable[[Array], Array] = nn.sigmoid
  document_length: int = 100
  context_size: int = 0

  def __post_init__(self):
    for name, least in (('vocabulary_size', 2), ('num_hidden', 1), ('document_length', 1)):
      if getattr(self, name) < least:
        raise ValueError(f'{name}={getattr(self, name)}: must be {least} or more')
    if self.output not in OUTPUTS:
      raise ValueError(f'output={self.output!r}: give one of {", ".join(OUTPUTS)}')
    super().__post_init__()

  def setup(self):
    """Embeddings, the bias of the hidden units, and the output."""
    normal = nn.initializers.normal(1 / np.sqrt(self.num_hidden))
    embedding = self.param('embedding', normal, (self.vocabulary_size, self.num_hidden))
    self.embedding = jnp.asarray(
      embedding
    )  # rows are picked by traced words, also where the parameters are on the host
    self.hidden_bias = self.param('hidden_bias', nn.initializers.zeros, (self.num_hidden,))
    self.words = {'softmax': Softmax, 'tree': Tree}[self.output](self.vocabulary_size, self.num_hidden)
    if self.context_size:
      self.context_kernel = self.param('context_kernel', normal, (self.context_size, self.num_hidden))

  def __call__(self, x: Array, *, context: Array | None = None) -> Array:
    """The same as ``log_prob``."""
    return self.log_prob(x, context=context)

  def _embed(self, x: Array) -> tuple[Array, Array, Array]:
    """Words without padding ``[..., L]``, where there is one ``[..., L]``, and its embedding or zero ``[..., L, H]``.

    A word beyond the vocabulary is refused where its number is known; in a compiled program it makes NaN.
    """
    if not isinstance(x, jax.core.Tracer):
      check_documents(x, self.vocabulary_size)
    x = jnp.asarray(x).astype(jnp.int32)
    present = x >= 0
    words = jnp.where(present, x, 0)
    embedded = self.embedding.at[words].get(mode='fill', fill_value=jnp.nan)
    return words, present, jnp.where(present[..., None], embedded, 0)

  def _bias(self, context: Array | None, batch_shape: tuple[int, ...]) -> Array:
    features = context_features(context, self.context_size, batch_shape)
    bias = self.hidden_bias if features is None else self.hidden_bias + features @ self.context_kernel
    return jnp.broadcast_to(bias, (*batch_shape, self.num_hidden))

  def _hidden(self, embedded: Array, context: Array | None) -> Array:
    """h_i of every position, from the words before it: ``[..., L, H]``."""
    bias = self._bias(context, embedded.shape[:-2])
    before = jnp.concatenate([jnp.zeros_like(embedded[..., :1, :]), embedded[..., :-1, :]], axis=-2)
    return self.activation(bias[..., None, :] + jnp.cumsum(before, axis=-2))

  def log_prob(self, x: Array, *, context: Array | None = None) -> Array:
    """The exact log-probability in nats of the words in their order, given their number: ``[..., L] -> [...]``.

    Raises:
      ValueError: for a number that is neither a word nor -1 (in a compiled program the result is NaN instead), or a
        context that does not fit.
    """
    words, present, embedded = self._embed(x)
    each = self.words.log_prob(self._hidden(embedded, context), words)
    each = jnp.where(words < self.vocabulary_size, each, jnp.nan)  # the last word is embedded nowhere
    return jnp.sum(jnp.where(present, each, 0), axis=-1)

  def estimate(self, key: Key, x: Array, num_positions: int, *, context: Array | None = None) -> Array:
    """An unbiased estimate of ``log_prob`` from some positions of each document: ``[..., L] -> [...]``.

    The hidden units of all positions are a running sum and cost little beside the words that are put out. So only
    ``num_positions`` words are scored: the n words are cut into as many strata of equal length, and one word is drawn
    from each, which counts n / num_positions times. With num_positions = n it is ``log_prob`` itself.
    """
    words, present, embedded = self._embed(x)
    num = jnp.sum(present, axis=-1, keepdims=True)
    strata = jnp.arange(num_positions) + jax.random.uniform(key, (*num.shape[:-1], num_positions))
    rank = jnp.minimum(jnp.floor(strata * num / num_positions).astype(jnp.int32), num - 1)  # among the words
    place = jnp.sum(jnp.cumsum(present, axis=-1)[..., None, :] <= rank[..., None], axis=-1)  # among the positions
    place = jnp.minimum(place, words.shape[-1] - 1)
    hidden = jnp.take_along_axis(self._hidden(embedded, context), place[..., None], axis=-2)
    each = self.words.log_prob(hidden, jnp.take_along_axis(words, place, axis=-1))
    return jnp.mean(each, axis=-1) * num[..., 0]

  def conditionals(self, x: Array, *, context: Array | None = None) -> Array:
    """The log p(w | v_<i) of every position i and word w: ``[..., L] -> [..., L, V]``."""
    return self.words.log_probs(self._hidden(self._embed(x)[2], context))

  def encode(self, x: Array, *, context: Array | None = None) -> Array:
    """The representation g(c + sum of all embeddings) of a document: ``[..., L] -> [..., H]``."""
    embedded = self._embed(x)[2]
    return self.activation(self._bias(context, embedded.shape[:-2]) + embedded.sum(-2))

  def sample(self, key: Key, num: int, *, length: int | None = None, context: Array | None = None) -> Array:
    """Documents of ``length`` words (``document_length`` if not given), word by word: ``[num, length]``."""
    length = self.document_length if length is None else length
    if length < 1:
      raise ValueError(f'length={length}: a document that is drawn has 1 word or more')

    def step(total, key):
      words = self.words.sample(key, self.activation(total))
      return total + self.embedding[words], words

    return jax.lax.scan(step, self._bias(context, (num,)), jax.random.split(key, length))[1].T


def check_documents(x: Array, vocabulary_size: int) -> None:
  """Raise ``ValueError`` for a number in ``x`` that is neither a word of the vocabulary nor -1."""
  x = np.asarray(x)
  wrong = (x < -1) | (x >= vocabulary_size) | (x != np.floor(x))
  if wrong.any():
    raise ValueError(
      f'x holds {x[wrong].flat[0]}, which is no word of vocabulary_size={vocabulary_size}: words are the whole numbers '
      f'0 ... {vocabulary_size - 1}, and -1 is padding'
    )


def lengths(x: Array) -> Array:
  """The number of words of each document, padding left out: ``[..., L] -> [...]``."""
  return jnp.sum(jnp.asarray(x) >= 0, axis=-1)


def shuffle(key: Key, x: Array) -> Array:
  """The words of each document in a uniformly random order, padding behind them: ``[..., L] -> [..., L]``."""
  x = jnp.asarray(x)
  place = jnp.where(x >= 0, jax.random.uniform(key, x.shape), 2.0)
  return jnp.take_along_axis(x, jnp.argsort(place, axis=-1), axis=-1)


def objective(module: DocNADE, num_positions: int = 0) -> tuple[Callable, Loss]:
  """What ``rules.descent`` needs to learn the mean over documents of -log p(v) / n, the logarithm of the perplexity.

  With ``rules.likelihood_loss`` a document would count as often as it has words.

  Args:
    module: the model.
    num_positions: words of each document that are scored at each step, see ``DocNADE.estimate``; 0 for all.

  Raises:
    ValueError: if ``num_positions`` is negative.
  """
  if num_positions < 0:
    raise ValueError(f'num_positions={num_positions}: give 1 or more, or 0 for all')
  log_prob, estimate = bind(module, 'log_prob'), bind(module, 'estimate')

  def loss(params, key, batch, state):
    params = Variables(params, state.stats) if state.stats else params
    kwargs = {} if batch.context is None else {'context': batch.context}
    if num_positions:
      values = estimate(params, key, batch.x, num_positions, **kwargs)
    else:
      values = log_prob(params, batch.x, **kwargs)
    return -jnp.mean(values / jnp.maximum(lengths(batch.x), 1)), Extra()

  return pure(module).init, loss


def order_average(log_prob: Callable, key: Key, x: Array, num_orders: int) -> Array:
  """The log of the mean of p over random orders of the words: ``[..., L] -> [...]``, nats.

  The mean over *all* orders is the probability of the bag less the multinomial coefficient. In expectation this lies
  below its logarithm, and comes closer with each order; the mean of log p over orders lies below both.

  Args:
    log_prob: ``x -> [...]`` of sequences.
    key: of the orders.
    x: documents.
    num_orders: how many, 1 or more.
  """
  if num_orders < 1:
    raise ValueError(f'num_orders={num_orders}: must be 1 or more')
  values = jax.lax.map(lambda key: log_prob(shuffle(key, x)), jax.random.split(key, num_orders))
  return jax.nn.logsumexp(values, axis=0) - jnp.log(num_orders)


def perplexity(log_prob: Array, lengths: Array) -> np.float64:
  """Perplexity per word as published: exp(- mean over documents of log p(d) / |d|); on the host, in float64.

  Args:
    log_prob: ``[N]`` nats.
    lengths: ``[N]`` words in each document.

  Raises:
    ValueError: for a document without words, which has no perplexity.
  """
  if (np.asarray(lengths) < 1).any():
    raise ValueError('lengths has a document without words, which has no perplexity per word: leave it out')
  return np.exp(-np.mean(np.asarray(log_prob, np.float64) / np.asarray(lengths)))
