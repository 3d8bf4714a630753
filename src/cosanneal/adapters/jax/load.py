"""A snapshot as params, and params as a file that others open."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from ...core.errors import SnapshotError
from ...ensemble.weights.one_model import AveragedWeights
from ...snapshots.capture import HostBuffers
from ...snapshots.export import check_format, exporting, write_arrays, write_snapshot
from ...snapshots.load import fitting
from ...snapshots.store import Snapshot
from .capture import PytreeCapture
from .tree import Leaf, named_leaves, tree_of


def load_snapshot(like: Any, snapshot: Snapshot | str | os.PathLike[str]) -> Any:
    """The params of a snapshot, in the structure of `like`.

    Of params that lie over several processes, each of these calls it, and has one tensor
    at a time in the host's memory.

    Args:
        like: params of the structure that was recorded. The result has its pytree
            type, its devices and its kind of arrays. It may be what
            `jax.eval_shape` gives; but of a snapshot that is a part of the params
            the rest is taken from it, and must be as it was.
        snapshot: the snapshot, or its file.

    Raises:
        SnapshotError: a damaged snapshot, or one that does not fit `like`; the
            message names the first tensor that differs.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.jax import SnapshotRecorder, load_snapshot
        >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> with SnapshotRecorder(tempfile.mkdtemp(), schedule) as recorder:
        ...     for _ in range(6):
        ...         _ = recorder.step(params)
        >>> load_snapshot(params, recorder.store.list()[-1])["bias"].tolist()
        [0.0, 0.0, 0.0]
    """
    leaves, structure = named_leaves(like, SnapshotError)
    kinds = {name: Leaf.of(leaf) for name, leaf in leaves.items()}
    found = fitting(snapshot, PytreeCapture(like), owner="`like`")
    if any(each.is_of_several for each in kinds.values()):
        # One at a time: a host may have no room for all of them.
        with found.open() as tensors:
            restored = {name: kinds[name].restore(tensors[name]) for name in tensors}
    else:
        loaded = found.load()
        restored = {name: kinds[name].restore(value) for name, value in loaded.items()}
    return tree_of(structure, {**leaves, **restored})


def export_weights(
    weights: Snapshot | AveragedWeights | Any,
    path: str | os.PathLike[str],
    *,
    format: Literal["safetensors"] = "safetensors",  # noqa: A002
    overwrite: bool = False,
) -> None:
    """Write params as a safetensors file, atomically, under their paths in the pytree.

    `safetensors.flax.load_file(path)` gives them by name, as `dense.kernel`.

    Args:
        weights: a snapshot (or its file), what `average_weights` of an ensemble
            gave, or a pytree of arrays. Of a part of the params it is the part.
        path: the file.
        format: "safetensors".
        overwrite: whether a file that is there is replaced.

    Raises:
        SnapshotError: a damaged snapshot; params that the format cannot hold; or a
            file that is there, or cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp, safetensors.flax
        >>> from cosanneal.adapters.jax import export_weights
        >>> path = pathlib.Path(tempfile.mkdtemp(), "params.safetensors")
        >>> export_weights({"dense": {"kernel": jnp.ones((2, 3))}}, path)
        >>> list(safetensors.flax.load_file(path))
        ['dense.kernel']
    """
    check_format(
        format,
        ("safetensors",),
        "those of torch and Keras are written by their adapters' export_weights",
    )
    weights = weights.weights if isinstance(weights, AveragedWeights) else weights
    with exporting(path, overwrite=overwrite) as file:
        if isinstance(weights, Snapshot | str | os.PathLike):
            write_snapshot(file, Snapshot.at(weights), {"format": "flax"})
        else:
            arrays = PytreeCapture(weights).tensors()
            arrays = {name: np.asarray(each) for name, each in arrays.items()}
            write_arrays(file, arrays, HostBuffers(), {"format": "flax"})
