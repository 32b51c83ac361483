"""NICE: non-linear independent components estimation (Dinh, Krueger & Bengio 2015).

Additive couplings, between which even and odd dimensions change roles, and a learnt scale of each dimension::

  z_a = x_a,  z_b = x_b - m(x_a)        ...        z = exp(s) * h

The couplings keep volumes, so the determinant of the whole map is the product of the scales, whatever x is. The noise
is logistic, or normal.

Example, maximum likelihood in four lines:
  >>> import jax, optax
  >>> from gm_jax.base import Batch
  >>> from gm_jax.flows import flow, nice
  >>> from gm_jax.training.rules import descent
  >>> x = jax.random.normal(jax.random.key(0), (200, 2)) * jax.numpy.array([0.1, 1.0])
  >>> algorithm = descent(*flow.objective(nice.nice(2, 2, (8,), noise='normal')), optax.adam(0.05))
  >>> state, step = algorithm.init(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(150):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['loss'] < 0.7)  # the entropy is 0.54 nats
  True
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import numpy as np

from gm_jax.base import Array
from gm_jax.flows import bijectors, coupling, normalisation
from gm_jax.flows.flow import Flow, Noise
from gm_jax.flows.layers import Constant, Inverted, Scanned, Sequential
from gm_jax.flows.scalar import Additive


def nice(
  num_dimensions: int,
  num_layers: int = 4,
  hidden_sizes: Sequence[int] = (1000,) * 5,
  *,
  activation: Callable[[Array], Array] = nn.relu,
  noise: str = 'logistic',
  context_size: int = 0,
) -> Flow:
  """NICE; the defaults are those of the paper for MNIST.

  Args:
    num_dimensions: D, 2 or more.
    num_layers: couplings.
    hidden_sizes: of the network m of each coupling.
    activation: of the networks.
    noise: ``'logistic'`` or ``'normal'``.
    context_size: number of features or classes that the flow is conditioned on.

  Raises:
    ValueError: if there are fewer than two dimensions, no layers, or the noise is unknown.
  """
  layer = coupling.Coupling(num_dimensions, Additive(), hidden_sizes, activation)
  couplings = Scanned(coupling.step(layer, num_dimensions, batch_norm=False), num_layers)
  even_first = Constant(bijectors.Permutation(np.argsort(np.arange(num_dimensions) % 2, kind='stable')))
  layers = Sequential([normalisation.Scale(num_dimensions), couplings, Inverted(even_first)])
  return Flow(num_dimensions, layers, Noise(num_dimensions, noise), context_size)
