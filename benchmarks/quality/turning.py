"""Where the validation loss of one cosine run turns: `python -m benchmarks.quality.turning`.

A run whose loss is lowest before its end has more updates than it can use. Whether that says
where restarts pay is seen beside the ratios of `results.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from cosanneal.adapters.torch import CyclicCosineLR
from cosanneal.core.atomic import replacing

from .data import LOADERS, Data
from .networks import network_of
from .table import read_results
from .tasks import TASKS, Task, schedule_of
from .training import Prepared, batches, loss_of, optimizer_of

RESULTS: Final = Path(__file__).parent / "turning.json"
LOOKS: Final = 20


def curve(task: Task, data: Data, peak: float, seeds: list[int]) -> NDArray[np.float64]:
    """The validation loss in one cosine run of the long budget: (looks, seeds), after each 20th.

    Of classes the log-loss without a temperature, of a regression the mean squared error.
    """
    prepared = Prepared(data, task, seeds)
    model = network_of(task, seeds, data.x.shape[-1], data.classes)
    schedule = schedule_of("cosine", task.budget("long"), peak)
    optimizer = optimizer_of(task, model, peak)
    scheduler = CyclicCosineLR(optimizer, schedule)
    steps = task.budget("long")
    training = [each[0] for each in prepared.parts]
    taken = batches([len(each) for each in training], seeds, steps, task.batch)
    rows, which = torch.from_numpy(np.stack(training, axis=1)), torch.arange(len(seeds))
    x, truth = prepared.part(1)
    looks = {steps * (i + 1) // LOOKS for i in range(LOOKS)}
    found = []
    for step in range(steps):
        batch = rows[taken[step], which]
        optimizer.zero_grad()
        loss_of(
            model(prepared.x[batch, which]), prepared.targets[batch, which], data.classes
        ).backward()
        optimizer.step()
        scheduler.step()
        if step + 1 in looks:
            with torch.no_grad():
                outputs = model(x)
            each = [
                float(
                    loss_of(
                        outputs[:, i : i + 1],
                        torch.from_numpy(np.asarray(truth[i : i + 1])).swapaxes(0, 1)
                        if data.classes
                        else torch.from_numpy(truth[i : i + 1].T.astype(np.float32)),
                        data.classes,
                    )
                )
                for i in range(len(seeds))
            ]
            found.append(each)
    return np.array(found)


def main() -> None:
    """Train one cosine of each task, and write where its loss was lowest."""
    torch.set_num_threads(1)
    results = read_results()
    found: dict[str, Any] = {}
    for name, task in TASKS.items():
        peak = results["tasks"][name]["budgets"]["long"]["peaks"]["cosine"]
        losses = curve(task, LOADERS[name](), peak, list(range(task.seeds)))
        mean = losses.mean(axis=1)
        found[name] = {
            "peak": peak,
            "steps": task.budget("long"),
            "mean": [round(float(each), 6) for each in mean],
            "best": (int(mean.argmin()) + 1) / LOOKS,
            "best_of_seeds": [(int(each) + 1) / LOOKS for each in losses.argmin(axis=0)],
            "end_to_best": float(mean[-1] / mean.min()),
        }
        print(name, found[name]["best"], round(found[name]["end_to_best"], 3), flush=True)
    with replacing(RESULTS) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
