"""Variational autoencoder of waveforms, with a decoder in frequency bands.

Learns windows of sound, 16-bit samples dequantised, and reports the bound on their log-likelihood in bits per sample
beside that of stationary Gaussian noise of the same spectrum. Writes sounds as WAV files, and their spectrograms.

  python -m experiments.audio_vae                                            plucked tones, about a minute
  python -m experiments.audio_vae --dataset=fsdd --num_latents=32 --num_epochs=30     spoken digits
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import cli, latent
from gm_jax import data as datasets
from gm_jax.autoencoders import audio, vae
from gm_jax.base import bind
from gm_jax.evaluation import likelihood, plots, signal_plots
from gm_jax.likelihoods import log_normal

LEVELS = 2**15  # steps of a 16-bit sample from 0 to 1


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  integer('num_latents', 16, 'Dimensions of the code of a window.')
  integer('num_bands', 32, 'Frequency bands; divides the samples of a window.')
  integer('num_features', 64, 'Channels of the convolutions.')
  integer('warm_up', 500, 'Updates in which the weight of the KL rises from zero.', 0)
  latent.define_schedule_flag(flags)
  latent.define_evaluation_flags(flags, default=100)


def prepare(dataset: datasets.Dataset) -> tuple[latent.Data, float]:
  """Windows of unit loudness: training ones to be dequantised at every step, the others once; and the loudness.

  A sample y = (x + u) / loudness, with u uniform over one step of 16 bits, has as its log-density in the mean a lower
  bound on the log-probability of the integer, less the logarithm of the steps in the loudness.
  """
  if dataset.kind != 'audio':
    raise ValueError(f'dataset={dataset.name!r} is {dataset.kind}, but this model is of audio data')
  loudness = float(np.sqrt((dataset.train.x.astype(np.float64) ** 2).mean()))

  def transform(key, x):
    return (x + (jax.random.uniform(key, x.shape) - 0.5) / LEVELS) / loudness

  once = [
    np.asarray(jax.jit(transform)(jax.random.key(i), split.x)) for i, split in enumerate((dataset.valid, dataset.test))
  ]
  return latent.Data(dataset.train.x, *once, transform, 1.0), loudness


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  data, loudness = prepare(dataset)
  features = (flags.num_features,) * 2
  module = audio.multiband(dataset.shape[0], flags.num_latents, flags.num_bands, features)
  in_bits = lambda score: likelihood.score_in_bits(score, dataset.shape[0], levels=loudness * LEVELS)

  def more_scores(params, key, scores):
    noise = likelihood.summarise(gaussian_noise(data, flags.num_bands)).score('exact')
    return {
      'test_bits': in_bits(scores['test_bound']),
      'test_bits_of_gaussian_noise': in_bits(noise),
      **latent.code_scores(module, params, key, data.test),
    }

  return latent.experiment(
    flags,
    axis_name,
    module=module,
    data=data,
    objective=vae.objective(module, beta=vae.warm_up(flags.warm_up) if flags.warm_up else 1.0),
    numbers=latent.terms_of(module),
    num_importance=flags.num_importance,
    draw=lambda params, key, folder: draw(module, params, data, dataset, loudness, key, folder),
    more_scores=more_scores,
  )


def gaussian_noise(data: latent.Data, num_bands: int) -> np.ndarray:
  """Log-densities of the test set under noise with the variance of each band of the training set."""
  bands = lambda x: np.asarray(audio.analyse(jnp.asarray(x), num_bands)).reshape(len(x), -1, num_bands)
  train = np.asarray(jax.jit(data.transform)(jax.random.key(0), data.train))
  scale = np.sqrt((bands(train) ** 2).mean((0, 1)))
  return np.asarray(log_normal(bands(data.test), 0.0, scale).sum((1, 2)))


def draw(module, params, data, dataset, loudness, key, folder) -> list[cli.Picture]:
  """Sounds and their spectrograms: test windows, rebuilt from their codes, and samples; codes by class."""
  noise_key, sample_key = jax.random.split(key)
  chosen = np.linspace(0, len(data.test) - 1, 8).astype(int)
  x = data.test[chosen]
  codes = jax.jit(bind(module, 'encode'))(params, x)
  sounds = {
    'original': x,
    'mean': jax.jit(bind(module, 'decode'))(params, codes),
    'rebuilt': jax.jit(bind(module, 'draw'))(params, noise_key, codes),
    'samples': jax.jit(bind(module, 'sample'), static_argnums=2)(params, sample_key, 8),
  }
  sounds = {name: loudness * np.asarray(one) for name, one in sounds.items()}
  for name, one in sounds.items():
    signal_plots.save_wav(one, folder / f'{name}.wav', dataset.sample_rate)
  figure = signal_plots.spectrograms(np.stack(list(sounds.values())), dataset.sample_rate, list(sounds))
  plots.save(figure, folder / 'spectrograms.png')
  caption = 'Test sounds, the means decoded from their codes, the same with noise, and samples; also as WAV files'
  pictures = [('spectrograms.png', caption)]
  if module.num_latents > 1 and dataset.test.y is not None:
    some = np.random.default_rng(0).permutation(len(data.test))[:2000]
    places = np.asarray(jax.jit(bind(module, 'encode'))(params, data.test[some]))
    first, second = np.argsort(-places.var(0))[:2]
    figure = plots.scatter(
      places[:, [first, second]], dataset.test.y[some], xlabel=f'code {first}', ylabel=f'code {second}'
    )
    plots.save(figure, folder / 'codes.png')
    pictures.append(('codes.png', 'Test sounds in the two most used dimensions of the code, by class'))
  return pictures


BINARY = cli.Binary(
  name='audio_vae',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'dataset': 'tones', 'num_epochs': 40, 'learning_rate': 0.002},
  evaluation_flags=('num_importance', 'num_annealing'),
)

if __name__ == '__main__':
  cli.main(BINARY)
