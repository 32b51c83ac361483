"""Pictures of a restricted Boltzmann machine: samples, filters, a chain over time, completions.

``data`` is what ``rbm.prepare`` makes of a data set.
"""

import jax
import numpy as np

from experiments import cli
from gm_jax import data as datasets
from gm_jax.base import as_variables
from gm_jax.boltzmann import gibbs, rbm, visible
from gm_jax.evaluation import image_plots, plots


def draw(machine, data, dataset: datasets.Dataset, key, state, folder) -> list[cli.Picture]:
  """Samples, filters, a chain over time, completions; for data that are no images the means of data and samples."""
  params = as_variables(state.variables).params
  call = lambda method: jax.jit(lambda *args: machine.apply({'params': params}, *args, method=method))
  sample_key, trace_key, complete_key = jax.random.split(key, 3)
  samples = jax.jit(lambda key: machine.apply({'params': params}, key, 100, method='sample'))(sample_key)
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  if len(dataset.shape) != 3:
    means = np.stack([data.test.mean(0), np.asarray(samples).mean(0)], 1)
    figure = plots.scatter(means, xlabel='mean in the test set', ylabel='mean in 100 samples')
    keep('means.png', figure, 'Mean of each unit, in the data and in samples')
    return pictures

  height, width, channels = dataset.shape
  top = 1.0 if dataset.kind == 'binary' or type(machine) is rbm.RBM else dataset.levels - 1
  value_range = None if isinstance(machine, visible.GaussianRBM) else (0.0, float(top))
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  mean_given = lambda v: call('visible_mean')(call('hidden_mean')(v))
  smooth = mean_given if not isinstance(machine, visible.CategoricalRBM) else (lambda v: v)

  figure = image_plots.image_grid(image(smooth(samples)), value_range=value_range)
  keep('samples.png', figure, f'Fantasy particles: 100 chains after {machine.burn_in:,} sweeps, visible means')

  kernel = np.asarray(params['kernel']).T
  if kernel.shape[1] == machine.num_visible:
    strongest = np.argsort(-np.linalg.norm(kernel, axis=1))[:100]
    keep(
      'filters.png',
      image_plots.filters(image(kernel[strongest]).mean(-1)),
      'Couplings of the hidden units, the strongest first',
    )

  times = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]

  @jax.jit
  def trace(key):
    start_key, chain_key = jax.random.split(key)
    given = lambda method: lambda key, x: machine.apply({'params': params}, key, x, method=method)
    begin = machine.apply({'params': params}, start_key, 6, method='start')
    return gibbs.block_gibbs_trace(given('sample_hidden'), given('sample_visible'), chain_key, begin, times[-1])

  frames = trace(trace_key)[np.array(times) - 1]
  figure = image_plots.chain_over_time(image(smooth(frames)), times, value_range=value_range)
  keep('chains.png', figure, 'Six chains over time from independent pixels, by the number of sweeps')

  observed = np.zeros((height, width, channels), bool)
  observed[: height // 2] = True
  chosen = data.test[np.linspace(0, len(data.test) - 1, 8).astype(int)].astype(np.float32)
  four_times = np.repeat(chosen[:, None], 4, axis=1)
  completed = call('complete')(complete_key, four_times, observed.ravel())
  figure = image_plots.completions(image(chosen), observed[..., 0], image(completed), value_range=value_range)
  keep('completions.png', figure, 'Test images of which the machine sees the upper half, and four completions of each')
  return pictures
