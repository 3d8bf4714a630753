"""A run of JAX on several processes, one of which may die; started by tests: `python -m ... JSON`.

However many there are, there are four devices in all.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, snapshot_buffer

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)


def begin() -> int:
    """Bring the processes together; the number of this one."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // PROCESSES}"
    jax.config.update("jax_platforms", "cpu")
    if PROCESSES > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # By which the others hear of one that died; older releases have no such option.
        heartbeat = {"heartbeat_timeout_seconds": 10}
        known = inspect.signature(jax.distributed.initialize).parameters
        jax.distributed.initialize(
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
            PROCESSES,
            int(os.environ["RANK"]),
            **{name: value for name, value in heartbeat.items() if name in known},
        )
    return int(jax.process_index())


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))


def laid(array: Any, *spec: Any) -> jax.Array:
    """An array over all devices, of which each process has all numbers."""
    array = np.asarray(array)
    sharding = NamedSharding(mesh(), PartitionSpec(*spec))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


SPECS: dict[str, tuple[Any, ...]] = {
    "w": ("a", "b"),
    "rows": (("a", "b"),),
    "flags": (None, "b"),
    "whole": (),
    "none": ("a",),
}


def keys(number: int, *spec: Any) -> Any:
    """Random keys over all devices."""
    sharding = NamedSharding(mesh(), PartitionSpec(*spec))
    return jax.jit(lambda: jax.random.split(jax.random.key(3), number), out_shardings=sharding)()


def start() -> dict[str, Any]:
    """Params in all the ways in which they may lie."""
    arrays = {
        "w": np.arange(32, dtype=np.float32).reshape(8, 4),
        "rows": np.arange(12).reshape(4, 3).astype(jnp.bfloat16),
        "flags": np.arange(8).reshape(4, 2) % 3 == 0,
        "whole": np.ones(4, np.float32),
        "none": np.zeros((0, 2), np.float32),
    }
    return {
        **{name: laid(each, *SPECS[name]) for name, each in arrays.items()},
        "keys": keys(4, "a"),
        "key": keys(2),
        "host": np.arange(3),
        "number": 7,
        "here": jnp.arange(5.0),
        "near": jax.device_put(
            np.arange(4.0, dtype=np.float32),
            NamedSharding(Mesh(np.array(jax.local_devices()[:2]), ("c",)), PartitionSpec("c")),
        ),
    }


@jax.jit
def moved(w: Any, whole: Any, rows: Any, batch: Any) -> Any:
    # Sums of whole numbers, and halves: the same in whatever order they are added.
    summed = batch.sum(0)
    return w / 2 + summed, whole / 2 + summed, rows + 1


def update(params: dict[str, Any], number: int) -> dict[str, Any]:
    drawn = np.random.default_rng(number).integers(9, size=(8, 4)).astype(np.float32)
    batch = laid(drawn, ("a", "b"))
    w, whole, rows = moved(params["w"], params["whole"], params["rows"], batch)
    host = params["host"] + 1
    return {**params, "w": w, "whole": whole, "rows": rows, "host": host, "number": number}


def gathered(leaf: Any) -> Any:
    """A leaf by JAX' own gathering."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def run(folder: str, work: str, **options: Any) -> list[str]:
    """Train, and return what went wrong."""
    rank = jax.process_index()
    params, begun = start(), 0
    checkpoint = Path(work) / f"checkpoint-{rank}.pickle"
    if options.get("resume"):
        saved, begun = pickle.loads(checkpoint.read_bytes())  # noqa: S301 - our own
        params |= {
            name: laid(each, *SPECS[name]) if name in SPECS else each
            for name, each in saved.items()
        }
    if options.get("unlike") == rank:  # a tensor that only one has in parts
        params["more"] = laid(np.zeros(4, np.float32), "a")
    if options.get("elsewhere"):  # on the devices of the last process alone
        last = [each for each in jax.devices() if each.process_index == PROCESSES - 1]
        sharding = NamedSharding(Mesh(np.array(last), ("c",)), PartitionSpec("c"))
        params["there"] = jax.make_array_from_callback(
            (4,), sharding, lambda index: np.zeros(4, np.float32)[index], dtype=jnp.float32
        )

    def metrics() -> dict[str, float]:
        everyones = multihost_utils.process_allgather(np.float32(rank))  # takes every process
        if options.get("bad_metrics") == rank:
            raise ValueError("no metrics here")
        return {"ranks": float(everyones.sum() >= 0)}

    which = "all" if options.get("which") is None else lambda name: name in options["which"]
    wrong: list[str] = []
    try:
        with SnapshotRecorder(
            folder,
            SCHEDULE,
            metrics=metrics,
            which=which,  # type: ignore[arg-type]
            resume_from=begun if options.get("resume") else None,
            sharded=options.get("sharded", False),
        ) as recorder:
            if options.get("full_disk") and rank == 0:
                recorder.store.write = _full  # type: ignore[method-assign]
            for number in range(begun, 12):
                params = update(params, number)
                if options.get("deleted") == rank and number == 3:
                    params["here"].delete()
                try:
                    recorder.step(params)
                except Exception as error:  # the user's own too, of the metrics
                    wrong.append(f"update {number + 1}: {type(error).__name__}: {error}")
                if options.get("save") and number % 3 == 2:
                    recorder.wait()
                    whole = {name: gathered(params[name]) for name in (*SPECS, "host", "number")}
                    checkpoint.with_suffix(".tmp").write_bytes(pickle.dumps((whole, number + 1)))
                    multihost_utils.sync_global_devices("saved")
                    checkpoint.with_suffix(".tmp").rename(checkpoint)
                if options.get("kill") == [rank, number]:
                    os._exit(9)
    except ca.CosannealError as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def bits() -> list[bool]:
    """Whether numbers that are none come as they are out of what gathers."""
    from cosanneal.adapters.jax.shards import whole

    found = []
    for dtype, first in ((jnp.bfloat16, 0x7F80), (jnp.float16, 0x7C00), (jnp.float32, 0x7F800000)):
        numbers = np.arange(8, dtype=f"u{jnp.dtype(dtype).itemsize}") + first
        numbers = numbers.astype(f"u{jnp.dtype(dtype).itemsize}")
        gathered = whole(laid(numbers.view(dtype), "a"))
        found.append(bool(np.array_equal(gathered.view(numbers.dtype), numbers)))
    return found


def from_buffer(folder: str, sharded: bool) -> list[str]:
    """Train within one scan, record the buffer, and return what went wrong."""
    names = ("w", "rows", "whole", "none", "keys", "key", "number")
    params = {name: each for name, each in start().items() if name in names}

    def train(params: Any, buffer: Any) -> Any:
        def one(carry: Any, step: Any) -> Any:
            params, buffer = carry
            params = {**params, "w": params["w"] / 2 + step, "whole": params["whole"] + step}
            return (params, buffer.update(step, params)), None

        return jax.lax.scan(one, (params, buffer), jnp.arange(12))[0]

    made = snapshot_buffer(SCHEDULE, params, 3)
    wrong = [name for name in ("w", "keys") if made.params[name].sharding.spec[0] is not None]
    _, buffer = jax.jit(train)(params, made)
    with SnapshotRecorder(folder, SCHEDULE, sharded=sharded) as recorder:
        if (recorder.record(buffer), recorder.record(buffer)) != (3, 0):
            wrong.append("other members")
        other = jax.jit(train)({**params, "w": params["w"] + 512}, made)[1]
        try:
            recorder.record(other)
        except ca.SnapshotError as error:
            wrong.append(str(error))
    return wrong


def _full(*_: Any, **__: Any) -> Any:
    time.sleep(0.3)  # so that the loop has gone on when it is known
    raise ca.SnapshotError("the disk is full")


def main() -> None:
    """Run the cases given, one after the other, and write down what went wrong in each."""
    warnings.simplefilter("error")
    early = None
    # Older releases cannot be asked without being told; they refuse the processes by themselves.
    if len(sys.argv) > 2 and hasattr(jax.distributed, "is_initialized"):
        early = SnapshotRecorder(sys.argv[2] + os.environ["RANK"], SCHEDULE)
    rank = begin()
    for case in json.loads(sys.argv[1]):
        Path(case["work"]).mkdir(exist_ok=True)
        if case.pop("buffer", False):
            wrong = from_buffer(case["folder"], case.get("sharded", False))
        else:
            wrong = run(**case)
        Path(case["work"], f"wrong-{rank}.json").write_text(json.dumps(wrong))
    if PROCESSES > 1:
        sys.stdout.write(json.dumps(bits()))
    if early is not None:
        try:
            early.step({"w": np.zeros(2)})
        except ca.SnapshotError as error:
            sys.stdout.write(str(error))


if __name__ == "__main__":
    main()
