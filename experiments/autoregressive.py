"""What the binaries of autoregressive models share: data as vectors, descent on the likelihood, scores and pictures."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, vectors
from experiments.vectors import Vectors
from gm_jax import data as datasets
from gm_jax.base import Batch, Loss, pure
from gm_jax.data import transforms
from gm_jax.evaluation import autoregressive_plots, image_plots, likelihood, plots
from gm_jax.likelihoods import Bernoulli, Categorical, Gaussian, Head, MixtureOfGaussians
from gm_jax.training import rules

HEADS = ('auto', 'bernoulli', 'categorical', 'gaussian', 'mixture')

_MADE, _NADE = 'Germain et al. 2015', 'Uria, Murray & Larochelle 2014'


def _uci(mixture, rbm, fvsbn, nade, made, sampled):
  return [
    ('mixture of Bernoullis', mixture, _MADE), ('RBM', rbm, _MADE), ('FVSBN', fvsbn, _MADE), ('NADE', nade, _MADE),
    ('MADE, one mask', made, _MADE), ('MADE, mask sampling', sampled, _MADE),
  ]  # fmt: skip


PUBLISHED = {
  'binarized_mnist': [
    ('mixture of 500 Bernoullis', -137.64, _NADE),
    ('RBM, 500 hidden, CD-25 (estimate)', -86.34, 'Salakhutdinov & Murray 2008'),
    ('NADE, fixed order', -88.33, _NADE),
    ('EoNADE, 1 hidden layer, 128 orderings', -87.71, _NADE),
    ('EoNADE, 2 hidden layers, 128 orderings', -85.10, _NADE),
    ('EoNADE-5, 2 hidden layers, 128 orderings', -84.68, 'Raiko et al. 2014'),
    ('MADE, 8000 hidden, 1 mask', -88.40, _MADE),
    ('MADE, 8000 hidden, 32 masks', -88.04, _MADE),
    ('MADE, 2 x 8000 hidden, 1 mask', -89.59, _MADE),
    ('MADE, 2 x 8000 hidden, 32 masks', -86.64, _MADE),
  ],
  'debd/adult': _uci(-20.44, -16.26, -13.17, -13.19, -13.12, -13.13),
  'debd/connect4': _uci(-23.41, -22.66, -12.39, -11.99, -11.90, -11.90),
  'debd/dna': _uci(-98.19, -96.74, -83.64, -84.81, -83.63, -79.66),
  'debd/mushrooms': _uci(-14.46, -15.15, -10.27, -9.81, -9.68, -9.69),
  'debd/nips': _uci(-290.02, -277.37, -276.88, -273.08, -280.25, -277.28),
  'debd/ocr_letters': _uci(-40.56, -43.05, -39.30, -27.22, -28.34, -30.04),
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of the data and of learning."""

  def number(name, default, help):
    absl_flags.DEFINE_float(name, default, help, lower_bound=0, flag_values=flags)

  vectors.define_binarise(flags)
  number('average', 0.999, 'Decay of the running average of the parameters, which is what is scored; 0 for none.')
  number('weight_decay', 0.0, 'Decay of the weights, times the learning rate at each step.')


def head_of(name: str, num_components: int, flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Head:
  """The distribution of a dimension that the flags and the kind of the data ask for.

  Raises:
    ValueError: if the head does not go with the data.
  """
  cut = dataset.kind == 'grey' and flags.binarise != 'none'
  if name == 'auto':
    name = 'bernoulli' if cut else {'binary': 'bernoulli', 'grey': 'categorical', 'real': 'mixture'}.get(dataset.kind)
  if name == 'bernoulli' and not cut and dataset.kind != 'binary':
    remedy = ' or cut them in two by --binarise=threshold' if dataset.kind == 'grey' else ''
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a bernoulli head needs binary data{remedy}')
  if name == 'categorical' and dataset.kind not in ('binary', 'grey'):
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a categorical head needs binary or grey data')
  if name in ('gaussian', 'mixture') and dataset.kind != 'real':
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but a {name} head needs real data')
  heads = {
    'bernoulli': Bernoulli,
    'categorical': lambda: Categorical(2 if cut else dataset.levels),
    'gaussian': lambda: Gaussian(min_scale=1e-2),
    'mixture': lambda: MixtureOfGaussians(num_components, min_scale=1e-2),
  }
  if name not in heads:
    raise ValueError(f'dataset={dataset.name!r} holds {dataset.kind}, for which there is no head')
  return heads[name]()


def prepare(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Vectors:
  """The data as vectors: grey values binarised as the flags say, real ones standardised by the training set."""
  if dataset.kind != 'real':
    return vectors.binary(dataset, flags.binarise)
  splits = vectors.flat(dataset)[:3]
  fitted = transforms.fit_standardisation(splits[0])
  return Vectors(*(np.asarray(transforms.standardise(fitted, x)[0]) for x in splits))


def optimizer(flags: absl_flags.FlagValues, num_steps: int) -> optax.GradientTransformation:
  """Adam with a rate that falls to zero along a cosine, and a decay of the weights that leaves biases alone."""
  rate = optax.cosine_decay_schedule(flags.learning_rate, num_steps)
  kernels = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: 'kernel' in path[-1].key, params)
  return optax.adamw(rate, weight_decay=flags.weight_decay, mask=kernels)


def experiment(
  flags: absl_flags.FlagValues,
  dataset: datasets.Dataset,
  data: Vectors,
  module: Any,
  objective: tuple[Callable, Loss],
  ordering: np.ndarray,
  axis_name: str | None,
  draw_more: Callable = lambda keep, params: None,
) -> cli.Experiment:
  """Trains a module by Adam with a rate that falls to zero, and keeps what is best on the validation set.

  Args:
    flags: of the binary.
    dataset: where the data came from.
    data: what the module sees.
    module: with ``log_prob``, ``conditionals``, ``sample``, ``complete`` and ``head``.
    objective: its initialisation and loss.
    ordering: of the dimensions; completions observe the first half of it.
    axis_name: of devices.
    draw_more: ``(keep, params)``, for pictures of the model's own; ``keep(name, figure, caption)``.
  """
  num_steps = cli.make_plan(flags, len(data.train)).num_steps
  algorithm = rules.descent(*objective, optimizer(flags, num_steps), axis_name=axis_name)
  model = pure(module)
  log_prob = likelihood.evaluator(model.log_prob, block_size=1000)

  def evaluate(step, state):
    del step
    return {'valid/log_prob': log_prob(state.variables, data.valid).mean}

  def score(key, state):
    train = np.asarray(data.transform(key, data.train[: len(data.test)]))
    return cli.exact_scores(log_prob, state.variables, train, data.test, None)

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(data.train),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(
      key, state.variables, dataset, data, module, model, ordering, draw_more, folder
    ),
    sample=lambda key, state, num: jax.jit(model.sample, static_argnums=2)(state.variables, key, num),
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def draw(key, params, dataset, data, module, model, ordering, draw_more, folder) -> list[cli.Picture]:
  """Samples beside their nearest training examples, completions, conditionals and where the nats are."""
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  sample_key, complete_key, data_key = jax.random.split(key, 3)
  samples = np.asarray(jax.jit(model.sample, static_argnums=2)(params, sample_key, 100))
  train = np.asarray(data.transform(data_key, data.train))

  @jax.jit
  def outputs(x):
    found = module.apply({'params': params}, x.astype('float32'), method='conditionals')
    return module.head.mean(found), module.head.log_prob(found, x)

  if len(dataset.shape) != 3:
    means = np.stack([data.test.mean(0), samples.mean(0)], 1)
    figure = plots.scatter(means, xlabel='mean in the test set', ylabel='mean in 100 samples')
    keep('means.png', figure, 'Mean of each dimension, in the data and in samples')
    draw_more(keep, params)
    return pictures

  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  top = float(module.head.num_classes - 1) if isinstance(module.head, Categorical) else 1.0
  value_range = None if dataset.kind == 'real' else (0.0, top)
  figure = image_plots.beside_nearest(image(samples[:30]), image(train), value_range=value_range)
  keep('samples.png', figure, 'Samples, and below each the training example nearest to it with its distance')

  observed = np.zeros(len(ordering), bool)
  observed[ordering[: len(ordering) // 2]] = True
  chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)].astype(np.float32)
  four_times = np.repeat(chosen[:, None], 4, axis=1)
  completed = jax.jit(model.complete)(params, complete_key, four_times, observed)
  figure = image_plots.completions(image(chosen), image(observed)[..., 0], image(completed), value_range=value_range)
  keep('completions.png', figure, 'Test images of which the model sees the first half, and four completions of each')

  table = np.stack([image(chosen), image(outputs(chosen)[0])])
  figure = image_plots.image_table(table, rows=['original', 'mean given earlier'], value_range=value_range)
  keep('conditionals.png', figure, 'The mean of each pixel given the true pixels that come before it')

  block = data.test[np.random.default_rng(0).permutation(len(data.test))[:1000]]
  nats = image(np.asarray(outputs(block)[1], np.float64).mean(0)).sum(-1)
  figure = autoregressive_plots.value_map(-nats, label='-log p(pixel | earlier), nats')
  keep('nats.png', figure, f'Where the nats are: means over {len(block)} test images')
  draw_more(keep, params)
  return pictures
