"""The variational autoencoder of multichannel time series, and its causal variant, which tells what drives what.

A code z of the whole series starts a recurrent decoder that puts out each x_t given all before it (Fabius & van
Amersfoort 2015; Bayer & Osendorfer 2014), and a recurrent encoder reads the series backwards, towards its start::

  p(x, z) = N(z; 0, I) prod_t p(x_t | x_<t, z)          h_1 = tanh(A z),   h_(t+1) = GRU(h_t, x_t),   x_t ~ head(C h_t)

In the causal variant (Li, Yu & Principe 2023, after the neural Granger causality of Tank et al. 2022) each channel i
has a GRU of its own. Channel j enters it by a block of input weights W_ij alone; where that block is zero, j does not
cause i in the sense of Granger, other than through z. A group lasso makes whole blocks zero, by its proximal step after
each step of the optimiser::

  W_ij <- W_ij max(0, 1 - threshold / |W_ij|)

An example is a vector ``[..., T D]``, time by time. Attributes and functions speak of T steps and D channels.

Example, a switch that turns at every step:
  >>> import jax, optax
  >>> from gm_jax.autoencoders import recurrent, vae
  >>> from gm_jax.base import Batch
  >>> from gm_jax.training.rules import descent
  >>> x = jax.numpy.tile(jax.numpy.array([[0.0, 1.0] * 3, [1.0, 0.0] * 3]), (50, 1))
  >>> model = recurrent.SequenceVAE(num_steps=6, num_channels=1, num_latents=1, num_hidden=8)
  >>> algorithm = descent(*vae.objective(model), optax.adam(0.03))
  >>> state, step = jax.jit(algorithm.init)(jax.random.key(0), Batch(x)), jax.jit(algorithm.step)
  >>> for i in range(200):
  ...   state, metrics = step(jax.random.key(i), state, Batch(x))
  >>> bool(metrics['elbo'] > -1.0)  # two series have log 1/2 = -0.69 each; before learning it was 6 log 1/2 = -4.16
  True
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax.autoencoders import latents
from gm_jax.autoencoders.latent_variables import ModelWithTerms, Terms
from gm_jax.autoencoders.vae import BERNOULLI
from gm_jax.base import Array, Key, refuse_context
from gm_jax.likelihoods import Head


class GatedUnits(nn.Module):
  """G gated recurrent networks of H units side by side that see the same inputs and not each other (Cho et al. 2014).

  Attributes:
    num_networks: G.
    num_hidden: H.
    num_inputs: D.
  """

  num_networks: int
  num_hidden: int
  num_inputs: int

  def setup(self):
    """Weights of reset gate, update gate and candidate, in this order."""
    kernel = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
    size = 3 * self.num_hidden
    self.input_kernel = self.param('input_kernel', kernel, (self.num_networks, self.num_inputs, size))
    self.recurrent_kernel = self.param('recurrent_kernel', kernel, (self.num_networks, self.num_hidden, size))
    self.bias = self.param('bias', nn.initializers.zeros, (self.num_networks, size))

  def project(self, x: Array) -> Array:
    """What inputs do to all gates, which needs no state: ``[..., D] -> [..., G, 3 H]``."""
    return jnp.einsum('...d,gdk->...gk', x, self.input_kernel) + self.bias

  def __call__(self, h: Array, projected: Array) -> Array:
    """The next state: ``[..., G, H], [..., G, 3 H] -> [..., G, H]``."""
    return gated_step(self.recurrent_kernel, h, projected)


def gated_step(recurrent_kernel: Array, h: Array, projected: Array) -> Array:
  """The step of ``GatedUnits``, as a pure function for use inside a scan."""
  recurrent = jnp.einsum('...gh,ghk->...gk', h, recurrent_kernel)
  (reset, update, candidate), (r, u, n) = (jnp.split(part, 3, axis=-1) for part in (projected, recurrent))
  gate = nn.sigmoid(update + u)
  return gate * h + (1 - gate) * jnp.tanh(candidate + nn.sigmoid(reset + r) * n)


class SequenceVAE(ModelWithTerms):
  """A VAE of series of T steps in D channels.

  Attributes:
    num_steps: T.
    num_channels: D.
    num_latents: M.
    num_hidden: units of the encoder, and of the decoder or, if causal, of each of its D networks.
    head: the distribution of one channel at one step given its outputs.
    causal: whether each channel has a decoder of its own.
    gibbs_steps: sweeps of ``complete``.
  """

  num_steps: int
  num_channels: int
  num_latents: int
  num_hidden: int = 64
  head: Head = BERNOULLI
  causal: bool = False
  gibbs_steps: int = 20

  def __post_init__(self):
    for name in ('num_steps', 'num_channels', 'num_latents', 'num_hidden', 'gibbs_steps'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)}: must be 1 or more')
    super().__post_init__()

  def setup(self):
    """Encoder, decoder, and what joins them to z and x."""
    networks = self.num_channels if self.causal else 1
    outputs = self.num_channels * self.head.size // networks
    self.encoder = GatedUnits(1, self.num_hidden, self.num_channels)
    self.posterior = nn.Dense(2 * self.num_latents)
    self.start = nn.Dense(networks * self.num_hidden)
    self.decoder = GatedUnits(networks, self.num_hidden, self.num_channels)
    kernel = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
    self.readout = self.param('readout', kernel, (networks, self.num_hidden, outputs))
    self.readout_bias = self.param('readout_bias', nn.initializers.zeros, (self.num_channels, self.head.size))

  # Series as arrays, time first.

  def _series(self, x: Array) -> Array:
    if x.shape[-1] != self.num_steps * self.num_channels:
      raise ValueError(
        f'x.shape={x.shape}: series of num_steps={self.num_steps} times num_channels={self.num_channels} are vectors '
        f'of {self.num_steps * self.num_channels}'
      )
    return jnp.moveaxis(x.reshape(*x.shape[:-1], self.num_steps, self.num_channels), -2, 0)

  def _vector(self, series: Array) -> Array:
    return jnp.moveaxis(series, 0, -2).reshape(*series.shape[1:-1], -1)

  def _first_state(self, z: Array) -> Array:
    return jnp.tanh(self.start(z)).reshape(*z.shape[:-1], -1, self.num_hidden)

  def _read(self, h: Array) -> Array:
    """What the head makes p(x_t | x_<t, z) from: ``[..., G, H] -> [..., D, head.size]``."""
    outputs = jnp.einsum('...gh,gho->...go', h, self.readout)
    return outputs.reshape(*h.shape[:-2], self.num_channels, self.head.size) + self.readout_bias

  # The pieces of a model with latent variables.

  def posterior_given(self, x: Array, *, context=None) -> latents.DiagonalGaussian:
    """q(z | x): ``x [..., T D]``."""
    refuse_context(context)
    projected = self.encoder.project(self._series(x))
    kernel = self.encoder.recurrent_kernel
    step = lambda h, inputs: (gated_step(kernel, h, inputs), None)
    h, _ = jax.lax.scan(step, jnp.zeros((*x.shape[:-1], 1, self.num_hidden)), projected, reverse=True)
    return latents.Diagonal()(self.posterior(h[..., 0, :]))

  def propose(self, key: Key, x: Array, num: int, *, context=None) -> tuple[Array, Array]:
    """Draws of q(z | x), ``[num, ..., M]``, with their log q(z | x), ``[num, ...]``."""
    return self.posterior_given(x, context=context).sample_and_log_prob(key, num)

  def log_posterior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log q(z | x) in nats: ``[..., T D], [num, ..., M] -> [num, ...]``."""
    return self.posterior_given(x, context=context).log_prob(z)

  def log_prior(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(z) in nats: ``[num, ..., M] -> [num, ...]``."""
    refuse_context(context)
    return latents.standard_normal(self.num_latents).log_prob(z)

  def sample_prior(self, key: Key, num: int, *, context=None) -> Array:
    """Draws of p(z), ``[num, M]``."""
    refuse_context(context)
    return latents.standard_normal(self.num_latents).sample_and_log_prob(key, num)[0]

  def outputs_along(self, x: Array, z: Array) -> Array:
    """What the head makes each p(x_t | x_<t, z) from: ``[..., T D], [num, ..., M] -> [T, num, ..., D, head.size]``."""
    series = self._series(x)
    projected, kernel = self.decoder.project(series[:-1]), self.decoder.recurrent_kernel
    h = self._first_state(z)
    h = jnp.broadcast_to(h, (*jnp.broadcast_shapes(h.shape[:-2], x.shape[:-1]), *h.shape[-2:]))

    def step(h, inputs):
      h = gated_step(kernel, h, inputs)
      return h, h

    return self._read(jnp.concatenate([h[None], jax.lax.scan(step, h, projected)[1]]))

  def log_likelihood(self, x: Array, z: Array, *, context=None) -> Array:
    """Log p(x | z) in nats: ``[..., T D], [num, ..., M] -> [num, ...]``."""
    refuse_context(context)
    outputs, series = self.outputs_along(x, z), self._series(x)
    series = series.reshape(len(series), *(1,) * (outputs.ndim - 1 - series.ndim), *series.shape[1:])
    return self.head.log_prob(outputs, jnp.broadcast_to(series, outputs.shape[:-1])).sum((0, -1))

  def _roll(self, z: Array, put_out: Callable, inputs) -> Array:
    """Runs the decoder on its own: ``put_out(head's outputs, inputs_t) -> x_t``."""
    projection, bias, kernel = self.decoder.input_kernel, self.decoder.bias, self.decoder.recurrent_kernel

    def step(h, one):
      x = put_out(self._read(h), one)
      return gated_step(kernel, h, jnp.einsum('...d,gdk->...gk', x, projection) + bias), x

    return self._vector(jax.lax.scan(step, self._first_state(z), inputs, length=self.num_steps)[1])

  def decode(self, z: Array, *, context=None) -> Array:
    """The series that goes on from its own means: ``[..., M] -> [..., T D]``."""
    refuse_context(context)
    return self._roll(z, lambda outputs, _: self.head.mean(outputs), None)

  def draw(self, key: Key, z: Array, *, context=None) -> Array:
    """A draw of p(x | z): ``[..., M] -> [..., T D]``."""
    refuse_context(context)
    return self._roll(z, lambda outputs, key: self.head.sample(key, outputs), jax.random.split(key, self.num_steps))

  def sweep(self, key: Key, x: Array, observed: Array, *, context=None) -> Array:
    """One draw of z from q(z | x), and of each x_t that is not observed given z and all before it.

    Where what is observed comes first, this is the exact conditional given z: a forecast.
    """
    posterior_key, key = jax.random.split(key)
    z = self.propose(posterior_key, x, 1, context=context)[0][0]

    def put_out(outputs, one):
      key, x, observed = one
      return jnp.where(observed, x, self.head.sample(key, outputs))

    mask = self._series(jnp.broadcast_to(observed, x.shape))
    return self._roll(z, put_out, (jax.random.split(key, self.num_steps), self._series(x), mask))

  # The bound, the code, and the causes.

  def terms(self, key: Key, x: Array, *, context=None, estimator: str = 'analytic') -> Terms:
    """The terms of the ELBO at one draw of z; the KL is a formula for each dimension of z.

    Raises:
      ValueError: for an estimator other than ``'analytic'``.
    """
    if estimator != 'analytic':
      raise ValueError(f"estimator={estimator!r}: the KL of this model is a formula, give 'analytic'")
    q = self.posterior_given(x, context=context)
    z = q.sample_and_log_prob(key, 1)[0]
    return Terms(self.log_likelihood(x, z)[0], latents.divergence(q, latents.standard_normal(self.num_latents)))

  def encode(self, x: Array, *, context=None) -> Array:
    """The posterior mean: ``[..., T D] -> [..., M]``."""
    return self.posterior_given(x, context=context).mean

  def influence(self) -> Array:
    """|W_ij|, how channel j enters the decoder of channel i: ``[D, D]``; exactly 0 where the group lasso cut it.

    Raises:
      ValueError: if the model is not causal: then all channels share one decoder.
    """
    if not self.causal:
      raise ValueError('causal=False: only a causal model has a decoder for each channel')
    return jnp.linalg.norm(self.decoder.input_kernel, axis=-1)


class GroupLassoState(NamedTuple):
  """The steps made, and the memory of the optimiser within."""

  step: Array
  inner: optax.OptState


def group_lasso(
  optimizer: optax.GradientTransformation, threshold: float | Callable[[Array], Array]
) -> optax.GradientTransformation:
  """An optimiser whose every step is followed by the proximal step of the group lasso on the decoder's input weights.

  With plain gradient descent this is ISTA. With Adam, whose steps are gradients in units of their own noise, a block
  stays at zero where no gradient stands out from that noise: the threshold is then a share of the learning rate.

  Args:
    optimizer: any optax transformation.
    threshold: by how much a step shortens each block |W_ij|, or a schedule of the step; let it fall with the learning
      rate.

  Raises:
    ValueError: if ``threshold`` is a negative number.
  """
  if not callable(threshold) and not threshold >= 0:
    raise ValueError(f'threshold={threshold}: must be 0 or more')

  def update(updates, state, params):
    updates, inner = optimizer.update(updates, state.inner, params)
    amount = threshold(state.step) if callable(threshold) else threshold
    moved = params['decoder']['input_kernel'] + updates['decoder']['input_kernel']
    norm = jnp.linalg.norm(moved, axis=-1, keepdims=True)
    shrunk = moved * jnp.maximum(0, 1 - amount / jnp.maximum(norm, 1e-12))
    kernel = shrunk - params['decoder']['input_kernel']
    updates = {**updates, 'decoder': {**updates['decoder'], 'input_kernel': kernel}}
    return updates, GroupLassoState(state.step + 1, inner)

  return optax.GradientTransformation(lambda params: GroupLassoState(jnp.int32(0), optimizer.init(params)), update)
