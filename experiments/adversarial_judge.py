"""What is looked at of adversarial models: the numbers of training, scores of samples, and pictures."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from gm_jax import data as datasets
from gm_jax.adversarial import dcgan, gan, theory
from gm_jax.base import Variables
from gm_jax.data import toy, transforms
from gm_jax.density import kernel
from gm_jax.evaluation import adversarial_plots, extractors, image_plots, likelihood, modes, plots, two_sample

NUM_SAMPLES = 2500  # that are scored, as in PacGAN's protocol


def to_players(dataset: datasets.Dataset, x):
  """Examples as the players see them: float32, pixels from -1 to 1."""
  x = jnp.asarray(x)
  return transforms.to_float(x) if dataset.kind == 'real' else 2 * transforms.to_unit(x, dataset.levels) - 1


def to_intensity(dataset: datasets.Dataset, x):
  """Samples as they are, or pixels from 0 to 1."""
  return x if dataset.kind == 'real' else (x + 1) / 2


class Judge(NamedTuple):
  """Compiled functions of the variables of the players that evaluation needs."""

  module: gan.GAN
  dataset: datasets.Dataset
  has_odds: bool  # whether the critic's score is meant as the log-odds of single examples

  def labels(self, num: int) -> dict[str, Any]:
    """A context of all classes in turn, for as many samples."""
    classes = self.module.context_size
    return {'context': jnp.arange(num) % classes} if classes else {}

  def sample(self, variables, key, num: int):
    """``[num, ...]`` samples; of a conditional model those of all classes in turn."""
    draw = jax.jit(lambda variables, key: self.draw(variables, key, num))
    return np.asarray(draw(variables, key))

  def draw(self, variables, key, num: int):
    """The same within a compiled function."""
    return gan.bind_players(self.module, 'sample')(variables, key, num, **self.labels(num))

  def numbers(self):
    """``(variables, raw, key) -> (samples, numbers)``: what is looked at during training.

    The distance, by which the best state is chosen, is that of sliced Wasserstein from the validation set.
    The samples are of ``variables``, averaged if an average is kept; the critic that is judged is that of ``raw``.
    """
    held_out = to_players(self.dataset, self.dataset.valid.x[:NUM_SAMPLES])
    held_out = held_out[: len(held_out) // self.module.packing * self.module.packing]
    given = {'context': jnp.asarray(self.dataset.valid.y[: len(held_out)])} if self.module.context_size else {}
    criticise = gan.bind_players(self.module, 'criticise')
    exact = toy.log_density(self.dataset.name) if self.dataset.name in toy.TOYS and self.has_odds else None

    @jax.jit
    def run(held_out, variables, raw, key):
      first, second, third = jax.random.split(key, 3)
      samples = self.draw(variables, first, NUM_SAMPLES)
      fake = self.draw(raw, second, len(held_out))
      real_scores = criticise(raw, held_out, **given)[0]
      fake_scores = criticise(raw, fake, **self.labels(len(held_out)))[0]
      rows = lambda x: x.reshape(len(x), -1)
      projected = two_sample.project(jax.random.key(0), rows(held_out), rows(samples), 256)
      found = {
        'valid/negative_distance': -two_sample.mean_wasserstein(*projected),
        'valid/real_score': real_scores.mean(),
        'valid/fake_score': fake_scores.mean(),
        'valid/critic_accuracy': ((real_scores > 0).mean() + (fake_scores < 0).mean()) / 2,
      }
      if exact is not None:
        width = jnp.full(self.dataset.shape, self._bandwidth())
        estimate = kernel.fit(self.draw(raw, third, 2 * NUM_SAMPLES), width)
        best = lambda x: theory.optimal_score(exact(x), kernel.log_prob(estimate, x))
        gap = theory.optimality_gap(real_scores, fake_scores, best(held_out), best(fake))
        found['valid/optimality_gap'] = gap
      return samples, found

    # Data that a program closes over are its constants, and XLA takes long to fold what is made of these.
    return functools.partial(run, held_out)

  def _bandwidth(self) -> float:
    """Of the kernel estimate of the generator's density: the width of the modes of the data if it is known."""
    return toy.MODES[self.dataset.name][1] if self.dataset.name in toy.MODES else 0.1


def evaluation(judge: Judge) -> Callable:
  """``(step, state) -> numbers`` during training; of known modes how many there are, and how good."""
  look, known = judge.numbers(), toy.MODES.get(judge.dataset.name)

  def evaluate(step, state):
    samples, found = jax.device_get(look(state.variables, raw_variables(state), jax.random.key(step)))
    found = {name: float(value) for name, value in found.items()}
    if known:
      seen = modes.coverage(samples, *known)
      found |= {'valid/modes': seen.num_modes, 'valid/high_quality': seen.high_quality}
      found['valid/reverse_kl'] = min(seen.reverse_kl, 10.0)  # it is infinite before there is any good sample
    return found

  return evaluate


def snapshots(judge: Judge) -> Callable:
  """``state -> samples`` at the same codes."""
  num = 1000 if is_plane(judge.dataset) else 100
  draw = jax.jit(lambda variables: judge.draw(variables, jax.random.key(0), num))
  return lambda state: draw(state.variables)


def scorer(judge: Judge) -> Callable:
  """``(key, state) -> scores`` of a report: known modes, or else distances to training examples and classes."""
  dataset = judge.dataset
  classifier = functools.cache(lambda: train_classifier(dataset))
  train = functools.cache(lambda: np.asarray(to_players(dataset, dataset.train.x)))
  of_test = functools.cache(lambda: distance(to_players(dataset, dataset.test.x[:NUM_SAMPLES]), train()))

  def score(key, state):
    samples = judge.sample(state.variables, key, NUM_SAMPLES)
    if dataset.name in toy.MODES:
      return modes.scores(samples, *toy.MODES[dataset.name])
    scores = {'sample_distance_to_train': distance(samples, train()), 'test_distance_to_train': of_test()}
    if dataset.name == 'stacked_mnist':
      scores |= stacked_scores(judge, classifier(), state.variables, key)
    if judge.module.context_size and len(dataset.shape) == 3:
      scores |= class_scores(dataset, classifier(), samples, np.asarray(judge.labels(NUM_SAMPLES)['context']))
    return scores

  return score


def raw_variables(state):
  """The parameters of the last update, where ``state.variables`` may be their average."""
  stats = {name: value for name, value in state.stats.items() if name != 'average'}
  return Variables(state.params, stats)


def is_plane(dataset: datasets.Dataset) -> bool:
  """Whether examples are points of the plane."""
  return dataset.shape == (2,)


def distance(x, train) -> likelihood.Score:
  """How far samples, or test examples, are from the training set: what is much nearer than these is a copy."""
  _, found = image_plots.nearest_neighbors(np.asarray(x), train)
  return likelihood.summarise(found).score('estimate', 'in [-1, 1]^D')


def class_scores(dataset, classifier: extractors.Extractor, samples, asked) -> dict[str, likelihood.Score]:
  """How often a classifier gives samples the class that was asked for, and test images their own."""
  scores = {}
  for name, x, y in (('sample', samples, asked), ('test', to_players(dataset, dataset.test.x), dataset.test.y)):
    answers = np.asarray(classifier.extract((np.asarray(x) + 1) / 2).logits).argmax(1)
    scores[f'{name}_class_agreement'] = likelihood.summarise(100.0 * (answers == y)).score('estimate', '%')
  return scores


def stacked_scores(judge: Judge, classifier: extractors.Extractor, variables, key) -> dict[str, likelihood.Score]:
  """Which of the thousand triples of digits 26,000 samples show, digit by digit, and how far their shares are off."""
  draw, found = jax.jit(lambda variables, key: judge.draw(variables, key, 1000)), np.zeros(1000, int)
  for i in range(26):
    samples = (np.asarray(draw(variables, jax.random.fold_in(key, i))) + 1) / 2
    digits = [np.asarray(classifier.extract(samples[..., c : c + 1]).logits).argmax(1) for c in range(3)]
    found += np.bincount(100 * digits[0] + 10 * digits[1] + digits[2], minlength=1000)
  n = int(found.sum())
  seen = modes.of_counts(found, n)
  floor = f'nats (a perfect sampler {modes.least_divergence(1000, n):.4f})'
  return {
    'modes': likelihood.score(seen.num_modes, 'estimate', stderr=None, n=n, unit='of 1000, with a sample'),
    'reverse_kl': likelihood.score(
      seen.reverse_kl, 'estimate', stderr=modes.divergence_error(found), n=n, unit=floor
    ),
  }  # fmt: skip


def train_classifier(dataset) -> extractors.Extractor:
  """The judge of the classes of images; of stacked digits, of the first."""
  if dataset.name == 'stacked_mnist':
    first = lambda split: split._replace(x=split.x[:50_000, ..., :1], y=split.y[:50_000] // 100)
    dataset = dataset._replace(train=first(dataset.train), test=first(dataset.test), num_classes=10)
  images = lambda split: (np.asarray(to_players(dataset, split.x) + 1) / 2, split.y)
  sets = images(dataset.train), images(dataset.test)
  return extractors.train_classifier(jax.random.key(0), *sets, dataset.num_classes, num_steps=1500)


def draw(judge: Judge, key, state, folder, num_steps: int) -> list[cli.Picture]:
  """Samples over training, and beside the data; of images walks between codes and nearest neighbours, too."""
  dataset, pictures = judge.dataset, []
  snapshots = cli.read_snapshots(folder, num_steps)

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  chosen = [*snapshots][:: max(len(snapshots) // 8, 1)][:7] + [*snapshots][-1:]
  chosen = {step: snapshots[step] for step in dict.fromkeys(chosen)}
  moved = ''
  if len(snapshots) > 1:
    moved = (
      '. Oscillation: in the later half of the run a sample moves from one evaluation to the next by '
      f'{movement([*snapshots.values()]):.2f} of the distance between two samples'
    )
  if is_plane(dataset):
    if chosen:
      figure = adversarial_plots.points_over_time(chosen, dataset.train.x[:2000])
      keep('over_training.png', figure, f'Samples at the same codes over training, and data in grey{moved}')
    if dataset.name in toy.MODES and len(snapshots) > 1:
      keep('mode_shares.png', *shares_over_time(snapshots, *toy.MODES[dataset.name]))
    test = dataset.test.x[:2000]
    both = np.concatenate([test, judge.sample(state.variables, key, 2000)])
    origin, title = np.repeat([0, 1], [len(test), 2000]), 'data blue, samples orange'
    figure = plots.scatter(both, origin, names=('', ''), xlabel='$x_1$', ylabel='$x_2$', title=title)
    keep('samples.png', figure, 'Test data and samples')
    return pictures
  if len(dataset.shape) != 3:
    return pictures

  scale = {'value_range': (-1.0, 1.0)}
  samples = judge.sample(state.variables, key, 100)
  classes = judge.module.context_size
  columns = {'columns': classes} if classes else {}
  caption = 'Samples, a class in each column' if classes else 'Samples'
  keep('samples.png', image_plots.image_grid(samples, **columns, **scale), caption)
  if chosen:
    figure = image_plots.image_table(
      np.stack([one[:10] for one in chosen.values()]), rows=[f'{step:,}' for step in chosen], **scale
    )
    keep('over_training.png', figure, f'Samples at the same codes, by the number of updates{moved}')
  walk = interpolation(judge, state.variables, key)
  keep('interpolations.png', image_plots.image_table(walk, **scale), 'Straight walks between codes')
  train = np.asarray(to_players(dataset, dataset.train.x))
  figure = image_plots.beside_nearest(samples[:20], train, **scale)
  keep('nearest.png', figure, 'Samples above their nearest training examples')
  return pictures


def interpolation(judge: Judge, variables, key, num_walks: int = 6, num_steps: int = 10):
  """``[num_walks, num_steps, ...]`` images on straight walks between codes, each of one class if there are classes."""
  start, end = (judge.module.latents(one, num_walks) for one in jax.random.split(key))
  codes = dcgan.interpolate(start, end, num_steps)
  classes = judge.module.context_size
  context = {'context': jnp.repeat(jnp.arange(num_walks)[:, None] % classes, num_steps, 1)} if classes else {}
  return np.asarray(jax.jit(gan.bind_players(judge.module, 'decode'))(variables, codes, **context))


def movement(snapshots) -> float:
  """How far samples of the same codes move from one snapshot to the next, over the distance between samples.

  The mean over the later half of ``[T, N, ...]`` snapshots, of root mean squares. A generator that has settled has 0,
  one that makes something else of each code every time has 1.
  """
  later = np.stack(snapshots[(len(snapshots) - 1) // 2 :])
  later = later.reshape(*later.shape[:2], -1)
  moves = np.sqrt(np.mean(np.diff(later, axis=0) ** 2, axis=(1, 2)))
  # Twice the variance is the mean squared difference of two samples.
  apart = np.sqrt(2 * np.mean(np.var(later, axis=1), axis=1))[1:]
  return float(np.mean(moves / np.maximum(apart, 1e-12)))


def shares_over_time(snapshots, centres, stddev):
  """The picture of the shares of the modes, and its caption, which says how much they change from one to the next."""
  counts = np.stack([modes.coverage(one, centres, stddev).counts for one in snapshots.values()])
  shares = counts / len(next(iter(snapshots.values())))
  moved = np.abs(np.diff(shares, axis=0)).sum(1) / 2
  late = moved[len(moved) // 2 :].mean()
  caption = (
    'Share of good samples at each mode. Oscillation: between two evaluations in the later half of the run, shares '
    f'change by {late:.3f} in total variation, at the same codes'
  )
  return adversarial_plots.mode_shares([*snapshots], shares), caption
