"""Autoencoder, plain, denoising or convolutional.

Learns to rebuild its input from a code, or the clean input from a corrupted one, and reports the reconstruction error
beside that of as many principal components. It has no density and draws no samples.

  python -m experiments.autoencoder                                        the embedded digits, under a minute
  python -m experiments.autoencoder --corruption=masking --corruption_level=0.3
  python -m experiments.autoencoder --hidden_sizes= --reconstruction=squared     linear: the principal subspace
"""

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import cli, common_flags, latent, latent_pictures
from gm_jax import data as datasets
from gm_jax.autoencoders import autoencoder
from gm_jax.base import Batch, bind
from gm_jax.data import transforms
from gm_jax.density import pca
from gm_jax.evaluation import image_plots, likelihood, plots
from gm_jax.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from gm_jax.training import loop, rules

CORRUPTIONS = {
  'none': None,
  'masking': autoencoder.masking,
  'salt_and_pepper': autoencoder.salt_and_pepper,
  'gaussian': autoencoder.gaussian_noise,
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  latent.define_network_flags(flags)
  absl_flags.DEFINE_enum(
    'reconstruction', 'bernoulli', autoencoder.RECONSTRUCTIONS,
    'What is minimised; bernoulli needs grey or binary data.',
    flag_values=flags,
  )  # fmt: skip
  absl_flags.DEFINE_enum('corruption', 'none', list(CORRUPTIONS), 'What the encoder sees instead.', flag_values=flags)
  absl_flags.DEFINE_float(
    'corruption_level',
    0.3,
    'Share of corrupted dimensions, or deviation of the noise.',
    lower_bound=0,
    flag_values=flags,
  )
  absl_flags.DEFINE_bool('convolutional', False, 'Convolutions instead of --hidden_sizes.', flag_values=flags)


def make_module(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> autoencoder.Autoencoder:
  """The model that the flags ask for."""
  if flags.reconstruction == 'bernoulli' and dataset.kind not in ('binary', 'grey'):
    raise ValueError(f'reconstruction=bernoulli needs binary or grey data, but {dataset.name!r} is {dataset.kind}')
  if not flags.convolutional:
    sizes = common_flags.whole_numbers(flags, 'hidden_sizes', least=0)
    visible = int(np.prod(dataset.shape))
    return autoencoder.mlp(visible, flags.num_latents, sizes, reconstruction=flags.reconstruction)
  if len(dataset.shape) != 3:
    raise ValueError(f'convolutional=True needs images, but examples of {dataset.name!r} are {dataset.shape}')
  encoder = ConvolutionalEncoder(dataset.shape, (32, 64), flags.num_latents)
  return autoencoder.Autoencoder(encoder, ConvolutionalDecoder(dataset.shape, (64, 32)), flags.reconstruction)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  module = make_module(flags, dataset)
  unit = (lambda x: np.asarray(transforms.to_unit(x, dataset.levels))) if dataset.kind == 'grey' else np.float32
  splits = [unit(split.x.reshape(len(split.x), -1)) for split in (dataset.train, dataset.valid, dataset.test)]
  data = latent.Data(*splits, loop.as_float, 1.0)
  plan = cli.make_plan(flags, len(data.train))
  corruption = CORRUPTIONS[flags.corruption] and CORRUPTIONS[flags.corruption](flags.corruption_level)
  decode, encode, error = (bind(module, method) for method in ('decode', 'encode', 'error'))

  def numbers(params, x):
    return {'error': error(params, x, x), 'squared_error': ((decode(params, encode(params, x)) - x) ** 2).sum(-1)}

  evaluate_numbers = likelihood.evaluator(numbers, block_size=500)

  def evaluate(step, state):
    del step
    found = evaluate_numbers(state.variables, data.valid)
    return {f'valid/{name}': mean.mean for name, mean in found.items()} | {'valid/negative_error': -found['error'].mean}

  def score(key, state):
    del key
    found = evaluate_numbers(state.variables, data.test)
    components = jax.jit(lambda x: pca.principal_components(x, flags.num_latents))(data.train)
    rest = pca.reconstruct(components, pca.project(components, data.test)) - data.test
    unit = 'nats' if flags.reconstruction == 'bernoulli' else 'squared units'
    return {
      'test_reconstruction_error': found['error'].score('exact', unit),
      'test_squared_error': found['squared_error'].score('exact', 'squared units'),
      'test_squared_error_of_principal_components': likelihood.summarise((rest**2).sum(-1)).score(
        'exact', 'squared units'
      ),
    }

  def draw(key, state, folder):
    pictures = latent_pictures.draw(module, state.variables, data, dataset, key, folder, samples=False)
    if corruption and len(dataset.shape) == 3:
      x = data.test[np.linspace(0, len(data.test) - 1, 12).astype(int)]
      seen = np.asarray(corruption(key, x))
      table = np.stack([x, seen, decode(state.variables, encode(state.variables, seen))])
      figure = image_plots.image_table(table.reshape(3, 12, *dataset.shape), rows=['original', 'corrupted', 'rebuilt'])
      plots.save(figure, folder / 'denoised.png')
      pictures.append(('denoised.png', 'Test images, corrupted, and rebuilt from that'))
    return pictures

  objective = autoencoder.objective(module, corruption)
  return cli.Experiment(
    algorithm=rules.descent(*objective, latent.adam(flags, plan.num_steps), axis_name=axis_name),
    data=Batch(data.train),
    evaluate=evaluate,
    score=score,
    draw=draw,
    sample=None,
    best_metric='valid/negative_error',
  )


BINARY = cli.Binary(
  name='autoencoder',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 300, 'learning_rate': 0.002},
)

if __name__ == '__main__':
  cli.main(BINARY)
