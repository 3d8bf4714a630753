"""The experiment: what one budget of updates can buy, over several seeds.

Following Snapshot Ensembles (Huang et al., 2017, section 4): the paper's
baselines, the cyclic run whose last m snapshots form the ensemble, and the
study of the number of cycles. All that is chosen or calibrated is chosen on the
validation scans; the test scans are looked at once, to report.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..core.cyclic import CyclicCosine
from ..core.rules import CycleRule, Level, Phase
from ..core.schedule import Schedule
from ..core.version import __version__
from ..ensemble import (
    Choice,
    compare_scores,
    error_rate,
    fit,
    log_loss,
    pool,
    sample_scores,
    scores_by_cycles,
)
from ..ensemble.arrays import as_numpy
from ..ensemble.choose.record import Select
from ..ensemble.score.metrics import Metric
from . import Backend
from .digits import Part, Split, batch_order, split_digits
from .training import Progress, Train, Trained, Training

Begin: TypeAlias = Callable[[int, str], Progress]

# Into how many cycles the study cuts the budget.
STUDY_CYCLES: Final = (1, 2, 3, 4, 5, 6, 8, 10)

# Between the seeds of the first weights of two models of one seed.
_FRESH: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The budget, and what the runs have in common.

    Args:
        epochs: the budget in passes over the training scans, for each run.
        batch_size: scans to an update.
        num_cycles: cycles of the cyclic run, each of which leaves a snapshot.
        max_lr: the highest rate of each run, by its name.
        momentum: of SGD.
        weight_decay: of SGD, for kernels alone, not for biases and BatchNorm.
        select: how the fitted ensemble is chosen, as in `SnapshotEnsemble.fit`.
    """

    # So few scans and so much weight decay that the network never settles on
    # them for good. Without it a restart finds the same solution again, and
    # there is nothing to average.
    epochs: int = 600
    batch_size: int = 15
    num_cycles: int = 6
    # Of 0.02, 0.05, 0.1, 0.2 and 0.5, for each run the one whose prediction has
    # the least log-loss, after a temperature, on scans of the seeds 100 to 115
    # that are not trained on, the temperature being fitted on 500 of them and
    # the log-loss taken of the others; `select` in the same way. The
    # demonstration does not use those seeds.
    max_lr: Mapping[str, float] = field(
        default_factory=lambda: {"single": 0.2, "cosine": 0.05, "short": 0.2, "cyclic": 0.2}
    )
    momentum: float = 0.9
    weight_decay: float = 5e-3
    select: Select = "greedy"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Probabilities for the scans that are not trained on.

    Args:
        validation: shape (samples, classes); of several members (members, samples, classes).
        test: the same.
    """

    validation: NDArray[Any]
    test: NDArray[Any]

    @classmethod
    def of(cls, predict: Callable[[Part], Any], split: Split) -> Predictions:
        """What a function predicts of the scans."""
        return cls(as_numpy(predict(split.validation)), as_numpy(predict(split.test)))

    def each(self, function: Callable[[NDArray[Any]], Any]) -> Predictions:
        """What a function makes of each of the two."""
        return Predictions(function(self.validation), function(self.test))

    def last(self, members: int) -> Predictions:
        """The mean of the last members' probabilities."""
        return self.each(lambda p: pool(p[-members:]))


def training_function(backend: Backend) -> Train:
    """What trains in a framework.

    Raises:
        MissingExtraError: the framework is not installed.
    """
    return cast(Train, importlib.import_module(f".{backend}_backend", __package__).train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One of the runs that are compared.

    Args:
        name: its name in the results.
        title: what it is.
        schedules: of each model that it trains, one after the other from fresh weights.
    """

    name: str
    title: str
    schedules: tuple[Schedule, ...]


def plan_runs(config: Config, updates: int) -> list[Run]:
    """The runs, each of so many updates in all."""
    cycles, rates = config.num_cycles, config.max_lr
    cyclic = CyclicCosine(rates["cyclic"], total_steps=updates, num_cycles=cycles)
    return [
        Run(
            name="single",
            title="Single (rate / 10 at 50 % and 75 %)",
            schedules=(step_decay(rates["single"], updates, cycles),),
        ),
        Run(
            name="cosine",
            title="One cosine cycle",
            schedules=(CyclicCosine(rates["cosine"], total_steps=updates, num_cycles=1),),
        ),
        Run(
            name="short",
            title=f"SingleCycle: {cycles} short runs",
            schedules=tuple(
                CyclicCosine(rates["short"], total_steps=cycle.length, num_cycles=1)
                for cycle in cyclic.cycles()
            ),
        ),
        Run(name="cyclic", title=f"Cyclic run, {cycles} cycles", schedules=(cyclic,)),
    ]


def step_decay(max_lr: float, updates: int, num_cycles: int) -> Schedule:
    """The paper's standard schedule: the rate divided by 10 after 50 % and 75 % of the updates.

    Its cycles do not touch the rate: they are as long as the cyclic run's, so
    that snapshots are taken after the same updates, the paper's NoCycle
    snapshots.
    """
    drops = [updates // 2, updates * 3 // 4]
    ends = [updates * i // num_cycles for i in range(num_cycles + 1)]
    rules = []
    for start, stop in pairwise(ends):
        edges = [start, *(drop for drop in drops if start < drop < stop), stop]
        phases = []
        for left, right in pairwise(edges):
            rate = Level(max_lr / 10 ** sum(drop <= left for drop in drops))
            steps = None if right == stop else right - left
            phases.append(Phase(steps=steps, first=rate, last=rate, curve="constant"))
        rules.append(CycleRule(count=1, length=stop - start, phases=tuple(phases)))
    return Schedule(tuple(rules))


def count_updates(config: Config, samples: int) -> int:
    """The budget of each run in optimizer steps."""
    return config.epochs * (samples // config.batch_size)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The cyclic run of a seed, and what was made of it.

    Args:
        split: its data.
        folder: its snapshots.
        trained: what the training left.
        members: the snapshots' predictions, oldest first.
        choice: what was chosen on the validation scans.
        chosen: what the chosen ensemble predicts.
        averaged: how many snapshots' weights were averaged, and what a model
            with the mean predicts; of the last 2, 3, ... those whose mean is
            best on the validation scans.
    """

    split: Split
    folder: Path
    trained: Trained
    members: Predictions
    choice: Choice
    chosen: Predictions
    averaged: tuple[int, Predictions]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the experiment found.

    Args:
        results: plain data for JSON: `config`, the first seed's `curves`, the
            `seeds`' scores and, if it was asked for, the `study`'s, a list of
            rows for each seed.
        first: the first seed's cyclic run.
    """

    results: dict[str, Any]
    first: Fitted


def run_experiment(
    train: Train,
    *,
    backend: str,
    seeds: int,
    out: Path,
    config: Config,
    progress: Begin,
    study: Sequence[int] = (),
) -> Outcome:
    """Train everything and measure it.

    Args:
        train: the framework's training function.
        backend: the framework's name, for the results.
        seeds: how many seeds, from 0: each changes the split, the first
            weights and the order of the scans.
        out: the folder for the snapshots.
        config: the budget and the rates.
        progress: called with the seed and the run's title when a run begins;
            gives what is called after every update.
        study: into how many cycles the same budget is cut besides.
    """
    scores: list[dict[str, Any]] = []
    studied: list[list[dict[str, Any]]] = []
    results: dict[str, Any] = {}
    first: list[Fitted] = []
    for seed in range(seeds):
        one = _Seed(train, seed, config, out / "snapshots" / f"seed-{seed}", progress)
        score, curves, fitted = one.compare()
        scores.append(score)
        if study:
            studied.append(one.study(study, fitted.members))
        if not first:
            first.append(fitted)
            results = {
                "config": {
                    **asdict(config),
                    "backend": backend,
                    "seeds": seeds,
                    "updates": one.updates,
                    "samples": {name: len(getattr(one.split, name)) for name in Split.__slots__},
                    "cosanneal": __version__,
                },
                "curves": curves,
                "seeds": scores,
            }
    if study:
        results["study"] = studied
    return Outcome(results, first[0])


class _Seed:
    """One seed's data, runs and scores."""

    def __init__(
        self, train: Train, seed: int, config: Config, folder: Path, progress: Begin
    ) -> None:
        self.split = split_digits(seed)
        self.updates = count_updates(config, len(self.split.train))
        self._seed, self._config, self._folder = seed, config, folder
        self._train, self._begin = train, progress
        self._order = batch_order(seed, len(self.split.train), config.batch_size, self.updates)

    def compare(self) -> tuple[dict[str, Any], dict[str, Any], Fitted]:
        """Every model's scores, every run's curves, and the cyclic run with its ensemble."""
        trained: dict[str, list[Trained]] = {}
        members: dict[str, Predictions] = {}
        curves: dict[str, Any] = {}
        for run in plan_runs(self._config, self.updates):
            trained[run.name], members[run.name] = self._run(run)
            curves[run.name] = {
                "rate": [rate for one in trained[run.name] for rate in one.rates],
                "loss": [loss for one in trained[run.name] for loss in one.losses],
            }
            if run.name == "cyclic":
                curves[run.name]["cycle_ends"] = run.schedules[0].cycle_ends()
        fitted = self._fit(trained["cyclic"][0], members["cyclic"])
        count, cosine = self._config.num_cycles, members["cosine"].last(1)
        with _few_samples():
            calibration = fit([cosine.validation], self.split.validation.y)
        last, averaged = fitted.averaged
        row = {
            "seed": self._seed,
            "single": self._score(members["single"].last(1)),
            "nocycle": self._score(members["single"].last(count)),
            "cosine": self._score(cosine),
            "cosine_calibrated": self._score(cosine.each(lambda p: calibration.apply([p]))),
            "short": self._score(members["short"].last(count)),
            "ensemble": [
                {"members": m, **self._score(fitted.members.last(m))} for m in range(1, count + 1)
            ],
            "fitted": self._score(fitted.chosen),
            "averaged": {"members": last, **self._score(averaged)},
            "choice": fitted.choice.to_dict(),
            "paired": self._paired(fitted.chosen.test, fitted.members.test[-1]),
        }
        return row, curves, fitted

    def study(self, cycles: Sequence[int], known: Predictions) -> list[dict[str, Any]]:
        """The scores of the last snapshot, of all, and of the last m that validation prefers.

        Args:
            cycles: into how many to cut the budget.
            known: the snapshots' predictions of the cyclic run.
        """
        runs: dict[int, Predictions] = {self._config.num_cycles: known}
        for count in cycles:
            if count not in runs:
                schedule = CyclicCosine(
                    self._config.max_lr["cyclic"], total_steps=self.updates, num_cycles=count
                )
                title = f"{count} cycle{'s' if count > 1 else ''} of the study"
                run = Run(name=f"cycles-{count}", title=title, schedules=(schedule,))
                _, runs[count] = self._run(run)
        runs = {count: runs[count] for count in cycles}
        validation = {count: members.validation for count, members in runs.items()}
        return [
            {
                "cycles": row["cycles"],
                "members": row["m"],
                "last": self._score(runs[row["cycles"]].last(1)),
                "all": self._score(runs[row["cycles"]].last(row["cycles"])),
                "best": self._score(runs[row["cycles"]].last(row["m"])),
            }
            for row in scores_by_cycles(validation, self.split.validation.y)
        ]

    def _run(self, run: Run) -> tuple[list[Trained], Predictions]:
        """Train a run's models; also the predictions of all of their snapshots, in order."""
        progress = self._begin(self._seed, run.title)
        done = 0
        trained: list[Trained] = []
        members: list[Predictions] = []
        for i, schedule in enumerate(run.schedules):
            updates = len(schedule.rates())
            folder = self._folder / (run.name if len(run.schedules) == 1 else f"{run.name}-{i}")
            task = Training(
                split=self.split,
                order=self._order[done : done + updates],
                seed=self._seed + _FRESH * i,
                momentum=self._config.momentum,
                weight_decay=self._config.weight_decay,
                schedule=schedule,
                folder=folder,
                progress=progress,
            )
            one = self._train(task)
            members.append(Predictions.of(partial(_each_member, one, folder), self.split))
            trained.append(one)
            done += updates
        return trained, Predictions(
            np.concatenate([each.validation for each in members]),
            np.concatenate([each.test for each in members]),
        )

    def _fit(self, trained: Trained, members: Predictions) -> Fitted:
        """Choose, calibrate and average, all on the validation scans."""
        folder, validation = self._folder / "cyclic", self.split.validation
        ensemble = trained.ensemble(folder)
        with _few_samples():
            choice = ensemble.fit(
                trained.inputs(validation), validation.y, select=self._config.select
            )
        ensemble.save()
        means: list[tuple[int, Predictions]] = []
        for last in range(min(2, len(ensemble)), len(ensemble) + 1):
            # Whether a barrier parts them or not: the row is there to show it.
            mean = ensemble.average_weights(
                train_data=trained.inputs(self.split.train), last=last, barrier=math.inf
            )
            predict = partial(trained.predict, mean.weights)
            means.append((last, Predictions.of(predict, self.split)))
        return Fitted(
            split=self.split,
            folder=folder,
            trained=trained,
            members=members,
            choice=choice,
            chosen=Predictions.of(lambda part: ensemble.predict(trained.inputs(part)), self.split),
            averaged=min(means, key=lambda each: log_loss(each[1].validation, validation.y)),
        )

    def _score(self, predictions: Predictions) -> dict[str, float]:
        test, validation = self.split.test.y, self.split.validation.y
        return {
            "test_error": error_rate(predictions.test, test),
            "test_nll": log_loss(predictions.test, test),
            "validation_error": error_rate(predictions.validation, validation),
            "validation_nll": log_loss(predictions.validation, validation),
        }

    def _paired(self, first: NDArray[Any], second: NDArray[Any]) -> dict[str, Any]:
        """The difference of two predictions' scores on the same test scans, with its interval."""
        metrics: dict[str, Metric] = {"test_error": "error", "test_nll": "log_loss"}
        found = {}
        for name, metric in metrics.items():
            scores = [sample_scores(metric, p, self.split.test.y) for p in (first, second)]
            found[name] = asdict(compare_scores(*scores))
        return found


def _each_member(trained: Trained, folder: Path, part: Part) -> NDArray[Any]:
    predictions = trained.ensemble(folder).member_predictions(trained.inputs(part))
    return np.stack([as_numpy(each) for each in predictions])


@contextmanager
def _few_samples() -> Iterator[None]:
    """Without the warning that the choice is noisy, which the seeds' spread shows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ensemble was chosen on", UserWarning)
        yield
