"""How well vectors stand for what they were made from: retrieval by cosine, and nearest neighbours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gm_jax.base import Array


class Retrieval(NamedTuple):
  """Means over queries, for each number of documents retrieved."""

  precision: np.ndarray  # [F] share of the retrieved that bear the label of the query
  recall: np.ndarray  # [F] share of those that bear it which are retrieved


def _unit(vectors) -> np.ndarray:
  vectors = np.asarray(vectors, np.float32)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def precision_recall(
  queries: Array,
  query_labels: Array,
  documents: Array,
  labels: Array,
  fractions: Sequence[float],
  *,
  block_size: int = 512,
) -> Retrieval:
  """Retrieves the documents nearest to each query by the cosine of their vectors; right are those of its label.

  Args:
    queries: ``[Q, H]``.
    query_labels: ``[Q]`` integers, each of which some document bears.
    documents: ``[N, H]``.
    labels: ``[N]`` integers.
    fractions: ``[F]`` shares of the documents that are retrieved, above 0 and up to 1; at least one is.
    block_size: queries at a time, which bounds the memory.

  Raises:
    ValueError: for a fraction out of range, or a query whose label no document bears.
  """
  fractions = np.asarray(fractions, float)
  if not ((fractions > 0) & (fractions <= 1)).all():
    raise ValueError(f'fractions={fractions.tolist()}: shares of the documents lie above 0 and up to 1')
  query_labels, labels = np.asarray(query_labels), np.asarray(labels)
  if missing := sorted(set(query_labels.tolist()) - set(labels.tolist())):
    raise ValueError(f'query_labels has {missing[0]}, which no document bears: there is nothing right to retrieve')
  queries, documents = _unit(queries), _unit(documents)
  retrieved = np.maximum(np.rint(fractions * len(documents)).astype(int), 1)
  found = np.zeros(len(fractions)), np.zeros(len(fractions))
  for start in range(0, len(queries), block_size):
    part = slice(start, start + block_size)
    nearest = np.argsort(-queries[part] @ documents.T, axis=1, kind='stable')
    right = (labels[nearest] == query_labels[part, None]).cumsum(axis=1)
    found[0][:] += (right[:, retrieved - 1] / retrieved).sum(0)
    found[1][:] += (right[:, retrieved - 1] / right[:, -1:]).sum(0)
  return Retrieval(*(total / len(queries) for total in found))


def nearest(vectors: Array, index: int, num: int) -> np.ndarray:
  """The ``num`` rows nearest to a row by cosine, itself left out, the nearest first: ``[V, H] -> [num]``."""
  unit = _unit(vectors)
  cosine = unit @ unit[index]
  cosine[index] = -np.inf
  return np.argsort(-cosine, kind='stable')[:num]
