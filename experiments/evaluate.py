"""Scores of samples: fidelity, diversity, memorisation, each with its error and what a perfect sampler would score.

Generated images are compared with *test* images, which nothing was learnt from, and with *training* images to see
whether they are copies. Where the score of a perfect sampler is not known in closed form, held-out real images stand in
the place of the samples (the control). Leaves scores.json, a table on the screen, and pictures.

  python -m experiments.evaluate                                    a mixture fitted to the embedded digits
  python -m experiments.evaluate --run=runs/rbm-digits              the model of a run folder
  python -m experiments.evaluate --dataset=mnist --fake=samples.npz --extractor=classifier
  python -m experiments.evaluate --real=folder_of_png --fake=other_folder --extractor=random
"""

import importlib
import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import cli, common_flags
from gm_jax import data as datasets
from gm_jax.base import Batch
from gm_jax.data import transforms
from gm_jax.density import mixture, mixture_gaussian
from gm_jax.evaluation import extractors, image_plots, plots, precision_recall, sample_metrics, sample_plots
from gm_jax.evaluation.sample_score import deviations
from gm_jax.training import rules

SLOW = ('neural_net_divergence', 'frechet_infinity')  # left out unless they are asked for
EXTRACTORS = ('pixels', 'pca', 'random', 'classifier')


class Images(NamedTuple):
  """Images [N, H, W, C] with intensities from 0 to 1, and labels where there are some."""

  train: np.ndarray | None
  train_labels: np.ndarray | None
  control: np.ndarray  # held out, of the split valid where there is one
  control_labels: np.ndarray | None
  test: np.ndarray
  test_labels: np.ndarray | None
  num_classes: int | None
  name: str


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this script."""
  text = lambda name, help: absl_flags.DEFINE_string(name, None, help, flag_values=flags)
  text('run', 'Run folder whose model is to draw the samples.')
  help = 'Which state of the run: the best on its held-out data, or the last.'
  absl_flags.DEFINE_enum('state', common_flags.STATES[0], common_flags.STATES, help, flag_values=flags)
  text('fake', 'Samples: a folder of images, an .npy or an .npz file.')
  text('real', 'Real images in place of a data set; cut into a test set and a control.')
  text('train', 'What the sampler has learnt from, beside --real.')
  define_score_flags(flags, num=10_000)
  common_flags.define_data_flags(flags, workdir='Where to write; runs/evaluate-<real> if not given.')


def define_score_flags(flags: absl_flags.FlagValues, num: int) -> None:
  """The flags of the scores and of the extractor; ``num`` is the default of the examples of each set."""
  help = f'Scores, with commas between; all but the slow ones if not given: {", ".join(sample_metrics.METRICS)}.'
  absl_flags.DEFINE_list('metrics', None, help, flag_values=flags)
  help = f'What makes features of images: {", ".join(EXTRACTORS)}, or module:function.'
  absl_flags.DEFINE_string('extractor', 'classifier', help, flag_values=flags)
  help = 'File of a trained classifier: read if it is there, written if not.'
  absl_flags.DEFINE_string('classifier', None, help, flag_values=flags)
  absl_flags.DEFINE_integer('num_features', 64, 'Of the extractor.', lower_bound=1, flag_values=flags)
  absl_flags.DEFINE_integer('num', num, 'Examples of each set, at most.', lower_bound=20, flag_values=flags)


def metric_names(flags: absl_flags.FlagValues) -> list[str]:
  """The scores that the flags ask for.

  Raises:
    ValueError: for one that there is not.
  """
  names = flags.metrics or [name for name in sample_metrics.METRICS if name not in SLOW]
  sample_metrics.scorer(names)
  return names


def read_images(path: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
  """Images of a folder of PNG or JPEG files, of an .npy file, or of the first array of an .npz file.

  Integers are taken to run to 255. Floats must lie between 0 and 1 already.

  Raises:
    ValueError: if there is nothing to read, or values are out of range.
  """
  place = pathlib.Path(path)
  if place.is_dir():
    from PIL import Image

    names = sorted(name for name in place.iterdir() if name.suffix.lower() in ('.png', '.jpg', '.jpeg'))
    if not names:
      raise ValueError(f'{path}: the folder holds no .png or .jpg file')
    found = [np.asarray(Image.open(name)) for name in names]
    if len({image.shape for image in found}) > 1:
      raise ValueError(f'{path}: images differ in shape; resize them beforehand, by one and the same method')
    array = np.stack(found)
  elif place.suffix in ('.npy', '.npz') and place.exists():
    array = np.load(place, allow_pickle=False)
    array = array[array.files[0]] if place.suffix == '.npz' else array
  else:
    raise ValueError(f'{path}: give a folder of images, an .npy or an .npz file')
  return as_images(array, shape, path)


def as_images(array: np.ndarray, shape: tuple[int, ...] | None, where: str, levels: int = 256) -> np.ndarray:
  """An array as float images [N, H, W, C] from 0 to 1, or as vectors [N, D] if that is what they are."""
  if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
    array = array / (1 if array.max(initial=0) <= 1 else levels - 1)
  if shape is not None:
    if array[0].size != np.prod(shape):
      raise ValueError(f'{where}: examples of shape {array.shape[1:]} where {shape} was expected')
    array = array.reshape(-1, *shape)
  elif array.ndim == 3:
    array = array[..., None]
  if array.ndim == 4 and (array.min() < -1e-3 or array.max() > 1 + 1e-3):
    raise ValueError(f'{where}: values from {array.min():.3g} to {array.max():.3g}; intensities lie from 0 to 1')
  return array.astype(np.float32)


def real_of_dataset(dataset: datasets.Dataset) -> Images:
  """The splits of a data set; the control is the validation split."""
  levels = dataset.levels or 2

  def images(split):
    x = np.asarray(split.x)
    return as_images(x if dataset.kind == 'real' else np.asarray(x, np.float32) / (levels - 1), None, dataset.name)

  splits = dataset.train, dataset.valid, dataset.test
  parts = [part for split in splits for part in (images(split), split.y)]
  return Images(*parts, dataset.num_classes, dataset.name)


def real_of_files(real: str, train: str | None, seed: int) -> Images:
  """Two halves of the real images as test set and control."""
  images = read_images(real)
  order = np.random.default_rng(seed).permutation(len(images))
  half = len(images) // 2
  learnt = read_images(train, images.shape[1:]) if train else None
  return Images(learnt, None, images[order[half:]], None, images[order[:half]], None, None, pathlib.Path(real).stem)


def draw_from_run(folder: str, state: str, num: int, data_dir: str | None) -> tuple[datasets.Dataset, np.ndarray]:
  """The data set of a run as its model saw it, and samples of the model, which the run folder keeps as samples.npz."""
  settings = pathlib.Path(folder) / 'settings.flags'
  if not settings.exists():
    raise ValueError(f'run={folder!r} is no run folder: it holds no settings.flags')
  name = settings.read_text().split('\n', 1)[0].rpartition('.')[2]
  binary = importlib.import_module(f'experiments.{name}').BINARY
  argv = [name, f'--flagfile={settings}', f'--workdir={folder}', '--mode=sample', f'--state={state}']
  argv += [f'--num_samples={num}']
  argv += [f'--data_dir={data_dir}'] if data_dir else []
  flags = common_flags.parse_flags(binary, argv)
  dataset = datasets.load(flags.dataset, data_dir=flags.data_dir)
  if dataset.kind == 'grey' and 'binarise' in flags and flags.binarise != 'none':
    method = 'threshold' if flags.binarise == 'threshold' else 'static'
    dataset = transforms.binarise(dataset, method, jax.random.key(0))
  cli.run(binary, argv)
  with np.load(pathlib.Path(folder) / 'samples.npz') as file:
    samples = file['samples']
  if dataset.kind == 'grey':
    samples = intensities(samples, dataset)
  return dataset, as_images(samples, dataset.shape, folder)


def intensities(samples: np.ndarray, dataset: datasets.Dataset) -> np.ndarray:
  """Samples of grey data from 0 to 1, whether their model speaks of that or of the original values.

  The two are a factor of ``levels - 1`` apart, so their size tells which it is, whatever tails the samples have.
  """
  white = dataset.levels - 1
  size = lambda x: np.sqrt(np.mean(np.square(x, dtype=np.float64)))
  original = size(samples) / size(dataset.train.x) > white**-0.5
  return np.clip(samples / white if original else samples, 0, 1)


def draw_from_mixture(images: Images, num: int, seed: int) -> np.ndarray:
  """Samples of a mixture of 30 Gaussians with diagonal covariances, fitted to the training images by 40 steps of EM."""
  x = images.train.reshape(len(images.train), -1)
  x = np.asarray(x + np.random.default_rng(seed).uniform(0, 1 / 16, x.shape), np.float32)
  model = mixture.Mixture(mixture_gaussian.Diagonal(), 30)
  em = rules.expectation_maximization(model.init, model.e_step, model.m_step)

  @jax.jit
  def draw(key):
    fit_key, sample_key = jax.random.split(key)
    start = em.init(fit_key, Batch(x))
    state = jax.lax.scan(lambda state, _: (em.step(None, state, Batch(x))[0], None), start, length=40)[0]
    return model.sample(state.params, sample_key, num)

  samples = np.clip(np.asarray(draw(jax.random.key(seed))), 0, 1)
  return samples.reshape(num, *images.train.shape[1:]).astype(np.float32)


def make_extractor(name: str, images: Images, num_features: int, seed: int, path: str | None) -> extractors.Extractor:
  """The extractor of that name, fitted to the training images where it is fitted at all."""
  if name not in EXTRACTORS and ':' not in name:
    raise ValueError(f'extractor={name!r}: give one of {", ".join(EXTRACTORS)}, or module:function')
  if name == 'pixels':
    return extractors.pixels()
  if ':' in name:
    return extractors.custom(name)
  if images.test.ndim != 4 and name != 'pca':
    raise ValueError(f'extractor={name} takes images, and these are vectors; take pixels or pca')
  if name == 'random':
    return extractors.random_convolutional(images.test.shape[1:], num_features=num_features, seed=seed)
  if images.train is None:
    raise ValueError(f'extractor={name} is fitted to training images: name them by --train, or take random or pixels')
  if name == 'pca':
    return extractors.principal_components(images.train[:10_000], num_features)
  if path and pathlib.Path(path).exists():
    return extractors.load_classifier(path)
  if images.train_labels is None:
    raise ValueError(f'extractor=classifier needs labels, which {images.name} lacks; take pca, random or pixels')
  extractor = extractors.train_classifier(
    jax.random.key(seed), (images.train, images.train_labels), (images.test, images.test_labels), images.num_classes,
    num_features=num_features, seed=seed,
  )  # fmt: skip
  if path:
    extractors.save_classifier(path, extractor)
  return extractor


def shuffled(images: np.ndarray, num: int, seed: int) -> np.ndarray:
  """``num`` of the images, at random: sorted sets must not be cut as they are."""
  return images[np.random.default_rng(seed).permutation(len(images))[:num]]


def evaluate(images: Images, fake: np.ndarray, names, extractor, num: int, seed: int) -> tuple[dict, dict]:
  """Scores by name, and what they were measured with."""
  num = min(num, len(images.test), len(images.control), len(fake))
  cut = lambda x, offset: shuffled(x, num, seed + offset)
  test, control, generated = cut(images.test, 1), cut(images.control, 2), cut(fake, 3)
  train = None if images.train is None else shuffled(images.train, 10 * num, seed + 4)
  scores = {}
  for extract, chosen in (
    (extractor, [name for name in names if name not in sample_metrics.OF_PIXELS]),
    (extractors.pixels(), [name for name in names if name in sample_metrics.OF_PIXELS]),
  ):
    if not chosen:
      continue
    sets = sample_metrics.Sets(*(x if x is None else extract.extract(x) for x in (train, test, generated)))
    score = sample_metrics.scorer(chosen)
    key = jax.random.key(seed)
    found = score(key, sets)
    if any(bool(np.isnan(one.null)) for one in found.values()):
      found = sample_metrics.with_control(found, score(key, sets._replace(fake=extract.extract(control))))
    scores |= {name: jax.device_get(one) for name, one in found.items()}
  about = {
    'extractor': {'name': extractor.name, 'digest': extractor.digest, **extractor.notes},
    'real': images.name, 'split': 'test', 'n_real': num, 'n_fake': num, 'n_train': 0 if train is None else len(train),
    'seed': seed, 'jax': jax.__version__,
  }  # fmt: skip
  return scores, about


def table(scores) -> str:
  """The scores as lines: value, error, null, and the distance between them in standard deviations."""
  lines = [f'{"score":22} {"value":>12} {"± error":>10} {"perfect":>12} {"deviations":>11}  better']
  for name, one in scores.items():
    z = deviations(one)
    shown = f'{z:+11.1f}' if np.isfinite(z) else f'{"":>11}'
    lines.append(
      f'{name:22} {one.value:12.5g} {one.stderr:10.2g} {one.null:12.5g} {shown}  {sample_metrics.DIRECTIONS[name]}'
    )
  return '\n'.join(lines)


def to_json(scores, about) -> str:
  """The scores and what they were measured with."""
  plain = lambda x: float(x) if np.isfinite(x) else None
  entries = {
    name: {field: plain(value) for field, value in one._asdict().items()}
    | {'deviations': plain(deviations(one)), 'better': sample_metrics.DIRECTIONS[name]}
    for name, one in scores.items()
  }
  return json.dumps({**about, 'scores': entries}, indent=2, allow_nan=False) + '\n'


def draw(images: Images, fake: np.ndarray, extractor, num: int, seed: int, folder: pathlib.Path) -> list[str]:
  """Precision-recall curves beside the control's; samples, and the training images nearest to them."""
  num = min(num, len(images.test), len(images.control), len(fake), 5000)
  codes = {
    name: extractor.extract(shuffled(x, num, seed + offset)).codes
    for name, x, offset in (('test', images.test, 1), ('control', images.control, 2), ('samples', fake, 3))
  }
  curve = jax.jit(lambda x, y: precision_recall.cluster_curve(jax.random.key(seed), x, y).curve)
  curves = {name: jax.device_get(curve(codes['test'], codes[name])) for name in ('samples', 'control')}
  title = f'{images.name}, features {extractor.name}, n = {num}'
  plots.save(sample_plots.precision_recall_curves(curves, title=title), folder / 'precision_recall.png')
  pictures = ['precision_recall.png']
  if fake.ndim == 4:
    plots.save(image_plots.image_grid(fake[:100]), folder / 'samples.png')
    pictures.append('samples.png')
    if images.train is not None:
      figure = image_plots.beside_nearest(fake[:20], images.train, title='samples, and the nearest training images')
      plots.save(figure, folder / 'nearest.png')
      pictures.append('nearest.png')
  return pictures


def run(flags: absl_flags.FlagValues) -> pathlib.Path:
  """Evaluates as the flags say, and returns the folder that was written.

  Raises:
    ValueError: for flags, files or data that cannot be used.
  """
  names = metric_names(flags)
  if flags.run and (flags.fake or flags.real):
    raise ValueError(f'run={flags.run!r} brings its own samples and its own data: leave out --fake and --real')
  if flags.real and not flags.fake:
    raise ValueError(f'real={flags.real!r} needs samples beside it: name them by --fake')
  if flags.run:
    dataset, fake = draw_from_run(flags.run, flags.state, flags.num, flags.data_dir)
    images = real_of_dataset(dataset)
  else:
    if flags.real:
      images = real_of_files(flags.real, flags.train, flags.seed)
    else:
      images = real_of_dataset(datasets.load(flags.dataset, data_dir=flags.data_dir))
    fake = read_images(flags.fake, images.test.shape[1:]) if flags.fake else None
  if fake is None:
    fake = draw_from_mixture(images, min(flags.num, len(images.test)), flags.seed)
  extractor = make_extractor(flags.extractor, images, flags.num_features, flags.seed, flags.classifier)
  scores, about = evaluate(images, fake, names, extractor, flags.num, flags.seed)
  folder = pathlib.Path(flags.workdir or f'runs/evaluate-{images.name.replace("/", "-")}')
  folder.mkdir(parents=True, exist_ok=True)
  sampler = f'{flags.run} ({flags.state} state)' if flags.run else flags.fake
  about['fake'] = sampler or 'a mixture of 30 diagonal Gaussians'
  (folder / 'scores.json').write_text(to_json(scores, about))
  print(table(scores))
  accuracy = f', accuracy {extractor.notes["accuracy"]:.4f}' if 'accuracy' in extractor.notes else ''
  print(f'{about["fake"]} against {about["n_real"]} test images of {images.name}; features by {extractor.name} '
        f'({extractor.digest}){accuracy}')  # fmt: skip
  print(f'scores.json and {", ".join(draw(images, fake, extractor, flags.num, flags.seed, folder))}: {folder}')
  return folder


SCRIPT = common_flags.Script('evaluate', __doc__, define_flags, run)

if __name__ == '__main__':
  common_flags.main(SCRIPT)
