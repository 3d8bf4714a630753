"""The runs: trained with the library's own schedule and recorder, and their predictions kept."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosanneal.adapters.torch import (
    CyclicCosineLR,
    SnapshotEnsemble,
    SnapshotRecorder,
    reset_momentum,
    shrink_and_perturb,
)

from . import cache
from .data import LOADERS, Data
from .networks import network_of
from .scoring import fitted
from .table import read_results
from .tasks import COLUMNS, RESTARTS, SCHEDULES, SELECTION_SEEDS, WATCHES, Task, schedule_of
from .watching import Watcher


class DivergedError(RuntimeError):
    """Weights or predictions that are not finite."""


def split(data: Data, task: Task, seed: int) -> tuple[NDArray[np.int64], ...]:
    """The samples for training, validation and test: another split for each seed."""
    groups = np.arange(len(data.x)) if data.groups is None else data.groups
    names, counts = np.unique(groups, return_counts=True)
    # A last group that is not full would make the parts of several seeds of unlike size.
    names = np.random.default_rng(seed).permutation(names[counts == counts.max()])
    first = round(task.shares[0] * len(names))
    second = first + round(task.shares[1] * len(names))
    parts = (names[:first], names[first:second], names[second:])
    return tuple(np.flatnonzero(np.isin(groups, part)) for part in parts)


class Prepared:
    """A task's data for several runs at once, each standardized by its own training part.

    Args:
        data: the data set.
        task: whose shares count.
        seeds: of the splits, one for each run.
    """

    def __init__(self, data: Data, task: Task, seeds: Sequence[int]) -> None:
        self.parts = [split(data, task, seed) for seed in seeds]
        self.classes = data.classes
        xs, ys = [], []
        for train, _, _ in self.parts:
            x, y = data.x, data.y
            if task.network != "gru":
                scale = x[train].std(axis=0)
                # A column that is the same in all of the training part says nothing.
                known = scale > 0
                x = np.where(known, (x - x[train].mean(axis=0)) / np.where(known, scale, 1), 0)
                x = x.astype(np.float32)
            if not data.classes:
                y = (y - y[train].mean()) / y[train].std()
            xs.append(x)
            ys.append(y)
        self.x = torch.from_numpy(np.stack(xs, axis=1))
        self.y = np.stack(ys, axis=1)
        self.targets = torch.from_numpy(self.y if data.classes else self.y.astype(np.float32))

    def part(self, which: int) -> tuple[Tensor, NDArray[Any]]:
        """The inputs (samples, runs, ...) and the truth (runs, samples, ...) of one part."""
        rows = np.stack([each[which] for each in self.parts], axis=1)
        runs = np.arange(len(self.parts))
        return self.x[rows, runs], np.moveaxis(self.y[rows, runs], 0, 1)


def batches(sizes: Sequence[int], seeds: Sequence[int], steps: int, batch: int) -> Tensor:
    """Which samples each update takes: (steps, batch, runs), epoch after epoch in a new order."""
    columns = []
    for size, seed in zip(sizes, seeds, strict=True):
        random = np.random.default_rng([seed, 1])
        epochs = math.ceil(steps * batch / size)
        order = np.concatenate([random.permutation(size) for _ in range(epochs)])
        columns.append(order[: steps * batch].reshape(steps, batch))
    return torch.from_numpy(np.stack(columns, axis=2))


def optimizer_of(task: Task, model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """The task's optimizer at its usual settings."""
    if task.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, foreach=True)
    return torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, foreach=True
    )


def loss_of(outputs: Tensor, truth: Tensor, classes: int) -> Tensor:
    """The sum over the runs of each one's mean loss."""
    runs = truth.shape[1]
    if not classes:
        return torch.nn.functional.mse_loss(outputs[..., 0], truth) * runs
    return torch.nn.functional.cross_entropy(outputs.flatten(0, -2), truth.flatten()) * runs


def train(
    task: Task, data: Data, budget: str, schedule_name: str, peak: float, seeds: Sequence[int]
) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], float]:
    """Train one schedule for several seeds; the members' predictions and the truth.

    Returns:
        For the validation and the test data the predictions, of shape (members, seeds,
        samples, ...), and the truth; and the seconds that it took.

    Raises:
        DivergedError: a run whose loss or predictions are not finite.
    """
    began = time.perf_counter()
    members = SCHEDULES[schedule_name]
    copies = members if schedule_name == "separate" else 1
    splits = [seed for seed in seeds for _ in range(copies)]
    # Five separate runs share their data, and neither their first weights nor their batches.
    runs = [seed * copies + i for seed in seeds for i in range(copies)]
    prepared = Prepared(data, task, splits)
    model = network_of(task, runs, data.x.shape[-1], data.classes)
    schedule = schedule_of(schedule_name, task.budget(budget), peak)
    optimizer = optimizer_of(task, model, peak)
    scheduler = CyclicCosineLR(optimizer, schedule)
    steps = schedule.total_steps
    assert steps is not None  # noqa: S101 - all of them are finite
    restart = RESTARTS.get(schedule_name)
    restarts = {cycle.start: cycle.index for cycle in schedule.cycles()[1:] if restart}
    training = [each[0] for each in prepared.parts]
    taken = batches([len(each) for each in training], runs, steps, task.batch)
    rows, which = torch.from_numpy(np.stack(training, axis=1)), torch.arange(len(runs))
    watch = WATCHES.get(schedule_name)
    samples = rows.shape[0] * (prepared.targets[0, 0].numel() if data.classes else 1)
    watcher = None if watch is None else Watcher(watch, model, schedule, samples, runs)
    with tempfile.TemporaryDirectory() as folder:
        with SnapshotRecorder(folder, model, scheduler):
            for step in range(steps):
                batch = rows[taken[step], which]
                optimizer.zero_grad()
                outputs = model(prepared.x[batch, which])
                loss = loss_of(outputs, prepared.targets[batch, which], data.classes)
                loss.backward()
                optimizer.step()
                if not loss.isfinite():
                    raise DivergedError(f"{task.name}, {budget}, {schedule_name}, peak {peak:g}")
                if watcher is not None:
                    watcher.after_update(step + 1)
                scheduler.step()
                if restart and step + 1 in restarts:
                    # As each run alone would draw them: by its own seed, and no other's.
                    seeds_now = [run + 1000 * restarts[step + 1] for run in runs]
                    fresh = network_of(task, seeds_now, data.x.shape[-1], data.classes)
                    shrink_and_perturb(model, fresh, shrink=restart.shrink, perturb=restart.perturb)
                    if restart.reset:
                        reset_momentum(optimizer)
        ensemble = SnapshotEnsemble(
            model,
            folder,
            outputs="logits" if data.classes else "values",
            class_axis=-1 if data.classes else None,
        )
        found = []
        for part in (1, 2):
            x, truth = prepared.part(part)
            every = (
                ensemble.member_predictions(x, batch_size=512)
                if watcher is None
                else watcher.predictions(x, data.classes, 512)
            )
            each = [rows.numpy() for rows in every]
            predictions = np.stack(each).swapaxes(1, 2)
            if not np.isfinite(predictions).all():
                raise DivergedError(f"{task.name}, {budget}, {schedule_name}, peak {peak:g}")
            if not data.classes:
                predictions = predictions[..., 0]
            if copies > 1:
                predictions = predictions[0].reshape(len(seeds), copies, *predictions.shape[2:])
                predictions, truth = predictions.swapaxes(0, 1), truth[::copies]
            found.append((np.ascontiguousarray(predictions, dtype=np.float32), truth))
    return found, time.perf_counter() - began


def recipe_of(task: Task, budget: str, schedule: str, peak: float | None) -> dict[str, Any]:
    """All that a file of the cache depends on."""
    seeds = list(SELECTION_SEEDS) if peak is not None else list(range(task.seeds))
    restart, watch = RESTARTS.get(schedule), WATCHES.get(schedule)
    return {
        **({} if watch is None else {"watch": asdict(watch), "columns": list(COLUMNS)}),
        **({} if restart is None else {"restart": asdict(restart)}),
        **{name: list(x) if isinstance(x, tuple) else x for name, x in task.recipe().items()},
        "budget": budget,
        "schedule": schedule,
        "peak": peak,
        "run_seeds": seeds,
    }


def chosen_peak(task: Task, budget: str, schedule: str, folder: Path) -> float:
    """The peak of the least validation score of `select="last"`, on average over their seeds.

    The log-loss at the temperature, or of a regression the mean squared error: one rule for all
    schedules, which is fitted on the ensemble, and of one cosine is its own temperature.

    Raises:
        DivergedError: all peaks diverged.
    """
    scores = {}
    for peak in task.peaks:
        recipe = recipe_of(task, budget, schedule, peak)
        arrays = cache.need(cache.place(folder, task.name, budget, schedule, peak), recipe)
        if "validation" not in arrays:
            continue
        each = []
        for seed in range(len(SELECTION_SEEDS)):
            members, truth = arrays["validation"][:, seed], arrays["validation_labels"][seed]
            choice = fitted(members, truth, "last")
            each.append(choice.candidates[-1].scores[choice.metric])
        scores[peak] = float(np.mean(each))
    if not scores:
        raise DivergedError(f"{task.name}, {budget}, {schedule}: at every peak")
    return min(scores, key=lambda peak: scores[peak])


def run(
    task: Task,
    budget: str,
    schedule: str,
    folder: Path,
    load: Callable[[], Data] | None = None,
    *,
    known_peaks: bool = False,
) -> list[Path]:
    """Train what is missing of one schedule at one budget: every peak, then the reported seeds.

    A run that keeps more is trained at the peak that `results.json` has of its plain schedule.

    Args:
        task: on which.
        budget: its name.
        schedule: of `SCHEDULES`.
        folder: of the files.
        load: gives the data; by default the task's own.
        known_peaks: whether the peak is that of `results.json`, without a search.

    Returns:
        The files that were made; those that were there are left as they are.
    """
    torch.set_num_threads(1)
    data: Data | None = None
    made = []
    plain = WATCHES[schedule].base if schedule in WATCHES else schedule
    known = known_peaks or plain != schedule
    for peak in (*(() if known else task.peaks), None):
        path = cache.place(folder, task.name, budget, schedule, peak)
        recipe = recipe_of(task, budget, schedule, peak)
        if cache.read(path, recipe) is not None:
            continue
        if data is None:
            data = (load or LOADERS[task.name])()
        if peak is not None:
            rate = peak
        elif known:
            rate = read_results()["tasks"][task.name]["budgets"][budget]["peaks"][plain]
        else:
            rate = chosen_peak(task, budget, schedule, folder)
        arrays: dict[str, Any] = {"seeds": np.array(recipe["run_seeds"]), "peak": np.array(rate)}
        try:
            found, seconds = train(task, data, budget, schedule, rate, recipe["run_seeds"])
        except DivergedError:
            if peak is None:
                raise
            # The file says that this peak is out, so that it is not tried again.
            cache.write(path, arrays, recipe)
            made.append(path)
            continue
        arrays["seconds"] = np.array(seconds)
        for name, (predictions, truth) in zip(("validation", "test"), found, strict=True):
            if name == "validation" or peak is None:
                arrays |= {name: predictions, f"{name}_labels": truth}
        cache.write(path, arrays, recipe)
        made.append(path)
    return made
