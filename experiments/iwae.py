"""Importance-weighted autoencoder with one or two stochastic layers.

Trains by the k-sample bound, with its plain or its doubly reparameterised gradient, and estimates the test
log-likelihood from many more samples; that estimate is a lower bound in the mean.

  python -m experiments.iwae                                 the embedded digits, about a minute
  python -m experiments.iwae --num_importance=50 --gradient=dreg
  python -m experiments.iwae --dataset=mnist --binarise=stochastic --num_latents=50 --num_layers=2 --batch_size=20
"""

import numpy as np
from absl import flags as absl_flags

from experiments import activations, cli, common_flags, latent, latent_pictures
from gm_jax import data as datasets
from gm_jax.autoencoders import iwae, vae

PUBLISHED = {
  'mnist': [
    (f'{kind}, {layers}, k = {k}', number, 'Burda et al. 2016, stochastic binarisation, 5,000 samples')
    for kind, layers, k, number in [
      ('VAE', '1 layer', 1, -86.76), ('IWAE', '1 layer', 5, -85.54), ('IWAE', '1 layer', 50, -84.78),
      ('VAE', '2 layers', 1, -85.33), ('IWAE', '2 layers', 5, -83.89), ('IWAE', '2 layers', 50, -82.90),
    ]
  ],
  'binarized_mnist': [('IWAE, 1 layer, k = 50', -87.10, 'authors of Burda et al. 2016, fixed binarisation')],
}  # fmt: skip


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  latent.define_network_flags(flags)
  activations.define_flag(flags, 'tanh')
  latent.define_likelihood_flags(flags)
  latent.define_evaluation_flags(flags, 'num_evaluation')
  absl_flags.DEFINE_integer('num_importance', 5, 'k, the importance samples of the bound that is learnt by.',
                            lower_bound=1, flag_values=flags)  # fmt: skip
  absl_flags.DEFINE_enum('gradient', 'plain', iwae.GRADIENTS, 'How the gradient is estimated.', flag_values=flags)
  absl_flags.DEFINE_enum('num_layers', '1', ('1', '2'), 'Stochastic layers; with two, num_latents are those of the '
                         'upper one, the lower has twice as many, and --hidden_sizes names the units below the lower '
                         'one, then between the two.', flag_values=flags)  # fmt: skip


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset, name: str):
  """The model that the flags ask for."""
  num_visible, head = int(np.prod(dataset.shape)), latent.make_head(name, dataset)
  sizes = common_flags.whole_numbers(flags, 'hidden_sizes', least=0)
  if flags.num_layers == '1':
    activation = activations.ACTIVATIONS[flags.activation]
    return vae.mlp(num_visible, flags.num_latents, sizes, head=head, activation=activation)
  if len(sizes) != 2 or flags.activation != 'tanh' or name in ('logistic', 'categorical'):
    raise ValueError(
      f'num_layers=2 has two hidden_sizes, tanh units and a bernoulli or gaussian likelihood, but '
      f'hidden_sizes={",".join(map(str, sizes))}, activation={flags.activation}, likelihood={name}'
    )
  return iwae.two_layer_mlp(num_visible, (2 * flags.num_latents, flags.num_latents), sizes, head=head)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  name = latent.choose_likelihood(flags, dataset)
  module = make_module(flags, dataset, name)
  data = latent.prepare(name, flags, dataset)
  bounds = {'elbo': iwae.bound(module, 1), 'bound': iwae.bound(module, flags.num_importance)}

  def more_scores(params, key, scores):
    bits = latent.in_bits(scores['test_bound'], name, dataset)
    return bits | (latent.code_scores(module, params, key, data.test) if flags.num_layers == '1' else {})

  return latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=iwae.objective(module, flags.num_importance, gradient=flags.gradient),
    numbers=latent.Numbers(
      lambda params, key, x: {name: bound(params, key, x) for name, bound in bounds.items()},
      {'bound': (f'test_bound_of_{flags.num_importance}', 'lower bound'), 'elbo': ('test_elbo', 'lower bound')},
    ),
    num_importance=flags.num_evaluation,
    draw=lambda params, key, folder: latent_pictures.draw(module, params, data, dataset, key, folder),
    more_scores=more_scores,
    published=PUBLISHED.get(flags.dataset, ()),
  )


BINARY = cli.Binary(
  name='iwae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 300, 'learning_rate': 0.002},
  evaluation_flags=('num_evaluation', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
