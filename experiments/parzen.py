"""Parzen-window log-likelihoods by the protocol of the GAN paper, with the controls without which they mislead.

Kernels stand on 10,000 samples; the bandwidth is chosen by 1,000 validation images; all test images are scored. Beside
the samples of a model the table has training images and k-means centres in their place: k-means, which is no model of
anything, beats the data themselves.

  python -m experiments.parzen                                          the embedded digits: controls, and a mixture
  python -m experiments.parzen --dataset=mnist --fake=samples.npz
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np

from experiments import evaluate
from gm_jax import data as datasets
from gm_jax.evaluation import clusters
from gm_jax.evaluation.parzen import parzen

# MNIST, real-valued; means and standard errors over the test images (Goodfellow et al. 2014, table 1).
PUBLISHED = {'DBN': (138, 2), 'stacked CAE': (121, 1.6), 'deep GSN': (214, 1.1), 'GAN': (225, 2)}


def main() -> None:
  """Scores samples and controls; exits with 2 and one line for what the user can put right."""
  parser = argparse.ArgumentParser('parzen', description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--dataset', default='digits', help='of images (default %(default)s)')
  parser.add_argument('--data_dir', help='folder of data files; $GM_JAX_DATA_DIR if not given')
  parser.add_argument('--fake', help='samples: a folder of images, an .npy or an .npz file')
  parser.add_argument('--num', type=int, default=10_000, help='samples that bear kernels (default %(default)s)')
  parser.add_argument('--num_centres', type=int, help='of k-means; a fifth of the training images if not given')
  parser.add_argument('--seed', type=int, default=0, help='of everything random')
  parser.add_argument('--workdir', help='where to write; runs/parzen-<dataset> if not given')
  args = parser.parse_args()
  try:
    images = evaluate.real_of_dataset(datasets.load(args.dataset, data_dir=args.data_dir))
    num = min(args.num, len(images.train))
    if num < 2:
      raise ValueError(f'num={args.num}: a window needs 2 samples or more')
    fake = evaluate.read_images(args.fake, images.test.shape[1:]) if args.fake else None
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  rows = lambda x: np.asarray(x).reshape(len(x), -1)
  train = rows(images.train)
  named = {'training images': evaluate.shuffled(train, num, args.seed)}
  num_centres = min(args.num_centres or len(train) // 5, num)
  centres = jax.jit(lambda key, x: clusters.kmeans(key, x, num_centres, num_iterations=5))
  named[f'{num_centres} k-means centres'] = np.asarray(centres(jax.random.key(args.seed), train))
  if fake is None:
    named['samples of a mixture of 30 Gaussians'] = rows(evaluate.draw_from_mixture(images, num, args.seed))
  else:
    named[args.fake] = rows(evaluate.shuffled(fake, num, args.seed))
  folder = pathlib.Path(args.workdir or f'runs/parzen-{args.dataset}')
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
  if args.dataset == 'mnist':
    for name, (value, error) in PUBLISHED.items():
      print(f'{name:40} {value:9} ± {error} nats, published')


if __name__ == '__main__':
  main()
