"""Inverse autoregressive flow, IAF (Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016).

The autoregressive map of MAF the other way round: noise goes in, and each dimension is moved and scaled by functions of
the *noise* of earlier ones::

  x_d = (z_d - mu_d(z_1 ... z_d-1)) exp(-alpha_d(z_1 ... z_d-1))

With m = -mu exp(-alpha) and s = exp(-alpha) it is the paper's x = s z + m. Samples, and the density of one's own
samples, take one pass of each layer, which is what a posterior of a variational autoencoder needs. The density of given
data takes the inverse; it is found on all dimensions at once and differentiated through the equation that it solves, so
that maximum likelihood works, too.

*Duality.* An IAF is the inverse of the MAF with the same parameters: ``dual`` turns either into the other.

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.flows import flow, iaf
  >>> from gm_jax.training.rules import descent
  >>> x = jax.random.normal(jax.random.key(0), (200, 2)) * jax.numpy.array([0.1, 1.0])
  >>> algorithm = descent(*flow.objective(iaf.iaf(2, 2, (8,))), optax.adam(0.02))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(150):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.7)  # the entropy is 0.54 nats
  True
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.base import Array, Key
from gm_jax.flows import maf
from gm_jax.flows.flow import Flow
from gm_jax.flows.layers import Inverted
from gm_jax.flows.scalar import AFFINE
from gm_jax.likelihoods import log_normal


def iaf(
  num_dimensions: int,
  num_layers: int = 5,
  hidden_sizes: Sequence[int] = (100, 100),
  *,
  transform: Callable = AFFINE,
  activation: Callable[[Array], Array] = nn.relu,
  context_size: int = 0,
) -> Flow:
  """IAF.

  Args:
    num_dimensions: D.
    num_layers: autoregressive layers, of alternating order.
    hidden_sizes: of each masked network, D - 1 units or more a layer.
    transform: of a dimension.
    activation: of the networks.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if a hidden layer is too narrow, or there are no layers.
  """
  settings = {'transform': transform, 'activation': activation, 'context_size': context_size}
  return dual(maf.maf(num_dimensions, num_layers, hidden_sizes, batch_norm=False, **settings))


def dual(module: Flow) -> Flow:
  """The flow whose map is the inverse of another's, with the same parameters; the noise is standard normal.

  Raises:
    ValueError: if the noise of the flow has parameters of its own, which the dual would not have.
  """
  if module.base is not None:
    raise ValueError(f'base={module.base}: the dual flow starts from standard normal noise, so give base=None')
  layers = module.layers.original if isinstance(module.layers, Inverted) else Inverted(module.layers)
  return Flow(module.num_dimensions, layers, context_size=module.context_size)


@flax.struct.dataclass
class FlowGaussian:
  """N(mean, diag(scale^2)) pushed through a flow that sees features, as a distribution of latent variables."""

  start: Array  # [..., M], the mean before the flow
  scale: Array  # [..., M]
  features: Array  # [..., C]
  variables: Any  # of the flow
  flow: Flow = flax.struct.field(pytree_node=False)

  def _call(self, method, z):
    features = jnp.broadcast_to(self.features, (*z.shape[:-1], self.features.shape[-1]))
    return self.flow.apply(self.variables, z, context=features, method=method)

  @property
  def mean(self) -> Array:
    """Where the mean before the flow goes, ``[..., M]``: the mean itself has no formula."""
    return self._call('forward', self.start)

  def sample_and_log_prob(self, key: Key, num: int) -> tuple[Array, Array]:
    """``[num, ..., M]`` draws, differentiable, and their log-densities ``[num, ...]``, by one pass of each layer."""
    noise = jax.random.normal(key, (num, *self.start.shape), self.start.dtype)
    z, log_det = self._call('forward_and_log_det', self.start + self.scale * noise)
    return z, (log_normal(noise) - jnp.log(self.scale)).sum(-1) - log_det

  def log_prob(self, z: Array) -> Array:
    """The log-density in nats, ``[..., M] -> [...]``, by inversion."""
    z = jnp.broadcast_to(z, jnp.broadcast_shapes(z.shape, self.start.shape))
    u, log_det = self._call('inverse_and_log_det', z)
    return log_normal(u, self.start, self.scale).sum(-1) + log_det


class Posterior(nn.Module):
  """An IAF posterior of a variational autoencoder: M means, M log-scales and C features, as a ``FlowGaussian``.

  The features h come from the encoder and enter every masked network, as in the paper. At the start the flow is the
  identity, and the posterior a diagonal Gaussian.

  Attributes:
    num_latents: M.
    num_layers: of the flow.
    hidden_sizes: of its networks.
    num_features: C.
  """

  num_latents: int
  num_layers: int = 2
  hidden_sizes: Sequence[int] = (64,)
  num_features: int = 32

  def setup(self):
    """The flow."""
    self.flow = iaf(
      self.num_latents, self.num_layers, self.hidden_sizes, activation=nn.tanh, context_size=self.num_features
    )

  def size(self, num_latents: int) -> int:
    """Outputs that the encoder must have."""
    return 2 * num_latents + self.num_features

  def __call__(self, outputs: Array) -> FlowGaussian:
    """``[..., size] -> distribution``."""
    start, log_scale, features = jnp.split(outputs, (self.num_latents, 2 * self.num_latents), axis=-1)
    if self.is_initializing():
      self.flow.forward(start, context=features)
    flow, variables = self.flow.unbind()
    return FlowGaussian(start, jnp.exp(log_scale), features, variables, flow)
