"""How pairs of cases are timed against each other by two clocks: each case in a process of its own, in turn.

A case is a function that returns what ``timed`` gives; a pair is ``(peer, ours, goal)``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def timed(function: Callable, repeats: int, scale: float = 1.0) -> dict[str, float]:
  """Least wall and processor seconds of a function that waits for its work, times ``scale``; the first call apart."""
  function()
  wall, processor = [], []
  for _ in range(repeats):
    start = time.perf_counter(), time.process_time()
    function()
    wall.append(time.perf_counter() - start[0])
    processor.append(time.process_time() - start[1])
  return {'wall': min(wall) * scale, 'processor': min(processor) * scale}


def run_apart(module: str, name: str, python: str = sys.executable, **defaults: str) -> dict:
  """What a case of a module finds, in its own process; ``defaults`` are of the environment."""
  env = {'JAX_PLATFORMS': 'cpu', **defaults, **os.environ, 'PYTHONPATH': ROOT}
  done = subprocess.run([python, '-m', module, '--case', name], capture_output=True, text=True, env=env)
  if done.returncode:
    raise RuntimeError(f'{name} failed:\n{done.stderr}')
  return json.loads(done.stdout.splitlines()[-1])


def main(module: str, doc: str, cases: Mapping[str, Callable], pairs: Sequence[tuple], **defaults: str) -> None:
  """The command line of a benchmark whose cases are timed in milliseconds: a table of them, and the ratios of pairs."""
  parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--only', default='', help='run the cases whose name begins so')
  parser.add_argument('--rounds', type=int, default=3, help='how often the processes take turns')
  parser.add_argument('--core', type=int, help='pin all cases to this core')
  parser.add_argument('--case', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case:
    try:
      print(json.dumps(cases[args.case]()))
    except ModuleNotFoundError as error:
      print(json.dumps({'skipped': str(error)}))
    return
  if args.core is not None:
    os.sched_setaffinity(0, {args.core})
  found = {}
  for _ in range(args.rounds):
    for name in cases:
      if name.startswith(args.only) and 'skipped' not in found.get(name, {}):
        new, old = run_apart(module, name, **defaults), found.get(name, {})
        found[name] = {what: min(value, old.get(what, value)) for what, value in new.items()}
        print(f'{name}: {new}', file=sys.stderr, flush=True)
  print(f'{"case":28}{"wall ms":>10}{"processor ms":>14}')
  for name, times in found.items():
    if 'wall' in times:
      print(f'{name:28}{times["wall"]:10.3f}{times["processor"]:14.3f}')
    else:
      print(f'{name:28}', *(f'{what}: {value}' for what, value in times.items()))
  for peer, ours, goal in pairs:
    if 'wall' in found.get(peer, {}) and 'wall' in found.get(ours, {}):
      ratios = [found[peer][clock] / found[ours][clock] for clock in ('wall', 'processor')]
      wanted = f' (goal {goal})' if goal else ''
      print(f'{peer} / {ours}: {ratios[0]:.2f} by wall, {ratios[1]:.2f} by processor{wanted}')
