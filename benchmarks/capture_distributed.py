"""How long a snapshot holds a training run on two processes (DDP, FSDP2), on gloo.

    python -m benchmarks.capture_distributed [--sizes 10 100] [--rounds N]

The time that rank 0 is held, after a barrier. Ours is the recorder's step. The limit is a bare
gather: each tensor's `full_tensor` (nothing for DDP, whose ranks have the whole), and on rank 0 a
copy of it into held memory. With sharded=True each rank copies its own part; the limit is a bare
copy of that. Beside it are torch.distributed.checkpoint's `async_save`, where each
rank writes its own part, and what people write by hand: `get_model_state_dict` and a copy. What
goes on in the background is waited for between two of them, and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from benchmarks.harness import Figure, Skipped, alone, in_turn
from benchmarks.snapshot_cost import EVERY_STEP, Save, Weights
from cosanneal.adapters.torch import SnapshotRecorder
from cosanneal.snapshots.options import RecorderOptions

SIZES = (10, 100)  # megabytes
WORLD, ROUNDS, HELD = 2, 9, 1.2
ENGINES = ("DDP", "FSDP2")


def wrapped(engine: str, megabytes: int) -> nn.Module:
    """The same weights in every process, under the engine."""
    torch.manual_seed(0)
    model = Weights(megabytes)
    if engine == "DDP":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    return model


def keeps(held: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Copy a state into held memory, which is made at the first call."""
    for name, value in state.items():
        if name not in held:
            held[name] = torch.empty_like(value)
        held[name].copy_(value)


def bare_gather(model: nn.Module) -> Save:
    """Each tensor whole, and a copy on rank 0."""
    held: dict[str, Tensor] = {}

    def save() -> Callable[[], None]:
        for name, value in model.state_dict().items():
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value
            if dist.get_rank() == 0:
                keeps(held, {name: whole})
        return lambda: None

    return save


def bare_copy(model: nn.Module) -> Save:
    """A copy of what each rank holds: of FSDP2 its parts, of DDP its share of the whole."""
    held: dict[str, Tensor] = {}

    def save() -> Callable[[], None]:
        state = model.state_dict()
        if not any(hasattr(value, "to_local") for value in state.values()):
            names = sorted(state, key=lambda name: state[name].nbytes)
            state = {name: state[name] for name in names[dist.get_rank() :: WORLD]}
        own = {name: getattr(each, "to_local", lambda e=each: e)() for name, each in state.items()}
        keeps(held, own)
        return lambda: None

    return save


def by_hand(model: nn.Module) -> Save:
    """What torch has for the whole state, and a copy of what it shares with the model."""
    held: dict[str, Tensor] = {}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)

    def save() -> Callable[[], None]:
        keeps(held, get_model_state_dict(model, options=options))
        return lambda: None

    return save


def async_save(model: nn.Module, folder: Path) -> Save:
    """torch.distributed.checkpoint: returns when the copy is made, and writes on."""
    numbers = iter(range(1_000_000))

    def save() -> Callable[[], None]:
        name = folder / str(next(numbers))
        future = state_dict_saver.async_save(model.state_dict(), checkpoint_id=name)
        assert isinstance(future, Future)  # noqa: S101 - no other form was asked for

        def wait() -> None:
            future.result()
            dist.barrier()
            if dist.get_rank() == 0:
                shutil.rmtree(folder)
            dist.barrier()

        return wait

    return save


def ours(recorder: SnapshotRecorder) -> Save:
    """The recorder, which is stepped once for each snapshot."""

    def save() -> Callable[[], None]:
        recorder.step()
        return recorder.wait

    return save


def held(save: Save) -> Callable[[], float]:
    """The seconds until the training may go on; all begin at the same time."""

    def run() -> float:
        dist.barrier()
        start = time.perf_counter()
        wait = save()
        took = time.perf_counter() - start
        wait()
        return took

    return run


def work(sizes: Sequence[int], rounds: int, folder: Path) -> None:
    """One of the processes; rank 0 prints what it measured."""
    dist.init_process_group("gloo")
    figures = []
    for engine in ENGINES:
        for size in sizes:
            model = wrapped(engine, size)
            place = folder / f"{engine}-{size}"
            for how, limit in (("gathered", bare_gather), ("sharded", bare_copy)):
                peers = {"dcp.async_save": held(async_save(model, place / "dcp"))}
                if how == "gathered":
                    peers["get_model_state_dict, copied"] = held(by_hand(model))
                options: RecorderOptions = {"keep_last": 1, "sharded": how == "sharded"}
                with SnapshotRecorder(place / how, model, EVERY_STEP, **options) as recorder:
                    runs = {"ours": held(ours(recorder)), "limit": held(limit(model)), **peers}
                    times = in_turn(runs, repeats=rounds)
                mine, least = times.pop("ours"), times.pop("limit")
                figures.append((f"held, {how}, {engine}, {size} MB", mine, times, least))
    if dist.get_rank() == 0:
        print(json.dumps(figures))
    dist.destroy_process_group()


def measure(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Every engine and size, in two processes of one run."""
    if not dist.is_available():
        raise Skipped("this torch has no torch.distributed")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(WORLD)}
    # One thread each: with two, the processes would wait for each other's on two cores.
    common |= {"OMP_NUM_THREADS": "1"}
    arguments = ["--sizes", *map(str, sizes), "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.capture_distributed", *arguments]
        running = [
            subprocess.Popen(
                [*command, "--folder", folder],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(WORLD)
        ]
        try:
            printed = [each.communicate()[0] for each in running]
        finally:
            for each in running:
                each.kill()
                each.wait()
    if any(each.returncode for each in running):
        raise RuntimeError(f"a process failed: {[each.returncode for each in running]}")
    for name, mine, peers, limit in json.loads(printed[0].splitlines()[-1]):
        yield Figure(
            name=name,
            unit="ms",
            ours=[1000 * each for each in mine],
            peers={peer: [1000 * each for each in took] for peer, took in peers.items()},
            limit=[1000 * each for each in limit],
            # A millisecond of the processes' meeting is much beside a small copy, and a part's is.
            goal=HELD if name.endswith(", 100 MB") and "gathered" in name else None,
        )


def main() -> int:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder is not None:
        work(given.sizes, given.rounds, given.folder)
        return 0
    return alone(measure(given.sizes, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
