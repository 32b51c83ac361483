"""Deep convolutional GAN: a generator of fractionally strided convolutions, and a critic of strided ones.

After Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2016: no pooling; batch normalisation in both, but not behind the generator's last layer nor the critic's
first; ReLU in the generator and tanh at its end, so that images lie in [-1, 1]; LeakyReLU of slope 0.2 in the critic;
kernels from N(0, 0.02^2); Adam with rate 2e-4 and beta_1 = 0.5 (``optimizer``); z uniform on (-1, 1)^100.

Batches of data and of samples are normalised apart. The generator samples with the running statistics.

Example:
  >>> import jax
  >>> import jax.numpy as jnp
  >>> from gm_jax.adversarial import gan
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import adversarial
  >>> module = gan.GAN(Generator((4, 4, 1), (4,)), Critic((4,)), num_latents=2, prior='uniform')
  >>> losses = gan.objective(module, gan.GAMES['non_saturating'])
  >>> algorithm = adversarial(*losses, optimizer(0.01), optimizer(0.01))
  >>> x = jnp.tile(jnp.array([[-1.0, 1.0]]), (8, 4, 2)).reshape(8, 4, 4, 1)  # white stripes on black
  >>> init, step = jax.jit(algorithm.init), jax.jit(algorithm.step)
  >>> state = init(jax.random.key(0), Batch(x))
  >>> for i in range(100):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> samples = jax.jit(lambda key: gan.as_model(module).sample(state.variables, key, 3))(jax.random.key(1))
  >>> samples.mean((0, 1, 3)).round().tolist()
  [-1.0, 1.0, -1.0, 1.0]
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import optax

from gm_jax.adversarial import players, tricks
from gm_jax.base import Array
from gm_jax.nn.convolutional import HalvingConvolution, TransposedConvolution

KERNEL = nn.initializers.normal(0.02)


def _scale(key, shape, dtype=jnp.float32):
  """Scales of batch normalisation around one."""
  return 1 + KERNEL(key, shape, dtype)


class Generator(nn.Module):
  """Codes to images, by doublings of height and width: ``[B, num_latents] -> [B, H, W, C]`` in [-1, 1].

  Attributes:
    image_shape: (H, W, C); H and W divide by two as often as there are ``features``.
    features: channels before each doubling, first to last.
    normalisation: of the hidden layers, one of ``players.NORMALISATIONS``.
  """

  image_shape: tuple[int, int, int]
  features: Sequence[int]
  normalisation: str = 'batch'

  def __post_init__(self):
    players.check_choice('normalisation', self.normalisation, players.NORMALISATIONS)
    factor = 2 ** len(self.features)
    if not self.features or any(side % factor for side in self.image_shape[:2]):
      raise ValueError(
        f'image_shape={self.image_shape} and features={tuple(self.features)}: height and width must divide by '
        f'{factor}, two for each of the features, of which there must be one at least'
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, z: Array, *, train: bool = False) -> Array:
    """The images."""
    z, num_reference = players.with_reference(self, self.normalisation, z)
    height, width = (side // 2 ** len(self.features) for side in self.image_shape[:2])
    plain = self.normalisation == 'none'
    first = self.features[0]
    h = nn.Dense(height * width * first, use_bias=plain, kernel_init=KERNEL)(z).reshape(-1, height, width, first)
    for size in (*self.features[1:], None):
      h = nn.relu(players.Normalise(self.normalisation, num_reference, _scale)(h, train))
      h = h if size else h[num_reference:]
      h = TransposedConvolution(size or self.image_shape[-1], use_bias=plain or not size, kernel_init=KERNEL)(h)
    return jnp.tanh(h)


class Critic(nn.Module):
  """Images to scores, by halvings of height and width: ``[B, H, W, C] -> [B]``.

  Attributes:
    features: channels behind each halving.
    normalised: whether all but the first are batch-normalised.
    num_kernels: of minibatch discrimination; 0 for none.
    output_bias: whether a constant is added to the score; where only differences of scores count it would never learn.
    convolution: the class of the halvings, ``HalvingConvolution`` or ``wgan.SpectralConvolution``.
    dense: the class of the last layer, ``nn.Dense`` or ``wgan.SpectralDense``.
  """

  features: Sequence[int]
  normalised: bool = True
  num_kernels: int = 0
  output_bias: bool = True
  convolution: Callable[..., nn.Module] = HalvingConvolution
  dense: Callable[..., nn.Module] = nn.Dense

  @property
  def couples_examples(self) -> bool:
    """Whether the score of an example depends on the others of its batch."""
    return self.num_kernels > 0 or (self.normalised and len(self.features) > 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> tuple[Array, Array]:
    """The scores ``[B]``, and the features that they are a function of, ``[B, F]``."""
    if any(side % 2 ** len(self.features) for side in x.shape[1:3]):
      raise ValueError(
        f'x.shape={x.shape}: height and width must divide by two for each of features={tuple(self.features)}'
      )
    h = x
    for i, size in enumerate(self.features):
      normalised = self.normalised and i > 0
      h = self.convolution(size, use_bias=not normalised, kernel_init=KERNEL)(h)
      if normalised:
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=_scale)(h)
      h = nn.leaky_relu(h, 0.2)
    features = h.reshape(len(x), -1)
    h = tricks.MinibatchDiscrimination(self.num_kernels)(features) if self.num_kernels else features
    return self.dense(1, use_bias=self.output_bias, kernel_init=KERNEL)(h)[:, 0], features


def optimizer(learning_rate=2e-4) -> optax.GradientTransformation:
  """Adam as in the paper, for either player."""
  return optax.adam(learning_rate, b1=0.5)


def interpolate(start: Array, end: Array, num: int) -> Array:
  """``num`` codes on the straight line between two, both ends included: ``[..., M], [..., M] -> [..., num, M]``."""
  share = jnp.linspace(0.0, 1.0, num)[:, None]
  return (1 - share) * start[..., None, :] + share * end[..., None, :]


def arithmetic(plus: Sequence[Array], minus: Sequence[Array] = ()) -> Array:
  """Sums and differences of concepts, each the mean of the codes of some samples that show it.

  Args:
    plus: groups of codes ``[n, M]`` whose means are added.
    minus: groups whose means are subtracted.

  Returns:
    ``[M]``: mean(smiling woman) - mean(woman) + mean(man), for instance.
  """
  return sum(group.mean(0) for group in plus) - sum((group.mean(0) for group in minus), jnp.zeros(plus[0].shape[-1:]))
