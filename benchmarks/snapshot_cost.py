"""What a snapshot costs: ours beside what else people do, in one run.

    python benchmarks/snapshot_cost.py [--sizes 1 100 1000] [--folder FOLDER]
    python benchmarks/snapshot_cost.py --train [SECONDS]

For 1 MB, 100 MB and 1 GB of float32 weights, medians of several rounds in which
all take turns: the time the training thread is held, and the time until the
snapshot is durable (those that do not sync get an fsync of file and folder
after them). The first snapshot of ours, whose held memory is not there yet, is
not among them and printed by itself. `plain copy` is torch's `copy_` into held
tensors: the limit. The extra memory is the peak of the process' resident memory
over that before. Then loading: a member into a model, beside safetensors'
load_file and copy.

With --train: a training run in blocks of about a second, half of them with a
snapshot at their start, and the ratio of their times: that of the clock, and
that of the training thread's own, which other processes do not disturb.

A limit is exceeded where a row says so, and the exit status with it. Orbax is
measured where it is installed.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotRecorder

HELD, DURABLE, LOAD, TRAIN, MEMORY = 1.5, 1.3, 1.2, 1.02, 1.1
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


def orbax(folder: Path, model: nn.Module) -> Save:
    """Orbax' asynchronous checkpointer, of the weights as arrays of jax'."""
    import jax
    import orbax.checkpoint as ocp

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


SAVES: dict[str, Callable[[Path, nn.Module], Save]] = {
    "ours": ours,
    "ours, background=False": functools.partial(ours, background=False),
    "plain copy (the limit)": plain_copy,
    "copy.deepcopy": deep_copy,
    "torch.save": torch_save,
    "safetensors save_file": save_file,
    "Orbax async": orbax,
}


def timed(save: Save, folder: Path) -> tuple[float, float]:
    """The seconds until the training may go on, and until all is durable."""
    os.sync()  # what others left to be written is not this one's to wait for
    start = time.perf_counter()
    wait = save()
    held = time.perf_counter() - start
    wait()
    durable = time.perf_counter() - start
    for path in folder.glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return held, durable


def resident(field: str) -> int:
    """The resident memory of this process in bytes: VmRSS now, or VmHWM at its peak."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1]) * 1024


def costs(megabytes: int, folder: Path) -> bool:
    """Print one table; whether a limit is exceeded."""
    model = Weights(megabytes)
    size = sum(value.nbytes for value in model.state_dict().values())
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    own = Path(tempfile.mkdtemp(dir=folder))
    save = ours(own, model)
    first = timed(save, own)[0]
    for _ in range(3):
        timed(save, own)
    extra = (resident("VmHWM") - before) / size
    del save

    saves: dict[str, tuple[Save, Path]] = {}
    missing: list[str] = []
    for name, make in SAVES.items():
        own = Path(tempfile.mkdtemp(dir=folder))
        try:
            saves[name] = make(own, model), own
        except ModuleNotFoundError as error:
            missing.append(f"{name:<24} not measured: {error.name} is not installed\n")
        else:
            timed(*saves[name])
    rounds = 9 if megabytes <= 100 else 5
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in saves}
    for _ in range(rounds):
        for name, each in saves.items():
            times[name].append(timed(*each))
    held, durable = (
        {name: statistics.median(pair[i] for pair in pairs) for name, pairs in times.items()}
        for i in (0, 1)
    )
    # Of each round by itself, since the disk is not equally fast in all.
    held_ratio = held["ours"] / held["plain copy (the limit)"]
    durable_ratio = statistics.median(
        a[1] / b[1] for a, b in zip(times["ours"], times["safetensors save_file"], strict=True)
    )
    least = min(t for _, t in times["ours"]) / min(t for _, t in times["safetensors save_file"])
    print(f"\n{megabytes} MB of weights; medians of {rounds} rounds, in ms")
    line = "{:<24} {:>9} {:>9}  {}"
    print(line.format("", "held", "durable", ""))
    for name in saves:
        ends = "-" if "copy" in name else f"{1e3 * durable[name]:.1f}"
        note = ""
        if name == "ours":
            note = (
                f"held {held_ratio:.2f} x the plain copy, durable {durable_ratio:.2f} x save_file "
                f"(least times: {least:.2f} x)"
            )
        print(line.format(name, f"{1e3 * held[name]:.2f}", ends, note))
    print("".join(missing), end="")
    print(f"first snapshot of ours: held {1e3 * first:.1f} ms; extra memory {extra:.2f} x weights")
    over = [
        what
        for what, exceeded in {
            "held": megabytes >= 100 and held_ratio > HELD,
            "durable": megabytes >= 100 and durable_ratio > DURABLE,
            "memory": megabytes >= 100 and extra > MEMORY,
            "load": loading(model, folder) and megabytes >= 100,
        }.items()
        if exceeded
    ]
    if over:
        print("over its limit:", ", ".join(over))
    return bool(over)


def loading(model: nn.Module, folder: Path) -> bool:
    """Print what loading costs; whether a limit is exceeded."""
    with SnapshotRecorder(folder / "load", model, EVERY_STEP) as recorder:
        recorder.step()
    (snapshot,) = recorder.store.list()

    def ours(*, verify: bool) -> None:
        model.load_state_dict(snapshot.load(framework="pt", verify=verify))

    def theirs() -> None:
        model.load_state_dict(safetensors.torch.load_file(snapshot.path))

    ways: dict[str, Callable[[], None]] = {
        "load_file and copy": theirs,
        "ours, verify=False": functools.partial(ours, verify=False),
        "ours, verified": functools.partial(ours, verify=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(7):
        for name, load in ways.items():
            start = time.perf_counter()
            load()
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(each) for name, each in times.items()}
    base = median["load_file and copy"]
    print(
        "loading: "
        + "; ".join(f"{name} {1e3 * t:.1f} ms ({t / base:.2f} x)" for name, t in median.items())
    )
    return median["ours, verify=False"] / base > LOAD


def train(seconds: float, folder: Path) -> bool:
    """Print by how much snapshots slow a training run; whether the limit is exceeded."""
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
    slowed = statistics.median(ratios)
    spread = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [slowed] * 3
    print(
        f"{len(pairs)} blocks of {updates} updates with a snapshot of {size / 1e6:.0f} MB and as "
        f"many without, {torch.get_num_threads()} threads on {os.cpu_count()} cores\n"
        f"time with / without: {slowed:.4f} (median of the pairs; quartiles {spread[0]:.4f} to "
        f"{spread[2]:.4f}), {total:.4f} in all; the training thread's own {own:.4f}\n"
        f"held {1e3 * cost.held_seconds / cost.taken:.2f} ms for each snapshot (waited "
        f"{1e3 * cost.waited_seconds / cost.taken:.2f}), written in "
        f"{1e3 * cost.writing_seconds / cost.taken:.1f} ms"
    )
    over = slowed > TRAIN
    if over:
        print("over its limit: train")
    return over


def main() -> int:
    """Print the tables; 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1000], metavar="MB")
    parser.add_argument("--train", type=float, nargs="?", const=60.0, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="where to write (by default a temporary one)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, safetensors {safetensors.__version__}")
    over = False
    for size in [0] if options.train else options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            over |= train(options.train, folder) if options.train else costs(size, folder)
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
