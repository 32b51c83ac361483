"""How many examples a structure is worth: exact divergences of MADE and MASDE from Markov random fields.

  python -m benchmarks.masde

Two fields over 12 binary variables, a random tree and an Ising grid of 3 x 4, both with couplings drawn from N(0, 1).
From each, N examples are drawn, a fifth of them to stop at; networks of one hidden layer learn from the others by Adam
over all examples at once, and the parameters that the held-out fifth likes best count. The number is the divergence
KL(field || model) in nats, summed over all 4,096 states: mean and standard error over five draws of the examples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.autoregressive import masde, structure
from gm_jax.base import Batch, pure
from gm_jax.training import rules

NUM_VARIABLES, NUM_SEEDS, NUM_STEPS, HIDDEN = 12, 5, 500, (96,)
STATES = ((np.arange(2**NUM_VARIABLES)[:, None] >> np.arange(NUM_VARIABLES)) & 1).astype(np.float32)


def random_tree(rng):
  graph = np.zeros((NUM_VARIABLES, NUM_VARIABLES), bool)
  for i in range(1, NUM_VARIABLES):
    j = rng.integers(i)
    graph[i, j] = graph[j, i] = True
  return graph


def ising(graph, rng):
  """The probability of each state."""
  couplings, spins = np.triu(np.where(graph, rng.standard_normal(graph.shape), 0)), 2.0 * STATES - 1
  p = np.exp(np.einsum('ni,ij,nj->n', spins, couplings, spins))
  return p / p.sum()


def divergence(graph, p, train, held_out, key):
  """KL(p || model) in nats of the network with the masks of a graph, at the step that is best on held-out examples."""
  blankets = structure.looking_back_blankets(graph, structure.ordering_of_small_blankets(graph))
  model = pure(masde.MASDE(blankets, HIDDEN))
  algorithm = rules.descent(model.init, rules.likelihood_loss(model.log_prob), optax.adam(0.01))

  @jax.jit
  def learn(key, train, held_out):
    def one(carry, key):
      state, best, params = carry
      score = model.log_prob(state.params, held_out).mean()
      params = jax.tree.map(lambda new, old: jnp.where(score > best, new, old), state.params, params)
      return (algorithm.step(key, state, Batch(train))[0], jnp.maximum(score, best), params), None

    state = algorithm.init(key, Batch(train))
    start = state, jnp.float32(-jnp.inf), state.params
    params = jax.lax.scan(one, start, jax.random.split(key, NUM_STEPS))[0][2]
    return jnp.sum(p * (np.log(p) - model.log_prob(params, STATES)))

  return float(learn(key, train, held_out))


def main():
  """Print a table."""
  rng = np.random.default_rng(0)
  graphs = {'tree': random_tree(rng), 'grid': structure.grid(3, 4)}
  print('| field | examples | MADE | MASDE, graph given | MASDE, graph learnt |\n|---|---|---|---|---|')
  for name, graph in graphs.items():
    p = ising(graph, rng)
    for num in (100, 300, 1000, 3000):
      found = {'complete': [], 'given': [], 'learnt': []}
      for seed in range(NUM_SEEDS):
        x = STATES[np.random.default_rng(seed).choice(len(p), num, p=p)]
        train, held_out = x[num // 5 :], x[: num // 5]
        penalty = float(np.sqrt(np.log(NUM_VARIABLES) / len(train)) / 2)
        learnt = structure.chow_liu(train) if name == 'tree' else structure.l1_neighbourhoods(train, penalty)
        for kind, one in (('complete', structure.complete(NUM_VARIABLES)), ('given', graph), ('learnt', learnt)):
          found[kind].append(divergence(one, p, train, held_out, jax.random.key(seed)))
      row = [f'{np.mean(kl):.4f} ± {np.std(kl, ddof=1) / np.sqrt(len(kl)):.4f}' for kl in found.values()]
      print(f'| {name} | {num:,} | {" | ".join(row)} |', flush=True)


if __name__ == '__main__':
  main()
