"""What the schedule adds to an update on a CUDA device, beside a rate that stays as it is.

    python -m benchmarks.gpu_schedule

Adam with `capturable=True` and a rate that is a tensor on the device, over a small
network, whose updates are short: as a captured graph that is replayed, and eagerly.
The limit is the same without a scheduler. Whole runs of updates are timed, from a
still device to a still device.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, need_cuda
from cosanneal.adapters.torch import CyclicCosineLR

LENGTH = 20_000
UPDATES = 500
ROUNDS = 15

# From the optimizer, what is called after each update.
After = Callable[[torch.optim.Optimizer], Callable[[], object]]

AFTER: dict[str, After] = {
    "ours": lambda optimizer: (
        CyclicCosineLR(optimizer, ca.CyclicCosine(1e-3, cycle_steps=LENGTH)).step
    ),
    "limit": lambda _: lambda: None,
    "torch CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, LENGTH).step,
    "torch WarmRestarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, LENGTH).step,
}


def updates(device: str, after: After, *, captured: bool) -> Callable[[], float]:
    """A run of so many updates, which returns the microseconds that one takes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    x, y = torch.randn(32, 64, device=device), torch.randint(10, (32,), device=device)
    rate = torch.tensor(1e-3, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, capturable=True)
    scheduled = after(optimizer)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # makes the optimizer's state
            update()
            scheduled()
    torch.cuda.current_stream().wait_stream(side)
    do: Callable[[], object] = update
    if captured:
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            update()
        do = graph.replay

    def run() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(UPDATES):
            do()
            scheduled()
        torch.cuda.synchronize()
        return 1e6 * (time.perf_counter() - start) / UPDATES

    return run


def measure(device: str = "cuda") -> Iterator[Figure]:
    """An update as a captured graph, and an eager one."""
    if device == "cuda":
        need_cuda()
    warnings.simplefilter("ignore")
    for captured in (True, False):
        runs = {name: updates(device, after, captured=captured) for name, after in AFTER.items()}
        times = in_turn(runs, repeats=ROUNDS)
        yield Figure(
            name="a captured graph's replay" if captured else "an eager update",
            unit="µs",
            ours=times.pop("ours"),
            limit=times.pop("limit"),
            peers=times,
        )


if __name__ == "__main__":
    sys.exit(alone(measure()))
