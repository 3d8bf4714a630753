"""What range tests suggest, beside the peaks that validation chose.

Every task's range test, for the seeds by which the peaks were chosen, and for three lengths. Rules
are the library's own and, on the same losses, those of Lightning and of torch-lr-finder.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import cosanneal as ca
from benchmarks.runner import machine
from cosanneal.adapters.torch import CyclicCosineLR
from cosanneal.core.atomic import replacing

from .data import LOADERS, Data
from .networks import network_of
from .table import RESULTS, markdown
from .tasks import SELECTION_SEEDS, TASKS, Task
from .training import Prepared, batches, optimizer_of

FOUND: Final = Path(__file__).with_name("peaks.json")
LENGTHS: Final = (100, 200, 400)
# Separate runs have a fifth of the budget: another question.
CHOSEN: Final = ("cosine", "cyclic3", "cyclic5", "doubling4")


def range_of(task: Task) -> tuple[float, float]:
    """From where no loss moves to where all break."""
    return (1e-5, 1.0) if task.optimizer == "adamw" else (1e-4, 10.0)


def losses_of(task: Task, data: Data, steps: int) -> tuple[list[float], list[list[float]]]:
    """The rates and, for each seed, the losses of one range test."""
    seeds = SELECTION_SEEDS
    prepared = Prepared(data, task, seeds)
    model = network_of(task, seeds, data.x.shape[-1], data.classes)
    schedule = ca.range_test(*range_of(task), total_steps=steps)
    optimizer = optimizer_of(task, model, schedule.rate(0))
    scheduler = CyclicCosineLR(optimizer, schedule)
    training = [each[0] for each in prepared.parts]
    taken = batches([len(each) for each in training], seeds, steps, task.batch)
    rows, which = torch.from_numpy(np.stack(training, axis=1)), torch.arange(len(seeds))
    found: list[list[float]] = []
    for step in range(steps):
        batch = rows[taken[step], which]
        optimizer.zero_grad()
        outputs, truth = model(prepared.x[batch, which]), prepared.targets[batch, which]
        each = torch.stack(
            [
                torch.nn.functional.cross_entropy(
                    outputs[:, run].flatten(0, -2), truth[:, run].flatten()
                )
                if data.classes
                else torch.nn.functional.mse_loss(outputs[:, run, 0], truth[:, run])
                for run in range(len(seeds))
            ]
        )
        found.append(each.tolist())
        if not each.isfinite().all():
            break
        each.sum().backward()
        optimizer.step()
        scheduler.step()
    return list(schedule.rates(0, len(found))), [
        list(losses) for losses in zip(*found, strict=True)
    ]


def lightning(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Lightning's suggestion: its losses are smoothed and end at four times the least."""
    from lightning.pytorch.tuner.lr_finder import _LRFinder

    finder = _LRFinder("exponential", rates[0], rates[-1], len(rates))
    mean, smooth = 0.0, []
    for step, loss in enumerate(losses):
        mean = 0.98 * mean + 0.02 * loss
        smooth.append(mean / (1 - 0.98 ** (step + 1)))
        if step > 1 and smooth[-1] > 4 * min(smooth):
            break
    finder.results = {"lr": list(rates[: len(smooth)]), "loss": smooth}
    suggested = finder.suggestion()
    assert suggested is not None  # noqa: S101 - there are enough losses
    return float(suggested)


def torch_lr_finder(rates: Sequence[float], losses: Sequence[float]) -> float:
    """torch-lr-finder's suggestion: smoothed by 0.05, and ended at five times the least."""
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder

    model = torch.nn.Linear(1, 1)
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=1.0), torch.nn.MSELoss())
    smooth: list[float] = []
    for loss in losses:
        smooth.append(0.05 * loss + 0.95 * smooth[-1] if smooth else loss)
        if smooth[-1] > 5 * min(smooth):
            break
    finder.history = {"lr": list(rates[: len(smooth)]), "loss": smooth}
    with redirect_stdout(io.StringIO()):  # it prints
        _, suggested = finder.plot(ax=Figure().add_subplot(), suggest_lr=True)
    return float(suggested)


RULES: Final[dict[str, Callable[[Sequence[float], Sequence[float]], float]]] = {
    "suggest_max_lr": ca.suggest_max_lr,
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
}


def run(results: Mapping[str, Any]) -> dict[str, Any]:
    """Every task's suggestions, and the peaks that validation chose."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, task in TASKS.items():
        data = LOADERS[name]()
        suggested: dict[str, dict[str, list[float]]] = {rule: {} for rule in RULES}
        for steps in LENGTHS:
            rates, losses = losses_of(task, data, steps)
            for rule, suggest in RULES.items():
                suggested[rule][str(steps)] = [suggest(rates, each) for each in losses]
        budgets = results["tasks"][name]["budgets"]
        chosen = {
            budget: {schedule: budgets[budget]["peaks"][schedule] for schedule in CHOSEN}
            for budget in budgets
        }
        found[name] = {"half": task.half, "chosen": chosen, "suggested": suggested}
        print(name, flush=True)
    return {"machine": machine(), "seeds": list(SELECTION_SEEDS), "tasks": found}


def distances(found: Mapping[str, Any], rule: str, half: str) -> list[float]:
    """Decades from the peaks that were chosen to what was suggested, on average over the seeds.

    The rule "middle of the grid" looks at nothing: the geometric mean of the peaks tried.
    """
    away = []
    for name, task in found["tasks"].items():
        if task["half"] != half:
            continue
        if rule in task["suggested"]:
            logs = [np.log10(each).mean() for each in task["suggested"][rule].values()]
        else:
            logs = [np.log10(TASKS[name].peaks).mean()]
        for budget in task["chosen"].values():
            away += [log - math.log10(peak) for peak in budget.values() for log in logs]
    return away


def table(found: Mapping[str, Any]) -> str:
    """How far from the chosen peaks each rule is, as factors."""
    rows = []
    for rule in (*RULES, "middle of the grid"):
        cells = [rule]
        for half in ("tuning", "reported"):
            away = np.array(distances(found, rule, half))
            typical, worst = 10 ** np.sqrt(np.mean(away**2)), 10 ** np.abs(away).max()
            near = np.mean(np.abs(away) <= math.log10(3))
            cells.append(f"{typical:.1f} ({near:.0%} within 3; worst {worst:.0f})")
        rows.append(cells)
    return markdown(("rule", "tuning half", "reported half"), rows)


def write(path: Path = FOUND) -> None:
    """Run all, and keep what was found."""
    found = run(json.loads(RESULTS.read_text(encoding="utf-8")))
    with replacing(path) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    print(table(found))
