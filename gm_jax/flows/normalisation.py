"""Layers that standardise what goes through them: actnorm and batch normalisation; and a learnt scale.

What they know of the data are statistics and not parameters: they are kept in the collection ``stats``, are saved with
the parameters, and are never measured again when a model is restored.
"""

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Variables
from gm_jax.flows.layers import Layer


class Scale(Layer):
  """x = exp(-log_scale) z: NICE's last layer, seen from the noise, where z = exp(log_scale) x.

  It starts with the scale that takes the batch that the model is initialised with to a deviation of one, which a pixel
  of little noise would be long in learning.
  """

  num_dimensions: int

  @nn.compact
  def _log_scale(self, x: Array | None = None) -> Array:
    def initial(key, shape):
      del key
      return jnp.zeros(shape) if x is None else -jnp.log(jnp.maximum(jnp.std(x.reshape(-1, *shape), axis=0), 1e-3))

    return self.param('log_scale', initial, (self.num_dimensions,))

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    log_scale = self._log_scale()
    return distrax.Block(distrax.ScalarAffine(jnp.zeros_like(log_scale), log_scale=-log_scale), 1)

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise; looks at the data once, when it is initialised."""
    self._log_scale(x)
    return super().inverse_and_log_det(x, context)


class Standardisation(Layer):
  """z = exp(log_scale) (x - mean) / deviation + shift for each feature, which lies on the last axis.

  Attributes:
    num_features: on the last axis.
    event_ndims: axes of an example.
  """

  num_features: int
  event_ndims: int = 1

  def setup(self):
    """Statistics, and parameters that start as the identity."""
    shape = (self.num_features,)
    self.mean = self.variable('stats', 'mean', jnp.zeros, shape)
    self.variance = self.variable('stats', 'variance', jnp.ones, shape)
    self.shift = self.param('shift', nn.initializers.zeros, shape)
    self.log_scale = self.param('log_scale', nn.initializers.zeros, shape)

  def _observed(self, x):
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axes), jnp.var(x, axes)

  def _map(self, mean, variance):
    log_scale = 0.5 * jnp.log(variance + 1e-5) - self.log_scale
    # x = mean + (z - shift) deviation exp(-log_scale)
    scalar = distrax.ScalarAffine(mean - self.shift * jnp.exp(log_scale), log_scale=log_scale)
    return distrax.Block(scalar, self.event_ndims)

  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    return self._map(self.mean.value, self.variance.value)


class Actnorm(Standardisation):
  """Standardises the batch that the model is initialised with, and learns from there (Kingma & Dhariwal 2018)."""

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise; looks at the data once, when it is initialised."""
    if self.is_initializing():
      self.mean.value, self.variance.value = self._observed(x)
    return super().inverse_and_log_det(x, context)


class BatchNorm(Standardisation):
  """Standardises each batch while it learns, and by running statistics else (Dinh et al. 2017; MAF).

  It learns where the collection ``stats`` is mutable. The running statistics are a mean over batches in which the old
  ones have a ``weight`` of up to ``memory`` batches; they start as those of the first batch.

  Attributes:
    memory: the greatest weight of what was seen before; 9 keeps 0.9 of it at each step.
  """

  memory: float = 9.0

  def setup(self):
    """Statistics, their weight, and parameters."""
    super().setup()
    self.weight = self.variable('stats', 'weight', jnp.zeros, ())

  def inverse_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
    """From data to noise."""
    if not self.is_mutable_collection('stats'):
      return super().inverse_and_log_det(x, context)
    mean, variance = self._observed(x)
    weight = self.weight.value
    for kept, new in ((self.mean, mean), (self.variance, variance)):
      kept.value = (weight * kept.value + jax.lax.stop_gradient(new)) / (weight + 1)
    self.weight.value = jnp.minimum(weight + 1, self.memory)
    return self._map(mean, variance).inverse_and_log_det(x)


def calibrate(module: nn.Module, variables: Variables, x: Array, *, context=None) -> Variables:
  """The statistics of batch normalisation as those of the whole training set, which is how MAF is evaluated.

  Args:
    module: a flow.
    variables: its parameters and statistics.
    x: ``[N, D]``, all of the training set.
    context: of each example.

  Returns:
    The variables with new statistics; each layer is measured on what those between it and the data make of ``x``.
  """
  params, stats, chains = variables
  forget = lambda path, leaf: jnp.zeros_like(leaf) if getattr(path[-1], 'key', None) == 'weight' else leaf
  stats = jax.tree_util.tree_map_with_path(forget, stats)
  _, updated = module.apply({'params': params, **stats}, x, context=context, mutable=['stats'])
  return Variables(params, {**stats, **updated}, chains)
