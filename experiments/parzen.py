"""Parzen-window log-likelihoods by the protocol of the GAN paper, with the controls without which they mislead.

Kernels stand on 10,000 samples; the bandwidth is chosen by 1,000 validation images; all test images are scored. Beside
the samples of a model the table has training images and k-means centres in their place: k-means, which is no model of
anything, beats the data themselves.

  python -m experiments.parzen                                          the embedded digits: controls, and a mixture
  python -m experiments.parzen --dataset=mnist --fake=samples.npz
"""

import json
import pathlib

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import common_flags, evaluate
from gm_jax import data as datasets
from gm_jax.evaluation import clusters
from gm_jax.evaluation.parzen import parzen

# MNIST, real-valued; means and standard errors over the test images (Goodfellow et al. 2014, table 1).
PUBLISHED = {'DBN': (138, 2), 'stacked CAE': (121, 1.6), 'deep GSN': (214, 1.1), 'GAN': (225, 2)}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this script."""
  absl_flags.DEFINE_string('fake', None, 'Samples: a folder of images, an .npy or an .npz file.', flag_values=flags)
  absl_flags.DEFINE_integer('num', 10_000, 'Samples that bear kernels.', lower_bound=2, flag_values=flags)
  help = 'Of k-means; a fifth of the training images if not given.'
  absl_flags.DEFINE_integer('num_centres', None, help, lower_bound=1, flag_values=flags)
  common_flags.define_data_flags(flags, workdir='Where to write; runs/parzen-<dataset> if not given.')


def run(flags: absl_flags.FlagValues) -> None:
  """Scores samples and controls.

  Raises:
    ValueError: for files or data that cannot be used.
  """
  images = evaluate.real_of_dataset(datasets.load(flags.dataset, data_dir=flags.data_dir))
  num = min(flags.num, len(images.train))
  fake = evaluate.read_images(flags.fake, images.test.shape[1:]) if flags.fake else None
  rows = lambda x: np.asarray(x).reshape(len(x), -1)
  train = rows(images.train)
  named = {'training images': evaluate.shuffled(train, num, flags.seed)}
  num_centres = min(flags.num_centres or len(train) // 5, num)
  centres = jax.jit(lambda key, x: clusters.kmeans(key, x, num_centres, num_iterations=5))
  named[f'{num_centres} k-means centres'] = np.asarray(centres(jax.random.key(flags.seed), train))
  if fake is None:
    named['samples of a mixture of 30 Gaussians'] = rows(evaluate.draw_from_mixture(images, num, flags.seed))
  else:
    named[flags.fake] = rows(evaluate.shuffled(fake, num, flags.seed))
  folder = pathlib.Path(flags.workdir or f'runs/parzen-{flags.dataset}')
  folder.mkdir(parents=True, exist_ok=True)
  score, found = jax.jit(parzen), {}
  for name, samples in named.items():
    one = jax.device_get(score(samples, rows(images.control), rows(images.test)))
    value, error = float(one.log_prob.value), float(one.log_prob.stderr)
    found[name] = {'nats': value, 'stderr': error, 'bandwidth': float(one.bandwidth), 'num_samples': len(samples)}
    print(
      f'{name:40} {value:9.2f} ± {error:.2f} nats, bandwidth {one.bandwidth:.3f}, {len(samples)} kernels', flush=True
    )
    (folder / 'parzen.json').write_text(json.dumps(found, indent=2) + '\n')
  if flags.dataset == 'mnist':
    for name, (value, error) in PUBLISHED.items():
      print(f'{name:40} {value:9} ± {error} nats, published')


SCRIPT = common_flags.Script('parzen', __doc__, define_flags, run)

if __name__ == '__main__':
  common_flags.main(SCRIPT)
