"""Mixtures on a table, cross-validated: each fold is the test set once, its neighbour the validation set.

Columns are standardised by the training rows of the fold, and scores are in those units. In each fold the validation
rows choose the setting and the number of steps of EM; the test rows are looked at once, by what they chose.

  python -m experiments.cross_validation --dataset=uci/red_wine   needs $GM_JAX_DATA_DIR
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import common_flags
from gm_jax import data as datasets
from gm_jax.base import Batch
from gm_jax.data import transforms
from gm_jax.density import mixture, mixture_gaussian, mixture_low_rank
from gm_jax.training import rules

NUM_FOLDS = 10
NUM_STEPS = 150  # of EM
PSEUDO_EXAMPLES = 2.0  # per component
PRIOR_VARIANCES = (0.3, 0.03)  # of the pseudo-examples, in standardised units
NUM_COMPONENTS = (5, 20, 50)
FAMILIES = {
  'full': mixture_gaussian.Full,
  'factors of rank 4': lambda **prior: mixture_low_rank.LowRank(4, **prior),
}


def folds(num: int) -> np.ndarray:
  """The fold of each of ``num`` rows, always the same; sizes differ by one at most."""
  return np.random.default_rng(0).permutation(np.arange(num) % NUM_FOLDS)


def parts(x: np.ndarray, fold: int) -> list[np.ndarray]:
  """Train, valid and test rows, standardised by the first."""
  which = folds(len(x))
  test, valid = which == fold, which == (fold + 1) % NUM_FOLDS
  fitted = transforms.fit_standardisation(x[~test & ~valid])
  return [np.asarray(transforms.standardise(fitted, x[rows])[0]) for rows in (~test & ~valid, valid, test)]


def make_fit(model: mixture.Mixture):
  """A compiled function from a key and the three parts to the best validation score and the test score with it."""
  em = rules.expectation_maximization(model.init, model.e_step, model.m_step)

  @jax.jit
  def fit(key, train, valid, test):
    def step(carry, _):
      state, best, params = carry
      state, _ = em.step(None, state, Batch(train))
      score = model.log_prob(state.params, valid).mean()
      better = score > best
      params = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.params, params)
      return (state, jnp.maximum(score, best), params), None

    state = em.init(key, Batch(train))
    start = state, jnp.float32(-jnp.inf), state.params
    (_, best, params), _ = jax.lax.scan(step, start, length=NUM_STEPS)
    return best, model.log_prob(params, test).mean()

  return fit


def define_flags(flags: absl_flags.FlagValues) -> None:
  """The flags of this script."""
  absl_flags.DEFINE_string('dataset', 'uci/red_wine', 'A table of real numbers.', flag_values=flags)
  help = 'Folder of data files; $GM_JAX_DATA_DIR if not given.'
  absl_flags.DEFINE_string('data_dir', None, help, flag_values=flags)


def run(flags: absl_flags.FlagValues) -> None:
  """Prints the scores of each setting, and of the settings that validation chose.

  Raises:
    ValueError: for data that cannot be used.
  """
  dataset = datasets.load(flags.dataset, data_dir=flags.data_dir)
  if dataset.kind != 'real':
    raise ValueError(f'dataset={flags.dataset!r} is {dataset.kind}, and Gaussians need real data')
  x = np.concatenate([dataset.train.x, dataset.valid.x, dataset.test.x])
  # Folds whose parts have equal shapes share one compiled program.
  x = x[: len(x) - len(x) % NUM_FOLDS]
  by_fold = [parts(x, fold) for fold in range(NUM_FOLDS)]
  num_train = len(by_fold[0][0])
  scores = []
  for label, make in FAMILIES.items():
    for num_components in NUM_COMPONENTS:
      for variance in PRIOR_VARIANCES:
        family = make(prior=PSEUDO_EXAMPLES / num_train, prior_variance=variance)
        fit = make_fit(mixture.Mixture(family, num_components, prior=PSEUDO_EXAMPLES / num_train))
        scores.append([fit(jax.random.key(fold), *rows) for fold, rows in enumerate(by_fold)])
        valid, test = np.mean(scores[-1], axis=0)
        print(f'{num_components} {label}, prior variance {variance}: valid {valid:.3f}, test {test:.3f}', flush=True)
  scores = np.array(scores)  # [settings, folds, 2]
  chosen = scores[scores[..., 0].argmax(0), np.arange(NUM_FOLDS), 1]
  error = chosen.std(ddof=1) / np.sqrt(NUM_FOLDS)
  print(f'chosen by validation: test {chosen.mean():.3f} +- {error:.3f} nats (standard error over {NUM_FOLDS} folds)')


SCRIPT = common_flags.Script('cross_validation', __doc__, define_flags, run)

if __name__ == '__main__':
  common_flags.main(SCRIPT)
