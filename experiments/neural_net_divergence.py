"""The neural-net divergence of training subsets against the test set: what a generator that memorises scores.

Subsets of the training images stand in the place of samples, pixels in [-1, 1], against all test images. The smaller
the subset, the easier it is told from images that were not learnt from. With the defaults the protocol is that of the
published numbers; the first images are the subset, as there.

  python -m experiments.neural_net_divergence --dataset=mnist --sizes=1000,10000 --num_steps=20000
  python -m experiments.neural_net_divergence                     the embedded digits, a short critic
"""

import functools
import json
import pathlib
import time

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import common_flags, evaluate
from gm_jax import data as datasets
from gm_jax.evaluation import divergence, likelihood

# Mean and standard deviation over 10 trainings (Thanh-Tung & Tran 2020, the result files of their code), MNIST.
# Their means are sums over batches of 128 divided by one less than the number of these: 8/7 too large for 1,000 images.
PUBLISHED = {
  1000: (8.134, 0.235), 2500: (4.537, 0.232), 5000: (3.036, 0.274), 7500: (2.470, 0.167), 10_000: (2.169, 0.168),
  30_000: (1.366, 0.080), 60_000: (1.201, 0.045),
}  # fmt: skip


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this script."""

  def integer(name, default, help):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=1, flag_values=flags)

  help = 'Of the subsets, with commas between; a tenth of the images and all of them if not given.'
  absl_flags.DEFINE_list('sizes', [], help, flag_values=flags)
  absl_flags.DEFINE_list('hidden_sizes', ['512', '512', '512'], 'Hidden units of the critic.', flag_values=flags)
  integer('num_steps', 1000, 'Updates of a critic.')
  integer('num_seeds', 1, 'Trainings of each size, with seeds seed, seed + 1, ...')
  help = 'Where to write; runs/neural_net_divergence-<dataset> if not given.'
  common_flags.define_data_flags(flags, workdir=help)


def run(flags: absl_flags.FlagValues) -> None:
  """Trains a critic for each size and seed.

  Raises:
    ValueError: for flags or data that cannot be used.
  """
  hidden_sizes = common_flags.whole_numbers(flags, 'hidden_sizes')
  sizes = common_flags.whole_numbers(flags, 'sizes', least=0)
  images = evaluate.real_of_dataset(datasets.load(flags.dataset, data_dir=flags.data_dir))
  # Published subsets count from the beginning of all 60,000 images, of which the last are our validation split.
  train = np.concatenate([images.train, images.control])
  sizes = sizes or (len(train) // 10, len(train))
  if out_of_range := [size for size in sizes if not 128 <= size <= len(train)]:
    raise ValueError(f'sizes has {out_of_range[0]}: give numbers from 128 to {len(train)}')
  pixels = lambda x: 2 * x.reshape(len(x), -1) - 1
  train, test = pixels(train), pixels(images.test)
  score = jax.jit(functools.partial(
    divergence.neural_net_divergence, hidden_sizes=hidden_sizes, num_steps=flags.num_steps
  ))  # fmt: skip
  folder = pathlib.Path(flags.workdir or f'runs/neural_net_divergence-{flags.dataset}')
  folder.mkdir(parents=True, exist_ok=True)
  found = {}
  for size in sizes:
    values, start = [], time.perf_counter()
    for seed in range(flags.seed, flags.seed + flags.num_seeds):
      values.append(float(score(jax.random.key(seed), test, train[:size]).value))
    mean = likelihood.summarise(values)
    error = '' if len(values) < 2 else f' ± {mean.stderr:.3f}'
    seconds = (time.perf_counter() - start) / len(values)
    known = PUBLISHED.get(size) if flags.dataset == 'mnist' else None
    beside = f'; published {known[0]} (standard deviation {known[1]}, 20,000 updates)' if known else ''
    print(f'{size:6} images, {flags.num_steps} updates: {mean.mean:.3f}{error}{beside}; {seconds:.0f} s', flush=True)
    found[size] = {'values': values, 'published': known, 'seconds': seconds}
    (folder / 'divergence.json').write_text(json.dumps({'num_steps': flags.num_steps, 'sizes': found}, indent=2) + '\n')


SCRIPT = common_flags.Script('neural_net_divergence', __doc__, define_flags, run)

if __name__ == '__main__':
  common_flags.main(SCRIPT)
