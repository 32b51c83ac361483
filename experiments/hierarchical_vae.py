"""Hierarchical variational autoencoder with inference from the top down, of any depth.

Reports an importance-sampling estimate of the test log-likelihood, which is a lower bound in the mean, beside the bound
itself, and draws how many nats each layer holds and what the layers do.

  python -m experiments.hierarchical_vae                            the embedded digits, about a minute
  python -m experiments.hierarchical_vae --num_layers=20 --num_latents=2
  python -m experiments.hierarchical_vae --dataset=mnist --binarise=stochastic --num_latents=8 --width=256
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import cli, latent, latent_pictures
from gm_jax import data as datasets
from gm_jax.autoencoders import hierarchical, vae
from gm_jax.base import bind
from gm_jax.evaluation import image_plots, plots

PUBLISHED = {
  'binarized_mnist': [('VAE, 2 layers', -87.86, 'Tomczak & Welling 2018, 5,000 samples'),
                      ('HVAE with VampPrior', -83.19, 'Tomczak & Welling 2018, 5,000 samples')],
  'mnist': [('LVAE', -81.74, 'Tomczak & Welling 2018, stochastic binarisation'),
            ('very deep VAE, 32 x 32', -80.72, 'EugenHotaj/pytorch-generative, a bound, padded images')],
}  # fmt: skip


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  integer('num_layers', 6, 'Layers of latent variables.')
  integer('num_latents', 4, 'Latent variables of each layer.')
  integer('width', 100, 'Units of the states and of the hidden layers.')
  integer('warm_up', 200, 'Updates in which the weight of the KL rises from zero.', 0)
  absl_flags.DEFINE_float('free_bits', 0.0, 'Nats of the KL of each layer that cost nothing.', lower_bound=0,
                          flag_values=flags)  # fmt: skip
  latent.define_schedule_flag(flags)
  latent.define_likelihood_flags(flags)
  latent.define_evaluation_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  name = latent.choose_likelihood(flags, dataset)
  data = latent.prepare(name, flags, dataset)
  module = hierarchical.HierarchicalVAE(
    data.train.shape[1], flags.num_latents, flags.num_layers, flags.width, latent.make_head(name, dataset)
  )
  beta = vae.warm_up(flags.warm_up) if flags.warm_up else 1.0

  def draw(params, key, folder):
    draw_key, layer_key = jax.random.split(key)
    pictures = draw_layers(module, params, data, dataset, layer_key, folder)
    return pictures + latent_pictures.draw(module, params, data, dataset, draw_key, folder)

  return latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=vae.objective(module, beta=beta, free_bits=flags.free_bits),
    numbers=latent.terms_of(module),
    num_importance=flags.num_importance,
    draw=draw,
    more_scores=lambda params, key, scores: latent.in_bits(scores['test_bound'], name, dataset),
    published=PUBLISHED.get(flags.dataset, ()),
  )


def draw_layers(module, params, data, dataset, key, folder) -> list[cli.Picture]:
  """The KL of each layer, and samples that share their upper layers."""
  term_key, prior_key, key = jax.random.split(key, 3)
  some = data.test[np.random.default_rng(0).permutation(len(data.test))[:2000]].astype(np.float32)
  divergence = jax.jit(bind(module, 'terms'))(params, term_key, some).divergence.mean(0)
  names = [str(module.num_layers - i) for i in range(module.num_layers)]
  plots.save(plots.bars(names, divergence, ylabel='nats'), folder / 'layers.png')
  pictures = [('layers.png', f'KL of each layer from the top ({names[0]}) down, mean over {len(some)} test examples')]
  if len(dataset.shape) == 3:
    z = jax.numpy.repeat(bind(module, 'sample_prior')(params, prior_key, 1), 12, axis=0)
    kept = sorted({round(share * module.num_layers) for share in (0, 0.25, 0.5, 0.75, 1)})
    resample, decode = jax.jit(bind(module, 'resample'), static_argnums=3), jax.jit(bind(module, 'decode'))
    table = np.stack([decode(params, resample(params, key, z, num)) for num in kept])
    rows = [f'{num} of {module.num_layers}' for num in kept]
    figure = image_plots.image_table(
      table.reshape(*table.shape[:2], *dataset.shape), rows=rows, value_range=(0.0, data.top)
    )
    plots.save(figure, folder / 'levels.png')
    pictures.append(('levels.png', 'Twelve samples that share so many layers from the top, the others drawn anew'))
  return pictures


BINARY = cli.Binary(
  name='hierarchical_vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 200, 'learning_rate': 0.002},
  evaluation_flags=('num_importance', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
