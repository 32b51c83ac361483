"""Devices and hosts: the only file that knows them.

A ``Placement`` says where a state lives and how a dispatch (a scan of update steps) is compiled. There are three:

* ``single``: one device, plain ``jit``.
* ``pmapped``: one program per device, with an axis name for the means. Parameters are replicated, batches and chains
  split.
* ``sharded``: one ``jit`` over a mesh, in which XLA finds the collectives. The key is that of a single device, so
  results equal ``single`` up to the order of summation, also for stochastic steps.

The last two work over several hosts after ``connect_hosts``. Off the devices a state has always the same form (all
chains, parameters once), so a run may be resumed under another placement.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gm_jax.base import TrainState

AXIS = 'devices'


class Placement(NamedTuple):
  """Where a state lives, and how the function that advances it is compiled.

  Trees of batches are ``[num_steps, B, ...]`` and are split along ``B``; every leaf of ``chains`` is split along its
  axis ``chain_axis`` (0, or 1 behind an axis of seeds).
  """

  axis_name: str | None  # for the rules' means; None where no axis is mapped
  num_shards: int  # devices over all hosts, each of which takes an equal share of batch and chains
  put_state: Callable[[TrainState], TrainState]  # from the host to the devices
  get_state: Callable[[TrainState], TrainState]  # back, as numpy
  put_data: Callable[[Any], Any]  # a data set, whole, to every device
  put_batches: Callable[[Any], Any]  # this host's columns of a stack of batches
  own_columns: Callable[[int], slice]  # batch size -> the columns of each batch that this host must provide
  split: Callable[[Any], Any]  # inside a dispatch: this shard's columns of an array of indices [num_steps, B]
  compile: Callable[[Callable], Callable]  # (state, key, data) -> (state, metrics)
  first: Callable[[Any], Any]  # metrics as the host sees them


def connect_hosts(coordinator: str, num_hosts: int, host_index: int) -> None:
  """Join the hosts of a run; call it before anything touches a device.

  Args:
    coordinator: ``host:port`` of the first host.
    num_hosts: how many processes there are.
    host_index: which of them this is, from 0.

  Raises:
    ValueError: for an index outside ``[0, num_hosts)`` or a coordinator without a port.
  """
  if not 0 <= host_index < num_hosts:
    raise ValueError(f'host_index={host_index} must lie between 0 and num_hosts - 1 = {num_hosts - 1}')
  if not coordinator.rpartition(':')[2].isdigit():
    raise ValueError(f'coordinator={coordinator!r} must be host:port, for instance 10.0.0.1:1234')
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(coordinator, num_hosts, host_index)


def placement(
  mode: str, *, batch_size: int, chain_axis: int = 0, devices: Sequence[jax.Device] | None = None
) -> Placement:
  """The placement of the given name.

  Args:
    mode: ``'none'``, ``'pmap'`` or ``'jit'``.
    batch_size: the global batch, which has to divide over the devices.
    chain_axis: see ``Placement``.
    devices: all devices, for the two parallel modes; those that JAX has if not given.

  Raises:
    ValueError: for another mode, or a batch that does not divide over the devices.
  """
  if mode == 'none':
    if jax.process_count() > 1:
      raise ValueError("parallel='none' runs on one host; with several hosts use 'pmap' or 'jit'")
    return single()
  if mode not in ('pmap', 'jit'):
    raise ValueError(f"parallel={mode!r} must be one of 'none', 'pmap', 'jit'")
  devices = list(devices or jax.devices())
  if batch_size % len(devices):
    below = batch_size - batch_size % len(devices)
    raise ValueError(
      f'batch_size={batch_size} does not divide over {len(devices)} devices; use {below or len(devices)} for instance'
    )
  return (pmapped if mode == 'pmap' else sharded)(devices, chain_axis)


def single() -> Placement:
  """Everything on the default device."""
  return Placement(
    axis_name=None,
    num_shards=1,
    put_state=jax.device_put,
    get_state=jax.device_get,
    put_data=jax.device_put,
    put_batches=jax.device_put,
    own_columns=lambda batch_size: slice(0, batch_size),
    split=lambda indices: indices,
    compile=lambda dispatch: jax.jit(dispatch, donate_argnums=0),
    first=jax.device_get,
  )


def pmapped(devices: Sequence[jax.Device], chain_axis: int = 0) -> Placement:
  """One program per device. Arrays on the devices have the devices of this host as first axis."""
  local = [device for device in devices if device.process_index == jax.process_index()]
  rank = devices.index(local[0])
  by_device = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))

  def replicate(leaf):
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(
      (len(local), *leaf.shape), by_device, lambda index: np.broadcast_to(leaf, (1, *leaf.shape))
    )

  def scatter(leaf, axis, parts, start):
    """Equal parts of an axis, those of this host, one to each device."""
    shares = np.split(np.asarray(leaf), parts, axis)[start : start + len(local)]
    return jax.device_put(np.stack(shares), by_device)

  def put_state(state):
    chains = jax.tree.map(lambda leaf: scatter(leaf, chain_axis, len(devices), rank), state.chains)
    return jax.tree.map(replicate, state._replace(chains=()))._replace(chains=chains)

  def gather(leaf):
    leaf = np.asarray(leaf)
    if jax.process_count() > 1:
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.concatenate(leaf, chain_axis)

  def get_state(state):
    chains = jax.tree.map(gather, state.chains)
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), state._replace(chains=()))._replace(chains=chains)

  def own_columns(batch_size):
    share = batch_size // len(devices)
    return slice(rank * share, (rank + len(local)) * share)

  def split(indices):
    share = indices.shape[1] // len(devices)
    return jax.lax.dynamic_slice_in_dim(indices, jax.lax.axis_index(AXIS) * share, share, axis=1)

  return Placement(
    axis_name=AXIS,
    num_shards=len(devices),
    put_state=put_state,
    get_state=get_state,
    put_data=lambda data: jax.tree.map(replicate, data),
    put_batches=lambda batches: jax.tree.map(lambda leaf: scatter(leaf, 1, len(local), 0), batches),
    own_columns=own_columns,
    split=split,
    compile=lambda dispatch: jax.pmap(
      dispatch, axis_name=AXIS, in_axes=(0, None, 0), devices=devices, donate_argnums=0
    ),
    first=lambda metrics: jax.tree.map(lambda leaf: np.asarray(leaf[0]), metrics),
  )


def sharded(devices: Sequence[jax.Device], chain_axis: int = 0) -> Placement:
  """One program over a mesh of devices."""
  mesh = Mesh(np.array(devices), (AXIS,))
  replicated = NamedSharding(mesh, PartitionSpec())
  by_column = NamedSharding(mesh, PartitionSpec(None, AXIS))
  by_chain = NamedSharding(mesh, PartitionSpec(*[None] * chain_axis, AXIS))

  def put(leaf, sharding):
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

  def put_state(state):
    chains = jax.tree.map(lambda leaf: put(leaf, by_chain), state.chains)
    return jax.tree.map(lambda leaf: put(leaf, replicated), state._replace(chains=()))._replace(chains=chains)

  def get_leaf(leaf):
    if leaf.is_fully_addressable:
      return np.asarray(leaf)
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0))
    return multihost_utils.process_allgather(leaf, tiled=True)

  def compile_dispatch(dispatch):
    def constrained(state, key, data):
      state, metrics = dispatch(state, key, data)
      chains = jax.lax.with_sharding_constraint(state.chains, by_chain)
      state = jax.lax.with_sharding_constraint(state._replace(chains=()), replicated)
      return state._replace(chains=chains), jax.lax.with_sharding_constraint(metrics, replicated)

    return jax.jit(constrained, donate_argnums=0)

  def own_columns(batch_size):
    share = batch_size // len(devices)
    own = [rank for rank, device in enumerate(devices) if device.process_index == jax.process_index()]
    return slice(own[0] * share, (own[-1] + 1) * share)

  return Placement(
    axis_name=None,
    num_shards=len(devices),
    put_state=put_state,
    get_state=lambda state: jax.tree.map(get_leaf, state),
    put_data=lambda data: jax.tree.map(lambda leaf: put(leaf, replicated), data),
    put_batches=lambda batches: jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(by_column, np.asarray(leaf)), batches
    ),
    own_columns=own_columns,
    split=lambda indices: jax.lax.with_sharding_constraint(indices, by_column),
    compile=compile_dispatch,
    first=lambda metrics: jax.tree.map(get_leaf, metrics),
  )


def agree(flag: bool) -> bool:
  """Whether the flag is set on any host, so that all hosts take the same turn."""
  if jax.process_count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
