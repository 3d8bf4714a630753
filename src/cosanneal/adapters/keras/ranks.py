"""The processes of a run of Keras: on JAX several, whose arrays may lie over all of them."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from ...core.errors import SnapshotError
from ...snapshots.messages import everyones
from ...snapshots.ranks import ALONE, Ranks, Together

# Of narrower floats a compiler may make others on the way: a NaN need not stay the same NaN.
_CARRIED_AS: Final = {1: "uint8", 2: "uint16"}


def ranks_here(model: Any = None) -> Ranks:
    """The processes of a run on JAX; this one alone where there are no others.

    Args:
        model: the model that is trained, if it is known.

    Raises:
        SnapshotError: processes of another backend's, which cannot have a recorder each.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _refuse_workers(model)
    elif backend == "torch":
        _refuse_torch_ranks()
    return Together(Processes()) if are_several() else ALONE


def are_several() -> bool:
    """Whether Keras runs on JAX, in more than one process."""
    if keras.backend.backend() != "jax":
        return False
    jax = sys.modules["jax"]
    # Asked first, for a backend that is up could no longer be told of other processes.
    begun = getattr(jax.distributed, "is_initialized", None)
    return (begun is None or bool(begun())) and jax.process_count() > 1


class Processes:
    """The processes of jax.distributed, which `keras.distribution.initialize` brings together."""

    def __init__(self) -> None:
        jax = sys.modules["jax"]
        self.rank: int = jax.process_index()
        self.size: int = jax.process_count()
        # A device of each, by rank.
        firsts = {each.process_index: each for each in reversed(jax.devices())}
        mesh = jax.sharding.Mesh(np.array([firsts[i] for i in range(self.size)]), ("process",))
        self._one_each = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("process"))

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank."""
        return everyones(message, self._gathered)

    def _gathered(self, own: NDArray[np.uint8]) -> NDArray[Any]:
        jax = sys.modules["jax"]
        return whole(jax.make_array_from_process_local_data(self._one_each, own[None]))


def is_of_several(array: Any) -> bool:
    """Whether other processes have a part of an array of JAX', too."""
    return not getattr(array, "is_fully_addressable", True)


def is_in_parts(array: Any) -> bool:
    """Whether no process has the whole of an array."""
    return is_of_several(array) and not array.is_fully_replicated


def whole(array: Any) -> NDArray[Any]:
    """An array with all of its parts, in the host's memory, bit for bit; all processes must ask."""
    jax = sys.modules["jax"]
    if not isinstance(array.sharding, jax.sharding.NamedSharding):
        raise SnapshotError(
            "Variables of several processes must lie over a mesh, as keras.distribution lays them "
            f"out. Received: one laid out by {array.sharding}"
        )
    everywhere = jax.sharding.NamedSharding(array.sharding.mesh, jax.sharding.PartitionSpec())
    carried = _CARRIED_AS.get(array.dtype.itemsize)
    if carried is not None and jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        array, dtype = jax.lax.bitcast_convert_type(array, carried), array.dtype
        return _everywhere(array, everywhere).view(dtype)
    return _everywhere(array, everywhere)


def _everywhere(array: Any, sharding: Any) -> NDArray[Any]:
    there = sys.modules["jax"].jit(_same, out_shardings=sharding)(array)
    return np.asarray(there.addressable_data(0))


def _same(array: Any) -> Any:
    return array


def _refuse_workers(model: Any) -> None:
    """Refuse to record a run of TensorFlow's in several processes.

    Args:
        model: the model that is trained, if it is known.

    Raises:
        SnapshotError: it is such a run: by the strategy of the model, or whose scope this is; or,
            before there is a model, by TF_CONFIG.
    """
    distribute = sys.modules["tensorflow"].distribute
    strategy = distribute.get_strategy() if model is None else model.distribute_strategy
    found, cluster = "TF_CONFIG", _configured() if model is None else {}
    for name in ("MultiWorkerMirroredStrategy", "ParameterServerStrategy"):
        if isinstance(strategy, getattr(distribute, name)):
            found, cluster = name, strategy.cluster_resolver.cluster_spec().as_dict()
    # An evaluator takes no part in the training.
    tasks = sum(len(tasks) for kind, tasks in cluster.items() if kind != "evaluator")
    if tasks > 1:
        raise SnapshotError(
            "A run of Keras on TensorFlow must have one process, to be recorded: Keras' fit does "
            f"not train in several. Received: {found} with {tasks}; take tf.distribute."
            "MirroredStrategy, for the devices of one machine, or KERAS_BACKEND=jax with "
            "keras.distribution; where each process trains a model of its own, unset TF_CONFIG"
        )


def _configured() -> dict[str, Any]:
    """The cluster that TF_CONFIG describes; none where it cannot be read."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster")
    except (ValueError, AttributeError):
        return {}
    return cluster if isinstance(cluster, dict) else {}


def _refuse_torch_ranks() -> None:
    """Refuse a recorder in another process of torch.distributed than that of rank 0."""
    dist = sys.modules["torch"].distributed
    if dist.is_available() and dist.is_initialized() and dist.get_rank():
        raise SnapshotError(
            "Keras' recorder must be made in the process of rank 0 alone, where torch.distributed "
            "has several: DistributedDataParallel has all of them hold the same weights. "
            f"Received: a recorder in that of rank {dist.get_rank()} of {dist.get_world_size()}; "
            "make it if torch.distributed.get_rank() == 0"
        )
