"""How groups of cases are timed against each other: each case in a process of its own with one thread, in turn.

A group is ``(title, {case: prepare})``, our case first; ``prepare`` makes ready and returns the function to be timed.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

ROUNDS = 2
REPEATS = 10  # timed calls of a case in one round, after one that is not; fewer if they take longer than
PATIENCE = 5.0  # seconds of processor time

Groups = Mapping[str, tuple[str, Mapping[str, Callable]]]


def measure(prepare: Callable) -> float:
  """The least processor seconds of a few calls; NaN if a peer is not installed."""
  try:
    function = prepare()
  except ModuleNotFoundError:
    return math.nan
  function()
  times = []
  while len(times) < REPEATS and sum(times) < PATIENCE:
    start = time.process_time()
    function()
    times.append(time.process_time() - start)
  return min(times)


def in_own_process(module: str, group: str, case: str) -> float:
  """Seconds of a case, measured by a fresh interpreter with one thread."""
  env = {**os.environ, 'OMP_NUM_THREADS': '1', 'JAX_PLATFORMS': 'cpu'}
  env['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
  command = [sys.executable, '-m', module, '--case', json.dumps([group, case])]
  return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.split()[-1])


def compare(module: str, title: str, cases: Mapping[str, Callable], group: str, rounds: int) -> None:
  """Prints the table of a group: milliseconds, and ratios to the first case."""
  times = {case: math.inf for case in cases}
  for _ in range(rounds):
    for case in cases:
      times[case] = min(times[case], in_own_process(module, group, case))
  ours = next(iter(times.values()))
  print(title)
  for case, seconds in times.items():
    print(f'  {case:24} {seconds * 1e3:10.2f} ms  x {seconds / ours:7.2f}', flush=True)


def main(module: str, doc: str, groups: Groups, extra: Mapping[str, Callable] | None = None) -> None:
  """The command line of a benchmark.

  Args:
    module: its name, as in ``python -m module``.
    doc: its help.
    groups: what it compares.
    extra: further names, each with a function that prints what it finds.
  """
  extra = extra or {}
  parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('groups', nargs='*', choices=[[], *groups, *extra], help='what to compare; all if not given')
  parser.add_argument('--rounds', type=int, default=ROUNDS, help='how often the processes take turns')
  parser.add_argument('--case', type=json.loads, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    group, case = args.case
    print(measure(groups[group][1][case]))
    return
  for name in args.groups or groups:
    if name in extra:
      extra[name]()
    else:
      compare(module, *groups[name], name, args.rounds)
