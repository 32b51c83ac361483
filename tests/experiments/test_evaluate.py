"""Evaluation of run folders and arrays, extractors of features, and the bench of known failures, on a few images."""

import functools
import json

import jax
import numpy as np
import pytest

from experiments import cli, common_flags, evaluate, failures, pca
from gm_jax import data as datasets
from gm_jax.evaluation import corruptions, extractors


@functools.cache
def digits():
  return evaluate.real_of_dataset(datasets.load('digits'))


def run(folder, *argv):
  common_flags.run_script(evaluate.SCRIPT, ['evaluate', *argv, f'--workdir={folder}'])
  return json.loads((folder / 'scores.json').read_text())


def test_arrays_are_scored(tmp_path):
  images = digits()
  np.save(tmp_path / 'real.npy', (255 * images.test[:100, ..., 0]).astype(np.uint8))
  np.savez(tmp_path / 'fake.npz', samples=images.control[:60])
  found = run(
    tmp_path / 'out', f'--real={tmp_path}/real.npy', f'--fake={tmp_path}/fake.npz', '--extractor=random',
    '--num_features=8', '--metrics=frechet,class_divergence,memorisation',
  )  # fmt: skip
  assert list(found['scores']) == ['frechet']  # there are neither logits nor training images
  assert (found['n_real'], found['n_fake'], found['n_train'], found['split']) == (50, 50, 0, 'test')
  assert found['extractor']['name'] == 'random-8-seed0' and len(found['extractor']['digest']) == 12
  assert abs(found['scores']['frechet']['deviations']) < 4  # both are real
  assert (tmp_path / 'out' / 'precision_recall.png').exists() and (tmp_path / 'out' / 'samples.png').exists()


@pytest.mark.slow
def test_the_model_of_a_run_folder_is_scored(tmp_path):
  cli.run(pca.BINARY, ['pca', f'--workdir={tmp_path}/run', '--num_components=10', '--num_epochs=1'])
  found = run(tmp_path / 'out', f'--run={tmp_path}/run', '--extractor=pixels', '--metrics=memorisation,inception_score')
  assert set(found['scores']) == {'copies', 'copying_test'} and found['real'] == 'digits'
  assert found['scores']['copying_test']['value'] > 0  # probabilistic PCA blurs, and does not copy
  assert (tmp_path / 'out' / 'nearest.png').exists()


def test_a_run_folder_says_which_data_its_model_saw(tmp_path, monkeypatch):
  (tmp_path / 'settings.flags').write_text('# python -m experiments.rbm\n--dataset=digits\n--binarise=threshold\n')
  drawn = np.random.default_rng(0).integers(0, 2, (30, 64)).astype(np.float32)
  asked = []

  def sample(binary, argv):
    asked.append((binary.name, argv))
    np.savez(tmp_path / 'samples.npz', samples=drawn)

  monkeypatch.setattr(cli, 'run', sample)
  dataset, samples = evaluate.draw_from_run(str(tmp_path), 'last', 30, None)
  assert asked[0][0] == 'rbm' and {'--mode=sample', '--state=last', '--num_samples=30', f'--workdir={tmp_path}'} <= set(
    asked[0][1]
  )
  assert dataset.kind == 'binary' and evaluate.real_of_dataset(dataset).test.max() == 1
  np.testing.assert_array_equal(samples, drawn.reshape(30, 8, 8, 1))


@pytest.mark.parametrize('white', [1, 16])
def test_samples_are_intensities_whatever_their_model_speaks_of(white):
  dataset = datasets.load('digits')
  expected = dataset.test.x / 16
  noise = 0.2 * np.random.default_rng(0).normal(size=expected.shape)  # tails below black and above white
  found = evaluate.intensities(white * (expected + noise), dataset)
  np.testing.assert_allclose(found, np.clip(expected + noise, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--metrics=fid'], "metrics has 'fid'"),
    (['--run=nowhere'], "run='nowhere' is no run folder"),
    (['--real=x.npy'], "real='x.npy' needs samples"),
    (['--run=a', '--fake=b'], "run='a' brings its own samples"),
    (['--fake=nothing.npy'], 'nothing.npy: give a folder of images'),
    (['--num=3'], '--num=3'),
    (['--extractor=inception', '--metrics=frechet'], "extractor='inception': give one of"),
    (['--extractor=no_such_module:f', '--metrics=frechet'], "extractor='no_such_module:f' cannot be had"),
  ],
)
def test_what_the_user_can_put_right(argv, message, tmp_path, monkeypatch):
  monkeypatch.setattr(evaluate, 'draw_from_mixture', lambda images, num, seed: images.control[:num])
  with pytest.raises(common_flags.UserError, match=message):
    run(tmp_path, *argv)


def test_images_are_read_from_folders(tmp_path):
  from PIL import Image

  for i in range(2):
    Image.fromarray(np.full((4, 5), 255 * i, np.uint8)).save(tmp_path / f'{i}.png')
  found = evaluate.read_images(str(tmp_path))
  assert found.shape == (2, 4, 5, 1) and found[1].min() == 1
  with pytest.raises(ValueError, match='values from 0 to 2; intensities'):
    evaluate.as_images(np.linspace(0, 2, 8).reshape(2, 2, 2), None, 'array')


@functools.cache
def classifier():
  images = digits()
  train, test = (images.train, images.train_labels), (images.test, images.test_labels)
  options = {'num_features': 32, 'num_steps': 150, 'batch_size': 50, 'learning_rate': 0.01}
  return extractors.train_classifier(jax.random.key(0), train, test, 10, **options)


def test_a_classifier_is_kept_with_its_accuracy_and_its_hash(tmp_path):
  made = classifier()
  assert made.notes['accuracy'] > 0.7  # chance is a tenth; half of its few units are dropped in training
  extractors.save_classifier(tmp_path / 'net.npz', made)
  again = extractors.load_classifier(tmp_path / 'net.npz')
  assert again.digest == made.digest and again.notes == made.notes
  features = [one.extract(digits().test[:30], block_size=8) for one in (made, again)]
  np.testing.assert_array_equal(*(one.codes for one in features))
  assert features[0].codes.shape == (30, 32) and features[0].logits.shape == (30, 10)
  with np.load(tmp_path / 'net.npz') as file:
    arrays = dict(file)
  name = next(name for name in arrays if name.endswith('logits/bias'))
  np.savez(tmp_path / 'net.npz', **arrays | {name: arrays[name] + 1})
  with pytest.raises(ValueError, match='it is damaged'):
    extractors.load_classifier(tmp_path / 'net.npz')


def test_principal_components_agree_with_scikit_learn():
  from sklearn.decomposition import PCA

  train, test = digits().train, digits().test[:20]
  ours = extractors.principal_components(train, 5).extract(test).codes
  theirs = PCA(5, svd_solver='full').fit(train.reshape(len(train), -1)).transform(test.reshape(20, -1))
  np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-3)
  with pytest.raises(ValueError, match='num_components=65'):
    extractors.principal_components(train, 65)


def test_corruptions_do_what_they_say():
  images = digits()
  source = corruptions.Source(images.control[:100], images.control_labels[:100], images.train)
  made = {name: f(np.random.default_rng(0), source) for name, f in corruptions.CORRUPTIONS.items()}
  assert all(x.shape == source.images.shape and 0 <= x.min() and x.max() <= 1 for x in made.values())
  different = {name: len(np.unique(x.reshape(100, -1), axis=0)) for name, x in made.items()}
  assert different['repeat training'] == 10 and different['copy training'] > 95 and different['truncate'] <= 55
  assert different['drop modes'] < 70
  np.testing.assert_array_equal(made['shift'][:, 1:], source.images[:, :-1])
  changed = (made['invent classes'] != source.images).any((1, 2, 3))
  assert 10 < changed.sum() <= 20
  assert np.std(made['noise'] - source.images) > 0.05


@pytest.mark.slow
def test_the_bench_of_failures_sees_copies_and_nothing_else_in_the_memorisation_scores():
  found = failures.compare(digits(), extractors.pixels(), ['memorisation'], num=100, num_repeats=1, seed=0)
  assert found['copies']['copy training'] > 10 and found['copies']['repeat training'] > 10
  assert all(abs(found['copies'][name]) < 3 for name in ('drop modes', 'noise', 'shift', 'invent classes'))
  table = failures.table(found)
  assert len(table.splitlines()) == 4 and '·' in table
