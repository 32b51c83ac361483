"""Pictures: arrays in, a matplotlib ``Figure`` out; ``save`` writes it.

Nothing here touches pyplot or any other global state, so pictures can be made from any thread and without a display.
Images are ``[..., H, W]`` or ``[..., H, W, C]``, first row on top; one channel or three show as they are, any other
number of channels as grey strips side by side.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe & Ito (2008), told apart with every common kind of colour vision; the last two widen it to ten classes.
COLOURS = (
  '#0072b2', '#e69f00', '#009e73', '#d55e00', '#56b4e9', '#cc79a7', '#000000', '#882255', '#7f7f7f', '#5d3a9b',
)  # fmt: skip
SPLITS = {'train': COLOURS[0], 'valid': COLOURS[1], 'test': COLOURS[2]}
INK, FAINT, MASK = '#333333', '#dddddd', (0.34, 0.71, 0.91)
MASS = (0.95, 0.8, 0.6, 0.4, 0.2)  # what the shades of a density hold
DPI = 150
SMALL = 8  # points
TILE, WIDTH = 78, 900  # wished width of an image in a table, and of a table, output pixels


def save(figure: Figure, path: str | Path) -> Path:
  """Writes a figure as PNG and returns its path."""
  path = Path(path)
  figure.savefig(path, format='png', metadata={'Software': None})
  return path


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
    below = [f'{one:.3g}' for one in distance[start : start + width]]
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


def learning_curves(history: Iterable[Mapping[str, float]], *, units: Mapping[str, str] | None = None) -> Figure:
  """One panel per quantity over the number of updates; splits of the same quantity share a panel.

  Args:
    history: rows such as ``{'step': 100, 'train/loss': 3.2, 'valid/loss': 3.4}``; what comes before the first slash is
      the split. Rows need not hold every quantity. What is not a number is left out, what is not finite is a gap. A
      ``valid/loss_stderr`` is drawn as a band about ``valid/loss``.
    units: the unit of a quantity, by its name without the split.

  Raises:
    ValueError: if no row has a number.
  """
  panels: dict[str, dict[str, list]] = {}
  for row in history:
    for name, value in row.items():
      is_band = name.endswith('_stderr') and name.removesuffix('_stderr') in row
      if name == 'step' or is_band or isinstance(value, bool) or not isinstance(value, int | float | np.number | None):
        continue
      split, _, quantity = name.rpartition('/') if '/' in name else ('', '', name)
      value = float(value) if value is not None and math.isfinite(value) else math.nan
      panels.setdefault(quantity, {}).setdefault(split, []).append(
        (row['step'], value, row.get(f'{name}_stderr') or 0.0)
      )
  if not panels:
    raise ValueError('history has no row with a number in it: there is no curve to draw')
  # What several splits have comes first: it is what is looked for.
  panels = dict(sorted(panels.items(), key=lambda item: -len(item[1])))
  columns = 2 if len(panels) == 4 else min(3, len(panels))
  rows = math.ceil(len(panels) / columns)
  figure = Figure(figsize=(3.5 * columns + 0.4 * (columns == 1), 2.4 * rows), dpi=DPI, layout='constrained')
  grid = figure.subplots(rows, columns, squeeze=False).ravel()
  for place, (axes, (quantity, splits)) in enumerate(zip(grid, panels.items(), strict=False)):
    spare = iter([*COLOURS[3:], *COLOURS] * len(splits))
    for split in sorted(splits, key=lambda name: ([*SPLITS, name].index(name), name)):
      steps, values, errors = np.array(splits[split], float).T
      few = np.isfinite(values).sum() <= 30
      style = {'marker': 'o', 'markersize': 3} if few else {}
      colour = SPLITS.get(split or 'train') or next(spare)
      axes.plot(steps, values, color=colour, linewidth=1.3 if len(steps) <= 200 else 0.8, label=split, **style)
      axes.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.25, linewidth=0)
    only = next(iter(splits)) if len(splits) == 1 else ''
    unit = (units or {}).get(quantity, '')
    title = quantity.replace('_', ' ') + (f', {only}' if only else '') + (f' ({unit})' if unit else '')
    _tidy(axes, title=title, xlabel='updates' if place + columns >= len(panels) else '')
    if len(splits) > 1:
      axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.2)
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  for axes in grid[len(panels) :]:
    axes.remove()
  return figure


def histogram(values: Mapping[str, Sequence[float]], xlabel: str, *, bins: int = 40, title: str = '') -> Figure:
  """Histograms of several sets of numbers over common bins, as densities; the bands are one standard error each way.

  Args:
    values: name to numbers; those that are not finite are left out.
    xlabel: what the numbers are, with their unit.
    bins: number of bins over the common range.
    title: set above.

  Raises:
    ValueError: if a set has no finite number.
  """
  values = {name: np.asarray(v, np.float64).ravel() for name, v in values.items()}
  values = {name: v[np.isfinite(v)] for name, v in values.items()}
  for name, v in values.items():
    if not v.size:
      raise ValueError(f'values[{name!r}] has no finite number: there is nothing to count')
  edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
  figure, axes = _single()
  for colour, (name, v) in zip(COLOURS, values.items(), strict=False):
    share = np.histogram(v, edges)[0] / v.size
    stderr = np.sqrt(share * (1 - share) / v.size)
    width = np.diff(edges)
    axes.stairs(share / width, edges, color=colour, linewidth=1.5, label=f'{name} (n = {v.size:,})')
    low, high = (share - stderr) / width, (share + stderr) / width
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.25, linewidth=0)
  _tidy(axes, title=title, xlabel=xlabel, ylabel='density')
  axes.set_ylim(0)
  axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK)
  return figure


def bars(names: Sequence[str], values, stderr=None, *, ylabel: str, reference=None, title: str = '') -> Figure:
  """Bars from zero with error bars: counts, frequencies, shares.

  Args:
    names: one for each bar.
    values: ``[N]`` heights.
    stderr: ``[N]`` standard errors, or None.
    ylabel: what the heights are, with their unit.
    reference: ``[N]`` heights to be compared with, drawn as black dashes, or None.
    title: set above.
  """
  figure, axes = _single(width=max(3.2, 0.45 * len(names) + 1.2))
  places = np.arange(len(names))
  axes.bar(
    places, values, 0.7, yerr=stderr, color=COLOURS[4], error_kw={'ecolor': INK, 'capsize': 3, 'elinewidth': 1.2}
  )
  if reference is not None:
    axes.hlines(reference, places - 0.42, places + 0.42, color=COLOURS[6], linewidth=1.6, label='expected')
    axes.margins(y=0.18)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc='upper right')
  _tidy(axes, title=title, ylabel=ylabel)
  axes.grid(visible=False, axis='x')
  axes.set_xticks(places, names)
  return figure


def intervals(names: Sequence[str], values, stderr, *, xlabel: str, title: str = '') -> Figure:
  """Scores to be compared, as points with error bars of one standard error, the first on top.

  Args:
    names: one for each score.
    values: ``[N]``.
    stderr: ``[N]``; NaN for a score without an error, such as a published one: it is drawn hollow.
    xlabel: what the scores are, with their unit.
    title: set above.
  """
  values, stderr = np.asarray(values, float), np.asarray(stderr, float)
  figure, axes = _single(width=5.2, height=0.32 * len(names) + 0.9)
  for place, (value, error) in enumerate(zip(values, stderr, strict=True)):
    known = math.isfinite(error)
    axes.errorbar(
      value, place, xerr=error if known else None, fmt='o', markersize=4.5, color=COLOURS[0], capsize=3,
      markerfacecolor=COLOURS[0] if known else 'white',
    )  # fmt: skip
  _tidy(axes, title=title, xlabel=xlabel)
  axes.grid(visible=False, axis='y')
  axes.set_yticks(range(len(names)), names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.margins(x=0.08)
  return figure


def scatter(points, classes=None, *, names=None, xlabel: str, ylabel: str, title: str = '') -> Figure:
  """Points of the plane, coloured by class and the class named at its median.

  Args:
    points: ``[N, 2]``.
    classes: ``[N]`` integers, or None; with more than ten classes the colours repeat, and the names tell them apart.
    names: the name of each class, indexed by its integer; the integer itself without them.
    xlabel: what the first coordinate is.
    ylabel: what the second is.
    title: set above.
  """
  points = _plane(points)
  figure, axes = _single(width=4.4, height=4.2)
  size = float(np.clip(12000 / len(points), 2, 16))
  style = {'s': size, 'linewidths': 0, 'rasterized': True}
  if classes is None:
    axes.scatter(*points.T, color=COLOURS[0], alpha=0.6, **style)
  else:
    classes = np.asarray(classes)
    present = np.unique(classes)
    colours = {one: COLOURS[i % len(COLOURS)] for i, one in enumerate(present)}
    axes.scatter(*points.T, c=[colours[one] for one in classes], alpha=0.65, **style)
    for one in present:
      centre = np.median(points[classes == one], axis=0)
      halo = withStroke(linewidth=4, foreground='white')
      name = str(one) if names is None else names[one]
      axes.text(
        *centre, name, color=colours[one], fontsize=13, weight='bold', ha='center', va='center'
      ).set_path_effects([halo])
  _tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
  return figure


def density(x, y, log_density, points=None, *, xlabel: str = '$x_1$', ylabel: str = '$x_2$', title: str = '') -> Figure:
  """A density over the plane, as regions of highest density, with data over it.

  The regions are the smallest that hold 20, 40, 60, 80 and 95 % of the mass on the grid, the darkest the densest.

  Args:
    x: ``[X]`` grid of the first coordinate, evenly spaced.
    y: ``[Y]`` grid of the second.
    log_density: ``[Y, X]`` in nats, normalised or not; -inf is no mass.
    points: ``[N, 2]`` data drawn over it, or None.
    xlabel: what the first coordinate is.
    ylabel: what the second is.
    title: set above.

  Raises:
    ValueError: if ``log_density`` does not fit the grid, or has no finite mass.
  """
  x, y, log_density = (np.asarray(array, np.float64) for array in (x, y, log_density))
  if log_density.shape != (len(y), len(x)):
    raise ValueError(f'log_density has shape {log_density.shape}: the grid wants [Y, X] = {(len(y), len(x))}')
  if np.isnan(log_density).any() or not math.isfinite(log_density.max()):
    raise ValueError('log_density has NaN or +inf in it, or no mass at all')
  mass = np.exp(log_density - log_density.max())
  # A hair below, so that a plateau lies inside its level and not on its edge.
  levels = mass_levels(mass, MASS) * (1 - 1e-9)
  figure, axes = _single(width=4.4, height=4.4)
  shades = matplotlib.colormaps['Blues'](np.linspace(0.2, 0.85, len(levels)) if len(levels) > 1 else [0.4])
  axes.contourf(x, y, mass, [*levels, 1 + 1e-9], colors=shades)
  if mass.min() < levels[0]:
    axes.contour(x, y, mass, levels[:1], colors=[COLOURS[0]], linewidths=0.7)
  if points is not None:
    points = _plane(points)
    size = float(np.clip(1500 / len(points), 1, 8))
    axes.scatter(*points.T, s=size, color=COLOURS[3], alpha=0.6, linewidths=0)
  _tidy(axes, title=title, xlabel=xlabel, ylabel=ylabel)
  axes.grid(visible=False)
  axes.set_xlim(x[0], x[-1])
  axes.set_ylim(y[0], y[-1])
  axes.set_aspect('equal')
  shares = ', '.join(f'{share:.0%}'[:-1] for share in reversed(MASS))
  figure.supxlabel(f'shades: smallest regions with {shares} % of the mass', fontsize=7, color=INK)
  return figure


def mass_levels(mass, shares: Sequence[float]) -> np.ndarray:
  """The heights above which an array of masses holds at least the given shares of its sum; equal ones once, rising."""
  falling = np.sort(np.ravel(mass))[::-1]
  cumulative = np.cumsum(falling)
  return np.unique([falling[np.searchsorted(cumulative, share * cumulative[-1])] for share in shares])


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


def _single(width: float = 4.8, height: float = 3.0):
  figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
  return figure, figure.subplots()


def _plane(points) -> np.ndarray:
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not len(points):
    raise ValueError(f'points has shape {points.shape}: give [N, 2] with at least one point')
  return points


def _tidy(axes, *, title: str = '', xlabel: str = '', ylabel: str = '') -> None:
  """Takes away what does not inform and makes the rest quiet."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color('#999999')
  axes.tick_params(labelsize=SMALL, colors=INK, length=3, color='#999999')
  axes.grid(color=FAINT, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.set_title(title, fontsize=10, color=INK)
  axes.set_xlabel(xlabel, fontsize=9, color=INK)
  axes.set_ylabel(ylabel, fontsize=9, color=INK)
