"""Where the numbers of a run go: a file of JSON lines, TensorBoard if asked for, and the terminal."""

import json
import math
import pathlib
import sys
import time
from typing import Protocol

import tqdm


class Writer(Protocol):
  """Where numbers go."""

  def __call__(self, step: int, metrics: dict[str, float]) -> None:
    """Take the numbers of one step."""


class JsonLines:
  """Appends one JSON object per call to a file: ``{"step": 100, "train/loss": 87.2, ...}``.

  Lines after ``resume_step`` are dropped first (a killed run writes on beyond its last checkpoint), so the file of a
  resumed run is that of an unbroken one. Non-finite numbers become ``null``, as JSON has no word for them.
  """

  def __init__(self, path: str | pathlib.Path, resume_step: int = 0):
    path = pathlib.Path(path)
    kept = [line for line in _complete_lines(path) if json.loads(line)['step'] <= resume_step] if resume_step else []
    path.write_text(''.join(f'{line}\n' for line in kept))
    self._path = path

  def __call__(self, step: int, metrics: dict[str, float]) -> None:
    """Append a line."""
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    with self._path.open('a') as file:
      file.write(json.dumps({'step': step, **finite}) + '\n')


def _complete_lines(path: pathlib.Path) -> list[str]:
  """The lines that end; a killed writer may leave half of one."""
  if not path.exists():
    return []
  text = path.read_text()
  return text[: text.rfind('\n') + 1].splitlines()


class TensorBoard:
  """Writes scalars for TensorBoard; needs the extra ``tensorboard``."""

  def __init__(self, folder: str | pathlib.Path):
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(str(folder))

  def __call__(self, step: int, metrics: dict[str, float]) -> None:
    """Write each number as a scalar."""
    for name, value in metrics.items():
      self._writer.add_scalar(name, value, step)
    self._writer.flush()


class Progress:
  """A bar with steps per second and the time left where a person looks on, plain lines elsewhere."""

  def __init__(self, num_steps: int, first_step: int = 0, stream=None):
    self._stream = stream or sys.stderr
    self._interactive = self._stream.isatty()
    self._num_steps, self._step, self._start = num_steps, first_step, (time.monotonic(), first_step)
    self._bar = tqdm.tqdm(
      total=num_steps,
      initial=first_step,
      unit='step',
      file=self._stream,
      disable=not self._interactive,
      dynamic_ncols=True,
    )

  def advance(self, step: int, loss: float) -> None:
    """Tell that the run has come to ``step``."""
    self._bar.update(step - self._step)
    self._bar.set_postfix_str(f'loss {loss:.4g}')
    self._step = step

  def report(self, step: int, metrics: dict[str, float]) -> None:
    """Print the numbers of an evaluation."""
    numbers = '  '.join(f'{name} {value:.5g}' for name, value in metrics.items())
    line = f'step {step}/{self._num_steps}  {numbers}'
    if self._interactive:
      self._bar.write(line, file=self._stream)
    else:
      seconds, first_step = time.monotonic() - self._start[0], self._start[1]
      print(f'{line}  {(step - first_step) / max(seconds, 1e-9):.4g} steps/s', file=self._stream, flush=True)

  def close(self) -> None:
    """Leave the bar as it stands."""
    self._bar.close()
