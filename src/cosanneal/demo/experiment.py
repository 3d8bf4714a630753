"""The experiment: three ways to spend one budget of updates, over several seeds.

Following Snapshot Ensembles (Huang et al., 2017, section 4): the paper's Single
(the rate divided by 10 at 50 % and 75 % of the budget), one cosine cycle, and
the cyclic run whose last m snapshots form the ensemble.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.cyclic import CyclicCosine
from ..core.schedule import Schedule
from ..core.version import __version__
from ..ensemble.metrics import error_rate, log_loss
from . import Backend
from .digits import Split, batch_order, split_digits

Progress: TypeAlias = Callable[[], None]

_SCORES = ("test_error", "test_nll", "validation_error", "validation_nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The budget, and what the runs have in common.

    Args:
        epochs: the budget in passes over the training scans, for each run.
        batch_size: scans to an update.
        num_cycles: cycles of the cyclic run, each of which leaves a snapshot.
        max_lr: the highest rate of each run, by its name.
        momentum: of SGD.
        weight_decay: of SGD.
    """

    epochs: int = 200
    batch_size: int = 15
    num_cycles: int = 5
    # Of 0.05, 0.1 and 0.2 each the best by log-loss on the validation scans of
    # seeds 100 to 107, which the demonstration does not use.
    max_lr: Mapping[str, float] = field(
        default_factory=lambda: {"single": 0.05, "cosine": 0.05, "cyclic": 0.1}
    )
    momentum: float = 0.9
    weight_decay: float = 5e-3


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Probabilities for the scans that are not trained on, each of shape (samples, classes)."""

    validation: NDArray[np.float32]
    test: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What one training run leaves.

    Args:
        rates: the rate of every update.
        losses: the training loss of every update.
        final: the predictions of the final weights.
        ensembles: those of the ensembles of the last 1, 2, ... snapshots.
    """

    rates: list[float]
    losses: list[float]
    final: Predictions
    ensembles: list[Predictions]


class Train(Protocol):
    """A framework's training function."""

    def __call__(
        self,
        split: Split,
        order: NDArray[np.intp],
        *,
        seed: int,
        config: Config,
        max_lr: float,
        schedule: Schedule | None,
        folder: Path | None,
        progress: Progress,
    ) -> Trained:
        """Train once; see `torch_backend.train`."""
        ...


def training_function(backend: Backend) -> Train:
    """What trains in a framework.

    Raises:
        MissingExtraError: the framework is not installed.
    """
    module = importlib.import_module(f".{backend}_backend", __package__)
    return cast(Train, module.train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One of the runs that are compared."""

    name: str
    title: str
    max_lr: float
    schedule: Schedule | None


def plan_runs(config: Config, updates: int) -> list[Run]:
    """The three runs, each of so many updates."""
    cycles = {"single": None, "cosine": 1, "cyclic": config.num_cycles}
    titles = {
        "single": "Single (rate / 10 at 50 % and 75 %)",
        "cosine": "One cosine cycle",
        "cyclic": f"Cyclic run, {config.num_cycles} cycles",
    }
    return [
        Run(
            name=name,
            title=titles[name],
            max_lr=config.max_lr[name],
            schedule=None
            if count is None
            else CyclicCosine(config.max_lr[name], total_steps=updates, num_cycles=count),
        )
        for name, count in cycles.items()
    ]


def count_updates(config: Config, samples: int) -> int:
    """The budget of each run in optimizer steps."""
    return config.epochs * (samples // config.batch_size)


def run_experiment(
    train: Train,
    *,
    backend: str,
    seeds: int,
    out: Path,
    config: Config,
    progress: Callable[[int, str], Progress],
) -> dict[str, Any]:
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

    Returns:
        The results, plain data for JSON: `config`, the first seed's `curves`,
        the `seeds`' scores, and a `summary` of them.
    """
    scores: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for seed in range(seeds):
        split = split_digits(seed)
        updates = count_updates(config, len(split.train))
        order = batch_order(seed, len(split.train), config.batch_size, updates)
        row: dict[str, Any] = {"seed": seed}
        curves: dict[str, Any] = {}
        for run in plan_runs(config, updates):
            trained = train(
                split,
                order,
                seed=seed,
                config=config,
                max_lr=run.max_lr,
                schedule=run.schedule,
                folder=out / "snapshots" / f"seed-{seed}" if run.name == "cyclic" else None,
                progress=progress(seed, run.title),
            )
            row[run.name] = _score(split, trained.final)
            curves[run.name] = {"rate": trained.rates, "loss": trained.losses}
            if run.name == "cyclic" and run.schedule is not None:
                curves[run.name]["cycle_ends"] = run.schedule.cycle_ends()
                row["ensemble"] = [
                    {"members": members, **_score(split, predictions)}
                    for members, predictions in enumerate(trained.ensembles, start=1)
                ]
        scores.append(row)
        if seed == 0:
            samples = {name: len(getattr(split, name)) for name in split.__slots__}
            first = {
                "config": {
                    **asdict(config),
                    "backend": backend,
                    "seeds": seeds,
                    "updates": updates,
                    "samples": samples,
                    "cosanneal": __version__,
                },
                "curves": curves,
            }
    titles = {run.name: run.title for run in plan_runs(config, first["config"]["updates"])}
    return {**first, "seeds": scores, "summary": _summarize(scores, titles)}


def compare(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in words: the whole ensemble beside each of the others."""
    summary: list[dict[str, Any]] = results["summary"]
    seeds: list[dict[str, Any]] = results["seeds"]
    ensemble, others = summary[-1], summary[:3]
    sentences: list[str] = []
    for other in others:
        pairs = [
            (_of(seed, ensemble["key"])["test_error"], _of(seed, other["key"])["test_error"])
            for seed in seeds
        ]
        ours, theirs = ensemble["test_error"]["mean"], other["test_error"]["mean"]
        verdict = "wins over" if ours < theirs else "LOSES to" if ours > theirs else "ties with"
        sentences.append(
            f"{ensemble['short']} {verdict} {other['short']}: {_change(ours, theirs)} error and "
            f"{_change(ensemble['test_nll']['mean'], other['test_nll']['mean'])} log-loss; "
            f"its error is lower on {sum(a < b for a, b in pairs)} and higher on "
            f"{sum(a > b for a, b in pairs)} of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}."
        )
    return sentences


def write_results(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the results as JSON, atomically."""
    with replacing(Path(path)) as file:
        file.write(json.dumps(results, indent=1).encode())


def _score(split: Split, predictions: Predictions) -> dict[str, float]:
    test, validation = split.test.y, split.validation.y
    return {
        "test_error": error_rate(predictions.test, test),
        "test_nll": log_loss(predictions.test, test),
        "validation_error": error_rate(predictions.validation, validation),
        "validation_nll": log_loss(predictions.validation, validation),
    }


def _summarize(seeds: list[dict[str, Any]], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each model: mean and standard deviation of each score over the seeds."""
    models: list[tuple[str, str, Any]] = [
        (titles["single"], "Single", "single"),
        (titles["cosine"], "one cosine", "cosine"),
        ("Cyclic run, last snapshot alone", "the last snapshot alone", 1),
    ]
    for members in range(2, len(seeds[0]["ensemble"]) + 1):
        title = f"Ensemble of the last {members}"
        models.append((title, f"The ensemble of {members}", members))
    return [
        {
            "model": title,
            "short": short,
            "key": key,
            **{name: _spread([_of(seed, key)[name] for seed in seeds]) for name in _SCORES},
        }
        for title, short, key in models
    ]


def _of(seed: Mapping[str, Any], key: str | int) -> Mapping[str, float]:
    """The scores of a run, by its name, or of the ensemble of so many members."""
    scores: Mapping[str, float] = seed[key] if isinstance(key, str) else seed["ensemble"][key - 1]
    return scores


def _spread(values: list[float]) -> dict[str, float | None]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation}


def _change(ours: float, theirs: float) -> str:
    if theirs == 0:
        return "more" if ours else "the same"
    percent = 100 * (ours / theirs - 1)
    if abs(percent) < 0.5:
        return "about the same" if percent else "the same"
    return f"{abs(percent):.0f} % {'less' if percent < 0 else 'more'}"
