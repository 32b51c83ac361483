"""Principal components, probabilistic PCA and factor analysis.

Probabilistic PCA starts at its maximum of likelihood, in closed form, and its steps of EM stay there; factor analysis
climbs by EM over all data at once. The test log-likelihood is exact.

  python -m experiments.pca                                   the embedded digits
  python -m experiments.pca --model=factors --num_components=10
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import cli, vectors
from gm_jax import data as datasets
from gm_jax.base import Batch
from gm_jax.density import factor_analysis, pca
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.training import rules


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_integer('num_components', 20, 'Components or factors.', lower_bound=2, flag_values=flags)
  absl_flags.DEFINE_enum('model', 'ppca', ('ppca', 'factors'), 'One noise variance, or one each.', flag_values=flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  train, valid, test, _ = vectors.dequantised(dataset)
  if flags.num_components >= min(train.shape):
    raise ValueError(
      f'num_components={flags.num_components} must be below the {train.shape[1]} dimensions of the data and its '
      f'{len(train)} examples'
    )
  flags.batch_size = len(train) - len(train) % jax.device_count()
  linear = factor_analysis.FactorAnalysis(flags.num_components, isotropic=flags.model == 'ppca')
  model = pca.model(flags.num_components) if flags.model == 'ppca' else linear.model()
  log_prob = likelihood.evaluator(model.log_prob, block_size=1000)

  def evaluate(step, state):
    del step
    return {'valid/log_prob': log_prob(state.params, valid).mean}

  def score(key, state):
    del key
    levels = dataset.levels if dataset.kind == 'grey' else None
    return cli.exact_scores(log_prob, state.params, train, test, levels)

  return cli.Experiment(
    algorithm=rules.expectation_maximization(model.init, linear.e_step, linear.m_step, axis_name=axis_name),
    data=Batch(train),
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: draw(dataset, model, state.params, key, (train, test), flags, folder),
    sample=lambda key, state, num: model.sample(state.params, key, num),
    best_metric='valid/log_prob',
  )


def draw(dataset, model, params, key, data, flags, folder) -> list[cli.Picture]:
  """The first two components by class; of images the components, reconstructions and samples."""
  train, test = data
  pictures = []

  def keep(name, figure, caption):
    plots.save(figure, folder / name)
    pictures.append((name, caption))

  found = jax.jit(lambda x: pca.principal_components(x, flags.num_components))(train)
  ratio = np.asarray(pca.explained_variance_ratio(found))
  labels = [f'component {i + 1}, {ratio[i]:.1%} of the variance' for i in range(2)]
  plane = np.asarray(pca.project(found, test))[:, :2]
  keep('plane.png', plots.scatter(plane, dataset.test.y, xlabel=labels[0], ylabel=labels[1]), 'Test examples by class')
  points = np.stack([np.arange(1, len(ratio) + 1), np.cumsum(ratio)], 1)
  figure = plots.scatter(points, xlabel='components', ylabel='share of the variance explained')
  keep('variance.png', figure, f'{flags.num_components} components explain {ratio.sum():.1%} of the training variance')
  if len(dataset.shape) != 3:
    return pictures
  image = lambda x: np.asarray(x).reshape(*np.shape(x)[:-1], *dataset.shape)
  figure = image_plots.filters(image(found.components[:50]).mean(-1))
  keep('components.png', figure, 'Eigen-images: the principal components by falling variance')
  chosen = test[np.linspace(0, len(test) - 1, 10).astype(int)]
  rebuilt = pca.reconstruct(found, pca.project(found, chosen))
  figure = image_plots.image_table(image(np.stack([chosen, np.asarray(rebuilt)])), rows=['original', 'rebuilt'])
  keep('reconstructions.png', figure, f'Test images rebuilt from {flags.num_components} components')
  samples = jax.jit(lambda key: model.sample(params, key, 100))(key)
  keep('samples.png', image_plots.image_grid(image(samples)), '100 samples')
  return pictures


BINARY = cli.Binary(
  name='pca',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 20},
)

if __name__ == '__main__':
  cli.main(BINARY)
