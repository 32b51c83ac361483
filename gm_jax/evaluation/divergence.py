"""The neural-net divergence: how well a critic of bounded capacity, trained for a set time, tells two sets apart.

A critic f learns, with a gradient penalty on lines between the sets, to be high on real examples and low on samples::

  maximise  mean f(real) - mean f(fake) - penalty E (|grad f(z)| - 1)^2,      z = u real + (1 - u) fake
  NND = mean f(real) - mean f(fake)

With real examples that the *generator* has never seen, a generator that repeats its training set is told from them as
easily as that set is, so memorising is punished where Fréchet distances praise it. By design the critic is read on the
examples that it was trained on. It has no absolute scale: compare it with real training examples in the place of the
samples (``against``).

Reference: Thanh-Tung & Tran, Toward a generalization metric for deep generative models (2020); Gulrajani et al.,
Improved training of Wasserstein GANs (2017), for the penalty.

Example:
  >>> import jax
  >>> real, fake = jax.random.normal(jax.random.key(0), (2, 200, 2))
  >>> options = dict(hidden_sizes=(16,), num_steps=300, learning_rate=0.01)
  >>> divergence = jax.jit(lambda x, y: neural_net_divergence(jax.random.key(1), x, y, **options).value)
  >>> float(divergence(real, fake + 3.0)) > 4 * float(divergence(real, fake))
  True
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax.base import Array, Batch, Extra, Key
from gm_jax.data import batches
from gm_jax.evaluation import critics
from gm_jax.evaluation.sample_score import SampleScore, check_features, sample_score
from gm_jax.nn.mlp import MLP
from gm_jax.training import rules


def neural_net_divergence(
  key: Key,
  real: Array,
  fake: Array,
  *,
  hidden_sizes: Sequence[int] = (512, 512, 512),
  num_steps: int = 20_000,
  batch_size: int = 128,
  penalty: float = 10.0,
  learning_rate: float = 1e-4,
) -> SampleScore:
  """NND; the defaults are those of the published numbers on MNIST with pixels in [-1, 1].

  Args:
    key: of the critic and the order of examples.
    real: [N, D] examples that the sampler has not seen.
    fake: [M, D] samples; M may differ from N.
    hidden_sizes: of the critic, leaky rectifiers with slope 0.01 between them.
    num_steps: updates by Adam.
    batch_size: examples of either kind in an update; each set is gone through in epochs of its own.
    penalty: weight of the gradient penalty.
    learning_rate: of Adam.

  Returns:
    The divergence. Its error is over the examples with the critic held fixed, not over trainings; its null is NaN.

  Raises:
    ValueError: if a set has fewer examples than a batch; and see ``check_features``.
  """
  real, fake = check_features(real=real, fake=fake)
  if batch_size > min(len(real), len(fake)):
    raise ValueError(f'batch_size={batch_size} is larger than a set of {min(len(real), len(fake))} examples')
  network = MLP(
    tuple(hidden_sizes), 1, activation=functools.partial(nn.leaky_relu, negative_slope=0.01),
    kernel_init=nn.initializers.normal(0.02),
  )  # fmt: skip
  critic = lambda params, x: network.apply({'params': params}, x)[..., 0]
  order_key, train_key = jax.random.split(key)
  orders = [
    batches.batch_indices(k, 0, num_steps, len(x), batch_size)
    for k, x in zip(jax.random.split(order_key), (real, fake), strict=True)
  ]

  def batch(step, key):
    del key
    return Batch(jnp.stack([real[orders[0][step]], fake[orders[1][step]]]))

  def loss(params, key, batch, state):
    del state
    values = critic(params, batch.x).mean(1)
    share = jax.random.uniform(key, (batch_size, 1))
    between = share * batch.x[0] + (1 - share) * batch.x[1]
    slope = jax.grad(lambda z: critic(params, z).sum())(between)
    # The square root has no gradient at 0, where a fresh critic may be.
    norm = jnp.sqrt(jnp.sum(slope**2, 1) + 1e-12)
    return values[1] - values[0] + penalty * jnp.mean((norm - 1) ** 2), Extra()

  init = lambda key, batch: network.init(key, batch.x)['params']
  algorithm = rules.descent(init, loss, optax.adam(learning_rate))
  params = critics.train(train_key, algorithm, batch, num_steps).params
  of_real, of_fake = critic(params, real), critic(params, fake)
  stderr = jnp.sqrt(of_real.var(ddof=1) / len(real) + of_fake.var(ddof=1) / len(fake))
  return sample_score(of_real.mean() - of_fake.mean(), stderr)
