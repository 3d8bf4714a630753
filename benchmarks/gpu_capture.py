"""What a snapshot's capture holds up on a CUDA device: the device itself, and the training thread.

    python -m benchmarks.gpu_capture

Of 100 MB and 1 GB of float32 weights in tensors of 4 MB. The limit is one copy of
as many bytes into pinned memory, at the speed of the bus; the peer, a copy of each
tensor into a held pinned one. The device's time is that from event to event on the
stream of the training, which waits for the copy; the thread's, that of the call.
A snapshot is written before the next is taken.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, need_cuda
from cosanneal.adapters.torch import SnapshotRecorder

SIZES = (100, 1000)  # megabytes
GOAL = 1.3
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)
ROUNDS = 9

Run = Callable[[], object]


def on_device(run: Run) -> float:
    """The milliseconds that the training's stream takes, or waits, for it."""
    torch.cuda.synchronize()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))


def on_thread(run: Run) -> float:
    """The milliseconds that the call takes."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    took = 1e3 * (time.perf_counter() - start)
    torch.cuda.synchronize()
    return took


def captures(megabytes: int, device: str, folder: str) -> Iterator[Figure]:
    """The figures of one size."""
    weights = [torch.randn(1000, 1000, device=device) for _ in range(megabytes // 4)]
    flat = torch.randn(megabytes // 4 * 1_000_000, device=device)
    pinned = torch.empty(flat.shape, pin_memory=device == "cuda")
    held = [torch.empty(each.shape, pin_memory=device == "cuda") for each in weights]
    recorder = SnapshotRecorder(folder, nn.ParameterList(weights), EVERY_STEP, keep_last=1)

    def each() -> None:
        for to, value in zip(held, weights, strict=True):
            to.copy_(value, non_blocking=True)

    runs: dict[str, Run] = {
        "ours": recorder.step,
        "limit": lambda: pinned.copy_(flat, non_blocking=True),
        "tensor by tensor": each,
    }

    def timed(clock: Callable[[Run], float], run: Run) -> Callable[[], float]:
        def once() -> float:
            took = clock(run)
            recorder.wait()
            return took

        return once

    for what, clock in (("device", on_device), ("thread", on_thread)):
        turns = {name: timed(clock, run) for name, run in runs.items()}
        times = in_turn(turns, repeats=ROUNDS)
        yield Figure(
            name=f"{what} held, {megabytes:,} MB",
            unit="ms",
            ours=times.pop("ours"),
            limit=times.pop("limit") if what == "device" else None,
            peers={"tensor by tensor": times["tensor by tensor"]},
            goal=GOAL if what == "device" and megabytes >= 1000 else None,
        )
    recorder.close()


def measure(sizes: Sequence[int] = SIZES) -> Iterator[Figure]:
    """Captures of every size."""
    need_cuda()
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            yield from captures(size, "cuda", folder)


if __name__ == "__main__":
    sys.exit(alone(measure()))
