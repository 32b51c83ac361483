"""The neural-net divergence of training subsets against the test set: what a generator that memorises scores.

Subsets of the training images stand in the place of samples, pixels in [-1, 1], against all test images. The smaller
the subset, the easier it is told from images that were not learnt from. With the defaults the protocol is that of the
published numbers; the first images are the subset, as there.

  python -m experiments.neural_net_divergence --dataset=mnist --sizes=1000,10000 --num_steps=20000
  python -m experiments.neural_net_divergence                     the embedded digits, a short critic
"""

import argparse
import functools
import json
import pathlib
import sys
import time

import jax
import numpy as np

from experiments import evaluate
from gm_jax import data as datasets
from gm_jax.evaluation import divergence, likelihood

# Mean and standard deviation over 10 trainings (Thanh-Tung & Tran 2020, the result files of their code), MNIST.
# Their means are sums over batches of 128 divided by one less than the number of these: 8/7 too large for 1,000 images.
PUBLISHED = {
  1000: (8.134, 0.235), 2500: (4.537, 0.232), 5000: (3.036, 0.274), 7500: (2.470, 0.167), 10_000: (2.169, 0.168),
  30_000: (1.366, 0.080), 60_000: (1.201, 0.045),
}  # fmt: skip


def main() -> None:
  """Trains a critic for each size and seed; exits with 2 and one line for what the user can put right."""
  parser = argparse.ArgumentParser('neural_net_divergence', description=__doc__,
                                   formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
  parser.add_argument('--dataset', default='digits', help='of images (default %(default)s)')
  parser.add_argument('--data_dir', help='folder of data files; $GM_JAX_DATA_DIR if not given')
  parser.add_argument('--sizes', help='of the subsets, with commas between; the published ones and a tenth of all')
  parser.add_argument('--hidden_sizes', default='512,512,512', help='of the critic (default %(default)s)')
  parser.add_argument('--num_steps', type=int, default=1000, help='updates of a critic (default %(default)s)')
  parser.add_argument('--num_seeds', type=int, default=1, help='trainings of each size (default %(default)s)')
  parser.add_argument('--seed', type=int, default=0, help='the first seed')
  parser.add_argument('--workdir', help='where to write; runs/neural_net_divergence-<dataset> if not given')
  args = parser.parse_args()
  try:
    images = evaluate.real_of_dataset(datasets.load(args.dataset, data_dir=args.data_dir))
    # Published subsets count from the beginning of all 60,000 images, of which the last are our validation split.
    train = np.concatenate([images.train, images.control])
    sizes = [int(size) for size in args.sizes.split(',')] if args.sizes else [len(train) // 10, len(train)]
    if too_large := [size for size in sizes if not 128 <= size <= len(train)]:
      raise ValueError(f'sizes has {too_large[0]}: give numbers from 128 to {len(train)}')
    hidden_sizes = tuple(int(size) for size in args.hidden_sizes.split(','))
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  pixels = lambda x: 2 * x.reshape(len(x), -1) - 1
  train, test = pixels(train), pixels(images.test)
  score = jax.jit(functools.partial(
    divergence.neural_net_divergence, hidden_sizes=hidden_sizes, num_steps=args.num_steps
  ))  # fmt: skip
  folder = pathlib.Path(args.workdir or f'runs/neural_net_divergence-{args.dataset}')
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for size in sizes:
    values, start = [], time.perf_counter()
    for seed in range(args.seed, args.seed + args.num_seeds):
      values.append(float(score(jax.random.key(seed), test, train[:size]).value))
    mean = likelihood.summarise(values)
    error = '' if len(values) < 2 else f' ± {mean.stderr:.3f}'
    seconds = (time.perf_counter() - start) / len(values)
    known = PUBLISHED.get(size) if args.dataset == 'mnist' else None
    beside = f'; published {known[0]} (standard deviation {known[1]}, 20,000 updates)' if known else ''
    print(f'{size:6} images, {args.num_steps} updates: {mean.mean:.3f}{error}{beside}; {seconds:.0f} s', flush=True)
    found[size] = {'values': values, 'published': known, 'seconds': seconds}
    (folder / 'divergence.json').write_text(json.dumps({'num_steps': args.num_steps, 'sizes': found}, indent=2) + '\n')


if __name__ == '__main__':
  main()
