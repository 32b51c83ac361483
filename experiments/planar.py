"""Planar and radial flows: densities of data, and fits to the energies of Rezende & Mohamed in the plane.

With --energy the flow is fitted by the reverse divergence from its own samples, no data are looked at, and the report
says how many nats the fit is off. Without it the flow learns the data by maximum likelihood.

  python -m experiments.planar                                           the split wave, 16 planar layers
  python -m experiments.planar --energy=ring --kind=radial
  python -m experiments.planar --energy=none --dataset=two_moons         by maximum likelihood
"""

import jax
import numpy as np
import optax
from absl import flags as absl_flags

from experiments import cli, flow_data, flow_pictures, flows
from gm_jax import data as datasets
from gm_jax.base import Batch, bind
from gm_jax.evaluation import flow_plots, likelihood, plots
from gm_jax.flows import planar
from gm_jax.training import rules


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this binary."""
  absl_flags.DEFINE_enum('kind', 'planar', list(planar.KINDS), 'Of the layers.', flag_values=flags)
  absl_flags.DEFINE_integer('num_layers', 16, 'Layers.', lower_bound=1, flag_values=flags)
  energies = [*planar.ENERGIES, 'none']
  absl_flags.DEFINE_enum('energy', 'split_wave', energies, 'What is fitted; none for the data.', flag_values=flags)
  flows.define_flags(flags)


def build(flags: absl_flags.FlagValues, dataset: datasets.Dataset, axis_name: str | None) -> cli.Experiment:
  """The experiment that the flags ask for."""
  if flags.energy == 'none':
    module = planar.planar(
      flow_data.num_dimensions(dataset),
      flags.num_layers,
      kind=flags.kind,
      context_size=flow_data.context_size(flags, dataset),
    )
    return flows.experiment(flags, dataset, module, axis_name)
  if flags.conditional:
    raise ValueError(f'conditional with energy={flags.energy}: a fit to an energy has no labels; take --energy=none')
  return fit_energy(flags, axis_name)


def fit_energy(flags: absl_flags.FlagValues, axis_name: str | None) -> cli.Experiment:
  """The fit to an energy, which takes batches of the flow's own samples."""
  module, energy = planar.planar(2, flags.num_layers, kind=flags.kind), planar.ENERGIES[flags.energy]
  side = np.linspace(-8, 8, 801, dtype=np.float32)
  points = np.stack(np.meshgrid(side, side), axis=-1)
  log_mass = -np.asarray(jax.jit(energy)(points), np.float64)
  top = log_mass.max()
  log_partition = top + np.log(np.exp(log_mass - top).sum()) + 2 * np.log(16 / 800)  # the tails are beyond float32
  rate = optax.cosine_decay_schedule(flags.learning_rate, cli.make_plan(flags, flags.batch_size).num_steps)
  optimizer = optax.chain(optax.clip_by_global_norm(flags.clip or float('inf')), optax.adam(rate))
  algorithm = rules.descent(*planar.variational(module, energy, flags.batch_size), optimizer, axis_name=axis_name)
  propose = jax.jit(bind(module, 'sample_and_log_prob'), static_argnums=2)

  def divergence(key, state):
    x, log_q = propose(state.variables, key, 20_000)
    return likelihood.summarise(np.asarray(log_q + energy(x), np.float64) + log_partition)

  def draw(key, state, folder):
    pictures = []

    def keep(name, figure, caption):
      plots.save(figure, folder / name)
      pictures.append((name, caption))

    shown = {'exp(-energy)': log_mass, 'flow': np.asarray(jax.jit(bind(module, 'log_prob'))(state.variables, points))}
    inside = slice(150, 651, 2)
    shown = {name: values[inside, inside] for name, values in shown.items()}
    keep('density.png', flow_plots.densities(side[inside], side[inside], shown), 'The fit beside what is fitted')
    flow_pictures.draw_path(keep, module, state.variables, key)
    return pictures

  return cli.Experiment(
    algorithm=rules.averaged(algorithm, flags.average) if flags.average else algorithm,
    data=Batch(np.zeros((flags.batch_size, 2), np.float32)),
    evaluate=lambda step, state: {'divergence': divergence(jax.random.key(step), state).mean},
    score=lambda key, state: {'divergence': divergence(key, state).score('estimate')},
    draw=draw,
    sample=lambda key, state, num: propose(state.variables, key, num)[0],
  )


BINARY = cli.Binary(
  name='planar', doc=__doc__, define_flags=define_flags, build=build,
  defaults={'dataset': 'two_moons', 'num_epochs': 60, 'num_steps': 8000, 'learning_rate': 5e-3},
)  # fmt: skip

if __name__ == '__main__':
  cli.main(BINARY)
