"""The flag of the nonlinearity of hidden units."""

import flax.linen as nn
from absl import flags as absl_flags

ACTIVATIONS = {'relu': nn.relu, 'tanh': nn.tanh, 'sigmoid': nn.sigmoid, 'softplus': nn.softplus}


def define_flag(flags: absl_flags.FlagValues, default: str, help: str = 'Nonlinearity of the hidden units.') -> None:
  """Define ``--activation``, whose value is a name in ``ACTIVATIONS``."""
  absl_flags.DEFINE_enum('activation', default, list(ACTIVATIONS), help, flag_values=flags)
