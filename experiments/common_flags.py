"""The flags that all binaries have, how they are read, and the run folder that remembers them.

A ``Script`` is a binary that trains no model of its own but scores or compares; the others are ``cli.Binary``.

Flags live in a ``FlagValues`` of their own, made when a binary runs, so any number of binaries can be imported
together.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags as absl_flags

if TYPE_CHECKING:
  from experiments.cli import Binary

# Flags that may differ when a run goes on: they say where, how long and how often, not what is learnt.
_FREE = {
  'workdir', 'mode', 'data_dir', 'parallel', 'num_epochs', 'num_steps', 'eval_every', 'checkpoint_every', 'num_samples',
  'state', 'coordinator', 'num_hosts', 'host_index', 'tensorboard', 'flagfile',
}  # fmt: skip

STATES = ('best', 'last')


class UserError(Exception):
  """What the user can put right; printed without a traceback."""


@contextlib.contextmanager
def user_errors(*classes: type[Exception]):
  """Turn errors of these classes into ``UserError``: within, they come from flags, files and data."""
  try:
    yield
  except classes as error:
    raise UserError(str(error)) from error


class Script(NamedTuple):
  """A binary that trains no model of its own."""

  name: str
  doc: str  # its help text
  define_flags: Callable[[absl_flags.FlagValues], None]
  run: Callable[[absl_flags.FlagValues], Any]  # raises ValueError for what the user can put right


def define_data_flags(flags: absl_flags.FlagValues, *, dataset: str = 'digits', workdir: str) -> None:
  """Define the flags that say what is learnt from, and where results go (``workdir`` is the help of that)."""
  help = 'Name of the data set; an unknown one answers with the list of those that can be had.'
  absl_flags.DEFINE_string('dataset', dataset, help, flag_values=flags)
  help = 'Folder of data files or of prepared TFDS data sets; $GM_JAX_DATA_DIR if not given.'
  absl_flags.DEFINE_string('data_dir', None, help, flag_values=flags)
  absl_flags.DEFINE_string('workdir', None, workdir, flag_values=flags)
  absl_flags.DEFINE_integer('seed', 0, 'Seed of everything random.', lower_bound=0, flag_values=flags)


def define_common_flags(flags: absl_flags.FlagValues, defaults: dict[str, Any]) -> None:
  """Define the flags that every binary has."""
  values = {
    'dataset': 'digits', 'batch_size': 100, 'num_epochs': 100, 'learning_rate': 0.01, **defaults,
  }  # fmt: skip

  def integer(name, default, help, lower_bound):
    absl_flags.DEFINE_integer(name, values.get(name, default), help, lower_bound=lower_bound, flag_values=flags)

  def choice(name, options, help):
    absl_flags.DEFINE_enum(name, values.get(name, options[0]), options, help, flag_values=flags)

  help = 'Run folder; runs/<model>-<dataset> if not given. A run that is there is continued.'
  define_data_flags(flags, dataset=values['dataset'], workdir=help)
  choice('mode', ['train', 'evaluate', 'sample'], 'Train and report; report on a trained model; draw from one.')
  choice('state', STATES, 'Which state of a run is reported on and drawn from: the best on held-out data, or the last.')
  integer('batch_size', None, 'Examples per update, over all devices.', 1)
  integer('num_epochs', None, 'Passes over the training set.', 1)
  integer('num_steps', 0, 'Updates; 0 for as many as num_epochs takes.', 0)
  absl_flags.DEFINE_float(
    'learning_rate', values['learning_rate'], 'Learning rate, at its highest.', lower_bound=0, flag_values=flags
  )
  integer('num_seeds', 1, 'Replicas trained at once, with seeds seed, seed + 1, ...; scores are mean and error.', 1)
  choice('parallel', ['none', 'pmap', 'jit'], 'Devices: one; all by pmap; all by one jit with a sharded batch.')
  integer('eval_every', 0, 'Updates between evaluations on held-out data; 0 for twenty in the run.', 0)
  integer('checkpoint_every', 0, 'Updates between checkpoints; 0 for twenty in the run.', 0)
  integer('num_samples', 100, 'Samples to draw with --mode=sample.', 1)
  absl_flags.DEFINE_string('coordinator', None, 'host:port of the first of several hosts.', flag_values=flags)
  integer('num_hosts', 1, 'Number of hosts.', 1)
  integer('host_index', 0, 'Index of this host.', 0)
  absl_flags.DEFINE_bool('tensorboard', False, 'Write scalars for TensorBoard, too.', flag_values=flags)


def own_flags(flags: absl_flags.FlagValues) -> list[str]:
  """The names of the flags of a binary, its own first."""
  return [name for names in flags.flags_by_module_dict().values() for name in sorted(f.name for f in names)]


def parse_flags(binary: 'Binary', argv: Sequence[str]) -> absl_flags.FlagValues | None:
  """The flags of a binary as the arguments set them; ``None`` after ``--help``.

  Raises:
    UserError: for unknown flags, bad values and stray arguments.
  """
  return _parse(binary, argv, lambda flags: define_common_flags(flags, binary.defaults))


def _parse(binary, argv, define_more=lambda flags: None) -> absl_flags.FlagValues | None:
  flags = absl_flags.FlagValues()
  binary.define_flags(flags)
  own = list(flags)
  define_more(flags)
  if any(arg in ('--help', '-h', '-help') for arg in argv[1:]):
    print(help_text(binary, flags, own))
    return None
  with user_errors(absl_flags.Error, OSError):
    rest = flags(argv)[1:]
  if rest:
    raise UserError(f'argument {rest[0]!r} is not a flag; flags are given as --name=value')
  return flags


def run_script(script: Script, argv: Sequence[str]) -> Any:
  """What a script answers to arguments, the first of which is its name; ``None`` after ``--help``.

  Raises:
    UserError: for flags, files or data that cannot be used.
  """
  flags = _parse(script, argv)
  if flags is None:
    return None
  with user_errors(ValueError):
    return script.run(flags)


def main(script: Script) -> None:
  """Run a script on the command line's arguments; exits with 2 and one line for what the user can put right."""
  try:
    run_script(script, sys.argv)
  except UserError as error:
    sys.exit(complain(error, 2))


def complain(error: Exception, code: int) -> int:
  """Print an error as one line, and give back the exit code."""
  print(f'error: {error}', file=sys.stderr)
  return code


def help_text(binary: 'Binary | Script', flags: absl_flags.FlagValues, own: Sequence[str]) -> str:
  """The help of a binary: what it is, its own flags, then those that all binaries have."""

  def lines(names):
    for name in names:
      flag = flags[name]
      choices = getattr(flag, 'enum_values', None)
      kind = '|'.join(choices) if choices else flag.flag_type()
      default = '' if flag.default is None else f', default {flag.default}'
      yield f'  --{name}\n      {flag.help} ({kind}{default})'

  common = [name for name in flags if name not in own]
  shared = ['', 'Flags of every binary:', *lines(common)] if common else []
  return '\n'.join([
    binary.doc.strip(), '', f'Flags of {binary.name}:', *lines(own), *shared,
    '  --flagfile\n      A file of flags, one to a line, such as the settings.flags of a run.',
  ])  # fmt: skip


def whole_numbers(flags: absl_flags.FlagValues, name: str, *, least: int = 1) -> tuple[int, ...]:
  """A list flag as whole numbers of 1 or more, at least ``least`` of them; an empty text in it counts for nothing.

  Raises:
    ValueError: if it holds anything else, or fewer.
  """
  texts = [text for text in flags[name].value if text]
  if len(texts) < least or not all(text.isdigit() and int(text) for text in texts):
    raise ValueError(f'{name}={",".join(texts)}: give whole numbers of 1 or more with commas between, such as 100,100')
  return tuple(map(int, texts))


def prepare_workdir(binary: 'Binary', flags: absl_flags.FlagValues) -> pathlib.Path:
  """Make the run folder and note the settings, or check that the run that is there has the same ones.

  Raises:
    UserError: if the folder cannot be written, belongs to another model, or was made with other settings.
  """
  workdir = pathlib.Path(flags.workdir or f'runs/{binary.name}-{flags.dataset.replace("/", "-").replace(":", "-")}')
  settings = workdir / 'settings.flags'
  header = f'# python -m experiments.{binary.name}'
  lines = [header, *(flags[name].serialize() for name in own_flags(flags) if flags[name].value is not None)]
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    before = settings.read_text().splitlines() if settings.exists() else None
    if before is None:
      if any(workdir.iterdir()):
        raise UserError(f'workdir={str(workdir)!r} is not empty and holds no run; give a new or an empty folder')
    elif before[0] != header:
      other = before[0].rpartition('.')[2]
      raise UserError(
        f'workdir={str(workdir)!r} belongs to a run of {other}, not of {binary.name}; give another folder'
      )
    else:
      _refuse_other_settings(binary, flags, settings, workdir)
    if flags.mode == 'train':
      settings.write_text('\n'.join(lines) + '\n')
  except OSError as error:
    raise UserError(
      f'workdir={str(workdir)!r} cannot be used: {error.strerror}; give a folder that can be written'
    ) from error
  return workdir


def _refuse_other_settings(binary, flags, settings, workdir) -> None:
  then = parse_flags(binary, [binary.name, f'--flagfile={settings}'])
  free = _FREE | set(binary.evaluation_flags)
  changed = [name for name in own_flags(flags) if name not in free and flags[name].value != then[name].value]
  if changed:
    was = ', '.join(f'--{name}={then[name].value} (now {flags[name].value})' for name in changed)
    raise UserError(
      f'workdir={str(workdir)!r} holds a run with other settings: {was}; give them again, or another folder'
    )
