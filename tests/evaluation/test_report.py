"""Reports: the JSON that programs read, the HTML that people read."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest

from gm_jax.evaluation import image_plots, likelihood, plots, report
from gm_jax.evaluation.likelihood import score

NASTY = '<script>alert("x")</script> & \'y\''


class Page(html.parser.HTMLParser):
  """What a browser would see; every tag must be closed in its turn."""

  VOID = {'meta', 'img', 'br'}

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.images, self.text, self.cells = [], [], [], '', []
    self.feed(text)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)
    if tag == 'tr':
      self.cells.append([])
    elif tag in ('td', 'th'):
      self.cells[-1].append('')
    elif tag == 'img':
      self.images.append(dict(attrs))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if 'style' not in self.open:
      self.text += data
    if 'td' in self.open or 'th' in self.open:
      self.cells[-1][-1] += data


@pytest.fixture
def arguments(tmp_path):
  plots.save(image_plots.image_grid(np.eye(4)[None]), tmp_path / 'samples.png')
  return {
    'model': 'rbm', 'dataset': 'digits', 'num_params': 1234, 'train_seconds': 61.5, 'steps': 5000,
    'metrics': {
      'test_log_prob': score(-17.456, 'bracket', stderr=0.123, n=360, lower=-17.6, upper=-17.3),
      'pseudo_log_prob': score(np.nan, 'estimate', stderr=np.inf, n=360),
    },
    'settings': {'cd_steps': 25, 'note': NASTY},
    'command': f'python -m experiments.rbm --note={NASTY!r}',
    'pictures': [('samples.png', f'Samples {NASTY}')],
    'history': [{'step': s, 'train/loss': 3.0 - s} for s in range(3)],
    'published': [('CD-25', -86.34, 'Salakhutdinov & Murray, https://example.org/paper')],
  }  # fmt: skip


def test_json_has_exactly_the_agreed_keys(arguments, tmp_path):
  report.write_report(tmp_path, **arguments)
  text = (tmp_path / 'report.json').read_text()
  written = json.loads(text, parse_constant=lambda word: pytest.fail(f'{word} is no JSON'))
  assert written == {
    'model': 'rbm', 'dataset': 'digits', 'num_params': 1234, 'train_seconds': 61.5, 'steps': 5000,
    'metrics': {
      'test_log_prob': {
        'value': -17.456, 'kind': 'bracket', 'stderr': 0.123, 'n': 360, 'unit': 'nats', 'lower': -17.6, 'upper': -17.3,
      },
      'pseudo_log_prob': {'value': None, 'kind': 'estimate', 'stderr': None, 'n': 360, 'unit': 'nats'},
    },
  }  # fmt: skip


def test_html_stands_alone(arguments, tmp_path):
  path = report.write_report(tmp_path, **arguments)
  assert path == tmp_path / 'report.html'
  page = Page(path.read_text(encoding='utf-8'))
  tags = [tag for tag, _ in page.tags]
  assert not {'script', 'link', 'iframe', 'object', 'base', 'a'} & set(tags)
  for tag, attributes in page.tags:
    for name, value in attributes.items():
      assert 'http' not in (value or '') or name == 'http-equiv', (tag, name, value)
      assert name not in ('src', 'href', 'srcset') or value.startswith('data:image/png;base64,')
  style = re.search('<style>(.*)</style>', path.read_text(), re.S)[1]
  assert 'url(' not in style and '@import' not in style and 'prefers-color-scheme: dark' in style


def test_html_embeds_the_pictures_and_the_curves(arguments, tmp_path):
  page = Page(report.write_report(tmp_path, **arguments).read_text())
  embedded = [base64.b64decode(image['src'].partition(',')[2]) for image in page.images]
  assert embedded == [(tmp_path / name).read_bytes() for name in ('samples.png', 'curves.png')]
  assert embedded[0].startswith(b'\x89PNG')
  assert [image['alt'] for image in page.images] == [f'Samples {NASTY}', 'Learning curves']


def test_html_escapes_and_shows_everything(arguments, tmp_path):
  path = report.write_report(tmp_path, **{**arguments, 'model': f'rbm{NASTY}', 'dataset': f'digits{NASTY}'})
  assert '<script' not in path.read_text()
  page = Page(path.read_text())
  for text in (f'rbm{NASTY} on digits{NASTY}', arguments['command'], f'Samples {NASTY}', '1,234 parameters'):
    assert text in page.text
  assert ['note', NASTY] in page.cells
  assert ['test log prob', '−17.46', '± 0.12', 'nats', 'bracket [−17.60, −17.30]', '360'] in page.cells
  assert ['pseudo log prob', 'not finite', '', 'nats', 'estimate', '360'] in page.cells
  assert ['CD-25', '−86.34', 'Salakhutdinov & Murray, https://example.org/paper'] in page.cells
  assert [f'rbm{NASTY}', '−17.46 ± 0.12 nats', 'this run (bracket [−17.60, −17.30])'] in page.cells


def test_a_report_of_little(tmp_path):
  path = report.write_report(
    tmp_path / 'new' / 'folder', model='m', dataset='d', num_params=0, train_seconds=0, steps=0, metrics={},
    settings={}, command='', history=[{'step': 3}],
  )  # fmt: skip
  page = Page(path.read_text())
  assert 'm on d' in page.text and not page.images
  assert json.loads((path.parent / 'report.json').read_text())['metrics'] == {}


@pytest.mark.parametrize(
  ('name', 'kind', 'remedy'),
  [
    ('test_log_prob', 'lower bound', 'test_bound'),
    ('test_log_prob', 'estimate', 'test_estimate'),
    ('test_bound', 'exact', 'test_log_prob'),
  ],
)
def test_a_bound_is_not_reported_as_a_likelihood(arguments, tmp_path, name, kind, remedy):
  metrics = {name: score(-1.0, kind, stderr=0.1, n=5)}
  with pytest.raises(ValueError, match=f'{name} is of kind {kind!r}: report it as {remedy}'):
    report.write_report(tmp_path, **{**arguments, 'metrics': metrics})
  report.write_report(tmp_path, **{**arguments, 'metrics': {remedy: metrics[name]}})


def test_a_failed_write_leaves_the_old_report(arguments, tmp_path, monkeypatch):
  report.write_report(tmp_path, **arguments)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  write_text = report.Path.write_text

  def full_disk(self, text, **kwargs):
    write_text(self, text[: len(text) // 2], **kwargs)
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(report.Path, 'write_text', full_disk)
  with pytest.raises(OSError, match='No space'):
    report.write_report(tmp_path, **{**arguments, 'steps': 9999})
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_history_skips_torn_lines_and_keeps_the_latest(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [
    '{"step": 1, "train/loss": 3.0}',
    '{"step": 1, "valid/loss": 3.5}',
    '{"step": 3, "train/loss": 9.0}',
    '{"step": 2, "train/lo{"step": 2, "train/loss": 2.0}',
    '{"step": 2, "train/loss": null}',
    '{"step": 3, "train/loss": 1.0}',
    '{"step": 4, "trai',
  ]
  path.write_text('\n'.join(lines))
  assert report.read_history(path) == [
    {'step': 1, 'train/loss': 3.0, 'valid/loss': 3.5},
    {'step': 2, 'train/loss': None},
    {'step': 3, 'train/loss': 1.0},
  ]
  assert report.read_history(tmp_path / 'none.jsonl') == []


def test_describe_and_the_report_agree(arguments, tmp_path):
  one = arguments['metrics']['test_log_prob']
  page = Page(report.write_report(tmp_path, **arguments).read_text())
  for word in likelihood.describe(one).replace('-', '−').split(' (')[0].split():
    assert word in page.text
