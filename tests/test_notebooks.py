import json
import pathlib

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_order(path):
  names = {}
  for cell in json.loads(path.read_text())['cells']:
    if cell['cell_type'] == 'code':
      exec(compile(''.join(cell['source']), f'{path.name}, {cell["id"]}', 'exec'), names)
  if path.stem == 'boltzmann':  # what its text says of the last line of annealing holds
    assert names['curve'][-1]['train/log_prob'] > names['curve'][0]['train/log_prob'] + 3
    assert abs(names['forward'].log_z - names['exact']) < 0.1
