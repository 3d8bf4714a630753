"""What an ensemble's prediction takes on a CUDA device, with its members stacked.

    python -m benchmarks.gpu_predict

Of 5 and of 20 members, networks of four layers of 512, and batches of 1, 32 and
1,024 samples. The peer is a loop over models that are all on the device, and the
mean of their probabilities; the limit, their forward passes alone.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, need_cuda
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder

MEMBERS, BATCHES = (5, 20), (1, 32, 1024)
SMALL, LARGE = 1 / 3, 1.05
WIDTH = 512
ROUNDS = 15


def network(device: str) -> nn.Module:
    """The members' kind."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10)).to(device)


def predictions(members: int, batches: Sequence[int], device: str, folder: str) -> Iterator[Figure]:
    """The figures of so many members."""
    model = network(device)
    models = []
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(members):
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.randn_like(value), alpha=0.01)
            recorder.step()
            models.append(copy.deepcopy(model).eval())
    ensemble = SnapshotEnsemble(model, folder)

    for batch in batches:
        x = torch.randn(batch, WIDTH, device=device)

        def loop(x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return torch.stack([model(x).softmax(-1) for model in models]).mean(0)

        def forwards(x: Tensor = x) -> None:
            with torch.no_grad():
                for model in models:
                    model(x)

        def stacked(x: Tensor = x) -> Tensor:
            return ensemble.predict(x, mode="stacked")

        # What is timed is right.
        torch.testing.assert_close(stacked(), loop(), rtol=1e-3, atol=1e-4)
        runs = {"ours": stacked, "loop over resident models": loop, "limit": forwards}
        times = in_turn({name: timed(run) for name, run in runs.items()}, repeats=ROUNDS)
        goals: dict[int, tuple[float, str]] = {1: (SMALL, "peer"), 1024: (LARGE, "limit")}
        goal, beside = goals.get(batch, (None, "limit"))
        yield Figure(
            name=f"{members} members, batch of {batch:,}",
            unit="ms",
            ours=times.pop("ours"),
            limit=times.pop("limit"),
            peers=times,
            goal=goal,
            beside="peer" if beside == "peer" else "limit",
        )


def timed(run: Callable[[], object], calls: int = 10) -> Callable[[], float]:
    """The milliseconds of a call, from a still device to a still device."""

    def once() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / calls

    return once


def measure(members: Sequence[int] = MEMBERS, batches: Sequence[int] = BATCHES) -> Iterator[Figure]:
    """Ensembles of every size."""
    need_cuda()
    for count in members:
        with tempfile.TemporaryDirectory() as folder:
            yield from predictions(count, batches, "cuda", folder)


if __name__ == "__main__":
    sys.exit(alone(measure()))
