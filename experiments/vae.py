"""Variational autoencoder.

Trains by the evidence lower bound, and reports an importance-sampling estimate of the test log-likelihood, which is a
lower bound in the mean, beside the bound itself, the use of the code, and pictures.

  python -m experiments.vae                                          the embedded digits, under a minute
  python -m experiments.vae --posterior=full --prior=vamp            another posterior and prior
  python -m experiments.vae --posterior=iaf                          an inverse autoregressive flow
  python -m experiments.vae --dataset=mnist --binarise=stochastic --num_latents=50 --num_epochs=100
"""

import flax.linen as nn
import numpy as np
from absl import flags as absl_flags

from experiments import activations, cli, common_flags, latent, latent_pictures
from gm_jax import data as datasets
from gm_jax.autoencoders import latents, vae
from gm_jax.flows import iaf
from gm_jax.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder

ARCHITECTURES = ('mlp', 'convolutional', 'one_hidden_layer', 'three_linear_layers')
PUBLISHED = {
  'mnist': [('VAE, 50 latents, 2 x 200 tanh', -86.76, 'Burda et al. 2016, stochastic binarisation, 5,000 samples')],
  'binarized_mnist': [('VAE, 1 layer', -88.56, 'Tomczak & Welling 2018, 5,000 samples')],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  latent.define_network_flags(flags)
  activations.define_flag(flags, 'tanh')
  latent.define_likelihood_flags(flags)
  latent.define_evaluation_flags(flags)

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  choice('architecture', ARCHITECTURES, 'Networks; the last two and convolutional go without --hidden_sizes.')
  choice('posterior', ('diagonal', 'full', 'iaf'), 'Gaussian with either covariance, or a flow behind a diagonal one.')
  choice('prior', ('normal', 'mixture', 'vamp'), 'Prior of the code.')
  integer('num_components', 50, 'Components of a mixture or VampPrior.')
  absl_flags.DEFINE_float('beta', 1.0, 'Weight of the KL in learning.', lower_bound=0, flag_values=flags)
  integer('warm_up', 0, 'Updates in which beta rises from zero.', 0)
  absl_flags.DEFINE_float('free_bits', 0.0, 'Nats of each part of the KL that cost nothing.', lower_bound=0,
                          flag_values=flags)  # fmt: skip
  choice('estimator', vae.ESTIMATORS, 'Of the KL and its gradient in learning.')


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset, name: str) -> vae.VAE:
  """The model that the flags ask for."""
  num_visible, num_latents = int(np.prod(dataset.shape)), flags.num_latents
  settings = {
    'head': latent.make_head(name, dataset),
    'posterior': {
      'diagonal': latents.Diagonal,
      'full': latents.FullCovariance,
      'iaf': lambda: iaf.Posterior(num_latents, hidden_sizes=(max(64, num_latents),)),
    }[flags.posterior](),
    'prior': {
      'normal': lambda: None,
      'mixture': lambda: latents.MixturePrior(num_latents, flags.num_components),
      'vamp': lambda: latents.VampPrior(num_visible, flags.num_components),
    }[flags.prior](),
  }
  if flags.architecture == 'mlp':
    activation = activations.ACTIVATIONS[flags.activation]
    return vae.mlp(
      num_visible,
      num_latents,
      common_flags.whole_numbers(flags, 'hidden_sizes', least=0),
      activation=activation,
      **settings,
    )
  if flags.architecture != 'convolutional':
    return getattr(vae, flags.architecture)(num_latents, num_visible).clone(**_same_size(settings, flags))
  if len(dataset.shape) != 3:
    raise ValueError(f'architecture=convolutional needs images, but examples of {dataset.name!r} are {dataset.shape}')
  encoder = ConvolutionalEncoder(dataset.shape, (32, 64), settings['posterior'].size(num_latents), nn.relu)
  decoder = ConvolutionalDecoder(dataset.shape, (64, 32), settings['head'].size, nn.relu)
  return vae.VAE(encoder, decoder, num_latents, **settings)


def _same_size(settings, flags):
  """The settings, if networks that were built for the plain ones can have them."""
  if settings['head'].size != 1 or flags.posterior != 'diagonal':
    raise ValueError(
      f'architecture={flags.architecture} has one output per pixel and a diagonal posterior; take --architecture=mlp '
      f'for likelihood={flags.likelihood} with posterior={flags.posterior}'
    )
  return settings


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  name = latent.choose_likelihood(flags, dataset)
  module = make_module(flags, dataset, name)
  data = latent.prepare(name, flags, dataset)
  beta = vae.warm_up(flags.warm_up, flags.beta) if flags.warm_up else flags.beta

  def more_scores(params, key, scores):
    bits = latent.in_bits(scores['test_bound'], name, dataset)
    return bits | latent.code_scores(module, params, key, data.test)

  return latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=vae.objective(module, beta=beta, free_bits=flags.free_bits, estimator=flags.estimator),
    numbers=latent.terms_of(module),
    num_importance=flags.num_importance,
    draw=lambda params, key, folder: latent_pictures.draw(module, params, data, dataset, key, folder),
    more_scores=more_scores,
    published=PUBLISHED.get(flags.dataset, ()),
  )


BINARY = cli.Binary(
  name='vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 400, 'learning_rate': 0.002},
  evaluation_flags=('num_importance', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
