"""DocNADE: documents as bags of words, put out by a plain softmax or by a balanced binary tree.

The words of a document come in an order that is drawn anew at every step. Reports the perplexity per word in one order
and with the probability averaged over several, how well the hidden representation retrieves documents of the same
class, the words nearest to each other, and those of each hidden unit.

  python -m experiments.docnade                                          a toy corpus on five topics
  python -m experiments.docnade --dataset=20newsgroups --output=tree     needs --data_dir or $GM_JAX_DATA_DIR
"""

import functools

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import activations, cli
from gm_jax import data as datasets
from gm_jax.autoregressive import docnade
from gm_jax.base import Batch, as_variables, bind
from gm_jax.data import toy, transforms
from gm_jax.evaluation import conditional_plots, likelihood, plots, retrieval
from gm_jax.training import rules

FRACTIONS = 2.0 ** np.arange(-12, 1)
PUBLISHED = {
  '20newsgroups': [
    ('DocNADE, 50 topics', 'perplexity 896', 'Larochelle and Lauly 2012, nearly the same preprocessing'),
    ('replicated softmax, 50 topics', 'perplexity 953', 'Mnih and Gregor 2014'),
    ('NVDM, 50 topics', 'perplexity 836, a bound', 'Miao, Yu and Blunsom 2016'),
  ],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  integer('num_hidden', 50, 'Hidden units, or topics.')
  absl_flags.DEFINE_enum('output', docnade.OUTPUTS[0], docnade.OUTPUTS, 'How words are put out.', flag_values=flags)
  activations.define_flag(flags, 'sigmoid')
  integer('max_words', 512, 'Words of a document that are learnt from in one step; of longer ones a random part is.')
  integer('num_positions', 32, 'Words of a document that are scored in one step; 0 for all.', 0)
  absl_flags.DEFINE_float('weight_decay', 0.0, 'Decay of the weights (of AdamW).', lower_bound=0, flag_values=flags)
  absl_flags.DEFINE_float(
    'average', 0.999, 'Decay of the running average of the parameters; 0 for none.', lower_bound=0, flag_values=flags
  )
  integer('num_orders', 10, 'Orders over which the probability of a test document is averaged.')


def split_counts(split: datasets.Split) -> datasets.Split:
  """Without the documents that have no word."""
  kept = split.x.sum(1) > 0
  return datasets.Split(split.x[kept], None if split.y is None else split.y[kept])


class Scorer:
  """log p of documents of any length: those of like length go through together, padded to the next power of two."""

  def __init__(self, module, num_orders: int):
    log_prob = bind(module, 'log_prob')

    def averaged(params, key, counts, length):
      sequence = transforms.bag_to_sequence(key, counts, length)
      if num_orders == 1:
        return log_prob(params, sequence)
      return docnade.order_average(lambda x: log_prob(params, x), key, sequence, num_orders)

    @functools.cache
    def of_length(length):
      block_size = max(2**15 // length, 1)
      function = functools.partial(averaged, length=length)
      return likelihood.evaluator(function, block_size=block_size, stochastic=True)

    self._of_length = of_length

  def __call__(self, params, key, counts: np.ndarray) -> np.ndarray:
    """``[N, V]`` counts to ``[N]`` nats."""
    power = np.ceil(np.log2(np.maximum(counts.sum(1), 16))).astype(int)
    found = np.zeros(len(counts))
    for one in np.unique(power):
      chosen = power == one
      found[chosen] = self._of_length(2 ** int(one))(params, counts[chosen], key=key).values
    return found


def perplexity_score(log_prob, counts, kind: str) -> likelihood.Score:
  """Perplexity per word, with the error that the mean over documents has."""
  per_word = likelihood.summarise(log_prob / counts.sum(1))
  value = docnade.perplexity(log_prob, counts.sum(1))
  return likelihood.score(value, kind, stderr=value * per_word.stderr, n=per_word.n, unit='words')


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  if dataset.kind != 'counts':
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but DocNADE needs counts of words')
  train, valid, test = map(split_counts, (dataset.train, dataset.valid, dataset.test))
  module = docnade.DocNADE(
    dataset.shape[0], flags.num_hidden, flags.output, activations.ACTIVATIONS[flags.activation],
    int(np.median(train.x.sum(1))),
  )  # fmt: skip
  plan = cli.make_plan(flags, len(train.x))
  longest = min(int(train.x.sum(1).max()), flags.max_words)
  matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  rate = optax.cosine_decay_schedule(flags.learning_rate, plan.num_steps)
  optimizer = optax.adamw(rate, weight_decay=flags.weight_decay, mask=matrices)
  algorithm = rules.descent(*docnade.objective(module, flags.num_positions), optimizer, axis_name=axis_name)
  once = Scorer(module, 1)

  def evaluate(step, state):
    per_word = once(params_of(state), jax.random.key(step), valid.x) / valid.x.sum(1)
    return {'valid/log_prob_per_word': per_word.mean(), 'valid/perplexity': np.exp(-per_word.mean())}

  def score(key, state):
    params = params_of(state)
    single = once(params, key, test.x)
    averaged = Scorer(module, flags.num_orders)(params, key, test.x)
    scores = {
      'test_log_prob': likelihood.summarise(single).score('exact'),
      'test_perplexity': perplexity_score(single, test.x, 'exact'),
      f'test_perplexity_of_{flags.num_orders}_orders': perplexity_score(averaged, test.x, 'upper bound'),
    }
    if dataset.name == 'topics':
      truth = jax.jit(toy.log_density('topics'))(test.x) - jax.jit(log_orders)(test.x) + np.log(21)
      scores['test_perplexity_of_the_truth'] = perplexity_score(np.asarray(truth), test.x, 'exact')
    return scores

  def sample(key, state, num):
    return module.apply({'params': params_of(state)}, key, num, method='sample')

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(train.x),
    transform=lambda key, x: transforms.bag_to_sequence(key, x, longest),
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(module, dataset, (train, test), key, params_of(state), folder),
    sample=sample,
    best_metric='valid/log_prob_per_word',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def params_of(state):
  """The parameters that are scored."""
  return as_variables(state.variables).params


def log_orders(counts):
  """The logarithm of the number of sequences that have these counts, ``[..., V] -> [...]``."""
  return jax.lax.lgamma(counts.sum(-1) + 1.0) - jax.lax.lgamma(counts + 1.0).sum(-1)


def draw(module, dataset: datasets.Dataset, splits, key, params, folder) -> list[cli.Picture]:
  """The retrieval curve, nearest words, the words of the hidden units, and documents that were drawn."""
  train, test = splits
  embedding = np.asarray(params['embedding'])
  vocabulary = np.array(dataset.feature_names or [str(word) for word in range(len(embedding))])
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if train.y is not None:
    # The representation is the same in any order, and is the sum of embeddings weighted by the counts.
    encode = jax.jit(lambda counts: module.activation(counts @ embedding + params['hidden_bias']))
    hidden = [np.asarray(encode(split.x.astype(np.float32))) for split in (test, train)]
    curves, bags = {}, [split.x for split in (test, train)]
    for name, (queries, documents) in {'DocNADE': hidden, 'counts of words': bags}.items():
      found = retrieval.precision_recall(queries[:1000], test.y[:1000], documents, train.y, FRACTIONS)
      curves[name] = found.recall, found.precision
    chance = float(np.mean([(train.y == label).mean() for label in test.y[:1000]]))
    figure = conditional_plots.retrieval_curves(curves, chance=chance)
    keep('retrieval.png', figure, 'Training documents retrieved by the cosine of hidden units, for test documents')

  counts = train.x.sum(0)
  asked = np.argsort(-counts)[np.unique(np.geomspace(1, len(counts), 17).astype(int)[:-1] - 1)]
  columns = {vocabulary[i]: vocabulary[retrieval.nearest(embedding, i, 8)] for i in asked}
  keep('nearest_words.png', conditional_plots.word_table(columns), 'The words nearest to each heading, by rows of W')

  shown = np.argsort(-embedding.std(0))[:16]
  columns = {f'unit {j}': vocabulary[np.argsort(-embedding[:, j])[:10]] for j in sorted(shown)}
  keep('topics.png', conditional_plots.word_table(columns), 'Words that turn a hidden unit on the most')

  sample = jax.jit(lambda key: module.apply({'params': params}, key, 8, length=12, method='sample'))
  documents = np.asarray(sample(key))
  columns = {f'sample {i + 1}': vocabulary[words] for i, words in enumerate(documents)}
  keep('samples.png', conditional_plots.word_table(columns), 'Documents of twelve words, as they were drawn')
  return pictures


BINARY = cli.Binary(
  name='docnade',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'dataset': 'topics', 'num_epochs': 15, 'learning_rate': 0.01},
  evaluation_flags=('num_orders',),
)

if __name__ == '__main__':
  cli.main(BINARY)
