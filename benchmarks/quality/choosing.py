"""A safer `select="auto"`, tried: `python -m benchmarks.quality.choosing`, after `train`.

Two changes. Each temperature is drawn towards 1 by some observations more, whose labels are as
likely as the prediction says. And the last snapshot alone stands, unless another way is better by
so many standard errors. On the tuning half they are also tried on fewer validation samples, cut
at random from all. `choosing.json` has what came out.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.runner import machine
from cosanneal import ensemble
from cosanneal.core.atomic import replacing
from cosanneal.ensemble.choose.auto import folds_of, ways_on

from . import cache
from .scoring import fitted, members_of, ratio, totals
from .table import markdown
from .tasks import BUDGETS, TASKS, VIEWS, Task
from .training import recipe_of

FOUND: Final = Path(__file__).with_name("choosing.json")
# The plain schedules as they are trained again; and how many validation samples, 0 for all.
SCHEDULES: Final = ("cyclic5-again", "doubling4-again")
SAMPLES: Final = {"tuning": (0, 100, 44), "reported": (0,)}
# Observations more, and standard errors. The first pair was chosen on the tuning half, and it
# alone was tried on the other one.
TRIED: Final = ((10, 1.0), (0, 1.0), (20, 1.0), (10, 0.5), (10, 0.0))
CUTS: Final = 2
LAST: Final = "the last snapshot"
REGRESSIONS: Final = ("diabetes", "servo", "ozone")

Floats: TypeAlias = NDArray[np.float64]


def drawn_to_1(p: Floats, y: NDArray[Any], prior: float) -> float:
    """The temperature of the samples, and of `prior` more with the labels that `p` expects.

    1 where every label has the highest probability, as for `ensemble.fit_temperature`.
    """
    classes = p.shape[-1]
    if (p.argmax(-1) == y).all():
        return 1.0
    if not prior:
        return float(ensemble.fit_temperature(p, y))
    weight = np.r_[np.ones(len(p)), np.full(len(p), prior / len(p))]
    labels = np.concatenate([np.eye(classes)[y], p])
    if p.ndim > 2:
        weight = np.repeat(weight[:, None], p.shape[1], axis=1)
    return ensemble.fit_temperature(np.concatenate([p, p]), labels, sample_weight=weight)


def losses(p: Floats, y: NDArray[Any]) -> Floats:
    """The log-loss of each sample, of a text on average over its characters."""
    each = ensemble.sample_scores("log_loss", p, y)
    found: Floats = np.asarray(each, dtype=np.float64).reshape(len(y), -1).mean(axis=1)
    return found


def chosen(members: Floats, y: NDArray[Any], prior: float) -> tuple[list[Any], Floats]:
    """The ways on all samples, and each one's cross-validated losses: (ways, samples)."""

    def ways(rows: NDArray[np.intp]) -> list[Any]:
        held_out = ensemble.HeldOut(members[:, rows], y[rows])
        return [
            each.weights for each in ways_on(held_out, temperature=True, steps=50, bags=0, seed=0)
        ]

    every = np.arange(len(y))
    folds = folds_of(ensemble.HeldOut(members, y).labels, 0)
    whole = ways(every)
    found = np.empty((len(whole), len(y)))
    for fold in range(folds.max() + 1):
        on, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for i, weights in enumerate(ways(on)):
            mean = np.tensordot(weights, members, 1)
            heat = drawn_to_1(mean[on], y[on], prior)
            found[i, out] = losses(ensemble.apply_temperature(mean[out], heat), y[out])
    return whole, found


def standing(found: Floats, errors: float) -> int:
    """The best way, if it is better than the first by so many standard errors; else this one."""
    best = int(found.mean(axis=1).argmin())
    gain = found[0] - found[best]
    told = gain.mean() > errors * gain.std(ddof=1) / math.sqrt(len(gain))
    return best if told else 0


def compared(
    members: Floats, y: NDArray[Any], test: Floats, truth: NDArray[Any], half: str
) -> dict[str, float]:
    """The test loss of what each rule chooses, and of the last snapshot at its temperature."""

    def loss(weights: Sequence[float], heat: float) -> float:
        at = ensemble.apply_temperature(np.tensordot(weights, test, 1), heat)
        return float(ensemble.log_loss(at, truth))

    alone = [0.0] * (len(members) - 1) + [1.0]
    found = {LAST: loss(alone, ensemble.fit_temperature(members[-1], y))}
    for rule in ("last", "greedy", "weights", "auto"):
        choice = fitted(members, y, rule)
        found[f"fit {rule}"] = loss(choice.weights, choice.temperature)
    tried = TRIED if half == "tuning" else TRIED[:1]
    for prior in dict.fromkeys(prior for prior, _ in tried):
        ways, scores = chosen(members, y, prior)
        for errors in (errors for each, errors in tried if each == prior):
            weights = ways[standing(scores, errors)]
            heat = drawn_to_1(np.tensordot(weights, members, 1), y, prior)
            found[f"{prior} more, {errors:g} errors"] = loss(weights, heat)
    return found


def run(task: Task, budget: str, schedule: str, samples: int, folder: Path) -> dict[str, Any]:
    """Each rule's ratio to the last snapshot of one schedule, over the seeds."""
    view = VIEWS[schedule]
    path = cache.place(folder, task.name, budget, view.run, None)
    arrays = cache.need(path, recipe_of(task, budget, view.run, None))
    members, test = (members_of(view, arrays[name]) for name in ("validation", "test"))
    found: dict[str, list[float]] = {}
    for seed in range(len(arrays["seeds"])):
        y = arrays["validation_labels"][seed]
        for cut in range(CUTS if samples else 1):
            rows = np.random.default_rng([seed, cut]).permutation(len(y))[: samples or None]
            scores = compared(
                members[:, seed][:, rows].astype(np.float64),
                y[rows],
                test[:, seed].astype(np.float64),
                arrays["test_labels"][seed],
                task.half,
            )
            for rule, score in scores.items():
                found.setdefault(rule, []).append(score)
    return {rule: ratio(each, found[LAST]) for rule, each in found.items() if rule != LAST}


def table(found: Mapping[str, Any]) -> str:
    """Of each half, budget and number of samples the mean of the ratios, and the worst."""
    columns: dict[str, dict[str, str]] = {}
    rules: dict[str, None] = {}
    for half, by_samples in SAMPLES.items():
        for samples in by_samples:
            for rule in (name for key in found["runs"] for name in found["runs"][key]):
                rules[rule] = None
                for budget in BUDGETS:
                    each = [
                        ratios[rule]
                        for key, ratios in found["runs"].items()
                        if key.split(", ")[0] in {n for n, t in TASKS.items() if t.half == half}
                        and key.split(", ")[1] == budget
                        and key.split(", ")[3] == str(samples)
                        and rule in ratios
                    ]
                    if each:
                        total = totals(each)
                        title = f"{half}, {budget}, {samples or 'all'}"
                        cell = f"{total['mean']:.3f} (worst {total['worst']:.3f})"
                        columns.setdefault(title, {})[rule] = cell
    rows = [[rule, *(each.get(rule, "") for each in columns.values())] for rule in rules]
    return markdown(["rule", *columns], rows)


def main() -> None:
    """Try all rules on the predictions that are kept, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.choosing")
    parser.add_argument("--cache", type=Path, default=cache.CACHE)
    folder = parser.parse_args().cache
    warnings.simplefilter("ignore", UserWarning)
    runs: dict[str, Any] = {}
    for task in (each for each in TASKS.values() if each.name not in REGRESSIONS):
        for budget in BUDGETS:
            for schedule in SCHEDULES:
                for samples in SAMPLES[task.half]:
                    key = f"{task.name}, {budget}, {schedule}, {samples}"
                    runs[key] = run(task, budget, schedule, samples, folder)
                    print(key, flush=True)
    found = {"machine": machine(), "runs": runs}
    with replacing(FOUND) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    print(table(found))


if __name__ == "__main__":
    main()
