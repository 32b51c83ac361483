"""Variational autoencoder.

Trains by the evidence lower bound, and reports an importance-sampling estimate of the test log-likelihood, which is a
lower bound in the mean, beside the bound itself, the use of the code, and pictures.

  python -m experiments.vae                                          the embedded digits, under a minute
  python -m experiments.vae --posterior=full --prior=vamp            another posterior and prior
  python -m experiments.vae --posterior=iaf                          an inverse autoregressive flow
  python -m experiments.vae --dataset=mnist --binarise=stochastic --num_latents=50 --num_epochs=100
"""

import flax.linen as nn
import jax
import numpy as np
from absl import flags as absl_flags

from experiments import cli, latent
from gm_jax import data as datasets
from gm_jax.autoencoders import diagnostics, iwae, latents, vae
from gm_jax.base import Batch, bind
from gm_jax.evaluation import likelihood
from gm_jax.flows import iaf
from gm_jax.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from gm_jax.training import rules

ARCHITECTURES = ('mlp', 'convolutional', 'one_hidden_layer', 'three_linear_layers')
PUBLISHED = {
  'mnist': [('VAE, 50 latents, 2 x 200 tanh', -86.76, 'Burda et al. 2016, stochastic binarisation, 5,000 samples')],
  'binarized_mnist': [('VAE, 1 layer', -88.56, 'Tomczak & Welling 2018, 5,000 samples')],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  latent.define_flags(flags)
  latent.define_likelihood_flag(flags)

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
  integer('num_importance', 500, 'Importance samples of the final estimate.')


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
    activation = latent.ACTIVATIONS[flags.activation]
    return vae.mlp(num_visible, num_latents, latent.hidden_sizes(flags), activation=activation, **settings)
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
  plan = cli.make_plan(flags, len(data.train))
  beta = vae.warm_up(flags.warm_up, flags.beta) if flags.warm_up else flags.beta
  objective = vae.objective(module, beta=beta, free_bits=flags.free_bits, estimator=flags.estimator)
  terms = bind(module, 'terms')

  def numbers(params, key, x):
    log_likelihood, divergence = terms(params, key, x.astype('float32'))
    divergence = divergence.sum(-1)
    return {'bound': log_likelihood - divergence, 'divergence': divergence}

  evaluate_numbers = likelihood.evaluator(numbers, block_size=500, stochastic=True)
  score_bound = make_score(module, flags.num_importance)

  def evaluate(step, state):
    found = evaluate_numbers(state.variables, data.valid, key=jax.random.key(step))
    return {f'valid/{name}': mean.mean for name, mean in found.items()}

  def score(key, state):
    bound_key, elbo_key, code_key = jax.random.split(key, 3)
    found = score_bound(state.variables, bound_key, data.test)
    elbo = evaluate_numbers(state.variables, data.test, key=elbo_key)
    scores = {**found, **latent.in_bits(found['test_bound'], name, dataset)}
    scores['test_elbo'] = elbo['bound'].score('lower bound')
    scores['test_divergence'] = elbo['divergence'].score('estimate')
    return {**scores, **code_scores(module, state.variables, code_key, data.test)}

  def draw(key, state, folder):
    draw_key, complete_key = jax.random.split(key)
    pictures = latent.draw(module, state.variables, data, dataset, draw_key, folder)
    return pictures + latent.draw_completions(module, state.variables, data, dataset, complete_key, folder)

  return cli.Experiment(
    algorithm=rules.descent(*objective, latent.optimizer(flags, plan.num_steps), axis_name=axis_name),
    data=Batch(data.train),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=draw,
    sample=lambda key, state, num: bind(module, 'sample')(state.variables, key, num),
    best_metric='valid/bound',
    published=PUBLISHED.get(flags.dataset, ()),
  )


def make_score(module, num_samples: int):
  """``(params, key, test) -> scores``: log p(x) by importance sampling, and how many samples that was worth."""
  estimate = iwae.estimate(module, num_samples)

  def numbers(params, key, x):
    found = estimate(params, key, x.astype('float32'))
    return {'test_bound': found.log_prob, 'effective_sample_size': found.effective_sample_size}

  evaluate = likelihood.evaluator(numbers, block_size=40, stochastic=True)

  def score(params, key, test):
    found = evaluate(params, test, key=key)
    size = found['effective_sample_size'].score('estimate', unit=f'samples of {num_samples}')
    return {'test_bound': found['test_bound'].score('lower bound'), 'effective_sample_size': size}

  return score


def code_scores(module, params, key, test) -> dict[str, likelihood.Score]:
  """Active units and mutual information of code and example, on at most 2,000 random test examples."""
  some = test[np.random.default_rng(0).permutation(len(test))[:2000]].astype(np.float32)
  active = float(jax.jit(diagnostics.active_units(module))(params, some))
  information = likelihood.summarise(jax.jit(diagnostics.mutual_information(module))(params, key, some))
  return {
    'active_units': likelihood.score(active, 'exact', stderr=None, n=len(some), unit=f'of {module.num_latents}'),
    'mutual_information': information.score('estimate'),
  }


BINARY = cli.Binary(
  name='vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 400, 'learning_rate': 0.002},
  evaluation_flags=('num_importance',),
)

if __name__ == '__main__':
  cli.main(BINARY)
