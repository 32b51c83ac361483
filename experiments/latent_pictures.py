"""Pictures of models with codes: the codes themselves, reconstructions, walks, decodes, samples and completions.

``data`` is what ``latent.prepare`` makes of a data set.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from gm_jax import data as datasets
from gm_jax.autoencoders import diagnostics, iwae, latents
from gm_jax.base import bind
from gm_jax.evaluation import image_plots, latent_plots, plots

MAX_CLASSES = 20  # names of more would cover a picture of codes


def draw(module, params, data, dataset: datasets.Dataset, key, folder, *, samples=True) -> list[cli.Picture]:
  """Codes, the use of each dimension, reconstructions, walks, the plane, decodes, samples, completions, estimators.

  Args:
    module: with ``encode`` and ``decode``, and ``propose`` and ``sample_prior`` if it has samples.
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
  shown = data.test[chosen].astype(np.float32)
  labels = dataset.test.y[chosen] if dataset.num_classes and dataset.num_classes <= MAX_CLASSES else None
  codes = np.asarray(encode(params, shown))
  use, unit, what = codes.var(0), 'variance', 'variance over test examples'
  given = samples and hasattr(type(module), 'posterior_given')
  distribution = jax.jit(bind(module, 'posterior_given'))(params, shown) if given else None
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
  figure = image_plots.image_table(
    image(np.stack([shown[:12], rebuilt])), rows=['original', 'rebuilt'], value_range=value_range
  )
  keep('reconstructions.png', figure, 'Test images, and the means decoded from their codes')

  weights = np.linspace(0, 1, 7)[:, None]
  walks = np.stack([(1 - weights) * codes[i] + weights * codes[i + 6] for i in range(6)])
  figure = image_plots.image_table(image(decode(params, walks)), columns=[f'{w:.2f}' for w in weights[:, 0]],
                             value_range=value_range)  # fmt: skip
  keep('walks.png', figure, 'Walks in seven steps between the codes of two test images')

  if codes.shape[1] > 1:
    # The plane is cut at quantiles of the codes, so that each image stands for as many examples as any other.
    places = [np.quantile(codes[:, i], np.linspace(0.03, 0.97, 12)) for i in (first, second)]
    grid = np.tile(codes.mean(0), (12, 12, 1))
    grid[..., first], grid[..., second] = np.meshgrid(places[0], places[1][::-1])
    figure = image_plots.image_table(image(decode(params, grid)), value_range=value_range)
    keep('plane.png', figure, f'Decoded from code {first} (across) and {second} (up), the others at their means')

  if samples:
    draw_key, sample_key, complete_key, estimate_key = jax.random.split(key, 4)
    z, _ = jax.jit(bind(module, 'propose'), static_argnums=3)(params, draw_key, shown[:6], 10)
    z = np.asarray(jax.tree.leaves(z)[0]).swapaxes(0, 1)  # of several stochastic layers that which x is decoded from
    table = np.concatenate([shown[:6, None], np.asarray(decode(params, z))], axis=1)
    figure = image_plots.image_table(
      image(table), columns=['original', *map(str, range(1, 11))], value_range=value_range
    )
    keep('decodes.png', figure, 'Ten decodes of one image each, from draws of its posterior')
    drawn = jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 100)
    keep('samples.png', image_plots.image_grid(image(drawn), value_range=value_range), '100 samples')
    means = decode(params, jax.tree.leaves(bind(module, 'sample_prior')(params, sample_key, 100))[0])
    figure = image_plots.image_grid(image(means), value_range=value_range)
    keep('means.png', figure, 'Means decoded from 100 draws of the prior')
    pictures += draw_completions(module, params, data, dataset, complete_key, folder)
    pictures += draw_estimators(module, params, data, estimate_key, folder)
  return pictures


def draw_estimators(module, params, data, key, folder) -> list[cli.Picture]:
  """Plain Monte Carlo and importance sampling of the likelihood of twenty test examples, side by side."""
  names = {'prior': 'plain Monte Carlo', 'posterior': 'importance sampling'}
  x = data.test[np.linspace(0, len(data.test) - 1, 20).astype(int)].astype(np.float32)
  weights = {
    name: jax.jit(iwae.log_weights(module, 1000, proposal))(params, key, x) for proposal, name in names.items()
  }
  figure = latent_plots.estimators(weights, (2, 5, 10, 20, 50, 100, 200, 500, 1000))
  plots.save(figure, folder / 'estimators.png')
  return [
    ('estimators.png', 'Two estimators of log p(x), means over 20 test examples, and what each says of its error')
  ]


def draw_completions(module, params, data, dataset: datasets.Dataset, key, folder) -> list[cli.Picture]:
  """Test images of which the upper half is seen, and four completions of each."""
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  observed = np.zeros(dataset.shape, bool)
  observed[: dataset.shape[0] // 2] = True
  chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)].astype(np.float32)
  four_times = jnp.repeat(chosen[:, None], 4, axis=1)
  completed = jax.jit(bind(module, 'complete'))(params, key, four_times, observed.ravel())
  figure = image_plots.completions(image(chosen), observed[..., 0], image(completed), value_range=(0.0, data.top))
  plots.save(figure, folder / 'completions.png')
  caption = 'Test images of which the model sees the upper half, and four completions of each by pseudo-Gibbs'
  return [('completions.png', caption)]
