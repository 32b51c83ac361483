"""The table of all models: for each a tiny case, and what is known about it. The laws run over its rows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.adversarial import conditional as conditional_gan
from gm_jax.adversarial import dcgan, gan, players, tricks, wgan
from gm_jax.autoencoders import audio, autoencoder, conditional, hierarchical, iwae, latents, recurrent, vae
from gm_jax.autoregressive import deep_nade, docnade, fvsbn, made, made_degrees, masde, nade, rnade, structure
from gm_jax.base import Algorithm, Batch, Model, bind, pure
from gm_jax.boltzmann import contrastive, partition, rbm, tempering, visible
from gm_jax.density import factor_analysis, gaussian, histogram, kernel, mixture, mixture_discrete, mixture_gaussian
from gm_jax.flows import flow, glow, iaf, maf, nice, planar, realnvp
from gm_jax.likelihoods import Categorical, Gaussian, MixtureOfGaussians
from gm_jax.training import rules


class Row(NamedTuple):
  """A model with one way of learning it."""

  name: str
  model: Model
  make: Callable[[str | None], Algorithm] | None  # (axis name of devices) -> algorithm; None if fitted in closed form
  batch: Batch  # of an even number of examples
  states: np.ndarray | None = None  # all values of x, where they can be counted
  grid: tuple[np.ndarray, float] | None = None  # points and the volume of a cell, where x is real and in the plane
  deterministic: bool = False  # whether a step draws no random numbers
  fixed: tuple[str, ...] = ()  # parameters that are chosen at the start and stay
  num_steps: int = 60
  exact: Callable | None = None  # log_prob by enumeration or quadrature, for a model that has a bound only
  conditionals: Callable | None = None  # (params, x [D], context=) -> [D, ...]: what p(x_d | earlier) is made of
  ordering: tuple[int, ...] | None = None  # of the dimensions of an autoregressive model; 0, 1, ... if not given
  bijector: Callable | None = None  # (params, context=) -> a distrax bijector from noise to x

  @property
  def log_prob(self) -> Callable | None:
    """The exact log-likelihood, by the model or for it; None if it cannot be had."""
    return self.exact or self.model.log_prob


def bits(num: int) -> np.ndarray:
  """All states of ``num`` binary units."""
  return ((np.arange(2**num)[:, None] >> np.arange(num)) & 1).astype(np.float32)


def square(low: float, high: float, num: int) -> tuple[np.ndarray, float]:
  """A grid over a square, and the area of a cell."""
  side = np.linspace(low, high, num, dtype=np.float32)
  points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
  return points, float((side[1] - side[0]) ** 2)


PATTERNS = Batch(np.tile(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.float32), (8, 1)))
CATEGORIES = Batch(np.tile(np.array([[0, 2, 1], [1, 1, 1], [2, 0, 0]], np.float32), (8, 1)))
INTEGERS = Batch(CATEGORIES.x.astype(np.int32))
CLUSTERS = Batch(
  np.asarray(
    jax.random.normal(jax.random.key(0), (24, 2)) * 0.3 + jnp.tile(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), (12, 1))
  )
)


def cells(x: np.ndarray, num: int) -> tuple[np.ndarray, float]:
  """The middles of ``num`` cells a side over the range of the data, and the area of a cell."""
  low, high = x.min(0), x.max(0)
  sides = [a + (b - a) * (np.arange(num, dtype=np.float32) + 0.5) / num for a, b in zip(low, high, strict=True)]
  return np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2), float(np.prod((high - low) / num))


def learn(machine, negative, batch, learning_rate=0.1, **kwargs):
  """Descent for a Boltzmann machine."""

  def make(axis_name):
    return rules.descent(
      *contrastive.objective(machine, negative, data=batch.x, **kwargs), optax.sgd(learning_rate), axis_name=axis_name
    )

  return make


def fast(machine, batch):
  """Persistent chains with fast weights."""

  def make(axis_name):
    objective = contrastive.objective(machine, contrastive.persistent(num_chains=8), data=batch.x)
    return rules.descent(*objective, contrastive.fast_weights(optax.sgd(0.1), 0.05), axis_name=axis_name)

  return make


def em(model):
  """Expectation-maximisation for a model that has the two steps."""

  def make(axis_name):
    return rules.expectation_maximization(model.init, model.e_step, model.m_step, axis_name=axis_name)

  return make


def rows() -> list[Row]:
  """All rows."""
  binary = rbm.RBM(num_visible=4, num_hidden=3, burn_in=100, kernel_scale=0.3)
  real = visible.GaussianRBM(num_visible=2, num_hidden=2, burn_in=100, kernel_scale=0.3)
  category = visible.CategoricalRBM(num_visible=3, num_hidden=2, num_states=3, burn_in=100, kernel_scale=0.3)
  triples = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing='ij'), -1).reshape(-1, 3).astype(np.float32)
  base = partition.base_natural(binary, binary.init(jax.random.key(0), PATTERNS.x)['params'], PATTERNS.x)
  tempered = contrastive.tempered(8, tempering.ladder(3), base)
  machine = rbm.as_model(binary)
  return [
    Row('rbm, exact', machine, learn(binary, contrastive.exact(), PATTERNS), PATTERNS, bits(4), deterministic=True),
    Row('rbm, CD', machine, learn(binary, contrastive.divergence(2), PATTERNS, centered=False), PATTERNS, bits(4)),
    Row('rbm, PCD', machine, learn(binary, contrastive.persistent(8), PATTERNS), PATTERNS, bits(4)),
    Row('rbm, fast PCD', machine, fast(binary, PATTERNS), PATTERNS, bits(4)),
    Row('rbm, tempered', machine, learn(binary, tempered, PATTERNS), PATTERNS, bits(4)),
    Row(
      'gaussian rbm', rbm.as_model(real), learn(real, contrastive.divergence(1), CLUSTERS, 0.02), CLUSTERS,
      grid=square(-8, 8, 161),
    ),
    Row(
      'categorical rbm', rbm.as_model(category), learn(category, contrastive.persistent(8), CATEGORIES), CATEGORIES,
      triples,
    ),
    *density_rows(triples),
    *made_rows(triples),
    *rnade_rows(),
    *docnade_rows(triples),
    *nade_rows(triples),
    masde_row(),
    *autoencoder_rows(),
    *adversarial_rows(),
    *flow_rows(),
  ]  # fmt: skip


def density_rows(triples: np.ndarray) -> list[Row]:
  """Mixtures, factor analysis, and what is fitted in closed form."""
  plane = square(-8, 8, 321)
  triples, prior = triples.astype(np.int32), 0.02
  families = {
    'full': mixture_gaussian.Full(prior=prior),
    'tied': mixture_gaussian.Tied(prior=prior),
    'diagonal': mixture_gaussian.Diagonal(prior=prior),
    'spherical': mixture_gaussian.Spherical(prior=prior),
  }
  gaussians = {name: mixture.Mixture(family, 2, start='random') for name, family in families.items()}
  bernoulli = mixture.Mixture(mixture_discrete.Bernoulli(prior=prior), 2, start='random')
  categorical = mixture.Mixture(mixture_discrete.Categorical(3, prior=prior), 2, start='random')
  factors = factor_analysis.FactorAnalysis(1)
  return [
    *(
      Row(
        f'mixture of gaussians, {name}',
        one.model(),
        em(one),
        CLUSTERS,
        grid=plane,
        deterministic=True,
        fixed=('origin',),
      )
      for name, one in gaussians.items()
    ),
    Row('mixture of bernoullis', bernoulli.model(), em(bernoulli), PATTERNS, bits(4), deterministic=True),
    Row('mixture of categoricals', categorical.model(), em(categorical), INTEGERS, triples, deterministic=True),
    Row(
      'factor analysis',
      factors.model(),
      em(factors),
      CLUSTERS,
      grid=plane,
      deterministic=True,
      fixed=('origin', 'offset'),
    ),
    Row('gaussian', gaussian.gaussian(2), None, CLUSTERS, grid=plane),
    Row('bernoulli', gaussian.bernoulli(4), None, PATTERNS, bits(4)),
    Row('categorical', gaussian.categorical(3, 3), None, INTEGERS, triples),
    Row('kernel density', kernel.model(), None, CLUSTERS, grid=plane),
    Row('histogram', histogram.model(4), None, CLUSTERS, grid=cells(CLUSTERS.x, 40)),
  ]


def descend(init, loss, learning_rate=0.05):
  """Adam on a loss."""

  def make(axis_name):
    return rules.descent(init, loss, optax.adam(learning_rate), axis_name=axis_name)

  return make


def made_rows(triples: np.ndarray) -> list[Row]:
  """Masked autoencoders, one of them with a context and one an ensemble, and a fully visible belief net."""

  def row(name, module, batch, objective=None, ordering=None, masks=1, **kwargs):
    init, loss = objective or (pure(module).init, rules.likelihood_loss(pure(module).log_prob))
    kwargs.update({'conditionals': bind(module, 'conditionals'), 'ordering': ordering} if masks == 1 else {})
    return Row(name, pure(module), descend(init, loss, 0.02), batch, deterministic=True, **kwargs)

  def masked_row(name, degrees, batch, ordering=None, context_size=0, **kwargs):
    own = {key: kwargs.pop(key) for key in ('head', 'one_hot', 'direct') if key in kwargs}
    module = made.MADE(degrees, activation=jnp.tanh, context_size=context_size, **own)
    return row(name, module, batch, made.objective(module), ordering, degrees.num_masks, **kwargs)

  ordering, key = (2, 0, 3, 1), jax.random.key(0)
  labelled = PATTERNS._replace(context=np.arange(len(PATTERNS.x)) % 3)
  drawn = made_degrees.degrees(3, (4,), ordering='random', connectivity='random', num_masks=3, key=key)
  return [
    masked_row(
      'made', made_degrees.degrees(4, (5, 6), ordering=ordering), labelled, ordering, 3, direct=True, states=bits(4)
    ),
    masked_row('made, ensemble', drawn, CATEGORIES, head=Categorical(3), one_hot=True, states=triples),
    row('fvsbn', fvsbn.FVSBN(4, ordering), PATTERNS, ordering=ordering, states=bits(4)),
  ]


def rnade_rows() -> list[Row]:
  """Of one layer, and of two with a context."""

  def row(name, batch, **kwargs):
    module = rnade.RNADE(2, head=MixtureOfGaussians(2, min_scale=0.1), ordering=(1, 0), **kwargs)
    model = pure(module)
    make = descend(model.init, rules.likelihood_loss(model.log_prob), 0.01)
    return Row(
      name, model, make, batch, grid=square(-8, 8, 641), deterministic=True,
      conditionals=bind(module, 'conditionals'), ordering=(1, 0),
    )  # fmt: skip

  labelled = Batch(CLUSTERS.x, np.tile(np.array([0, 1], np.int32), 12))
  return [
    row('rnade', CLUSTERS, hidden_sizes=(12,)),
    row('rnade, deep, conditional', labelled, hidden_sizes=(12, 8), context_size=2),
  ]


def docnade_rows(triples: np.ndarray) -> list[Row]:
  """Both ways to put out words, the tree learnt from a part of the positions."""

  def row(output, num_positions):
    module = docnade.DocNADE(vocabulary_size=3, num_hidden=4, output=output, document_length=3)
    make = descend(*docnade.objective(module, num_positions))
    states = triples.astype(np.int32)
    return Row(f'docnade, {output}', pure(module), make, INTEGERS, states, deterministic=not num_positions)

  return [row('softmax', 0), row('tree', 2)]


def nade_rows(triples: np.ndarray) -> list[Row]:
  """NADE in several orderings and with either head, and DeepNADE as an ensemble."""
  mixed = (2, 0, 3, 1)
  labelled = Batch(PATTERNS.x, np.tile(np.array([0, 1, 1], np.int32), 8))
  bit_by_bit, tied = nade.NADE(4, 6), nade.NADE(4, 6, ordering=mixed, tied=True, context_size=2)
  classes = nade.NADE(3, 6, Categorical(3), ordering=(2, 0, 1))
  deep = deep_nade.DeepNADE(4, (8, 8), orderings=((0, 1, 2, 3), mixed))

  def make(loss, module):
    return descend(pure(module).init, loss(module), 0.02)

  def row(name, module, batch, states, ordering=None, **kwargs):
    return Row(name, pure(module), make(nade.loss, module), batch, states, ordering=ordering, **kwargs)

  given = lambda module: {'conditionals': bind(module, 'conditionals')}
  along = lambda params, x, **kwargs: bind(deep, 'conditionals')(params, x, ordering=jnp.array(mixed), **kwargs)
  return [
    row('nade', bit_by_bit, PATTERNS, bits(4), deterministic=True, **given(bit_by_bit)),
    row('nade, tied, with a context', tied, labelled, bits(4), mixed, **given(tied)),
    row('nade, categorical', classes, CATEGORIES, triples.astype(np.float32)),
    Row(
      'deep nade',
      pure(deep),
      make(deep_nade.loss, deep),
      PATTERNS,
      bits(4),
      conditionals=along,
      ordering=mixed,
      num_steps=120,
    ),
  ]


def masde_row() -> Row:
  """Along a chain, of which the patterns are an example."""
  module = masde.MASDE(structure.looking_back_blankets(structure.grid(1, 4), range(4)), (12,), activation=jnp.tanh)
  loss = rules.likelihood_loss(pure(module).log_prob)
  return Row('masde', pure(module), descend(pure(module).init, loss), PATTERNS, bits(4), deterministic=True)


def quadrature(module, num_latents: int = 1) -> Callable:
  """Log p(x) of a model with one latent dimension or two, or one in each of two layers: a sum over a grid of them."""
  log_joint, pair = bind(module, 'log_joint'), isinstance(module, iwae.TwoLayerVAE)
  dims = 2 if pair else num_latents
  side, width = np.linspace(-16, 16, 1601 if dims == 1 else 321, retstep=True)
  grid = np.stack(np.meshgrid(*[side] * dims), -1).reshape(-1, dims).astype(np.float32)
  log_cell = dims * np.log(width)  # in double precision: a difference of singles is 5e-5 off

  def log_prob(params, x, *, context=None):
    z = grid.reshape(-1, *(1,) * (x.ndim - 1), dims)
    log_p = log_joint(params, x, (z[..., :1], z[..., 1:]) if pair else z, context=context)
    return jax.nn.logsumexp(log_p, 0) + log_cell

  return log_prob


def autoencoder_rows() -> list[Row]:
  """Autoencoders whose latent variables can be summed over."""
  labels = Batch(PATTERNS.x, np.tile(np.arange(3), 8))
  plain = vae.mlp(4, 1, (8,))
  labelled = vae.mlp(
    4, 1, (8,), posterior=latents.FullCovariance(), prior=latents.MixturePrior(1, 2), context_size=3, gibbs_steps=3
  )
  two = iwae.two_layer_mlp(4, (1, 1), (6, 6))
  squeeze = autoencoder.mlp(4, 2, (6,))
  series = recurrent.SequenceVAE(2, 2, 1, num_hidden=4, causal=True, gibbs_steps=3)
  wave = audio.multiband(2, 1, 2, (6,), head=Gaussian(min_scale=0.3))
  deep = hierarchical.HierarchicalVAE(4, 1, 2, width=6, gibbs_steps=3)
  given = conditional.mlp(4, 1, 3, (6,), gibbs_steps=3)
  return [
    Row('vae', pure(plain), descend(*vae.objective(plain), 0.02), PATTERNS, bits(4), exact=quadrature(plain)),
    Row(
      'vae, conditional', pure(labelled), descend(*vae.objective(labelled, estimator='stl'), 0.02), labels,
      bits(4), exact=quadrature(labelled),
    ),
    Row(
      'iwae, two layers', iwae.as_model(two, 5), descend(*iwae.objective(two, 5, gradient='dreg'), 0.02), PATTERNS,
      bits(4), exact=quadrature(two),
    ),
    Row(
      'vae, hierarchical', pure(deep), descend(*vae.objective(deep), 0.02), PATTERNS, bits(4), exact=quadrature(deep, 2)
    ),
    Row(
      'vae, prior of y', pure(given), descend(*conditional.objective(given, alpha=0.8), 0.02), labels, bits(4),
      exact=quadrature(given),
    ),
    Row(
      'vae, of series', pure(series), descend(*vae.objective(series), 0.02), PATTERNS, bits(4), exact=quadrature(series)
    ),
    Row(
      'vae, of waves', pure(wave), descend(*vae.objective(wave), 0.02), CLUSTERS, grid=square(-8, 8, 81),
      exact=quadrature(wave),
    ),
    Row('autoencoder', pure(squeeze), descend(*autoencoder.objective(squeeze), 0.02), PATTERNS, deterministic=True),
  ]  # fmt: skip


def adversarial_rows() -> list[Row]:
  """A game with all tricks that go together, a Wasserstein game, and a conditional one of images."""

  def row(name, module, batch, game, critic_steps=1, decay=None, **settings):
    def make(axis_name):
      algorithm = rules.adversarial(
        *gan.objective(module, game, **settings), optax.adam(0.01), optax.adam(0.01), critic_steps=critic_steps,
        axis_name=axis_name,
      )  # fmt: skip
      return rules.averaged(algorithm, decay) if decay else algorithm

    return Row(name, gan.as_model(module), make, batch, num_steps=20)

  smoothed = tricks.smoothed(gan.GAMES['non_saturating'], 0.9)
  noise = optax.linear_schedule(0.1, 0.0, 10)
  generator = players.MLPGenerator((5,), (2,), normalisation='virtual')
  plain = gan.GAN(generator, players.MLPCritic((6,), maxout=2, num_kernels=2), 2, packing=2)
  critic = players.MLPCritic((6,), output_bias=False, dense=wgan.SpectralDense)
  wasserstein = gan.GAN(players.MLPGenerator((5,), (2,)), critic, 2)
  stripes = np.tile(np.array([[-1, 1]], np.float32), (24, 4, 2)).reshape(24, 4, 4, 1)
  labels = np.arange(24) % 2
  images = Batch(np.where(labels[:, None, None, None] == 0, stripes, -stripes), labels)
  pair = conditional_gan.Joined(dcgan.Generator((4, 4, 1), (4,))), conditional_gan.Projected(dcgan.Critic((3, 3)))
  return [
    row('wgan', wasserstein, CLUSTERS, wgan.WASSERSTEIN, penalty=wgan.gradient_penalty()),
    row(
      'gan, with tricks', plain, CLUSTERS, smoothed, critic_steps=2, decay=0.9, history_weight=0.1,
      instance_noise=noise,
    ),
    row('dcgan, conditional', gan.GAN(*pair, 3, context_size=2), images, gan.GAMES['hinge']),
  ]  # fmt: skip


def flow_rows() -> list[Row]:
  """Flows of the plane, and Glow, whose log-det says that it is a density. All are one module, and so variants."""
  labelled = Batch(CLUSTERS.x, np.tile(np.array([0, 1], np.int32), 12))
  pixels = np.asarray(jax.random.normal(jax.random.key(1), (24, 16)) * np.linspace(0.5, 2, 16), np.float32)
  smooth, plane = {'activation': jnp.tanh}, square(-10, 10, 801)
  fine = square(-8, 8, 1601)  # some of its Gaussians are narrow
  mixture = {'num_components': 2, 'context_size': 2}

  def row(name, module, batch, grid=plane, epsilon=1e-3):
    def make(axis_name):
      # Where a gradient is zero but for rounding, Adam with a smaller epsilon would take steps of its own.
      return rules.descent(*flow.objective(module), optax.adam(0.01, eps=epsilon), axis_name=axis_name)

    return Row(name, pure(module), make, batch, grid=grid, bijector=flow.bijector(module))

  glow_of_images = glow.glow((4, 4, 1), 2, 1, num_hidden=4, context_size=2)
  rows = [
    row('flow', maf.maf(2, 2, (8,), batch_norm=False, **mixture, **smooth), labelled, fine),
    row('flow, nice', nice.nice(2, 2, (8,), noise='normal', **smooth), CLUSTERS),
    row('flow, iaf', iaf.iaf(2, 2, (8,), **smooth), CLUSTERS),
    row('flow, planar', planar.planar(2, 3), CLUSTERS),
    row('flow, glow', glow_of_images, Batch(pixels, labelled.context), None, epsilon=1e-2),
  ]
  # A step of batch normalisation sees the statistics of its own device, so two devices differ from one.
  normalised = row('flow, realnvp', realnvp.dense(2, 2, (8,), batch_norm=True, **smooth), CLUSTERS)
  return [*(one._replace(deterministic=True) for one in rows), normalised]
