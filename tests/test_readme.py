import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / 'README.md').read_text()


@pytest.mark.parametrize('code', re.findall(r'```python\n(.*?)```', README, re.DOTALL))
def test_the_code_of_the_readme_runs(code, capsys):
  exec(compile(code, 'README.md', 'exec'), {})
  log_prob, shape = capsys.readouterr().out.splitlines()
  assert float(log_prob) > -23.5  # independent pixels have -24.4
  assert shape == '(3, 64)'


def test_every_file_that_the_readme_names_exists():
  root = pathlib.Path(__file__).parents[1]
  names = set(re.findall(r'`((?:gm_jax|experiments|benchmarks)/[\w/.]+\.py)`', README))
  names |= {f'experiments/{name}.py' for name in re.findall(r'experiments\.(\w+)', README)}
  names |= set(re.findall(r'\]\(([\w/]+\.(?:md|png))\)', README))
  assert len(names) > 5
  assert [name for name in sorted(names) if not (root / name).exists()] == []
