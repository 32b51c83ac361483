"""Which score of samples reacts to which failure of a sampler, and in the right direction.

Real images that nobody else holds are corrupted in known ways and scored as if they were samples. A cell says by how
many standard errors the score is worse (+) or, which is the wrong direction, better (-) than that of the same images as
they are; between -3 and 3 it is silent (a dot). Writes failures.json and prints a table in Markdown.

  python -m experiments.failures                              the embedded digits
  python -m experiments.failures --dataset=mnist --num=2000
"""

import json
import math
import pathlib

import jax
import numpy as np
from absl import flags as absl_flags

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


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this script."""
  evaluate.define_score_flags(flags, num=1000)
  absl_flags.DEFINE_integer('num_repeats', 1, 'With other images each.', lower_bound=1, flag_values=flags)
  common_flags.define_data_flags(flags, workdir='Where to write; runs/failures-<dataset> if not given.')


def run(flags: absl_flags.FlagValues) -> None:
  """Runs the bench.

  Raises:
    ValueError: for flags or data that cannot be used.
  """
  names = evaluate.metric_names(flags)
  images = evaluate.real_of_dataset(datasets.load(flags.dataset, data_dir=flags.data_dir))
  if images.control_labels is None or images.test.ndim != 4:
    raise ValueError(f'dataset={flags.dataset!r}: corruptions are of labelled images')
  num = min(flags.num, len(images.test), len(images.control))
  extractor = evaluate.make_extractor(flags.extractor, images, flags.num_features, flags.seed, flags.classifier)
  found = compare(images, extractor, names, num, flags.num_repeats, flags.seed)
  folder = pathlib.Path(flags.workdir or f'runs/failures-{flags.dataset}')
  folder.mkdir(parents=True, exist_ok=True)
  about = {'dataset': flags.dataset, 'num': num, 'extractor': extractor.name, 'digest': extractor.digest}
  finite = {m: {n: z if math.isfinite(z) else None for n, z in row.items()} for m, row in found.items()}
  (folder / 'failures.json').write_text(json.dumps({**about, 'deviations': finite}, indent=2) + '\n')
  print(table(found))
  print(f'{num} images of {flags.dataset}, {flags.num_repeats} repeats, features by {extractor.name}: {folder}')


SCRIPT = common_flags.Script('failures', __doc__, define_flags, run)

if __name__ == '__main__':
  common_flags.main(SCRIPT)
