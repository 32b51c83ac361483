"""Restricted Boltzmann machine.

Trains by contrastive divergence, persistent chains (plain, fast or tempered) or the exact gradient, and brackets the
test log-likelihood between annealed importance sampling and its reverse; machines with a small side are scored exactly.

  python -m experiments.rbm                                                the embedded digits, about a minute
  python -m experiments.rbm --dataset=binarized_mnist --num_hidden=500     needs --data_dir or $GM_JAX_DATA_DIR
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, rbm_pictures, vectors
from gm_jax import data as datasets
from gm_jax.base import Batch, as_variables
from gm_jax.boltzmann import contrastive, partition, rbm, tempering, visible
from gm_jax.data import transforms
from gm_jax.evaluation import likelihood
from gm_jax.training import loop, rules

METHODS = ('pcd', 'cd', 'fpcd', 'tempered', 'exact')
UNITS = ('auto', 'bernoulli', 'gaussian', 'categorical')

PUBLISHED = {
  'binarized_mnist': [
    ('RBM, 500 hidden, CD-1', -125.53, 'Salakhutdinov & Murray 2008, AIS alone'),
    ('RBM, 500 hidden, CD-3', -105.50, 'Salakhutdinov & Murray 2008, AIS alone'),
    ('RBM, 500 hidden, CD-25', -86.34, 'Salakhutdinov & Murray 2008, AIS alone'),
  ],
}


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""

  def integer(name, default, help, lower_bound=1):
    absl_flags.DEFINE_integer(name, default, help, lower_bound=lower_bound, flag_values=flags)

  def number(name, default, help, upper_bound=None):
    absl_flags.DEFINE_float(name, default, help, lower_bound=0, upper_bound=upper_bound, flag_values=flags)

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, options[0], options, help, flag_values=flags)

  integer('num_hidden', 100, 'Hidden units.')
  choice('visible', UNITS, 'Visible units; auto: gaussian for real data, else bernoulli.')
  choice('method', METHODS, 'Where the samples of the negative phase come from.')
  integer('cd_steps', 1, 'Gibbs sweeps per update.')
  integer('num_chains', 0, 'Persistent chains; 0 for as many as batch_size.', 0)
  integer('num_temperatures', 10, 'Temperatures of --method=tempered.', 2)
  number('fast_learning_rate', 0.05, 'Learning rate of the fast weights of --method=fpcd.')
  absl_flags.DEFINE_bool('centered', True, 'Follow the centred gradient.', flag_values=flags)
  choice('schedule', ('linear', 'constant', 'cosine'), 'How the learning rate falls to zero, or does not.')
  number('momentum', 0.0, 'Momentum of the optimiser.')
  number('weight_decay', 0.0, 'Decay of the couplings.')
  number('average', 0.999, 'Decay of the running average of the parameters, which is what is scored; 0 for none.')
  number('sparsity_cost', 0.0, 'Weight of the sparsity penalty.')
  number('sparsity_target', 0.1, 'Wanted mean activity of the hidden units.', 1)
  vectors.define_binarise(flags)
  absl_flags.DEFINE_string(
    'score_on',
    None,
    'Data set whose held-out examples are scored instead of the own ones.',
    flag_values=flags,
  )
  absl_flags.DEFINE_string(
    'ais_betas',
    '10000',
    "Steps of the final bracket: a number, or 'salakhutdinov' for 14,500.",
    flag_values=flags,
  )
  integer('ais_chains', 100, 'Chains of the final bracket, each way.', 2)


def make_machine(flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> rbm.RBM:
  """The machine that the flags and the data ask for."""
  units = flags.visible
  if units == 'auto':
    units = 'gaussian' if dataset.kind == 'real' else 'bernoulli'
  kinds = {'bernoulli': ('binary', 'grey'), 'gaussian': ('real', 'grey'), 'categorical': ('binary', 'grey')}[units]
  if dataset.kind not in kinds:
    raise ValueError(f'visible={units} needs {" or ".join(kinds)} data, but dataset={dataset.name!r} is {dataset.kind}')
  if units == 'bernoulli' and dataset.kind == 'grey' and flags.binarise == 'none':
    raise ValueError(
      f'binarise=none, but dataset={dataset.name!r} is grey and bernoulli units are binary; choose one of '
      'threshold, static, stochastic, or visible=gaussian or categorical'
    )
  sizes = {'num_visible': int(np.prod(dataset.shape)), 'num_hidden': flags.num_hidden}
  if units == 'categorical':
    return visible.CategoricalRBM(**sizes, num_states=dataset.levels)
  return (visible.GaussianRBM if units == 'gaussian' else rbm.RBM)(**sizes)


class Data(NamedTuple):
  """The three splits as the machine takes them, ``[N, D]``, and what is still to be done at each step."""

  train: np.ndarray
  valid: np.ndarray
  test: np.ndarray
  transform: Callable  # (key, x) -> x
  levels: int = 2  # of the training set as it is stored; grey if it is drawn anew at every step

  def expected(self) -> jax.Array:
    """The training set as the transform gives it in expectation."""
    return transforms.to_float(self.train) if self.levels == 2 else transforms.to_unit(self.train, self.levels)


def prepare(machine: rbm.RBM, flags: absl_flags.FlagValues, dataset: datasets.Dataset) -> Data:
  """The data as the machine takes them: binarised, standardised by the training set, or as they are.

  With --binarise=stochastic the training set is drawn anew at every step; valid and test once, as with static.
  """
  if flags.score_on:
    scored = datasets.load(flags.score_on, data_dir=flags.data_dir)
    if scored.shape != dataset.shape or scored.kind != 'binary' or type(machine) is not rbm.RBM:
      raise ValueError(
        f'score_on={flags.score_on} is {scored.kind} of shape {scored.shape}; give binary data of shape {dataset.shape}'
      )
  splits = vectors.binary(dataset, flags.binarise if type(machine) is rbm.RBM else 'none')
  if flags.score_on:
    splits = splits._replace(valid=vectors.flat(scored).valid, test=vectors.flat(scored).test)
  if isinstance(machine, visible.GaussianRBM):
    splits = vectors.dequantised(dataset)[:3]  # without noise a pixel that is always black would have no variance
    fitted = transforms.fit_standardisation(splits[0])
    return Data(*(np.asarray(transforms.standardise(fitted, x)[0]) for x in splits), loop.as_float)
  anew = splits.transform is not loop.as_float
  return Data(*splits, dataset.levels if anew else 2)


def make_algorithm(machine, data: Data, flags: absl_flags.FlagValues, num_steps: int, axis_name: str | None):
  """The negative phase, the optimiser and the rule that the flags ask for."""
  train = data.expected()
  num_chains = flags.num_chains or flags.batch_size
  if flags.method == 'tempered':
    betas = tempering.ladder(flags.num_temperatures)
    negative = contrastive.tempered(num_chains, betas, _base(machine, train), flags.cd_steps)
  else:
    negative = {
      'cd': lambda: contrastive.divergence(flags.cd_steps),
      'pcd': lambda: contrastive.persistent(num_chains, flags.cd_steps),
      'fpcd': lambda: contrastive.persistent(num_chains, flags.cd_steps),
      'exact': contrastive.exact,
    }[flags.method]()
  rate = {
    'linear': lambda: optax.linear_schedule(flags.learning_rate, 0.0, num_steps),
    'constant': lambda: flags.learning_rate,
    'cosine': lambda: optax.cosine_decay_schedule(flags.learning_rate, num_steps),
  }[flags.schedule]()
  decay = optax.add_decayed_weights(flags.weight_decay, mask=lambda params: {name: name == 'kernel' for name in params})
  optimizer = optax.chain(decay, optax.sgd(rate, flags.momentum or None))
  if flags.method == 'fpcd':
    optimizer = contrastive.fast_weights(optimizer, flags.fast_learning_rate)
  objective = contrastive.objective(
    machine, negative, data=train, centered=flags.centered,
    sparsity_target=flags.sparsity_target, sparsity_cost=flags.sparsity_cost,
  )  # fmt: skip
  algorithm = rules.descent(*objective, optimizer, axis_name=axis_name)
  return rules.averaged(algorithm, flags.average) if flags.average else algorithm


def _base(machine, train):
  params = machine.init(jax.random.key(0), train[:1])['params']
  return partition.base_natural(machine, params, train)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  machine = make_machine(flags, dataset)
  data = prepare(machine, flags, dataset)
  betas = partition.temperatures(int(flags.ais_betas) if flags.ais_betas.isdigit() else flags.ais_betas)
  plan = cli.make_plan(flags, len(data.train))
  base = _base(machine, data.expected())
  exact = machine.tractable

  def apply(params, method, *args):
    return machine.apply({'params': params}, *args, method=method)

  def numbers(params, x):
    x = transforms.to_float(x)
    found = {'free_energy': apply(params, 'free_energy', x)}
    if not isinstance(machine, visible.CategoricalRBM):
      found['reconstruction_error'] = ((apply(params, 'reconstruct', x) - x) ** 2).sum(-1)
    return found

  evaluate_numbers = likelihood.evaluator(numbers, block_size=1000)
  seen = data.train[:: max(len(data.train) // len(data.valid), 1)]  # of the size of the validation set, or so
  seen = np.asarray(data.transform(jax.random.key(flags.seed), seen))

  @jax.jit
  def log_z(params, key):
    if exact:
      return apply(params, 'log_partition')
    path = partition.annealed_path(machine, params, base)
    return partition.ais(path, partition.temperatures(1000), key, num_chains=100).log_z

  def evaluate(step, state):
    params = as_variables(state.variables).params
    train = evaluate_numbers(params, seen)
    valid = evaluate_numbers(params, data.valid)
    found = {f'valid/{name}': mean.mean for name, mean in valid.items()}
    found['valid/free_energy_gap'] = valid['free_energy'].mean - train['free_energy'].mean
    found['valid/log_prob'] = -valid['free_energy'].mean - float(log_z(params, jax.random.key(step)))
    return found

  @jax.jit
  def estimates(params, key, chains):
    """Both ways between the base and the machine, and the way back once more from the chains of training."""
    path = partition.annealed_path(machine, params, base)
    key, again = jax.random.split(key)
    forward, reverse = partition.forward_and_reverse(path, betas, key, flags.ais_chains)
    backs = [reverse]
    if chains is not None:
      backs.append(partition.forward_and_reverse(path, betas, again, flags.ais_chains, visible=chains)[1])
    return forward, backs

  def score(key, state):
    params = as_variables(state.variables).params
    test = evaluate_numbers(params, data.test)
    log_z_key, pseudo_key = jax.random.split(key)
    scores = {}
    if exact:
      values = likelihood.summarise(-test['free_energy'].values - float(log_z(params, log_z_key)))
      scores['test_log_prob'] = values.score('exact')
    else:
      chains = _model_chains(state, flags.ais_chains)
      forward, backs = jax.device_get(estimates(params, log_z_key, chains))
      energy = test['free_energy']
      brackets = [partition.bracket(energy.mean, forward, back) for back in backs]
      lower, upper = min(float(b.lower) for b in brackets), max(float(b.upper) for b in brackets)
      middle = -energy.mean - float(forward.log_z + backs[0].log_z) / 2
      scores['test_log_prob'] = likelihood.score(
        middle, 'bracket', stderr=energy.stderr, n=energy.n, lower=lower, upper=upper
      )
      for name, one in {'ais': forward, 'reverse_ais': backs[0]}.items():
        scores[f'log_z_by_{name}'] = likelihood.score(
          one.log_z, 'estimate', stderr=None, n=flags.ais_chains, lower=one.lower, upper=one.upper
        )
        scores[f'effective_sample_size_of_{name}'] = likelihood.score(
          one.effective_sample_size, 'estimate', stderr=None, n=flags.ais_chains, unit='chains'
        )
    if not isinstance(machine, visible.GaussianRBM):
      scores['test_pseudo_log_prob'] = pseudo_log_prob(params, pseudo_key)
    return scores

  def pseudo_log_prob(params, key):
    """Exact where that takes seconds, else from one unit per example."""
    if data.test.size * flags.num_hidden <= 1e9:
      exactly = likelihood.evaluator(lambda params, x: apply(params, 'pseudo_log_prob', x), block_size=1000)
      return exactly(params, data.test).score('exact')
    estimate = lambda params, key, x: apply(params, 'pseudo_log_prob_estimate', key, x)
    evaluate_estimate = likelihood.evaluator(estimate, block_size=1000, stochastic=True)
    return evaluate_estimate(params, data.test, key=key).score('estimate')

  def sample(key, state, num):
    return machine.apply({'params': as_variables(state.variables).params}, key, num, method='sample')

  return cli.Experiment(
    algorithm=make_algorithm(machine, data, flags, plan.num_steps, axis_name),
    data=Batch(data.train),
    transform=data.transform,
    evaluate=evaluate,
    score=score,
    draw=lambda key, state, folder: rbm_pictures.draw(machine, data, dataset, key, state, folder),
    sample=sample,
    best_metric='valid/log_prob',
    published=PUBLISHED.get(flags.score_on or flags.dataset, ()),
  )


def _model_chains(state, num):
  """``num`` of the chains of training at the temperature of the model, over and over if there are fewer; or None."""
  if not state.chains:
    return None
  chains = state.chains['visible']
  chains = chains[:, -1] if chains.ndim == 3 else chains
  return np.resize(chains, (num, *chains.shape[1:]))


BINARY = cli.Binary(
  name='rbm',
  doc=__doc__,
  define_flags=define_flags,
  build=build,
  defaults={'num_epochs': 800, 'learning_rate': 0.2},
  evaluation_flags=('ais_betas', 'ais_chains'),
)

if __name__ == '__main__':
  cli.main(BINARY)
