"""Pictures of images: grids, tables, chains, completions, neighbours and filters; ``plots.save`` writes them.

Images are ``[..., H, W]`` or ``[..., H, W, C]``, first row on top; one channel or three show as they are, any other
number of channels as grey strips side by side.
"""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from gm_jax.evaluation.plots import DPI, INK, SMALL

MASK = (0.34, 0.71, 0.91)  # the colour of pixels that are not shown
TILE, WIDTH = 78, 900  # wished width of an image in a table, and of a table, output pixels


def image_grid(
  images,
  *,
  columns: int | None = None,
  value_range: tuple[float, float] | None = (0.0, 1.0),
  captions: Sequence[str] | None = None,
  title: str = '',
) -> Figure:
  """Images in reading order, in a grid as square as can be.

  Args:
    images: ``[N, H, W]`` or ``[N, H, W, C]``.
    columns: images per row.
    value_range: the values shown as black and white, beyond which they are clipped; None for those of the data.
    captions: one for each image, set below it.
    title: set above the grid.

  Raises:
    ValueError: if the shape is not one of images, or there is not one caption for each.
  """
  pixels = _pixels(images, 3, value_range)
  if captions is not None and len(captions) != len(pixels):
    raise ValueError(f'captions has {len(captions)} entries for {len(pixels)} images: give one for each')
  columns = columns or math.ceil(math.sqrt(len(pixels)))
  return _table(_wrap(pixels, columns), captions=captions, title=title)


def image_table(
  images,
  *,
  rows: Sequence[str] = (),
  columns: Sequence[str] = (),
  value_range: tuple[float, float] | None = (0.0, 1.0),
  title: str = '',
) -> Figure:
  """Images in named rows and columns: a walk between codes, a latent grid, samples at several temperatures.

  Args:
    images: ``[R, K, H, W]`` or ``[R, K, H, W, C]``.
    rows: names of the ``R`` rows, or nothing.
    columns: names of the ``K`` columns, or nothing.
    value_range: see ``image_grid``.
    title: set above the table.
  """
  return _table(_pixels(images, 4, value_range), rows=rows, columns=columns, title=title)


def chain_over_time(images, steps: Sequence[int], *, value_range=(0.0, 1.0), title: str = '') -> Figure:
  """Markov chains, one per row, time running to the right.

  Args:
    images: ``[T, num_chains, H, W]`` or with channels: the states at ``T`` times.
    steps: the ``T`` numbers of transitions after which they were taken.
    value_range: see ``image_grid``.
    title: set above.

  Raises:
    ValueError: if ``steps`` is not as long as ``images``.
  """
  images = np.swapaxes(np.asarray(images), 0, 1)
  return image_table(images, columns=[f'{step:,}' for step in steps], value_range=value_range, title=title)


def completions(originals, observed, samples, *, value_range=(0.0, 1.0), title: str = '') -> Figure:
  """What a model puts in place of pixels it was not shown: original, what was given, completions.

  Args:
    originals: ``[N, H, W]`` or ``[N, H, W, C]``.
    observed: ``[N, H, W]`` or ``[H, W]``, true where the model was given the pixel; the rest is tinted blue.
    samples: ``[N, S, H, W]`` or with channels: ``S`` completions of each.
    value_range: see ``image_grid``.
    title: set above.
  """
  originals, completed = _pixels(originals, 3, value_range), _pixels(samples, 4, value_range)
  given = np.where(np.asarray(observed, bool)[..., None], originals, np.float32(MASK))
  columns = ['original', 'given'] + [f'sample {i + 1}' for i in range(completed.shape[1])]
  return _table(np.concatenate([originals[:, None], given[:, None], completed], axis=1), columns=columns, title=title)


def nearest_neighbors(samples, train, *, block_size: int = 2048) -> tuple[np.ndarray, np.ndarray]:
  """The nearest training example of each sample, by Euclidean distance, in memory bounded by ``block_size`` examples.

  Args:
    samples: ``[N, ...]``.
    train: ``[M, ...]`` of the same trailing shape.
    block_size: training examples looked at together.

  Returns:
    ``(index, distance)``, ``[N]`` each; the first of equals wins, and a copy is at distance 0 exactly.

  Raises:
    ValueError: if the trailing shapes differ, or ``train`` is empty.
  """
  samples, train = np.asarray(samples), np.asarray(train)
  if samples.shape[1:] != train.shape[1:] or not len(train):
    raise ValueError(f'samples {samples.shape} and train {train.shape} must hold examples of one shape, and train some')
  points = samples.reshape(len(samples), -1).astype(np.float64)
  best, index = np.full(len(points), np.inf), np.zeros(len(points), int)
  for start in range(0, len(train), block_size):
    block = train[start : start + block_size].reshape(-1, points.shape[1]).astype(np.float64)
    square = (block**2).sum(1) - 2 * points @ block.T  # less |sample|^2, which is the same for all
    nearest = square.argmin(1)
    value = square[np.arange(len(points)), nearest]
    closer = value < best
    best[closer], index[closer] = value[closer], start + nearest[closer]
  found = train[index].reshape(points.shape).astype(np.float64)
  return index, np.sqrt(((points - found) ** 2).sum(1))


def beside_nearest(samples, train, *, columns: int = 10, value_range=(0.0, 1.0), title: str = '') -> Figure:
  """Samples, each above the training example nearest to it, with their Euclidean distance: a look at memorisation.

  Args:
    samples: ``[N, H, W]`` or ``[N, H, W, C]``.
    train: ``[M, H, W]`` or ``[M, H, W, C]``.
    columns: pairs per row.
    value_range: see ``image_grid``.
    title: set above.
  """
  index, distance = nearest_neighbors(samples, train)
  pairs = [_wrap(_pixels(images, 3, value_range), columns) for images in (samples, np.asarray(train)[index])]
  images = np.stack(pairs, axis=1).reshape(-1, *pairs[0].shape[1:])  # rows of samples and of neighbours in turn
  width = pairs[0].shape[1]
  captions = []
  for start in range(0, len(distance), width):
    below = [f'{one:.3g}' if one < 1000 else f'{one:,.0f}' for one in distance[start : start + width]]
    captions += [''] * width + below + [''] * (width - len(below))
  return _table(images, rows=['sample', 'nearest'] * len(pairs[0]), captions=captions, title=title)


def filters(weights, *, columns: int | None = None, title: str = '') -> Figure:
  """Weights as images on one scale, symmetric about zero: blue is negative, red positive.

  The scale ends at the 99.5th percentile of the absolute weights, so that a few large ones do not hide the rest.

  Args:
    weights: ``[N, H, W]``, one image per hidden unit.
    columns: filters per row.
    title: set above.
  """
  weights = np.asarray(weights, np.float64)
  if weights.ndim != 3:
    raise ValueError(f'weights has shape {weights.shape}: reshape it to [N, H, W]')
  limit = float(np.percentile(np.abs(weights), 99.5)) or 1.0
  norm, colours = Normalize(-limit, limit, clip=True), matplotlib.colormaps['RdBu_r']
  pixels = colours(norm(weights))[..., :3]
  figure = _table(_wrap(pixels, columns or math.ceil(math.sqrt(len(weights)))), title=title, right=110)
  image, inch = figure.axes[0].get_position(), 1 / figure.get_figwidth()
  bar_height = min(image.height, 2.2 / figure.get_figheight())
  bar = figure.add_axes([image.x1 + 0.12 * inch, image.y1 - bar_height, 0.1 * inch, bar_height], frame_on=False)
  bar.imshow(colours(np.linspace(1, 0, 256))[:, None], extent=(0, 1, -1, 1), aspect='auto')
  bar.set(xticks=[], yticks=[-1, 0, 1], yticklabels=[f'−{limit:.2g}', '0', f'{limit:.2g}'])
  bar.tick_params(labelsize=SMALL, labelcolor=INK, length=0, labelright=True, labelleft=False)
  return figure


def _pixels(images, ndim: int, value_range) -> np.ndarray:
  """Images with ``ndim`` axes, not counting channels, as ``[..., H, W, 3]`` between 0 (black) and 1 (white)."""
  images = np.asarray(images, np.float32)
  if images.ndim not in (ndim, ndim + 1) or not images.size:
    axes = ', '.join(['N', 'S', 'H', 'W'] if ndim == 4 else ['N', 'H', 'W'])
    raise ValueError(f'images has shape {images.shape}: reshape it to [{axes}] or [{axes}, C], with at least one image')
  if images.ndim == ndim:
    images = images[..., None]
  if images.shape[-1] not in (1, 3):  # channels side by side
    images = np.concatenate(np.split(images, images.shape[-1], axis=-1), axis=-2)
  low, high = value_range or (np.nanmin(images), np.nanmax(images))
  scaled = np.clip((images - low) / max(high - low, 1e-12), 0, 1)
  return np.broadcast_to(scaled, (*scaled.shape[:-1], 3))


def _wrap(pixels: np.ndarray, columns: int) -> np.ndarray:
  """``[N, H, W, 3] -> [R, columns, H, W, 3]``, the last row filled up with nothing (NaN)."""
  columns = min(columns, len(pixels))
  rows = math.ceil(len(pixels) / columns)
  filled = np.full((rows * columns, *pixels.shape[1:]), np.nan, np.float32)
  filled[: len(pixels)] = pixels
  return filled.reshape(rows, columns, *pixels.shape[1:])


def _table(pixels, *, rows=(), columns=(), captions=None, title='', right: int = 8) -> Figure:
  """A table of ``[R, K, H, W, 3]`` pixels, set so that each of them covers a whole number of pixels of the output.

  ``captions`` are in reading order and stand below their images; a row whose captions are all empty takes no room for
  them. ``right`` is the room in output pixels to the right of the table.
  """
  num_rows, num_columns, height, width, _ = pixels.shape
  for name, labels, number in (('rows', rows, num_rows), ('columns', columns, num_columns)):
    if len(labels) not in (0, number):
      raise ValueError(f'{name} has {len(labels)} names for {number} {name} of images: give one for each or none')
  scale = max(1, round(min(max(WIDTH / num_columns, TILE), 2 * TILE) / width))
  pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3)
  height, width = height * scale, width * scale

  captions = [''] * (num_rows * num_columns) if captions is None else [*captions]
  captions += [''] * (num_rows * num_columns - len(captions))
  lines = [captions[i * num_columns : (i + 1) * num_columns] for i in range(num_rows)]
  pitch = width + max([6, *(_text_width(text) + 10 - width for text in (*columns, *captions))])
  tops = np.cumsum([0] + [height + (34 if any(line) else 6) for line in lines])
  canvas = np.ones((tops[-1] - 6, num_columns * pitch - (pitch - width), 3))
  for i, j in np.ndindex(num_rows, num_columns):
    if not np.isnan(pixels[i, j]).all():
      canvas[tops[i] : tops[i] + height, j * pitch : j * pitch + width] = np.nan_to_num(pixels[i, j], nan=0.5)

  overhang = (pitch - width - 6) // 2  # of a text wider than its image
  left = max([overhang, *(_text_width(name) + 12 for name in rows)]) + 8
  right = max(right, overhang + 8)
  head = (44 if title else 8) + (28 if len(columns) else 0)
  page = (max(left + canvas.shape[1] + right, _text_width(title, 10) + 16), head + canvas.shape[0] + 8)
  figure = Figure(figsize=(page[0] / DPI, page[1] / DPI), dpi=DPI, facecolor='white')
  left += (page[0] - left - canvas.shape[1] - right) // 2
  box = (left / page[0], 8 / page[1], canvas.shape[1] / page[0], canvas.shape[0] / page[1])
  axes = figure.add_axes(box, frame_on=False, xticks=[], yticks=[])
  axes.imshow(canvas, interpolation='nearest', extent=(0, canvas.shape[1], canvas.shape[0], 0), aspect='auto')
  text = {'fontsize': SMALL, 'color': INK}
  for j, name in enumerate(columns):
    axes.text(j * pitch + width / 2, -6, name, ha='center', va='bottom', **text)
  for i, name in enumerate(rows):
    axes.text(-10, tops[i] + height / 2, name, ha='right', va='center', **text)
  for (i, j), caption in zip(np.ndindex(num_rows, num_columns), captions, strict=True):
    if caption:
      axes.text(j * pitch + width / 2, tops[i] + height + 3, caption, ha='center', va='top', **text)
  if title:
    figure.text(0.5, 1 - 10 / page[1], title, ha='center', va='top', fontsize=10, color=INK)
  return figure


def _text_width(text: str, size: int = SMALL) -> int:
  """About how many output pixels a text is wide; a little too many rather than too few."""
  return round(0.64 * size * DPI / 72 * len(text))
