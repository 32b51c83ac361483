"""The players of a game that are made of dense layers, and the normalisation that generators of all kinds share.

A generator takes codes to samples, a critic examples to scores and to the features that the scores are a function of.
The games themselves are in ``gan.py``.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.adversarial import tricks
from gm_jax.base import Array

NORMALISATIONS = ('none', 'batch', 'virtual')


class Normalise(nn.Module):
  """A layer of the generator that normalises its units, by one of ``NORMALISATIONS``.

  Attributes:
    kind: which.
    num_reference: rows of the reference batch, for the virtual one.
    scale_init: of the scales.
  """

  kind: str
  num_reference: int = 0
  scale_init: Callable = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """``[R + B, ..., C]`` with its reference batch, or ``[B, ..., C]`` without one."""
    if self.kind == 'virtual':
      return tricks.VirtualBatchNorm(self.num_reference)(x)
    if self.kind == 'batch':
      return nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=self.scale_init)(x)
    return x


def with_reference(module: nn.Module, kind: str, z: Array) -> tuple[Array, int]:
  """The codes behind the reference batch, and how many that has; it is the first batch that the module is given."""
  if kind != 'virtual':
    return z, 0
  reference = module.variable('reference', 'codes', lambda: z).value
  return jnp.concatenate([reference, z]), len(reference)


class MLPGenerator(nn.Module):
  """Dense layers from codes to samples: ``[B, num_latents] -> [B, *output_shape]``.

  Attributes:
    hidden_sizes: units of each hidden layer.
    output_shape: of a sample.
    activation: of the hidden layers.
    output_activation: of the samples, such as ``nn.tanh`` for images; None for none.
    normalisation: of the hidden layers, one of ``NORMALISATIONS``.
    kernel_init: of all layers.
  """

  hidden_sizes: Sequence[int]
  output_shape: Sequence[int]
  activation: Callable[[Array], Array] = nn.relu
  output_activation: Callable[[Array], Array] | None = None
  normalisation: str = 'none'
  kernel_init: Callable = nn.initializers.lecun_normal()

  def __post_init__(self):
    check_choice('normalisation', self.normalisation, NORMALISATIONS)
    super().__post_init__()

  @nn.compact
  def __call__(self, z: Array, *, train: bool = False) -> Array:
    """The samples."""
    h, num_reference = with_reference(self, self.normalisation, z)
    plain = self.normalisation == 'none'
    for size in self.hidden_sizes:
      h = nn.Dense(size, use_bias=plain, kernel_init=self.kernel_init)(h)
      h = self.activation(Normalise(self.normalisation, num_reference)(h, train))
    h = nn.Dense(math.prod(self.output_shape), kernel_init=self.kernel_init)(h[num_reference:])
    h = h if self.output_activation is None else self.output_activation(h)
    return h.reshape(-1, *self.output_shape)


class MLPCritic(nn.Module):
  """Dense layers from examples to scores: ``[B, ...] -> [B]``.

  Attributes:
    hidden_sizes: units of each hidden layer.
    activation: of the hidden layers.
    maxout: pieces of each hidden unit, of which the greatest counts, in place of the activation (Goodfellow et al.
      2013); 0 for none.
    num_kernels: of minibatch discrimination behind the last hidden layer; 0 for none.
    output_bias: whether a constant is added to the score; where only differences of scores count it would never learn.
    dense: the class of the layers, ``nn.Dense`` or ``wgan.SpectralDense``.
  """

  hidden_sizes: Sequence[int]
  activation: Callable[[Array], Array] = nn.relu
  maxout: int = 0
  num_kernels: int = 0
  output_bias: bool = True
  dense: Callable[..., nn.Module] = nn.Dense

  @property
  def couples_examples(self) -> bool:
    """Whether the score of an example depends on the others of its batch."""
    return self.num_kernels > 0

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> tuple[Array, Array]:
    """The scores ``[B]``, and the features that they are a function of, ``[B, F]``."""
    h = x.reshape(len(x), -1)
    for size in self.hidden_sizes:
      if self.maxout:
        h = self.dense(size * self.maxout)(h).reshape(len(x), self.maxout, size).max(1)
      else:
        h = self.activation(self.dense(size)(h))
    features = h
    if self.num_kernels:
      h = tricks.MinibatchDiscrimination(self.num_kernels)(h)
    return self.dense(1, use_bias=self.output_bias)(h)[:, 0], features


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  """Raise a ``ValueError`` unless ``value`` is one of the choices."""
  if value not in choices:
    raise ValueError(f'{name}={value!r}: choose one of {", ".join(choices)}')
