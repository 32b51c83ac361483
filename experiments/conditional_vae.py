"""Conditional variational autoencoder of p(x | y), with a prior p(z | y) that is learnt.

The condition y is the label of an image, or its upper half. Reports an importance-sampling estimate of the test
log-likelihood of x given y, which is a lower bound in the mean, and how often Bayes' rule finds the right label.

  python -m experiments.conditional_vae                           the embedded digits given their labels, under a minute
  python -m experiments.conditional_vae --given=upper_half --alpha=0.5
  python -m experiments.conditional_vae --dataset=mnist --binarise=static --num_latents=20 --num_epochs=30
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import activations, cli, common_flags, latent
from gm_jax import data as datasets
from gm_jax.autoencoders import conditional, iwae
from gm_jax.base import bind
from gm_jax.evaluation import image_plots, likelihood, plots


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  latent.define_network_flags(flags)
  activations.define_flag(flags, 'tanh')
  latent.define_likelihood_flags(flags)
  latent.define_evaluation_flags(flags)
  absl_flags.DEFINE_enum('given', 'label', ('label', 'upper_half'), 'What x is conditioned on.', flag_values=flags)
  absl_flags.DEFINE_float(
    'alpha', 1.0, 'Weight of the bound with the encoder; the rest goes to that with draws of the prior.',
    lower_bound=0, upper_bound=1, flag_values=flags,
  )  # fmt: skip


def condition(flags: absl_flags.FlagValues, data: latent.Data, dataset: datasets.Dataset) -> tuple[latent.Data, int]:
  """The data with their conditions, and the number of features or classes of these."""
  if flags.given == 'label':
    labels = [split.y for split in (dataset.train, dataset.valid, dataset.test)]
    if any(one is None for one in labels):
      raise ValueError(f'given=label needs labels, which {dataset.name!r} has not; take another data set')
    return data._replace(contexts=tuple(np.asarray(one, np.int32) for one in labels)), dataset.num_classes
  if len(dataset.shape) != 3:
    raise ValueError(f'given=upper_half needs images, but examples of {dataset.name!r} are {dataset.shape}')
  if flags.binarise == 'stochastic':
    raise ValueError('binarise=stochastic draws x anew and not what it is given: take static or threshold')
  size = dataset.shape[0] // 2 * dataset.shape[1] * dataset.shape[2]
  splits = [data.train, data.valid, data.test]
  contexts = tuple((2 * x[:, :size] / data.top - 1).astype(np.float32) for x in splits)
  return data._replace(**dict(zip(('train', 'valid', 'test'), (x[:, size:] for x in splits), strict=True)),
                       contexts=contexts), size  # fmt: skip


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  name = latent.choose_likelihood(flags, dataset)
  data, context_size = condition(flags, latent.prepare(name, flags, dataset), dataset)
  module = conditional.mlp(
    data.train.shape[1], flags.num_latents, context_size, common_flags.whole_numbers(flags, 'hidden_sizes', least=0),
    head=latent.make_head(name, dataset), activation=activations.ACTIVATIONS[flags.activation],
  )  # fmt: skip

  def draw(params, key, folder):
    if len(dataset.shape) != 3:
      return []
    return (draw_labels if flags.given == 'label' else draw_halves)(module, params, data, dataset, key, folder)

  def more_scores(params, key, scores):
    bits = latent.in_bits(scores['test_bound'], name, dataset)
    return bits | classify(module, params, key, data, context_size)

  by_label = flags.given == 'label'
  found = latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=conditional.objective(module, alpha=flags.alpha),
    numbers=latent.terms_of(module),
    num_importance=flags.num_importance,
    draw=draw,
    more_scores=more_scores if by_label else lambda params, key, scores: {},
  )

  def whole(key, state, num):
    given = np.resize(data.contexts[2], (num, context_size))
    return np.concatenate([(given + 1) / 2 * data.top, found.sample(key, state, num)], axis=-1)

  return found if by_label else found._replace(sample=whole)


def classify(module, params, key, data: latent.Data, num_classes: int) -> dict[str, likelihood.Score]:
  """How often the class of the greatest p(x | y) p(y) is the right one, with p(x | y) from 100 importance samples."""
  estimate = iwae.estimate(module, 100)
  log_p = likelihood.evaluator(
    lambda params, key, x, context: estimate(params, key, x.astype('float32'), context=context).log_prob,
    block_size=100, stochastic=True,
  )  # fmt: skip
  counts = np.bincount(data.contexts[0], minlength=num_classes)
  every = [log_p(params, data.test, np.full(len(data.test), y, np.int32), key=key).values for y in range(num_classes)]
  found = np.argmax(np.stack(every, -1) + np.log(counts + 1.0), -1)
  return {'test_accuracy': likelihood.summarise(found == data.contexts[2]).score('estimate', unit='of 1')}


def draw_labels(module, params, data, dataset, key, folder) -> list[cli.Picture]:
  """Samples of each class, and the manner of some test images carried over to all classes."""
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  classes = np.arange(min(dataset.num_classes, 10), dtype=np.int32)
  names = [dataset.class_names[c] for c in classes] if dataset.class_names else list(map(str, classes))
  labels = np.repeat(classes, 10)
  samples = jax.jit(bind(module, 'sample'), static_argnums=2)(params, key, len(labels), context=labels)
  table = image(samples).reshape(len(classes), 10, *dataset.shape)
  figure = image_plots.image_table(table, rows=names, value_range=(0.0, data.top))
  plots.save(figure, folder / 'samples.png')
  pictures = [('samples.png', 'Ten samples of each class')]

  chosen = np.linspace(0, len(data.test) - 1, 8).astype(int)
  x, own = data.test[chosen].astype(np.float32), data.contexts[2][chosen]
  place = jax.jit(bind(module, 'encode'))(params, x, context=own)
  prior = jax.jit(bind(module, 'prior_given'))
  here = prior(params, x, context=own)
  other = np.tile(classes, (8, 1))
  there = prior(params, np.zeros((8, len(classes), x.shape[1]), np.float32), context=other)
  z = there.mean + there.scale * ((place - here.mean) / here.scale)[:, None]
  carried = jax.jit(bind(module, 'decode'))(params, z, context=other)
  table = np.concatenate([image(x)[:, None], image(carried)], axis=1)
  figure = image_plots.image_table(table, columns=['original', *names], value_range=(0.0, data.top))
  plots.save(figure, folder / 'styles.png')
  caption = 'Test images, and what lies at the same place of the prior of every class'
  return [*pictures, ('styles.png', caption)]


def draw_halves(module, params, data, dataset, key, folder) -> list[cli.Picture]:
  """Lower halves that go with the upper halves of test images: the most probable z, and four draws."""
  chosen = np.linspace(0, len(data.test) - 1, 8).astype(int)
  given = data.contexts[2][chosen]
  upper, lower = (given + 1) / 2 * data.top, data.test[chosen]
  draws = jax.jit(bind(module, 'sample'), static_argnums=2)(params, key, 32, context=np.repeat(given, 4, axis=0))
  best = bind(module, 'predict')(params, context=given)
  answers = np.concatenate([np.asarray(best)[:, None], np.asarray(draws).reshape(8, 4, -1)], axis=1)
  whole = np.concatenate([np.repeat(upper[:, None], 5, axis=1), answers], axis=-1).reshape(8, 5, *dataset.shape)
  originals = np.concatenate([upper, lower], axis=-1).reshape(8, *dataset.shape)
  observed = np.arange(dataset.shape[0])[:, None] < np.full(dataset.shape[1], dataset.shape[0] // 2)
  figure = image_plots.completions(originals, observed, whole, value_range=(0.0, data.top))
  plots.save(figure, folder / 'halves.png')
  return [
    ('halves.png', 'Test images given their upper half: the mean at the most probable code first, then four draws')
  ]


BINARY = cli.Binary(
  name='conditional_vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 150, 'learning_rate': 0.002},
  evaluation_flags=('num_importance', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
