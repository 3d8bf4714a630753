"""Params over four devices of two processes, recorded in parts; started by tests.

`python -m tests.shared.jax_sharded_run FOLDER train` goes on after the last snapshot that is there,
until it is killed; `finish` so for a few cycles more; `ensemble` predicts with what it recorded.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, load_snapshot
from cosanneal.snapshots import Snapshot, SnapshotStore
from tests.shared.jax_ranked_run import begin, laid, mesh

EACH = ca.CyclicCosine(0.1, cycle_steps=1)
SPECS: dict[str, Any] = {"kernel": ("a", "b"), "bias": ("b",), "scale": ()}
OTHERS: dict[str, Any] = {"kernel": (None, ("b", "a")), "bias": (), "scale": ("a",)}


def plain(step: int) -> dict[str, NDArray[Any]]:
    """The params after so many updates."""
    rng = np.random.default_rng(step)
    return {
        "kernel": rng.standard_normal((512, 128)).astype(np.float32),
        "bias": rng.standard_normal(128).astype(jnp.bfloat16),
        "scale": rng.standard_normal(128).astype(np.float32),
    }


def x() -> NDArray[np.float32]:
    return np.random.default_rng(9).standard_normal((24, 512)).astype(np.float32)


def apply(params: Any, x: Any) -> Any:
    hidden = x @ params["kernel"] + params["bias"].astype(jnp.float32)
    return (hidden * params["scale"])[:, :3]


def sharded(step: int, specs: dict[str, Any] = SPECS) -> dict[str, Any]:
    return {name: laid(each, *specs[name]) for name, each in plain(step).items()}


def bits(array: jax.Array) -> list[bytes]:
    """What this process' devices hold of an array."""
    return [np.asarray(each.data).tobytes() for each in array.addressable_shards]


def ensemble(place: Path) -> None:
    for name in ("run", "whole"):
        with SnapshotRecorder(place / name, EACH, sharded=name == "run") as recorder:
            for step in range(1, 4):
                recorder.step(sharded(step))
    for snapshot in SnapshotStore(place / "run").list():
        for specs in (SPECS, OTHERS):
            loaded = load_snapshot(sharded(0, specs), snapshot)
            for name, wanted in sharded(snapshot.step, specs).items():
                assert loaded[name].sharding == wanted.sharding
                assert bits(loaded[name]) == bits(wanted)
    check_memory(place / "many")
    members = SnapshotEnsemble(apply, place / "run", like=sharded(0))
    everywhere = NamedSharding(mesh(), PartitionSpec())
    batch = jax.make_array_from_callback(x().shape, everywhere, lambda index: x()[index])
    predicted = np.asarray(members.predict(batch))
    np.save(place / f"predicted-{jax.process_index()}.npy", predicted)


def check_memory(folder: Path) -> None:
    """Of 8 MiB in many tensors, of which each process has half, the others are read one by one."""
    params = {f"w{i}": laid(np.full((256, 256), i, np.float32), "a", "b") for i in range(32)}
    with SnapshotRecorder(folder, EACH, sharded=True) as recorder:
        recorder.step(params)
    (snapshot,) = SnapshotStore(folder).list()
    multihost_utils.sync_global_devices("recorded")
    tracemalloc.start()
    loaded = load_snapshot(params, snapshot)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * 2**20, most
    assert all(bits(loaded[name]) == bits(each) for name, each in params.items())


def train(place: Path, more: int | None) -> None:
    """Each process knows by itself what is there, once all look."""
    there = [each.step for each in SnapshotStore(place / "run").list()]
    multihost_utils.sync_global_devices("looked")
    begun = max(there, default=0)

    def durable(snapshot: Snapshot) -> None:
        report = os.open(place / "durable", os.O_WRONLY | os.O_APPEND)
        os.write(report, f"{snapshot.step}\n".encode())
        os.close(report)

    with SnapshotRecorder(
        place / "run", EACH, resume_from=begun, on_durable=durable, sharded=True
    ) as recorder:
        step = begun
        while more is None or step < begun + more:
            step += 1
            recorder.step(sharded(step))
            time.sleep(0.01)


def main() -> None:
    place, what = Path(sys.argv[1]), sys.argv[2]
    begin()
    if what == "ensemble":
        ensemble(place)
    else:
        train(place, 8 if what == "finish" else None)


if __name__ == "__main__":
    main()
