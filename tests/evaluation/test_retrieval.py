import numpy as np
import pytest

from gm_jax.evaluation import retrieval


def test_precision_and_recall_are_those_of_a_count_by_hand():
  documents = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
  found = retrieval.precision_recall([[2.0, 0.0]], [7], documents, [7, 3, 7, 3], [0.25, 0.5, 0.75, 1.0])
  np.testing.assert_allclose(found.precision, [1, 1 / 2, 2 / 3, 1 / 2])
  np.testing.assert_allclose(found.recall, [1 / 2, 1 / 2, 1, 1])


def test_the_length_of_vectors_and_the_size_of_blocks_do_not_matter():
  random = np.random.RandomState(0)
  queries, documents = random.randn(7, 3), random.randn(40, 3)
  asked, labels = random.randint(0, 3, 7), random.randint(0, 3, 40)
  one = retrieval.precision_recall(queries, asked, documents, labels, [0.1, 0.5, 1.0])
  scaled = documents * random.uniform(0.1, 10, (40, 1))
  two = retrieval.precision_recall(queries, asked, scaled, labels, [0.1, 0.5, 1.0], block_size=2)
  np.testing.assert_allclose(one, two)
  assert one.recall[-1] == 1
  np.testing.assert_allclose(one.precision[-1], np.mean([(labels == label).mean() for label in asked]))


def test_what_cannot_be_retrieved_is_refused():
  with pytest.raises(ValueError, match='fractions'):
    retrieval.precision_recall([[1.0]], [0], [[1.0]], [0], [0.0])
  with pytest.raises(ValueError, match='query_labels has 5'):
    retrieval.precision_recall([[1.0]], [5], [[1.0]], [0], [1.0])


def test_nearest_rows_leave_out_the_row_itself():
  vectors = np.array([[1.0, 0.0], [5.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
  assert retrieval.nearest(vectors, 0, 2).tolist() == [1, 2]
