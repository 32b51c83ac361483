"""What the binaries of autoencoders share: data as a head takes them, networks from flags, pictures of codes."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli
from gm_jax import data as datasets
from gm_jax.autoencoders import diagnostics, latents
from gm_jax.base import bind
from gm_jax.data import transforms
from gm_jax.evaluation import likelihood, plots
from gm_jax.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Head
from gm_jax.training import loop

LIKELIHOODS = ('auto', 'bernoulli', 'gaussian', 'logistic', 'categorical')
BINARISE = ('threshold', 'static', 'stochastic')
ACTIVATIONS = {'tanh': nn.tanh, 'relu': nn.relu}
KINDS = {
  'bernoulli': ('binary', 'grey'),
  'gaussian': ('real', 'grey'),
  'logistic': ('grey',),
  'categorical': ('grey', 'binary'),
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags that all autoencoders have."""
  absl_flags.DEFINE_integer('num_latents', 8, 'Dimensions of the code.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_list('hidden_sizes', ['200', '200'], 'Hidden layers of the encoder; the decoder mirrors them.',
                         flag_values=flags)  # fmt: skip
  absl_flags.DEFINE_enum('activation', 'tanh', list(ACTIVATIONS), 'Of the hidden layers.', flag_values=flags)
  absl_flags.DEFINE_enum(
    'binarise', 'threshold', BINARISE, 'How grey data become binary: at one half, at random once, or at every step.',
    flag_values=flags,
  )  # fmt: skip
  absl_flags.DEFINE_enum(
    'schedule', 'cosine', ('cosine', 'constant'), 'How the learning rate falls, or not.', flag_values=flags
  )


def define_likelihood_flag(flags: absl_flags.FlagValues) -> None:
  """The flag of models with a distribution of x."""
  absl_flags.DEFINE_enum(
    'likelihood', 'auto', LIKELIHOODS,
    'Distribution of a dimension given the code; auto: gaussian for real data, else bernoulli. The gaussian has a '
    'learnt deviation and dequantised grey data; logistic and categorical see grey levels.', flag_values=flags,
  )  # fmt: skip


def hidden_sizes(flags: absl_flags.FlagValues) -> tuple[int, ...]:
  """The flag as numbers.

  Raises:
    ValueError: if it holds anything else, or a layer without units.
  """
  sizes = [size for size in flags.hidden_sizes if size]
  if not all(size.isdigit() and int(size) for size in sizes):
    raise ValueError(f'hidden_sizes={",".join(sizes)}: give whole numbers of 1 or more, such as 200,200')
  return tuple(map(int, sizes))


def choose_likelihood(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> str:
  """The name of the distribution of a dimension.

  Raises:
    ValueError: if it does not fit the data.
  """
  name = flags.likelihood
  if name == 'auto':
    name = 'gaussian' if dataset.kind == 'real' else 'bernoulli'
  if dataset.kind not in KINDS[name]:
    kinds = ' or '.join(KINDS[name])
    raise ValueError(f'likelihood={name} needs {kinds} data, but dataset={dataset.name!r} is {dataset.kind}')
  return name


def make_head(name: str, dataset: datasets.Dataset) -> Head:
  """The distribution of a dimension."""
  return {
    'bernoulli': Bernoulli,
    'gaussian': lambda: Gaussian(min_scale=0.01),
    'logistic': lambda: DiscretisedLogistic(dataset.levels, num_components=2),
    'categorical': lambda: Categorical(dataset.levels),
  }[name]()


class Data(NamedTuple):
  """The three splits as a model takes them, ``[N, D]``, and what is still to be done at each step."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  transform: Callable  # (key, x) -> x
  top: float  # the value that is drawn white


def prepare(likelihood_name: str, flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """The data as the likelihood takes them: binarised, dequantised, or as they are.

  With --binarise=stochastic the training set is drawn anew at every step; valid and test are drawn once.
  """
  flat = lambda split: np.asarray(split.x).reshape(len(split.x), -1)
  splits = [flat(split) for split in (dataset.train, dataset.valid, dataset.test)]
  if likelihood_name in ('logistic', 'categorical'):
    return Data(*splits, loop.as_float, dataset.levels - 1.0)
  if likelihood_name == 'gaussian':
    if dataset.kind == 'grey':
      splits = [
        np.asarray(transforms.dequantise(jax.random.key(i), x, dataset.levels)[0]) for i, x in enumerate(splits)
      ]
    return Data(*splits, loop.as_float, 1.0)
  if dataset.kind == 'binary':
    return Data(*splits, loop.as_float, 1.0)
  once = 'static' if flags.binarise == 'stochastic' else flags.binarise
  binary = transforms.binarise(dataset, once, jax.random.key(0))
  if flags.binarise == 'stochastic':
    levels = dataset.levels
    anew = lambda key, x: transforms.stochastic_binarise(key, x, levels)
    return Data(splits[0], flat(binary.valid), flat(binary.test), anew, 1.0)
  return Data(*(flat(split) for split in (binary.train, binary.valid, binary.test)), loop.as_float, 1.0)


def optimizer(flags: absl_flags.FlagValues, num_steps: int) -> optax.GradientTransformation:
  """Adam with the epsilon of Burda et al. (2016), which matters where gradients are small."""
  constant = flags.schedule == 'constant'
  rate = flags.learning_rate if constant else optax.cosine_decay_schedule(flags.learning_rate, num_steps)
  return optax.adam(rate, eps=1e-4)


def in_bits(found: likelihood.Score, name: str, dataset: datasets.Dataset) -> dict[str, likelihood.Score]:
  """The score of grey data in bits per dimension; nothing for others."""
  if dataset.kind != 'grey' or name == 'bernoulli':
    return {}
  levels = dataset.levels if name == 'gaussian' else 1  # the density of dequantised values is one in units of levels
  return {'test_bits': likelihood.score_in_bits(found, int(np.prod(dataset.shape)), levels=levels)}


def draw(module, params, data: Data, dataset: datasets.Dataset, key, folder, *, samples=True) -> list[cli.Picture]:
  """Codes by class, the use of each dimension, reconstructions, walks, the plane of codes, decodes, samples.

  Args:
    module: with ``encode`` and ``decode``; the distribution ``posterior_given`` is drawn from where it has one.
    params: its variables.
    data: as it takes them.
    dataset: that they come from.
    key: of all draws.
    folder: to write to.
    samples: whether the module has ``sample``.
  """
  encode, decode = jax.jit(bind(module, 'encode')), jax.jit(bind(module, 'decode'))
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  chosen = np.random.default_rng(0).permutation(len(data.test))[:2000]
  shown, labels = data.test[chosen].astype(np.float32), None if dataset.test.y is None else dataset.test.y[chosen]
  codes = np.asarray(encode(params, shown))
  use, unit, what = codes.var(0), 'variance', 'variance over test examples'
  distribution = jax.jit(bind(module, 'posterior_given'))(params, shown) if samples else None
  if isinstance(distribution, latents.DiagonalGaussian) and codes.shape[1] == module.num_latents:
    use = np.asarray(jax.jit(diagnostics.divergence_per_dimension(module))(params, shown))
    unit, what = 'nats', 'KL to N(0, 1), mean over test examples'
  order = np.argsort(-use)
  figure = plots.bars([str(i) for i in order[:16]], use[order[:16]], ylabel=unit)
  keep('use.png', figure, f'The most used dimensions of the code: {what}')
  if codes.shape[1] > 1:
    first, second = order[:2]
    figure = plots.scatter(codes[:, [first, second]], labels, xlabel=f'code {first}', ylabel=f'code {second}')
    keep('codes.png', figure, 'Test examples in the two most used dimensions of the code, by class')
  if len(dataset.shape) != 3:
    return pictures

  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  value_range = (0.0, data.top)
  rebuilt = decode(params, codes[:12])
  figure = plots.image_table(
    image(np.stack([shown[:12], rebuilt])), rows=['original', 'rebuilt'], value_range=value_range
  )
  keep('reconstructions.png', figure, 'Test images, and the means decoded from their codes')

  weights = np.linspace(0, 1, 7)[:, None]
  walks = np.stack([(1 - weights) * codes[i] + weights * codes[i + 6] for i in range(6)])
  figure = plots.image_table(image(decode(params, walks)), columns=[f'{w:.2f}' for w in weights[:, 0]],
                             value_range=value_range)  # fmt: skip
  keep('walks.png', figure, 'Walks in seven steps between the codes of two test images')

  if codes.shape[1] > 1:
    # The plane is cut at quantiles of the codes, so that each image stands for as many examples as any other.
    places = [np.quantile(codes[:, i], np.linspace(0.03, 0.97, 12)) for i in (first, second)]
    grid = np.tile(codes.mean(0), (12, 12, 1))
    grid[..., first], grid[..., second] = np.meshgrid(places[0], places[1][::-1])
    figure = plots.image_table(image(decode(params, grid)), value_range=value_range)
    keep('plane.png', figure, f'Decoded from code {first} (across) and {second} (up), the others at their means')

  if samples:
    draw_key, sample_key = jax.random.split(key)
    some = jax.jit(bind(module, 'posterior_given'))(params, shown[:6])
    z = np.asarray(some.sample_and_log_prob(draw_key, 10)[0]).swapaxes(0, 1)
    table = np.concatenate([shown[:6, None], np.asarray(decode(params, z))], axis=1)
    figure = plots.image_table(image(table), columns=['original', *map(str, range(1, 11))], value_range=value_range)
    keep('decodes.png', figure, 'Ten decodes of one image each, from draws of its posterior')
    drawn = jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 100)
    keep('samples.png', plots.image_grid(image(drawn), value_range=value_range), '100 samples')
    means = decode(params, jax.tree.leaves(bind(module, 'sample_prior')(params, sample_key, 100))[0])
    keep(
      'means.png', plots.image_grid(image(means), value_range=value_range), 'Means decoded from 100 draws of the prior'
    )
  return pictures


def draw_completions(module, params, data: Data, dataset: datasets.Dataset, key, folder) -> list[cli.Picture]:
  """Test images of which the upper half is seen, and four completions of each; nothing for data that are no images."""
  if len(dataset.shape) != 3:
    return []
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  observed = np.zeros(dataset.shape, bool)
  observed[: dataset.shape[0] // 2] = True
  chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)].astype(np.float32)
  four_times = jnp.repeat(chosen[:, None], 4, axis=1)
  completed = jax.jit(bind(module, 'complete'))(params, key, four_times, observed.ravel())
  figure = plots.completions(image(chosen), observed[..., 0], image(completed), value_range=(0.0, data.top))
  plots.save(figure, folder / 'completions.png')
  caption = 'Test images of which the model sees the upper half, and four completions of each by pseudo-Gibbs'
  return [('completions.png', caption)]
