"""Which variables speak to each other: Markov random fields given, learnt, and read in an ordering.

A graph is a symmetric boolean matrix ``[D, D]`` without loops: two variables are joined unless they are independent
given all others. These are decisions taken before any learning, so all is plain numpy.

In an ordering, variable i depends on its predecessors through its *looking-back Markov blanket* B_i alone, the smallest
set of them with p(x_i | all predecessors) = p(x_i | B_i): those that a path reaches from i through later variables
only. Reference: Khajenezhad, Madani & Beigy, "Masked autoencoder for distribution estimation on small structured data
sets", 2021.
"""

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree

from gm_jax.nn.masked import check_ordering

Blankets = tuple[tuple[int, ...], ...]


def check_graph(graph) -> np.ndarray:
  """A graph as a boolean matrix.

  Raises:
    ValueError: if it is not square, not symmetric, or joins a variable to itself.
  """
  graph = np.asarray(graph, bool)
  if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or (graph != graph.T).any() or graph.diagonal().any():
    raise ValueError(f'graph of shape {graph.shape}: give a symmetric [D, D] matrix with an empty diagonal')
  return graph


def complete(num_dimensions: int) -> np.ndarray:
  """The graph that joins everything, which says nothing: masks from it are those of MADE."""
  return ~np.eye(num_dimensions, dtype=bool)


def grid(height: int, width: int) -> np.ndarray:
  """Pixels in raster order, joined to their four neighbours."""
  row, column = np.divmod(np.arange(height * width), width)
  return np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1


def chow_liu(x: np.ndarray, num_states: int = 2, count: float = 1.0) -> np.ndarray:
  """The tree under which discrete data are most probable: a maximum spanning tree of mutual information.

  Args:
    x: ``[N, D]`` states 0, ..., num_states - 1.
    num_states: of each variable.
    count: added to the counts of each pair of variables, spread evenly over its joint states.

  Reference: Chow & Liu, "Approximating discrete probability distributions with dependence trees", 1968.
  """
  num, dim = np.shape(x)
  one_hot = (np.asarray(x)[..., None] == np.arange(num_states)).reshape(num, -1).astype(np.float64)
  joint = (one_hot.T @ one_hot).reshape(dim, num_states, dim, num_states) + count / num_states**2
  joint = joint / joint.sum((1, 3), keepdims=True)
  marginal = (one_hot.reshape(num, dim, num_states).sum(0) + count / num_states) / (num + count)
  independent = marginal[:, :, None, None] * marginal[None, None]
  information = (joint * np.log(joint / independent)).sum((1, 3))
  # Zero weights are no edges to scipy, so all weights are moved below zero; a spanning tree is the same for it.
  weights = np.triu(-(information - information.min() + 1), 1)
  tree = minimum_spanning_tree(weights).toarray() != 0
  return tree | tree.T


def l1_neighbourhoods(x: np.ndarray, penalty: float) -> np.ndarray:
  """The graph of binary data by an L1-penalised logistic regression of each variable on all others.

  Two variables are joined if either regression gives the other a weight.

  Args:
    x: ``[N, D]`` zeros and ones.
    penalty: weight of the L1 norm against the *mean* log-likelihood; theory asks for the order of sqrt(log(D) / N).

  Raises:
    ValueError: if the penalty is not positive.

  Reference: Ravikumar, Wainwright & Lafferty, "High-dimensional Ising model selection", 2010.
  """
  if not penalty > 0:
    raise ValueError(f'penalty={penalty}: must be positive')
  from sklearn.linear_model import LogisticRegression

  x = np.asarray(x)
  num, dim = x.shape
  graph = np.zeros((dim, dim), bool)
  for i in range(dim):
    if 0 < x[:, i].sum() < num:
      others = np.delete(np.arange(dim), i)
      regression = LogisticRegression(l1_ratio=1, C=1 / (penalty * num), solver='liblinear', random_state=0)
      graph[i, others] = regression.fit(x[:, others], x[:, i]).coef_[0] != 0
  return graph | graph.T


def ordering_of_small_blankets(graph) -> np.ndarray:
  """An ordering with small looking-back blankets: the next variable from the end is one with fewest neighbours left.

  Of a tree this makes each blanket the parent alone.
  """
  graph, ordering = check_graph(graph).copy(), []
  left = np.ones(len(graph), bool)
  while left.any():
    i = int(np.argmin(np.where(left, graph.sum(1), len(graph))))
    _remove(graph, i)
    left[i] = False
    ordering.append(i)
  return np.array(ordering[::-1], np.int32)


def looking_back_blankets(graph, ordering) -> Blankets:
  """B_i for each variable i, by removing variables from the last to the first.

  To sum a variable out of a Markov random field joins its neighbours to each other. When all later ones are gone, the
  neighbours of i are its blanket.

  Args:
    graph: ``[D, D]``.
    ordering: ``ordering[t]`` is the variable that comes t-th.

  Raises:
    ValueError: for what is no graph, or no ordering of its variables.
  """
  graph = check_graph(graph).copy()
  blankets = [()] * len(graph)
  for i in check_ordering(ordering, len(graph))[::-1]:
    blankets[i] = tuple(np.flatnonzero(graph[i]).tolist())
    _remove(graph, i)
  return tuple(blankets)


def _remove(graph: np.ndarray, i: int) -> None:
  """Sum variable i out, in place."""
  neighbours = np.flatnonzero(graph[i])
  graph[np.ix_(neighbours, neighbours)] = True
  graph[neighbours, neighbours] = False
  graph[i], graph[:, i] = False, False
