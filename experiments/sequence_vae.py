"""Variational autoencoder of multichannel series, with one decoder, or causal with one for each channel.

Reports an importance-sampling estimate of the test log-likelihood, which is a lower bound in the mean. On the embedded
network the exact likelihood of the truth stands beside it, and the causal model is asked which channel drives which:
the area under the curve says how well the norms of its input weights tell the edges of the graph from other pairs.

  python -m experiments.sequence_vae                              a network of six channels, causal, about a minute
  python -m experiments.sequence_vae --nocausal
  python -m experiments.sequence_vae --dataset=digits --nocausal  images as series of rows
"""

import jax
import numpy as np
from absl import flags as absl_flags
from sklearn.metrics import roc_auc_score

from experiments import cli, latent
from gm_jax import data as datasets
from gm_jax.autoencoders import recurrent, vae
from gm_jax.base import bind
from gm_jax.data import signals
from gm_jax.evaluation import image_plots, likelihood, plots, signal_plots


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_integer('num_latents', 4, 'Dimensions of the code of a series.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_integer('num_hidden', 16, 'Recurrent units; of each channel if causal.', lower_bound=1,
                            flag_values=flags)  # fmt: skip
  absl_flags.DEFINE_bool('causal', True, 'A decoder for each channel, with sparse input weights.', flag_values=flags)
  absl_flags.DEFINE_float(
    'sparsity', 1.0, 'Of the causal model: how much a step shortens the input weights of each pair of channels, as a '
    'share of the learning rate.', lower_bound=0, flag_values=flags,
  )  # fmt: skip
  latent.define_schedule_flag(flags)
  latent.define_likelihood_flags(flags)
  latent.define_evaluation_flags(flags, default=100)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  if len(dataset.shape) not in (2, 3):
    raise ValueError(f'dataset={dataset.name!r}: examples {dataset.shape} are no series [steps, channels], nor images')
  name = latent.choose_likelihood(flags, dataset)
  data = latent.prepare(name, flags, dataset)
  num_steps, num_channels = dataset.shape[0], int(np.prod(dataset.shape[1:]))
  module = recurrent.SequenceVAE(
    num_steps, num_channels, flags.num_latents, flags.num_hidden, latent.make_head(name, dataset), flags.causal
  )
  plan = cli.make_plan(flags, len(data.train))
  optimizer, rate = latent.adam(flags, plan.num_steps), latent.learning_rate(flags, plan.num_steps)
  if flags.causal:
    optimizer = recurrent.group_lasso(optimizer, lambda step: flags.sparsity * rate(step))
  known = dataset.name == 'network'

  def more_scores(params, key, scores):
    found = latent.in_bits(scores['test_bound'], name, dataset)
    if known:
      truth = likelihood.summarise(signals.network_log_density(dataset.test.x))
      found['test_log_prob_of_the_truth'] = truth.score('exact')
    return {**found, **(edge_scores(module, params, dataset) if known and flags.causal else {})}

  return latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=vae.objective(module),
    numbers=latent.terms_of(module),
    num_importance=flags.num_importance,
    draw=lambda params, key, folder: draw(module, params, data, dataset, key, folder),
    more_scores=more_scores,
    optimizer=optimizer,
  )


def least_squares(series: np.ndarray) -> np.ndarray:
  """The couplings ``[D, D]`` of the autoregression x_t = A x_(t-1) that fits ``[N, T, D]`` best."""
  before, after = (series[:, part].reshape(-1, series.shape[-1]) for part in (slice(None, -1), slice(1, None)))
  return np.linalg.lstsq(before, after, rcond=None)[0].T


def edge_scores(module, params, dataset) -> dict[str, likelihood.Score]:
  """How well pairs of different channels are told apart into edges and none, beside a linear fit."""
  pairs = ~np.eye(module.num_channels, dtype=bool)
  influence = np.asarray(bind(module, 'influence')(params))[pairs]
  edges, linear = signals.COUPLINGS[pairs] != 0, np.abs(least_squares(dataset.train.x))[pairs]
  score = lambda value: likelihood.score(float(value), 'exact', stderr=None, n=len(edges), unit='of 1')
  return {
    'edge_area_under_curve': score(roc_auc_score(edges, influence)),
    'edge_area_under_curve_of_least_squares': score(roc_auc_score(edges, linear)),
  }


def draw(module, params, data, dataset, key, folder) -> list[cli.Picture]:
  """Series and samples, forecasts from the first half, and the graph."""
  sample_key, forecast_key = jax.random.split(key)
  pictures, unflatten = [], lambda x: np.asarray(x, np.float32).reshape(-1, module.num_steps, module.num_channels)

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  x = data.test[:5].astype(np.float32)
  samples = jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 5)
  figure = signal_plots.series(np.stack([unflatten(x), unflatten(samples)]), ['test', 'samples'])
  keep('series.png', figure, 'Test series above, samples below')
  half = module.num_steps // 2
  observed = np.repeat(np.arange(module.num_steps) < half, module.num_channels)
  goes_on = jax.jit(bind(module, 'complete'))(params, forecast_key, x, observed)
  figure = signal_plots.series(np.stack([unflatten(x), unflatten(goes_on)]), ['test', 'goes on'], given=half)
  keep('forecasts.png', figure, 'Test series, and how the model goes on from their first half (shaded)')
  if module.causal:
    found, names = [bind(module, 'influence')(params)], ['input weights']
    if dataset.name == 'network':
      found, names = [np.abs(signals.COUPLINGS), *found], ['truth', *names]
    keep('graph.png', signal_plots.matrices(found, names, xlabel='from', ylabel='to'), 'Which channel drives which')
  if len(dataset.shape) == 3:
    drawn = jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 100)
    figure = image_plots.image_grid(np.asarray(drawn).reshape(100, *dataset.shape), value_range=(0.0, data.top))
    keep('samples.png', figure, '100 samples')
  return pictures


BINARY = cli.Binary(
  name='sequence_vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'dataset': 'network', 'num_epochs': 60, 'learning_rate': 0.01},
  evaluation_flags=('num_importance', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
