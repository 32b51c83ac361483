"""What tests of binaries share."""

import pytest

from gm_jax import data as datasets
from gm_jax.data import signals, toy


@pytest.fixture
def few_examples(monkeypatch):
  """Toy sets and signals by the hundred instead of thousands, so that the command line is what takes the time."""
  load, numbers = datasets.load, {'num_train': 300, 'num_valid': 100, 'num_test': 200}

  def few(name, **kwargs):
    return load(name, **{**(numbers if name in toy.NAMES or name in signals.NAMES else {}), **kwargs})

  monkeypatch.setattr(datasets, 'load', few)
