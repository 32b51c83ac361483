"""Which score of samples reacts to which failure of a sampler, and in the right direction.

Real images that nobody else holds are corrupted in known ways and scored as if they were samples. A cell says by how
many standard errors the score is worse (+) or, which is the wrong direction, better (-) than that of the same images as
they are; between -3 and 3 it is silent (a dot). Writes failures.json and prints a table in Markdown.

  python -m experiments.failures                              the embedded digits
  python -m experiments.failures --dataset=mnist --num=2000
"""

import argparse
import json
import math
import pathlib
import sys

import jax
import numpy as np

from experiments import common_flags, evaluate
from gm_jax import data as datasets
from gm_jax.evaluation import corruptions, extractors, sample_metrics

SILENT = 3.0  # standard errors


def compare(images: evaluate.Images, extractor, names, num: int, num_repeats: int, seed: int) -> dict:
  """Deviations by score and corruption: by how many standard errors a corruption is worse than the clean control."""
  of_pixels = [name for name in names if name in sample_metrics.OF_PIXELS]
  parts = [
    (extract, sample_metrics.scorer(chosen))
    for extract, chosen in ((extractor, [n for n in names if n not in of_pixels]), (extractors.pixels(), of_pixels))
    if chosen
  ]
  gaps: dict[str, dict[str, list]] = {}
  for repeat in range(num_repeats):
    rng, key = np.random.default_rng([seed, repeat]), jax.random.key(seed + repeat)
    pick = lambda x, size, rng=rng: rng.choice(len(x), min(size, len(x)), replace=False)
    rows = pick(images.control, num)
    train, test = images.train[pick(images.train, 2 * num)], images.test[pick(images.test, num)]
    source = corruptions.Source(images.control[rows], images.control_labels[rows], train)
    made = {'clean': source.images} | {name: f(rng, source) for name, f in corruptions.CORRUPTIONS.items()}
    for extract, score in parts:
      train_features, test_features = extract.extract(train), extract.extract(test)
      found = {
        name: jax.device_get(score(key, sample_metrics.Sets(train_features, test_features, extract.extract(fake))))
        for name, fake in made.items()
      }
      for metric, clean in found['clean'].items():
        for name in corruptions.CORRUPTIONS:
          worse = badness(metric, found[name][metric]) - badness(metric, clean)
          error = math.hypot(float(clean.stderr), float(found[name][metric].stderr))
          gaps.setdefault(metric, {}).setdefault(name, []).append((worse, error))
  return {metric: {name: combined(values) for name, values in of_metric.items()} for metric, of_metric in gaps.items()}


def badness(metric: str, score) -> float:
  """A score turned so that more is worse."""
  direction = sample_metrics.DIRECTIONS[metric]
  if direction == 'null':
    return abs(float(score.value - score.null))
  return float(score.value) if direction == 'low' else -float(score.value)


def combined(values) -> float:
  """The mean gap of the repeats over its standard error."""
  gaps, errors = np.array(values).T
  error = np.sqrt((errors**2).sum()) / len(errors)
  return float(gaps.mean() / error) if error > 0 else math.copysign(math.inf, gaps.mean()) if gaps.mean() else 0.0


def table(found: dict) -> str:
  """The deviations in Markdown."""
  names = list(corruptions.CORRUPTIONS)
  cell = lambda z: '·' if abs(z) < SILENT else f'{"+" if z > 0 else "**−"}{min(abs(z), 999):.0f}{"" if z > 0 else "**"}'
  lines = ['| score | ' + ' | '.join(names) + ' |', '|---' * (1 + len(names)) + '|']
  lines += [
    f'| {metric.replace("_", " ")} | ' + ' | '.join(cell(row[name]) for name in names) + ' |'
    for metric, row in found.items()
  ]
  return '\n'.join(lines)


def main() -> None:
  """Runs the bench; exits with 2 and one line for what the user can put right."""
  parser = argparse.ArgumentParser('failures', description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('--dataset', default='digits', help='of labelled images (default %(default)s)')
  parser.add_argument('--data_dir', help='folder of data files; $GM_JAX_DATA_DIR if not given')
  parser.add_argument('--metrics', help='names with commas between; all but the slowest if not given')
  parser.add_argument('--extractor', default='classifier', help=', '.join(evaluate.EXTRACTORS))
  parser.add_argument('--classifier', help='file of a trained classifier: read if it is there, written if not')
  parser.add_argument('--num_features', type=int, default=64, help='of the extractor (default %(default)s)')
  parser.add_argument('--num', type=int, default=1000, help='images of each set, at most (default %(default)s)')
  parser.add_argument('--num_repeats', type=int, default=1, help='with other images each (default %(default)s)')
  parser.add_argument('--seed', type=int, default=0, help='of everything random')
  parser.add_argument('--workdir', help='where to write; runs/failures-<dataset> if not given')
  args = parser.parse_args()
  try:
    slow = evaluate.SLOW
    names = args.metrics.split(',') if args.metrics else [name for name in sample_metrics.METRICS if name not in slow]
    images = evaluate.real_of_dataset(datasets.load(args.dataset, data_dir=args.data_dir))
    if images.control_labels is None or images.test.ndim != 4:
      raise ValueError(f'dataset={args.dataset!r}: corruptions are of labelled images')
    num = min(args.num, len(images.test), len(images.control))
    extractor = evaluate.make_extractor(args.extractor, images, args.num_features, args.seed, args.classifier)
    found = compare(images, extractor, names, num, args.num_repeats, args.seed)
  except (ValueError, common_flags.UserError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  folder = pathlib.Path(args.workdir or f'runs/failures-{args.dataset}')
  folder.mkdir(parents=True, exist_ok=True)
  about = {'dataset': args.dataset, 'num': num, 'extractor': extractor.name, 'digest': extractor.digest}
  finite = {m: {n: z if math.isfinite(z) else None for n, z in row.items()} for m, row in found.items()}
  (folder / 'failures.json').write_text(json.dumps({**about, 'deviations': finite}, indent=2) + '\n')
  print(table(found))
  print(f'{num} images of {args.dataset}, {args.num_repeats} repeats, features by {extractor.name}: {folder}')


if __name__ == '__main__':
  main()
