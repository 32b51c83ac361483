"""Generative classifiers: a density for each class, and the rule of Bayes.

Fits the densities in closed form, mixtures by EM, and reports accuracy, the exact log-likelihood, and how well a low
log p(x) tells data of another kind: noise, inverted images, shuffled features, and any other data set of the same
shape.

  python -m experiments.classifier                                               QDA on the embedded digits, seconds
  python -m experiments.classifier --dataset=mnist --unfamiliar=omniglot         needs --data_dir or $GM_JAX_DATA_DIR
  python -m experiments.classifier --model=bernoulli_naive_bayes
  python -m experiments.classifier --model=bernoulli_mixture --num_components=20
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import cli
from gm_jax import data as datasets
from gm_jax.base import Algorithm, Batch, Model, TrainState
from gm_jax.data import transforms
from gm_jax.density import classifier, kernel, mixture, mixture_discrete
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.training import rules

MODELS = (
  'quadratic_discriminant', 'linear_discriminant', 'gaussian_naive_bayes', 'bernoulli_naive_bayes', 'kernel',
  'bernoulli_mixture',
)  # fmt: skip
BINARY_MODELS = ('bernoulli_naive_bayes', 'bernoulli_mixture')  # of pixels that are on or off


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_enum('model', MODELS[0], MODELS, 'What p(x | y) is.', flag_values=flags)
  absl_flags.DEFINE_float(
    'floor', 0.05, 'Least variance in any direction, in units of the largest of a feature.', 0, flag_values=flags
  )
  absl_flags.DEFINE_float(
    'pseudo_count',
    1.0,
    'Imagined examples of each value of a binary feature; in a mixture of both together.',
    0,
    flag_values=flags,
  )
  absl_flags.DEFINE_integer('num_components', 20, 'Of each class of a mixture.', 1, flag_values=flags)
  absl_flags.DEFINE_integer('em_steps', 50, 'Steps of EM that a mixture makes.', 1, flag_values=flags)
  absl_flags.DEFINE_float('quantile', 0.01, 'Share of the validation set to call unfamiliar.', 0, 1, flag_values=flags)
  absl_flags.DEFINE_list('unfamiliar', [], 'Data sets of the same shape, to be told apart.', flag_values=flags)


class Data(NamedTuple):
  """The splits as the model sees them, [N, D], with labels; and what it never saw, by name."""

  train: Batch
  valid: Batch
  test: Batch
  unfamiliar: dict[str, np.ndarray]


def prepare(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """Binary for Bernoullis, dequantised for densities of grey data; the unfamiliar is treated as the familiar."""
  if dataset.train.y is None:
    raise ValueError(f'dataset={dataset.name!r} has no labels, and a classifier needs them')
  if flags.model in BINARY_MODELS:
    if dataset.kind not in ('binary', 'grey'):
      raise ValueError(f'model={flags.model} needs binary or grey data, but {dataset.name!r} is {dataset.kind}')
    ready = lambda i, x, levels: (2 * x.astype(np.int32) > levels - 1).astype(np.float32)
  elif dataset.kind == 'grey':
    dequantise = jax.jit(lambda i, x, levels: transforms.dequantise(jax.random.key(i), x, levels)[0], static_argnums=2)
    ready = lambda i, x, levels: np.asarray(dequantise(i, x, levels))
  elif dataset.kind == 'real':
    ready = lambda i, x, levels: x
  else:
    raise ValueError(f'model={flags.model} needs real or grey data, but dataset={dataset.name!r} is {dataset.kind}')
  flat = lambda i, x, levels: ready(i, np.asarray(x).reshape(len(x), -1), levels)
  splits = (dataset.train, dataset.valid, dataset.test)
  batches = [Batch(flat(i, split.x, dataset.levels), split.y.astype(np.int32)) for i, split in enumerate(splits)]

  test, rng = np.asarray(dataset.test.x), np.random.default_rng(flags.seed)
  others = {'shuffled': (rng.permuted(test.reshape(len(test), -1), axis=1), dataset.levels)}
  if dataset.kind == 'real':
    low, high = test.min(0), test.max(0)
    others['noise'] = (rng.uniform(low, high, test.shape).astype(np.float32), None)
  else:
    others['noise'] = (rng.integers(dataset.levels, size=test.shape, dtype=np.uint8), dataset.levels)
    others['inverted'] = (dataset.levels - 1 - test, dataset.levels)
  for name in flags.unfamiliar:
    other = datasets.load(name, data_dir=flags.data_dir)
    if other.shape != dataset.shape or (other.kind == 'real') != (dataset.kind == 'real'):
      raise ValueError(
        f'unfamiliar={name}: its examples are {other.kind} of shape {other.shape}, and those of '
        f'{dataset.name} {dataset.kind} of shape {dataset.shape}'
      )
    x, levels = np.asarray(other.test.x), other.levels
    if other.kind == 'binary' and dataset.kind == 'grey':
      x, levels = x * np.uint8(dataset.levels - 1), dataset.levels
    others[name] = (x, levels)
  return Data(*batches, {name: flat(3 + i, *other) for i, (name, other) in enumerate(others.items())})


def bernoulli_mixture(flags: absl_flags.FlagValues, labels: np.ndarray) -> Model:
  """A mixture of Bernoullis whose ``init`` fits it by EM to the examples of one class."""
  counts = np.bincount(labels)
  if flags.num_components > counts.min():
    raise ValueError(f'num_components={flags.num_components} exceeds the {counts.min()} examples of the smallest class')
  size = int(counts.max())

  @jax.jit
  def fit(key, batch):
    family = mixture_discrete.Bernoulli(prior=flags.pseudo_count / size)
    one = mixture.Mixture(family, flags.num_components, prior=flags.pseudo_count / size)
    em = rules.expectation_maximization(one.init, one.e_step, one.m_step)
    return mixture.best_of(em, key, batch, num_restarts=1, num_steps=flags.em_steps)[0].params

  def init(key, batch):
    # Every class as many rows as the largest, the further ones without weight: one program fits them all.
    weights = np.arange(size) < len(batch.x)
    x = np.resize(np.asarray(batch.x), (size, batch.x.shape[1]))
    return fit(key, Batch(x, weights.astype(np.float32)))

  unfitted = mixture.Mixture(mixture_discrete.Bernoulli(), flags.num_components)
  return unfitted.model()._replace(init=init)


def make_classifier(flags: absl_flags.FlagValues, train: Batch, num_classes: int) -> classifier.Classifier:
  """The classifier that the flags ask for."""
  num_features = train.x.shape[1]
  if flags.model == 'bernoulli_mixture':
    return classifier.generative_classifier(bernoulli_mixture(flags, train.context), num_classes)
  if flags.model == 'kernel':
    return classifier.generative_classifier(kernel.model(), num_classes)
  if flags.model == 'bernoulli_naive_bayes':
    return classifier.bernoulli_naive_bayes(num_features, num_classes, pseudo_count=flags.pseudo_count)
  return getattr(classifier, flags.model)(num_features, num_classes, floor=flags.floor)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  del axis_name  # nothing is averaged: the closed form sees all data at once
  data = prepare(flags, dataset)
  model = make_classifier(flags, data.train, dataset.num_classes)
  joint = likelihood.evaluator(_scores(model), block_size=1000)

  # Here and not in ``init``, which is traced: there the whole training set would be a constant of the program.
  fitted = jax.device_get(model.calibrate(model.init(jax.random.key(0), data.train), data.valid.x, flags.quantile))

  def init(key, batch):
    del key, batch
    return TrainState(jnp.int32(0), jax.tree.map(jnp.asarray, fitted), (), {}, ())

  def step(key, state, batch):
    del key
    labels = batch.context[:, None]
    log_joint = jnp.take_along_axis(model.joint(state.params, batch.x), labels, -1)
    return state._replace(step=state.step + 1), {'loss': -jnp.mean(log_joint)}

  def measure(params, batch):
    found = joint(params, batch.x)
    return found, likelihood.summarise(found['label'].values == batch.context)

  def evaluate(step, state):
    del step
    found, accuracy = measure(state.params, data.valid)
    return {'valid/log_prob': found['log_prob'].mean, 'valid/accuracy': accuracy.mean}

  def score(key, state):
    del key
    test, accuracy = measure(state.params, data.test)
    scores = {'test_accuracy': accuracy.score('exact', unit='share'), 'test_log_prob': test['log_prob'].score('exact')}
    threshold = float(state.params.threshold)
    unfamiliar = {name: joint(state.params, x) for name, x in data.unfamiliar.items()}
    for name, found in {'test': test, **unfamiliar}.items():
      flagged = likelihood.summarise(found['log_prob'].values < threshold)
      scores[f'share_flagged_of_{name}'] = flagged.score('exact', unit='share')
      scores[f'confidence_on_{name}'] = found['confidence'].score('exact', unit='probability')
      if name != 'test':
        auc = classifier.familiarity_auc(test['log_prob'].values, found['log_prob'].values)
        scores[f'auc_against_{name}'] = likelihood.score(auc, 'estimate', stderr=None, n=found['label'].n, unit='AUC')
    return scores

  def sample(key, state, num):
    return jax.jit(model.sample, static_argnums=2)(state.params, key, num)

  return cli.Experiment(
    algorithm=Algorithm(init, step),
    data=data.train,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(model, joint, data, dataset, key, state.params, folder),
    sample=sample,
  )


def _scores(model: classifier.Classifier):
  """Per example log p(x), the class, and the probability of that class."""

  def scores(params, x):
    log_joint = model.joint(params, x)
    log_prob = jax.nn.logsumexp(log_joint, -1)
    confidence = jnp.exp(log_joint.max(-1) - jnp.where(log_prob > -jnp.inf, log_prob, jnp.inf))
    return {'log_prob': log_prob, 'label': jnp.argmax(log_joint, -1), 'confidence': confidence}

  return scores


def draw(model, joint, data: Data, dataset, key, params, folder) -> list[cli.Picture]:
  """Likelihoods of the seen and the unseen; samples of each class; the unseen that is classified with confidence."""
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  names = dataset.class_names or tuple(map(str, range(dataset.num_classes)))
  found = {name: joint(params, x) for name, x in {'test': data.test.x, **data.unfamiliar}.items()}
  # A few nats decide near the threshold, and thousands far below it, where all is unfamiliar alike.
  floor = params.threshold - 3 * np.ptp(np.quantile(found['test']['log_prob'].values, [0.01, 0.99]))
  values = {name: np.maximum(one['log_prob'].values, floor) for name, one in found.items()}
  caption = f'Log-likelihood; below {params.threshold:.1f} an example is unfamiliar (the far end is cut)'
  keep('log_prob.png', plots.histogram(values, 'log p(x), nats'), caption)

  if len(dataset.shape) == 3:
    num_classes = min(dataset.num_classes, 10)
    labels = jnp.repeat(jnp.arange(num_classes), 8)
    samples = jax.jit(lambda key: model.sample(params, key, len(labels), context=labels))(key)
    images = np.asarray(samples).reshape(num_classes, 8, *dataset.shape)
    keep('samples.png', image_plots.image_table(images, rows=names[:num_classes]), 'Samples of each class')
    for name, x in data.unfamiliar.items():
      order = np.argsort(-found[name]['confidence'].values, kind='stable')[:20]
      captions = [
        f'{names[int(found[name]["label"].values[i])]} {found[name]["confidence"].values[i]:.2f}' for i in order
      ]
      figure = image_plots.image_grid(x[order].reshape(-1, *dataset.shape), columns=5, captions=captions)
      keep(f'confident_{name}.png', figure, f'{name}: images that are none of the classes, and the confident answers')
  elif data.test.x.shape[1] == 2:
    low, high = data.train.x.min(0), data.train.x.max(0)
    x, y = (np.linspace(low[j] - 0.3 * (high - low)[j], high[j] + 0.3 * (high - low)[j], 200) for j in range(2))
    grid = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    log_density = np.asarray(jax.jit(model.log_prob)(params, grid))
    keep('density.png', plots.density(x, y, log_density, data.test.x[:500]), 'p(x), with test examples')
    predicted = found['test']['label'].values.astype(int)
    figure = plots.scatter(data.test.x[:2000], predicted[:2000], names=names, xlabel='$x_1$', ylabel='$x_2$')
    keep('classes.png', figure, 'Test examples, coloured by the predicted class')
  return pictures


BINARY = cli.Binary(
  name='classifier',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 1},
)

if __name__ == '__main__':
  cli.main(BINARY)
