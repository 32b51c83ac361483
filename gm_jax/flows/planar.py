"""Planar and radial flows (Rezende & Mohamed 2015, Variational inference with normalizing flows).

  planar   x = z + u tanh(w^T z + b)                  radial   x = z + beta (z - c) / (alpha + |z - c|)

Noise goes through K such layers. Their log-dets are cheap from noise to data, as variational inference needs them: a
flow is fitted to an energy U, p(x) proportional to exp(-U(x)), by the reverse divergence, from its own samples::

  KL(q || p) - log Z = E_z [log q(f(z)) + U(f(z))]

``ENERGIES`` are the paper's four in the plane. The inverse of a planar layer is a scalar equation, that of a radial one
a quadratic equation, so maximum likelihood on data works, too.

Example, a fit to an energy in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.flows import planar
  >>> from gm_jax.training.rules import descent
  >>> energy = lambda x: 0.5 * jax.numpy.sum((x - 1) ** 2, axis=-1)
  >>> algorithm = descent(*planar.variational(planar.planar(2, 4), energy, num_samples=100), optax.adam(0.05))
  >>> nothing = Batch(jax.numpy.zeros((1, 2)))
  >>> state, step = algorithm.init(jax.random.key(0), nothing), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, nothing)
  >>> bool(abs(metrics['loss'] + 1.8379) < 0.2)  # the least value is -log Z = -log 2 pi
  True
"""

from collections.abc import Callable

import distrax
import flax.linen as nn
import jax.numpy as jnp

from gm_jax.base import Array, Extra, Loss, bind, pure
from gm_jax.flows import bijectors
from gm_jax.flows.flow import Flow
from gm_jax.flows.layers import Layer, Scanned


class PlanarLayer(Layer):
  """A planar layer; with a context its parameters are an affine function of it."""

  num_dimensions: int

  @nn.compact
  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    w, u, b = _parameters(self, {'w': (self.num_dimensions,), 'u': (self.num_dimensions,), 'b': ()}, context)
    return bijectors.Planar(w, u, b)


class RadialLayer(Layer):
  """A radial layer; with a context its parameters are an affine function of it."""

  num_dimensions: int

  @nn.compact
  def bijector(self, context: Array | None = None) -> distrax.Bijector:
    """The map from noise to data."""
    centre, alpha, beta = _parameters(self, {'centre': (self.num_dimensions,), 'alpha': (), 'beta': ()}, context)
    return bijectors.Radial(centre, alpha, beta)


def _parameters(layer, shapes, context):
  """Parameters by name; to each a linear function of the context is added."""
  values = [layer.param(name, nn.initializers.normal(0.1), shape) for name, shape in shapes.items()]
  if context is None:
    return values
  given = [nn.Dense(shape[0] if shape else 1, use_bias=False)(context) for shape in shapes.values()]
  return [value + (more if value.ndim else more[..., 0]) for value, more in zip(values, given, strict=True)]


KINDS = {'planar': PlanarLayer, 'radial': RadialLayer}


def planar(num_dimensions: int, num_layers: int = 8, *, kind: str = 'planar', context_size: int = 0) -> Flow:
  """A planar or a radial flow.

  Args:
    num_dimensions: D.
    num_layers: K.
    kind: ``'planar'`` or ``'radial'``.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if the kind is unknown, or there are no layers.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r}: choose one of {", ".join(map(repr, KINDS))}')
  return Flow(num_dimensions, Scanned(KINDS[kind](num_dimensions), num_layers), context_size=context_size)


def variational(module: Flow, energy: Callable[[Array], Array], num_samples: int) -> tuple[Callable, Loss]:
  """Initialisation and loss for ``descent``: KL(q || p) - log Z of a flow q to p = exp(-energy) / Z, in nats.

  The batch of data is not looked at, beyond its shape.

  Args:
    module: a flow without a context.
    energy: ``[..., D] -> [...]``, in nats.
    num_samples: of the flow in each step.
  """

  def loss(params, key, batch, state):
    x, log_q = propose(params, key, num_samples)
    return jnp.mean(log_q + energy(x)), Extra()

  propose = bind(module, 'sample_and_log_prob')
  return pure(module).init, loss


def _waves(x):
  return jnp.sin(jnp.pi * x / 2), 3 * jnp.exp(-0.5 * ((x - 1) / 0.6) ** 2), 3 / (1 + jnp.exp(-(x - 1) / 0.3))


def ring(x: Array) -> Array:
  """U_1: a ring of radius 2 with two humps."""
  radius = jnp.sqrt(jnp.sum(x**2, axis=-1) + 1e-12)
  humps = [-0.5 * ((x[..., 0] + centre) / 0.6) ** 2 for centre in (-2, 2)]
  return 0.5 * ((radius - 2) / 0.4) ** 2 - jnp.logaddexp(*humps)


def wave(x: Array) -> Array:
  """U_2: a band along a sine. The paper leaves it unbounded; a weak wall at |x_1| > 4 makes it a density."""
  first, second = x[..., 0], x[..., 1]
  return 0.5 * ((second - _waves(first)[0]) / 0.4) ** 2 + _wall(first)


def split_wave(x: Array) -> Array:
  """U_3: the band divides in two, by a hump."""
  first, second = x[..., 0], x[..., 1]
  middle, hump, _ = _waves(first)
  bands = -0.5 * ((second - middle) / 0.35) ** 2, -0.5 * ((second - middle + hump) / 0.35) ** 2
  return -jnp.logaddexp(*bands) + _wall(first)


def forked_wave(x: Array) -> Array:
  """U_4: the band divides in two, by a step."""
  first, second = x[..., 0], x[..., 1]
  middle, _, rise = _waves(first)
  bands = -0.5 * ((second - middle) / 0.4) ** 2, -0.5 * ((second - middle + rise) / 0.35) ** 2
  return -jnp.logaddexp(*bands) + _wall(first)


def _wall(x):
  return 0.5 * (jnp.maximum(jnp.abs(x) - 4, 0) / 0.3) ** 2


ENERGIES = {'ring': ring, 'wave': wave, 'split_wave': split_wave, 'forked_wave': forked_wave}
