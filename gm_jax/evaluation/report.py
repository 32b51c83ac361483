"""What a run leaves behind for people and for other programs: ``report.html`` and ``report.json``."""

import base64
import html
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gm_jax.evaluation import plots
from gm_jax.evaluation.likelihood import Score, decimals, is_closed, name_of_test_score, to_json

TEST_SCORES = ('test_log_prob', 'test_bound', 'test_estimate')


def read_history(path: str | Path) -> list[dict[str, Any]]:
  """The rows of a ``metrics.jsonl``, one for each step, in the order of the steps.

  A line that a killed run left torn is skipped; where a resumed run wrote a step again, the later values count.

  Args:
    path: a file of one JSON object per line, each with ``'step'``.

  Returns:
    Rows ``{'step': ..., name: value, ...}``; nothing if there is no such file.
  """
  rows: dict[int, dict[str, Any]] = {}
  path = Path(path)
  lines = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.exists() else []
  for line in lines:
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int):
      rows.setdefault(row['step'], {}).update(row)
  return [rows[step] for step in sorted(rows)]


def write_report(
  folder: str | Path,
  *,
  model: str,
  dataset: str,
  num_params: int,
  train_seconds: float,
  steps: int,
  metrics: Mapping[str, Score],
  settings: Mapping[str, Any],
  command: str,
  pictures: Sequence[tuple[str | Path, str]] = (),
  history: Iterable[Mapping[str, Any]] = (),
  published: Sequence[tuple[str, float | str, str]] = (),
) -> Path:
  """Writes ``report.json``, ``report.html`` and, from the history, ``curves.png`` into the folder of a run.

  Each file is complete or absent: it is written beside its place and then moved there. The HTML needs no other file.

  Args:
    folder: the run's folder; made if it does not exist.
    model: name of the model.
    dataset: name of the data set.
    num_params: number of learnt parameters.
    train_seconds: wall-clock time of training, seconds.
    steps: number of updates.
    metrics: scores by name. The test log-likelihood goes by the name that ``name_of_test_score`` gives its kind.
    settings: name and value of every flag.
    command: the command line that repeats the run.
    pictures: ``(path, caption)`` of PNG files, relative paths being relative to ``folder``.
    history: rows of ``read_history``, drawn as curves.
    published: ``(name, number, source)`` of results to be compared with the test score, in its unit.

  Returns:
    The path of ``report.html``.

  Raises:
    ValueError: if a test score goes by a name that its kind does not allow.
    FileNotFoundError: if a picture does not exist.
  """
  folder = Path(folder)
  for name, score in metrics.items():
    if name in TEST_SCORES and name != name_of_test_score(score.kind):
      raise ValueError(f'{name} is of kind {score.kind!r}: report it as {name_of_test_score(score.kind)}')
  folder.mkdir(parents=True, exist_ok=True)
  summary = {
    'model': model,
    'dataset': dataset,
    'num_params': int(num_params),
    'train_seconds': float(train_seconds) if math.isfinite(train_seconds) else None,
    'steps': int(steps),
    'metrics': {name: to_json(score) for name, score in metrics.items()},
  }
  embedded = [(_data_uri(folder / path), caption) for path, caption in pictures]
  history = list(history)
  if any(len(row) > 1 for row in history):
    _write(folder / 'curves.png', lambda path: plots.save(plots.learning_curves(history), path))
    embedded.append((_data_uri(folder / 'curves.png'), 'Learning curves'))
  page = _page(summary, metrics, settings, command, embedded, published)
  _write(folder / 'report.html', lambda path: path.write_text(page, encoding='utf-8'))
  text = json.dumps(summary, indent=2, allow_nan=False) + '\n'
  _write(folder / 'report.json', lambda path: path.write_text(text, encoding='utf-8'))
  return folder / 'report.html'


def _write(path: Path, write: Callable[[Path], Any]) -> None:
  """Lets ``write`` fill a temporary file in the folder of ``path``, which then takes its place at once."""
  temporary = path.with_name(f'.{path.stem}-{os.getpid()}{path.suffix}')
  try:
    write(temporary)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _data_uri(path: Path) -> str:
  return 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()


STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #24292f; --quiet: #667077; --line: #dfe2e4; --card: #fff;
  --accent: #0068a8; --warn: #a84300; }
@media (prefers-color-scheme: dark) { :root { --page: #16191c; --ink: #e4e6e8; --quiet: #99a2a9; --line: #343a40;
  --card: #1e2226; --accent: #6cbcec; --warn: #f0a060; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .7rem; }
.quiet { color: var(--quiet); } p { margin: .3rem 0; }
.score { margin: 1.5rem 0 0; padding: 1rem 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--accent); border-radius: 6px; }
.score b { font-size: 1.8rem; font-variant-numeric: tabular-nums; margin-right: .4rem; }
.warn { color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1.4rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 500; font-size: .88rem; } .number { text-align: right; white-space: nowrap; }
.ours td { font-weight: 600; }
pre { margin: 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .88rem; }
.settings td:first-child { font-family: ui-monospace, monospace; font-size: .88rem; }
.settings td { overflow-wrap: anywhere; }
figure { margin: 0 0 1.8rem; } figcaption { margin-top: .4rem; color: var(--quiet); font-size: .92rem; }
img { max-width: 100%; height: auto; display: block; border-radius: 6px; border: 1px solid var(--line);
  background: #fff; }
"""


def _page(summary, metrics, settings, command, pictures, published) -> str:
  """The HTML of a report; everything that comes from outside is escaped."""
  title = f'{summary["model"]} on {summary["dataset"]}'
  main = next(((name, metrics[name]) for name in TEST_SCORES if name in metrics), None)
  parts = [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    # The page says itself that it loads nothing.
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">",
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>',
    f'<h1>{_escape(title)}</h1>',
    f'<p class="quiet">{summary["num_params"]:,} parameters · {summary["steps"]:,} updates · '
    f'{_duration(summary["train_seconds"])} of training</p>',
  ]
  if main:
    name, score = main
    parts.append(
      f'<div class="score"><b>{_number(score.value, score)}</b>{_error(score)} {_escape(score.unit)}'
      f'<p class="quiet">{_label(name)} · {_kind(score)} · {score.n:,} examples</p></div>'
    )
  if metrics:
    rows = [
      (_label(name), _number(score.value, score), _error(score), _escape(score.unit), _kind(score), f'{score.n:,}')
      for name, score in metrics.items()
    ]
    heads = ('score', 'value', 'standard error', 'unit', 'kind', 'examples')
    parts += ['<h2>Numbers</h2>', _table(heads, rows, numbers=(1, 2, 5))]
  if published:
    rows = [(_escape(name), _published(number), _escape(source)) for name, number, source in published]
    if main:
      ours = f'{_number(main[1].value, main[1])} {_error(main[1])} {_escape(main[1].unit)}'
      rows.insert(0, (_escape(summary['model']), ours, f'this run ({_kind(main[1])})'))
    table = _table(
      ('model', _label(main[0]) if main else 'score', 'source'), rows, numbers=(1,), first_is_ours=bool(main)
    )
    parts += ['<h2>Beside published results</h2>', table]
  if pictures:
    parts.append('<h2>Pictures</h2>')
    parts += [
      f'<figure><img src="{uri}" alt="{_escape(caption)}"><figcaption>{_escape(caption)}</figcaption></figure>'
      for uri, caption in pictures
    ]
  parts += ['<h2>Command</h2>', f'<pre>{_escape(command)}</pre>']
  if settings:
    rows = [(_escape(name), _escape(value)) for name, value in settings.items()]
    parts += ['<h2>Settings</h2>', _table(('flag', 'value'), rows, style='settings')]
  return '\n'.join([*parts, '</body>\n</html>\n'])


def _table(heads, rows, *, numbers=(), style: str = '', first_is_ours: bool = False) -> str:
  """A table of cells that are HTML already; ``numbers`` are the columns set flush right."""

  def line(cells, tag, attributes=''):
    columns = (f'<{tag}{" class=number" * (i in numbers)}>{cell}</{tag}>' for i, cell in enumerate(cells))
    return f'<tr{attributes}>{"".join(columns)}</tr>'

  body = [line(row, 'td', ' class="ours"' if first_is_ours and i == 0 else '') for i, row in enumerate(rows)]
  return f'<div class="wide"><table class="{style}">\n' + '\n'.join([line(heads, 'th'), *body]) + '\n</table></div>'


def _escape(value: Any) -> str:
  return html.escape(str(value))


def _label(name: str) -> str:
  return _escape(name.replace('_', ' '))


def _kind(score: Score) -> str:
  """The kind of a score with its interval."""
  text = score.kind
  if score.lower is not None:
    text += f' [{_number(score.lower, score)}, {_number(score.upper, score)}]'
  if score.kind == 'bracket' and score.unit == 'nats' and not is_closed(score):
    text += ', <span class="warn">not closed</span>'
  return text


def _number(value: float, score: Score) -> str:
  """A value with as many decimals as its error supports."""
  if not math.isfinite(value):
    return '<span class="warn">not finite</span>'
  return f'{value:,.{decimals(score.stderr)}f}'.replace('-', '−')


def _error(score: Score) -> str:
  if score.stderr is None or not math.isfinite(score.stderr):
    return ''
  return f'± {score.stderr:,.{decimals(score.stderr)}f}'


def _published(number: float | str) -> str:
  return _escape(number).replace('-', '−')


def _duration(seconds: float | None) -> str:
  if seconds is None:
    return 'an unknown time'
  if seconds < 120:
    return f'{seconds:.1f} s'
  return f'{seconds / 60:.1f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'
