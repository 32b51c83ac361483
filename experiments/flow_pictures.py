"""Pictures of flows: densities and the way of points through the layers; of images, samples at temperatures and walks.

``data`` is what ``flow_data.prepare`` makes of a data set.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, flow_data
from gm_jax import data as datasets
from gm_jax.base import bind
from gm_jax.data import toy
from gm_jax.evaluation import flow_plots, image_plots, plots
from gm_jax.flows import flow


def draw(module, params, data: flow_data.Data, dataset: datasets.Dataset, key, folder) -> list[cli.Picture]:
  """Densities beside the truth and the way through the layers, or samples at temperatures and walks."""
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if len(dataset.shape) == 3:
    draw_images(keep, module, params, data, dataset, key)
  elif module.num_dimensions == 2 and not module.context_size:
    draw_plane(keep, module, params, data, dataset, key)
  else:
    samples = data.from_flow(flow_data.draw_samples(module, params, key, 1000, data.contexts[2]))
    test = data.splits[2][:1000]
    linked = np.abs(np.corrcoef(test.T)) - np.eye(test.shape[1])
    pair = np.unravel_index(np.nanargmax(linked), linked.shape)
    labels = [dataset.feature_names[d] if dataset.feature_names else f'dimension {d}' for d in pair]
    both = np.concatenate([test[:, pair], np.clip(samples[:, pair], *_range(test[:, pair]))])
    kinds = np.repeat([0, 1], [len(test), len(samples)])
    figure = plots.scatter(both, kinds, names=['data', 'samples'], xlabel=labels[0], ylabel=labels[1])
    keep('samples.png', figure, 'Test examples and samples, in the two dimensions that are linked the most')
  return pictures


def _range(x):
  low, high = x.min(0), x.max(0)
  return low - 0.2 * (high - low), high + 0.2 * (high - low)


def draw_plane(keep, module, params, data, dataset, key) -> None:
  """The density beside the truth, samples, and the way of points from noise to data."""
  low, high = _range(data.splits[2])
  side = [np.linspace(low[d], high[d], 240, dtype=np.float32) for d in range(2)]
  points = np.stack(np.meshgrid(*side), axis=-1)
  y, log_det = data.to_flow(key, points)
  shown = {'flow': np.asarray(jax.jit(bind(module, 'log_prob'))(params, y) + log_det)}
  if dataset.name in toy.TOYS:
    shown = {'truth': np.asarray(toy.log_density(dataset.name)(points)), **shown}
  keep('density.png', flow_plots.densities(*side, shown), 'The density of the flow beside that of the data')
  draw_path(keep, module, params, key, data.from_flow)


def draw_path(keep, module, params, key, from_flow=lambda y: y) -> None:
  """The way of 2,000 draws of noise through the layers."""
  z = bind(module, 'draw_noise')(params, key, 2000)
  way = [z, *jax.jit(bind(module, 'path'))(params, z)]
  if len(way) > 15:
    way = [way[i] for i in np.linspace(0, len(way) - 1, 15).astype(int)]
  way[-1] = from_flow(way[-1])
  names = ['noise', *(f'{i} of {len(way) - 1}' for i in range(1, len(way) - 1)), 'data']
  figure = flow_plots.path([np.asarray(one) for one in way], names)
  keep('path.png', figure, 'Points on their way from noise to data through the layers, coloured by where they began')


def draw_images(keep, module, params, data, dataset, key) -> None:
  """Samples at temperatures, each row with the same noise; walks between test images; the way from class to class."""
  image = lambda y: np.asarray(data.from_flow(y)).reshape(*np.shape(y)[:-1], *dataset.shape)
  white = (0.0, float(dataset.levels))
  temperatures = (0.5, 0.7, 0.85, 1.0)
  rows = [
    flow_data.draw_samples(module, params, key, 10, data.contexts[2], temperature) for temperature in temperatures
  ]
  figure = image_plots.image_table(image(np.stack(rows)), rows=[f'T = {t}' for t in temperatures], value_range=white)
  keep('temperatures.png', figure, 'Samples at temperatures; a column has the same noise')
  samples = flow_data.draw_samples(module, params, key, 30, data.contexts[2])
  train = image(data.to_flow(key, data.splits[0][:10_000])[0])
  keep('samples.png', image_plots.beside_nearest(image(samples), train, value_range=white),
       'Samples, and below each the training example nearest to it with its distance')  # fmt: skip
  if module.context_size:
    return
  x, _ = data.to_flow(key, data.splits[2][:12])
  walk = jax.jit(lambda first, last: flow.interpolate(module, params, first, last, 9))
  walks = np.stack([walk(x[i], x[i + 6]) for i in range(6)])
  figure = image_plots.image_table(image(walks), value_range=white)
  keep('walks.png', figure, 'Walks through the noise between test images')
  if dataset.test.y is not None and dataset.num_classes > 1:
    train, _ = data.to_flow(key, data.splits[0][:5000])
    labels = dataset.train.y[:5000]
    move = jax.jit(lambda x, here, there: flow.shift_attribute(module, params, x, there, here, jnp.linspace(0, 1, 7)))
    shown = []
    for label in range(min(dataset.num_classes - 1, 6)):
      own = np.flatnonzero(dataset.test.y == label)
      size = min((labels == label).sum(), (labels == label + 1).sum(), 100)
      here, there = (train[np.flatnonzero(labels == one)[:size]] for one in (label, label + 1))
      if len(own) and size == 100:
        shown.append(move(data.to_flow(key, data.splits[2][own[0]])[0], here, there))
    if shown:
      keep('classes.png', image_plots.image_table(image(np.stack(shown)), value_range=white),
           'Test images moved by the difference of the mean noise of two classes')  # fmt: skip
