"""What is measured in place of pixels: features of images, by functions that carry their name and their hash.

A score of samples depends on its features as much as on the samples, so each extractor says which one it is. Images
are float ``[N, H, W, C]`` with intensities from 0 to 1. None of these needs a network from outside:

* ``pixels``: the image itself.
* ``principal_components``: of training images, whitened or not.
* ``random_convolutional``: a convolutional network of random weights, which favours no data set.
* ``classifier``: a small network that was taught the classes, with 128 numbers before its answer; also its logits,
  which class-wise scores need. It is saved with its accuracy, seed and hash.
* ``custom``: any function, such as an Inception network with weights of one's own.

References: PacGAN (Lin et al. 2018), for the sizes of the classifier; Naeem et al., Reliable fidelity and diversity
metrics (2020), for random networks.

Example:
  >>> import jax
  >>> images = jax.random.uniform(jax.random.key(0), (10, 8, 8, 1))
  >>> extractor = random_convolutional((8, 8, 1), num_features=16)
  >>> extractor.extract(images).codes.shape
  (10, 16)
"""

import hashlib
import importlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.base import Array, Batch, Extra, Key
from gm_jax.nn.convolution import Conv
from gm_jax.training import loop, rules

BLOCK_SIZE = 250  # images at a time


class Features(NamedTuple):
  """What an extractor gives of images."""

  codes: Array  # [N, D]
  logits: Array | None = None  # [N, K] of classes, if it knows any


class Extractor(NamedTuple):
  """A function of images that says which one it is."""

  name: str
  digest: str  # of everything that its features depend on
  function: Callable[[Array], Features]  # [B, H, W, C] -> Features, pure
  notes: dict[str, Any] = {}  # accuracy, seed, ... of one that was trained
  params: Any = None  # of one that was trained

  def extract(self, images, *, block_size: int = BLOCK_SIZE) -> Features:
    """The features of images [N, H, W, C], in blocks of ``block_size`` compiled once."""
    images = jnp.asarray(images, jnp.float32)
    size = min(block_size, len(images))
    blocks = -(-len(images) // size)
    padded = jnp.pad(images, [(0, blocks * size - len(images))] + [(0, 0)] * (images.ndim - 1))
    found = jax.jit(lambda x: jax.lax.map(self.function, x))(padded.reshape(blocks, size, *images.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(images)], found)


def digest(name: str, arrays: Any = ()) -> str:
  """Twelve hexadecimal digits of a name and a tree of arrays."""
  total = hashlib.sha256(name.encode())
  for leaf in jax.tree.leaves(arrays):
    leaf = np.ascontiguousarray(leaf)
    total.update(f'{leaf.dtype}{leaf.shape}'.encode() + leaf.tobytes())
  return total.hexdigest()[:12]


def pixels() -> Extractor:
  """The pixels as they are."""
  return Extractor('pixels', digest('pixels'), lambda images: Features(images.reshape(len(images), -1)))


def principal_components(train: Array, num_components: int) -> Extractor:
  """The first principal components of training images [N, H, W, C].

  Raises:
    ValueError: if there are not so many.
  """
  rows = jnp.asarray(train, jnp.float32).reshape(len(train), -1)
  if not 1 <= num_components <= min(rows.shape):
    raise ValueError(f'num_components={num_components}: {rows.shape[0]} images of {rows.shape[1]} pixels have no more '
                     f'than {min(rows.shape)}')  # fmt: skip
  mean = rows.mean(0)
  basis = jnp.linalg.svd(rows - mean, full_matrices=False)[2][:num_components]
  name = f'pca-{num_components}'

  def function(images):
    return Features((images.reshape(len(images), -1) - mean) @ basis.T)

  return Extractor(name, digest(name, (mean, basis)), function)


class RandomNetwork(nn.Module):
  """Two convolutions of stride 2 and a projection of what they leave."""

  num_features: int

  @nn.compact
  def __call__(self, images: Array) -> Array:
    """[N, H, W, C] to [N, num_features]."""
    x = images
    for size in (32, 64):
      x = nn.relu(Conv(size, (3, 3), strides=2, kernel_init=nn.initializers.he_normal())(x))
    return nn.Dense(self.num_features, use_bias=False)(x.reshape(len(x), -1))


def random_convolutional(image_shape: tuple[int, int, int], *, num_features: int = 64, seed: int = 0) -> Extractor:
  """A convolutional network whose weights are drawn from a seed and never learnt."""
  network = RandomNetwork(num_features)
  params = network.init(jax.random.key(seed), jnp.zeros((1, *image_shape)))
  name = f'random-{num_features}-seed{seed}'
  return Extractor(name, digest(name, params), lambda images: Features(network.apply(params, images)), {'seed': seed})


class Classifier(nn.Module):
  """Two convolutions of 3 x 3, each before a pooling, 128 rectified units, and the logits.

  The sizes are those of PacGAN's network, which pools once; pooling twice takes a third of the time.
  """

  num_classes: int
  num_features: int = 128

  @nn.compact
  def __call__(self, images: Array, key: Key | None = None) -> Features:
    """Codes and logits of [N, H, W, C]; with a key half of the codes are dropped, as in training."""
    x = images - 0.5
    for size in (32, 64):
      x = _pooled(nn.relu(Conv(size, (3, 3))(x)))
    codes = nn.relu(nn.Dense(self.num_features)(x.reshape(len(x), -1)))
    kept = codes if key is None else codes * 2 * jax.random.bernoulli(key, 0.5, codes.shape)
    return Features(codes, nn.Dense(self.num_classes, name='logits')(kept))


def _pooled(x: Array) -> Array:
  """The maxima of squares of 2 x 2 pixels."""
  num, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return x.reshape(num, height // 2, 2, width // 2, 2, channels).max((2, 4))


def train_classifier(
  key: Key,
  train: tuple[np.ndarray, np.ndarray],
  test: tuple[np.ndarray, np.ndarray],
  num_classes: int,
  *,
  num_features: int = 128,
  num_steps: int = 400,
  batch_size: int = 100,
  learning_rate: float = 1e-3,
  seed: int = 0,
) -> Extractor:
  """A classifier of images [N, H, W, C] by labels [N], taught by Adam with a falling rate.

  Args:
    key: of the run.
    train: images and labels.
    test: images and labels that its accuracy is measured on.
    num_classes: K.
    num_features: of the layer before the logits.
    num_steps: updates; 400 of 100 MNIST digits take about a minute of one core.
    batch_size: images in an update.
    learning_rate: at its highest.
    seed: what ``key`` was made of, for the notes.

  Raises:
    ValueError: if images are too small for two poolings, or labels are missing.
  """
  images, labels = train
  if labels is None or test[1] is None:
    raise ValueError('labels=None: a classifier needs labelled images')
  if min(images.shape[1:3]) < 4:
    raise ValueError(f'images of {images.shape[1]} x {images.shape[2]} pixels: give 4 x 4 or more')
  network = Classifier(num_classes, num_features)

  def loss(params, key, batch, state):
    del state
    logits = network.apply(params, batch.x, key).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.context.astype(int)).mean(), Extra()

  rate = optax.cosine_decay_schedule(learning_rate, num_steps)
  algorithm = rules.descent(lambda key, batch: network.init(key, batch.x), loss, optax.adam(rate))
  batch_size = min(batch_size, len(images))
  plan = loop.Plan(num_steps, batch_size, num_steps, num_steps)
  state, seconds = loop.train(algorithm, Batch(np.asarray(images, np.float32), np.asarray(labels)), key, plan)
  extractor = _classifier(network, state.params, {})
  answers = np.asarray(extractor.extract(test[0]).logits).argmax(1)
  accuracy = float(np.mean(answers == np.asarray(test[1])))
  notes = {
    'num_classes': num_classes,
    'num_features': num_features,
    'image_shape': list(images.shape[1:]),
    'accuracy': accuracy,
    'accuracy_stderr': math.sqrt(accuracy * (1 - accuracy) / len(answers)),
    'seed': seed,
    'num_steps': num_steps,
    'batch_size': batch_size,
    'learning_rate': learning_rate,
    'seconds': round(seconds, 1),
  }
  return _classifier(network, state.params, notes)


def save_classifier(path: str | pathlib.Path, extractor: Extractor) -> None:
  """Writes the parameters of a classifier, and its notes and hash, as one ``.npz``."""
  flat = flax.traverse_util.flatten_dict(extractor.params, sep='/')
  notes = json.dumps({'digest': extractor.digest, **extractor.notes})
  np.savez(path, notes=notes, **{name: np.asarray(leaf) for name, leaf in flat.items()})


def load_classifier(path: str | pathlib.Path) -> Extractor:
  """The classifier of a file.

  Raises:
    ValueError: if its parameters are not those that its hash was made of.
  """
  with np.load(path, allow_pickle=False) as file:
    notes = json.loads(str(file['notes']))
    params = flax.traverse_util.unflatten_dict({n: file[n] for n in file.files if n != 'notes'}, sep='/')
  said = notes.pop('digest')
  extractor = _classifier(Classifier(notes['num_classes'], notes['num_features']), params, notes)
  if extractor.digest != said:
    raise ValueError(f'{path}: the parameters have the hash {extractor.digest} and the file says {said}: it is damaged')
  return extractor


def _classifier(network: Classifier, params: Any, notes: dict[str, Any]) -> Extractor:
  name = f'classifier-{network.num_features}'
  return Extractor(name, digest(name, params), lambda images: network.apply(params, images), notes, params)


def custom(path: str) -> Extractor:
  """The extractor that ``module:function`` makes when it is called without arguments.

  The function returns an ``Extractor``, or a pure function of images [B, H, W, C] to codes [B, D], which is then known
  by its path alone.

  Raises:
    ValueError: if there is no such function.
  """
  module, _, name = path.partition(':')
  try:
    made = getattr(importlib.import_module(module), name)()
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(f'extractor={path!r} cannot be had: {error}; give module:function') from error
  if isinstance(made, Extractor):
    return made
  return Extractor(path, digest(path), lambda images: Features(made(images)))
