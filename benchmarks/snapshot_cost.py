"""What a snapshot costs: ours beside what else people do.

    python -m benchmarks.snapshot_cost [--sizes 1 100 1000] [--rounds N] [--folder FOLDER]
    python -m benchmarks.snapshot_cost --train [SECONDS]

Of 1 MB, 100 MB and 1 GB of float32 weights: the time the training thread is held,
whose limit is torch's `copy_` into held tensors, and the time until the snapshot is
durable, whose limit is safetensors' save_file (those that do not sync get an fsync of
file and folder after them). The first snapshot of ours, whose held memory is not there
yet, has a line by itself, and so has the peak of the process' resident memory over that
before. Then loading a member into a model, beside safetensors' load_file and copy, and
loading one that is verified, beside one that is not. Goals are set from 100 MB on.

With --train instead: a training run in blocks of about a second, half of them with a
snapshot at their start, and the ratio of their times: that of the clock, and that of
the training thread's own, which other processes do not disturb.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, optional, with_peak
from cosanneal.adapters.torch import SnapshotRecorder

SIZES = (1, 100, 1000)  # megabytes
HELD, DURABLE, LOAD, VERIFIED, TRAIN, MEMORY = 1.5, 1.3, 1.2, 1.3, 1.02, 1.1
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)

# What saves: returns when the training may go on; its result waits until all is durable.
Save = Callable[[], Callable[[], None]]


class Weights(nn.Module):
    """So many megabytes of weights, in layers of 4 MB."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        layers = max(megabytes // 4, 1)
        rows = megabytes * 250_000 // layers // 1000
        self.layers = nn.ParameterList([torch.randn(rows, 1000) for _ in range(layers)])


def sync(path: Path) -> None:
    """Make a file and its name durable."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def ours(folder: Path, model: nn.Module, **options: Any) -> Save:
    """The recorder, which is stepped once for each snapshot."""
    recorder = SnapshotRecorder(folder, model, EVERY_STEP, **options)

    def save() -> Callable[[], None]:
        recorder.step()
        return recorder.wait

    return save


def plain_copy(_: Path, model: nn.Module) -> Save:
    """A copy into held tensors."""
    held = [torch.empty_like(value) for value in model.state_dict().values()]

    def save() -> Callable[[], None]:
        for to, value in zip(held, model.state_dict().values(), strict=True):
            to.copy_(value)
        return lambda: None

    return save


def deep_copy(_: Path, model: nn.Module) -> Save:
    """A copy in fresh memory."""

    def save() -> Callable[[], None]:
        copy.deepcopy(model.state_dict())
        return lambda: None

    return save


def torch_save(folder: Path, model: nn.Module) -> Save:
    """The file of torch itself."""

    def save() -> Callable[[], None]:
        torch.save(model.state_dict(), folder / "weights.pt")
        return lambda: sync(folder / "weights.pt")

    return save


def save_file(folder: Path, model: nn.Module) -> Save:
    """The safetensors package's file."""

    def save() -> Callable[[], None]:
        safetensors.torch.save_file(model.state_dict(), folder / "weights.safetensors")
        return lambda: sync(folder / "weights.safetensors")

    return save


def orbax(folder: Path, model: nn.Module) -> Save | None:
    """Orbax' asynchronous checkpointer, of the weights as arrays of jax'."""
    jax, ocp = optional("jax"), optional("orbax.checkpoint")
    if jax is None or ocp is None:
        return None
    tree = {name: jax.numpy.asarray(value.numpy()) for name, value in model.state_dict().items()}
    jax.block_until_ready(tree)
    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save() -> Callable[[], None]:
        checkpointer.save(folder / "weights", args=ocp.args.StandardSave(tree))

        def wait() -> None:
            checkpointer.wait_until_finished()
            os.sync()

        return wait

    return save


SAVES: dict[str, Callable[[Path, nn.Module], Save | None]] = {
    "ours": ours,
    "ours, background=False": functools.partial(ours, background=False),
    "plain copy": plain_copy,
    "copy.deepcopy": deep_copy,
    "torch.save": torch_save,
    "safetensors save_file": save_file,
    "Orbax async": orbax,
}


def timed(save: Save, folder: Path) -> tuple[float, float]:
    """The milliseconds until the training may go on, and until all is durable."""
    os.sync()  # what others left to be written is not this one's to wait for
    start = time.perf_counter()
    wait = save()
    held = time.perf_counter() - start
    wait()
    durable = time.perf_counter() - start
    for path in folder.glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return 1e3 * held, 1e3 * durable


def costs(megabytes: int, rounds: int, folder: Path) -> Iterator[Figure]:
    """Snapshots of so many megabytes."""
    model = Weights(megabytes)
    size = sum(value.nbytes for value in model.state_dict().values())
    own = Path(tempfile.mkdtemp(dir=folder))

    def first_ones() -> float:
        save = ours(own, model)
        first = timed(save, own)[0]
        for _ in range(3):
            timed(save, own)
        return first

    first, peak = with_peak(first_ones)
    extra = peak / size

    runs: dict[str, Callable[[], float]] = {}
    durable: dict[str, list[float]] = {}

    def run(name: str, save: Save, own: Path) -> float:
        held, until_durable = timed(save, own)
        durable[name].append(until_durable)
        return held

    for name, make in SAVES.items():
        own = Path(tempfile.mkdtemp(dir=folder))
        made = make(own, model)
        if made is not None:
            durable[name] = []
            runs[name] = functools.partial(run, name, made, own)
    held = in_turn(runs, repeats=rounds)
    durable = {name: times[1:] for name, times in durable.items() if "copy" not in name}

    goals = (HELD, DURABLE, LOAD, VERIFIED) if megabytes >= 100 else (None,) * 4
    our_held, our_durable = held.pop("ours"), durable.pop("ours")
    del held["ours, background=False"]
    in_foreground = durable.pop("ours, background=False")
    limit = held.pop("plain copy")
    yield Figure(
        name=f"held, {megabytes:,} MB",
        unit="ms",
        ours=our_held,
        limit=limit,
        peers=held,
        goal=goals[0],
    )
    yield Figure(name=f"first held, {megabytes:,} MB", unit="ms", ours=[first])
    limit = durable.pop("safetensors save_file")
    for name, times, goal in (
        ("durable", our_durable, goals[1]),
        ("background=False", in_foreground, None),
    ):
        yield Figure(
            name=f"{name}, {megabytes:,} MB",
            unit="ms",
            ours=times,
            limit=limit,
            peers=durable,
            goal=goal,
        )
    yield Figure(
        name=f"extra memory, {megabytes:,} MB",
        unit="x",
        ours=[extra],
        limit=MEMORY,
        goal=1.0 if megabytes >= 100 else None,
    )
    loads = loading(model, rounds, folder)
    for name, beside, goal in (
        ("load", "load_file and copy", goals[2]),
        ("load, verified", "load", goals[3]),
    ):
        yield Figure(
            name=f"{name}, {megabytes:,} MB",
            unit="ms",
            ours=loads[name],
            limit=loads[beside],
            goal=goal,
        )


def loading(model: nn.Module, rounds: int, folder: Path) -> dict[str, list[float]]:
    """What loading a member into the model takes, without and with its digest checked."""
    with SnapshotRecorder(folder / "load", model, EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()

    def ours(*, verify: bool) -> None:
        model.load_state_dict(snapshot.load(framework="pt", verify=verify))

    def theirs() -> None:
        model.load_state_dict(safetensors.torch.load_file(snapshot.path))

    runs: dict[str, Callable[[], None]] = {
        "load_file and copy": theirs,
        "load": functools.partial(ours, verify=False),
        "load, verified": functools.partial(ours, verify=True),
    }
    return in_turn(runs, repeats=rounds, per=1e-3, clock=time.perf_counter)


def measure(
    sizes: Sequence[int] = SIZES, rounds: int | None = None, folder: Path | None = None
) -> Iterator[Figure]:
    """Snapshots of every size, in as many rounds: a disk that is shared takes its own time."""
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            yield from costs(size, rounds or 9, Path(own))


def train(seconds: float, folder: Path) -> Figure:
    """A block of a training run with a snapshot, beside one without; and how it went, printed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU())
    model.append(nn.Linear(2048, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.randn(256, 512), torch.randint(10, (256,))
    size = sum(value.nbytes for value in model.state_dict().values())
    schedule = ca.CyclicCosine(0.1, cycle_steps=1)
    recorder = SnapshotRecorder(folder / "train", model, schedule, keep_last=3)

    def block(updates: int, *, snapshot: bool) -> tuple[float, float]:
        start, own = time.perf_counter(), time.thread_time()
        for update in range(updates):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if snapshot and not update:
                recorder.step()
        return time.perf_counter() - start, time.thread_time() - own

    block(5, snapshot=True)
    updates = max(int(20 / block(20, snapshot=False)[0]), 1)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    began = time.perf_counter()
    while time.perf_counter() - began < 2 * seconds:
        # Which comes first takes turns, so that a drift of the machine favours none.
        first = len(pairs) % 2 == 0
        one, two = block(updates, snapshot=first), block(updates, snapshot=not first)
        pairs.append((one, two) if first else (two, one))
    recorder.close()
    cost = recorder.statistics
    ratios = [a[0] / b[0] for a, b in pairs]
    total, own = (sum(a[i] for a, _ in pairs) / sum(b[i] for _, b in pairs) for i in (0, 1))
    spread = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    print(
        f"{len(pairs)} blocks of {updates} updates with a snapshot of {size / 1e6:.0f} MB and as "
        f"many without, {torch.get_num_threads()} threads on {os.cpu_count()} cores\n"
        f"time with / without: {statistics.median(ratios):.4f} (median of the pairs; quartiles "
        f"{spread[0]:.4f} to {spread[2]:.4f}), {total:.4f} in all; the training thread's own "
        f"{own:.4f}\n"
        f"held {1e3 * cost.held_seconds / cost.taken:.2f} ms for each snapshot (waited "
        f"{1e3 * cost.waited_seconds / cost.taken:.2f}), written in "
        f"{1e3 * cost.writing_seconds / cost.taken:.1f} ms"
    )
    return Figure(
        name="training, a snapshot each second",
        unit="s",
        ours=[a for (a, _), _ in pairs],
        limit=[b for _, (b, _) in pairs],
        goal=TRAIN,
    )


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="MB")
    parser.add_argument("--rounds", type=int, help="by default 9, or 3 above 100 MB")
    parser.add_argument("--train", type=float, nargs="?", const=60.0, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="where to write (by default a temporary one)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, safetensors {safetensors.__version__}")
    if options.train is None:
        return alone(measure(options.sizes, options.rounds, options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return alone([train(options.train, Path(folder))])


if __name__ == "__main__":
    sys.exit(main())
