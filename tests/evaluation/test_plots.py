"""Pictures: the right pixels in the right places, not merely a file."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gm_jax.evaluation import image_plots, plots


def canvas(figure):
  """The pixels of a table of images."""
  return np.asarray(figure.axes[0].images[0].get_array())


def texts(figure):
  return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).uniform(size=(7, 4, 5)).astype(np.float32)


def tiles_of(figure, rows, columns, height, width):
  """Cuts a table without captions into tiles, each shrunk to its own pixels: ``[rows, columns, height, width, 3]``."""
  pixels = canvas(figure)
  scale = (pixels.shape[1] - 6 * (columns - 1)) // columns // width
  assert pixels.shape == (rows * height * scale + 6 * (rows - 1), columns * width * scale + 6 * (columns - 1), 3)
  result = np.empty((rows, columns, height, width, 3))
  for i, j in np.ndindex(rows, columns):
    top, left = i * (height * scale + 6), j * (width * scale + 6)
    tile = pixels[top : top + height * scale, left : left + width * scale]
    blocks = tile.reshape(height, scale, width, scale, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    result[i, j] = blocks[:, 0, :, 0]
  return result


def test_grid_shows_every_image_in_reading_order(images):
  tiles = tiles_of(image_plots.image_grid(images, columns=3), 3, 3, 4, 5).reshape(9, 4, 5, 3)
  np.testing.assert_array_equal(tiles[:7], np.broadcast_to(images[..., None], (7, 4, 5, 3)))
  assert (tiles[7:] == 1).all()  # places without an image stay white


def test_each_pixel_covers_a_whole_number_of_output_pixels(images, tmp_path):
  figure = image_plots.image_grid(images, columns=3, title='title')
  box = figure.axes[0].get_window_extent()
  np.testing.assert_allclose([box.height, box.width], canvas(figure).shape[:2], atol=1e-6)
  np.testing.assert_allclose([box.x0 % 1, box.y0 % 1], 0, atol=1e-6)


def test_saved_png_has_the_pixels(images, tmp_path):
  from matplotlib.image import imread

  figure = image_plots.image_grid(images, columns=7)
  saved = imread(plots.save(figure, tmp_path / 'grid.png'))[..., :3]
  height, width, _ = canvas(figure).shape
  np.testing.assert_allclose(saved[8 : 8 + height, 8 : 8 + width], canvas(figure), atol=1 / 254)


def test_value_range_and_channels(images):
  tiles = tiles_of(image_plots.image_grid(10 * images[:1] - 5, value_range=(-5, 0)), 1, 1, 4, 5)
  np.testing.assert_allclose(tiles[0, 0, ..., 0], np.clip(2 * images[0], 0, 1), rtol=1e-5)
  tiles = tiles_of(image_plots.image_grid(3 * images[:1] + 7, value_range=None), 1, 1, 4, 5)
  np.testing.assert_allclose([tiles.min(), tiles.max()], [0, 1], atol=1e-5)
  colour = images[:6].reshape(2, 4, 5, 3)
  np.testing.assert_array_equal(tiles_of(image_plots.image_grid(colour, columns=2), 1, 2, 4, 5)[0], colour)
  two = images[:4].reshape(2, 4, 5, 2)
  tiles = tiles_of(image_plots.image_grid(two, columns=2), 1, 2, 4, 10)[0, ..., 0]
  np.testing.assert_array_equal(tiles, np.concatenate([two[..., 0], two[..., 1]], axis=2))


def test_captions_are_below_their_images(images):
  figure = image_plots.image_grid(images, columns=3, captions=[f'caption {i}' for i in range(7)])
  assert texts(figure) == [f'caption {i}' for i in range(7)]
  x, y = figure.axes[0].texts[4].get_position()
  height, width, _ = canvas(figure).shape
  assert width / 3 < x < 2 * width / 3 and height / 2 < y < 2 * height / 3 + 20


def test_nothing_is_cut_off_at_the_border(images):
  figures = [
    image_plots.image_grid(
      images, captions=['a rather long caption'] * 7, title='one title wider than the whole grid of images'
    ),
    image_plots.image_table(images[None, :3], rows=['a long name of a row'], columns=['column', 'another column', 'c']),
    image_plots.filters(images - 0.5, title='filters'),
  ]
  for figure in figures:
    figure.draw_without_rendering()
    page = figure.bbox
    artists = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    artists += [label for axes in figure.axes for label in axes.get_yticklabels()]
    for artist in artists:
      box = artist.get_window_extent()
      assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, artist
  first, second = (text.get_window_extent() for text in figures[0].axes[0].texts[:2])
  assert first.x1 < second.x0


def test_chain_has_one_row_per_chain(images):
  states = images[:6].reshape(3, 2, 4, 5)  # three times, two chains
  figure = image_plots.chain_over_time(states, [0, 10, 1000])
  tiles = tiles_of(figure, 2, 3, 4, 5)[..., 0]
  np.testing.assert_array_equal(tiles, states.swapaxes(0, 1))
  assert texts(figure) == ['0', '10', '1,000']


def test_completions_hide_what_was_not_given(images):
  observed = np.zeros((4, 5), bool)
  observed[:2] = True
  figure = image_plots.completions(images[:2], observed, images[2:6].reshape(2, 2, 4, 5))
  tiles = tiles_of(figure, 2, 4, 4, 5)
  np.testing.assert_array_equal(tiles[:, 0, ..., 0], images[:2])
  np.testing.assert_array_equal(tiles[:, 1, :2, :, 0], images[:2, :2])
  np.testing.assert_array_equal(tiles[:, 1, 2:], np.broadcast_to(np.float32(image_plots.MASK), (2, 2, 5, 3)))
  np.testing.assert_array_equal(tiles[:, 2:, ..., 0].reshape(4, 4, 5), images[2:6])
  assert texts(figure) == ['original', 'given', 'sample 1', 'sample 2']


def test_nearest_neighbors_against_all_distances():
  rng = np.random.default_rng(1)
  samples, train = rng.normal(size=(9, 2, 3)) + 1000, rng.normal(size=(50, 2, 3)) + 1000
  samples[4] = train[31]
  distances = np.sqrt(((samples[:, None] - train[None]) ** 2).sum((2, 3)))
  for block_size in (7, 64):
    index, distance = image_plots.nearest_neighbors(samples.astype(np.float64), train, block_size=block_size)
    np.testing.assert_array_equal(index, distances.argmin(1))
    np.testing.assert_allclose(distance, distances.min(1), rtol=1e-9)
  assert distance[4] == 0
  with pytest.raises(ValueError, match='one shape'):
    image_plots.nearest_neighbors(samples, train[:, :1])


def test_nearest_neighbors_of_unsigned_bytes_do_not_wrap_around():
  index, distance = image_plots.nearest_neighbors(np.uint8([[130]]), np.uint8([[3], [131]]))
  assert (index, distance) == (1, 1)


def test_beside_nearest_pairs_each_sample_with_its_neighbour(images):
  train = np.concatenate([images[::-1], 1 - images])
  figure = image_plots.beside_nearest(images[:5], train, columns=3)
  assert [text for text in texts(figure) if text] == ['sample', 'nearest'] * 2 + ['0'] * 5
  pixels = canvas(figure)
  height = 4 * round(156 / 5)
  np.testing.assert_array_equal(pixels[:height], pixels[height + 6 : 2 * height + 6])


def test_filters_are_symmetric_about_zero():
  weights = np.zeros((1, 3, 3))
  weights[0, 0] = [-2.0, 0.0, 2.0]
  figure = image_plots.filters(weights)
  negative, zero, positive = tiles_of(figure, 1, 1, 3, 3)[0, 0, 0]
  assert negative[2] > negative[0] and positive[0] > positive[2]  # blue, red
  assert zero.min() > 0.95
  assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ['−2', '0', '2']
  image_plots.filters(np.zeros((2, 3, 3)))  # untrained weights have no scale of their own


def test_learning_curves_share_a_panel_where_they_share_a_name():
  history = [{'step': s, 'train/loss': 9.0 - s, 'train/grad_norm': 1.0, 'note': 'text'} for s in range(5)]
  history += [{'step': s, 'valid/loss': 10.0 - s, 'valid/loss_stderr': 0.5, 'valid/rate': None} for s in (0, 4)]
  figure = plots.learning_curves(history, units={'loss': 'nats'})
  panels = {axes.get_title(): axes for axes in figure.axes}
  assert list(panels) == ['loss (nats)', 'grad norm, train', 'rate, valid']
  lines = {line.get_label(): line for line in panels['loss (nats)'].lines}
  assert list(lines) == ['train', 'valid']
  np.testing.assert_array_equal(lines['train'].get_xydata(), [[s, 9 - s] for s in range(5)])
  np.testing.assert_array_equal(lines['valid'].get_xydata(), [[0, 10], [4, 6]])
  assert lines['train'].get_color() != lines['valid'].get_color()
  band = panels['loss (nats)'].collections[-1].get_paths()[0].vertices
  assert (band[:, 1].min(), band[:, 1].max()) == (5.5, 10.5)
  assert np.isnan(panels['rate, valid'].lines[0].get_ydata()).all()
  figure.draw_without_rendering()


def test_learning_curves_refuse_an_empty_history():
  with pytest.raises(ValueError, match='no curve'):
    plots.learning_curves([{'step': 1}])


def test_histogram_is_a_density_with_its_error():
  values = {'test': np.repeat([0.0, 1.0], [30, 10]), 'samples': np.array([0.0, 1.0, np.inf])}
  figure = plots.histogram(values, 'log-probability (nats)', bins=2)
  first, band = figure.axes[0].patches[:2]
  np.testing.assert_allclose(first.get_data().values, [1.5, 0.5])
  stderr = np.sqrt(0.75 * 0.25 / 40) / 0.5
  np.testing.assert_allclose(band.get_data().values, [1.5 + stderr, 0.5 + stderr])
  np.testing.assert_allclose(band.get_data().baseline, [1.5 - stderr, 0.5 - stderr])
  legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
  assert legend == ['test (n = 40)', 'samples (n = 2)']
  with pytest.raises(ValueError, match='no finite number'):
    plots.histogram({'empty': [np.nan]}, 'x')


def test_bars_and_intervals_carry_their_errors():
  figure = plots.bars(['a', 'b'], [1.0, 2.0], [0.1, 0.2], ylabel='share (%)', reference=[1.5, 1.5])
  axes = figure.axes[0]
  assert [bar.get_height() for bar in axes.patches] == [1.0, 2.0]
  (errors,) = (c for c in axes.collections if c.get_segments()[0][0][0] == c.get_segments()[0][1][0])
  np.testing.assert_allclose([segment[:, 1] for segment in errors.get_segments()], [[0.9, 1.1], [1.8, 2.2]])
  figure = plots.intervals(['ours', 'paper'], [-85.0, -86.3], [0.5, np.nan], xlabel='nats')
  axes = figure.axes[0]
  segments = [c.get_segments()[0][:, 0] for c in axes.collections]
  np.testing.assert_allclose(segments, [[-85.5, -84.5]])
  assert [label.get_text() for label in axes.get_yticklabels()] == ['ours', 'paper']
  assert axes.lines[-1].get_markerfacecolor() == 'white'


def test_scatter_colours_and_names_the_classes():
  points = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 10.0], [12.0, 12.0]])
  figure = plots.scatter(points, [3, 3, 7, 7], xlabel='first', ylabel='second')
  axes = figure.axes[0]
  np.testing.assert_array_equal(axes.collections[0].get_offsets(), points)
  colours = axes.collections[0].get_facecolors()[:, :3]
  assert (colours[0] == colours[1]).all() and (colours[2] == colours[3]).all() and (colours[0] != colours[2]).any()
  assert [(t.get_text(), t.get_position()) for t in axes.texts] == [('3', (1.0, 0.0)), ('7', (11.0, 11.0))]
  np.testing.assert_allclose(to_rgb(axes.texts[0].get_color()), colours[0])
  with pytest.raises(ValueError, match=r'\(4, 3\)'):
    plots.scatter(np.zeros((4, 3)), xlabel='x', ylabel='y')


def test_mass_levels_of_a_gaussian_hold_their_mass():
  """In the plane the smallest region of mass p is a disc, and the density on its rim is (1 - p) of the top."""
  grid = np.linspace(-6, 6, 601)
  mass = np.exp(-(grid[:, None] ** 2 + grid**2) / 2)
  np.testing.assert_allclose(plots.mass_levels(mass, (0.95, 0.8, 0.2)), [0.05, 0.2, 0.8], rtol=2e-3)
  np.testing.assert_array_equal(plots.mass_levels(np.ones(10), (0.9, 0.1)), [1.0])


@pytest.mark.parametrize('name', ['gaussian', 'flat', 'checkerboard', 'spike'])
def test_density_draws_any_shape(name):
  grid = np.linspace(-2, 2, 40)
  x, y = np.meshgrid(grid, grid)
  log_density = {
    'gaussian': -(x**2 + y**2) - 1e4,
    'flat': np.zeros_like(x),
    'checkerboard': np.where((np.floor(x) + np.floor(y)) % 2 == 0, 0.0, -np.inf),
    'spike': np.where((abs(x) < 0.06) & (abs(y) < 0.06), 0.0, -1e5),
  }[name]
  figure = plots.density(grid, grid, log_density, np.zeros((3, 2)))
  figure.draw_without_rendering()
  filled = figure.axes[0].collections[0]
  assert sum(len(path.vertices) for path in filled.get_paths()) > 3
  if name == 'gaussian':
    radius = np.linalg.norm(figure.axes[0].collections[1].get_paths()[0].vertices, axis=1)
    np.testing.assert_allclose(radius, np.sqrt(-np.log(0.05)), rtol=0.03)


def test_density_refuses_what_is_none():
  with pytest.raises(ValueError, match=r'\[Y, X\] = \(3, 2\)'):
    plots.density([0, 1], [0, 1, 2], np.zeros((2, 3)))
  with pytest.raises(ValueError, match='NaN'):
    plots.density([0, 1], [0, 1], np.full((2, 2), np.nan))


def test_bad_images(images):
  with pytest.raises(ValueError, match=r'\(7, 20\)'):
    image_plots.image_grid(images.reshape(7, 20))
  with pytest.raises(ValueError, match='2 entries for 7'):
    image_plots.image_grid(images, captions=['a', 'b'])
  with pytest.raises(ValueError, match='3 names for 2 columns'):
    image_plots.chain_over_time(images[:2, None], [1, 2, 3])
  with pytest.raises(ValueError, match='weights has shape'):
    image_plots.filters(images[0])


def test_no_global_state_of_pyplot():
  code = "import sys, gm_jax.evaluation.report, gm_jax.evaluation.plots; assert 'matplotlib.pyplot' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], check=True)
