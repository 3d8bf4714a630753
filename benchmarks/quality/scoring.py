"""The rules of the library, applied to the predictions that were kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from cosanneal import ensemble

from . import cache
from .tasks import (
    BASE_OF,
    BUDGETS,
    COLUMNS,
    PLAIN,
    SCORED,
    SELECTION_SEEDS,
    TASKS,
    VIEWS,
    Task,
    View,
)

# A method's scores, by their name one for each seed.
Scores = dict[str, list[float]]
BASELINE: Final = "cosine/last"
BESIDE: Final = ("to_cosine", "to_last", "to_base")


def selects(*, regression: bool = False) -> tuple[str, ...]:
    """What `select` takes in the installed library, of classes or of a regression.

    A rule that is newer than this bench is found by itself.
    """
    function = ensemble.fit_regression if regression else ensemble.fit
    found: tuple[str, ...] = get_args(get_type_hints(function)["select"])
    return tuple(name for name in found if not (regression and name == "auto"))  # of classes alone


def fitted(members: NDArray[Any], truth: NDArray[Any], select: str) -> ensemble.Choice:
    """The choice by one rule; of a regression that of the least mean squared error."""
    options: dict[str, Any] = {"select": select}
    with warnings.catch_warnings():
        # That few validation samples make a noisy choice is what the bench measures.
        warnings.simplefilter("ignore", UserWarning)
        if members.ndim == truth.ndim + 1:
            return ensemble.fit_regression(members, truth, metric="mse", **options)
        return ensemble.fit(members, truth, **options)


def predictions_of(
    schedule: str,
    validation: NDArray[Any],
    truth: NDArray[Any],
    test: NDArray[Any],
    rules: Sequence[str],
) -> dict[str, NDArray[Any]]:
    """The test predictions of every method of one schedule and one seed.

    Args:
        schedule: which of `SCHEDULES`.
        validation: the members' predictions of the validation data, (members, samples, ...).
        truth: of the validation data.
        test: the members' predictions of the test data.
        rules: values of `select` to try.
    """
    regression = validation.ndim == truth.ndim + 1

    def calibrated(pooled: NDArray[Any], on: NDArray[Any]) -> NDArray[Any]:
        if regression:
            return on
        temperature = ensemble.fit_temperature(pooled, truth)
        found: NDArray[Any] = np.asarray(ensemble.apply_temperature(on, temperature))
        return found

    validation, test = validation.astype(np.float64), test.astype(np.float64)
    last = calibrated(validation[-1], test[-1])
    if schedule == "cosine":
        return {"cosine/last": last}
    mean = test.mean(axis=0)
    methods = {f"{schedule}/mean": mean}
    if not regression:
        methods[f"{schedule}/mean, temperature"] = calibrated(validation.mean(axis=0), mean)
    if schedule == "separate":
        return methods
    methods[f"{schedule}/last"] = last
    for rule in (each for each in rules if each in selects(regression=regression)):
        methods[f"{schedule}/fit {rule}"] = fitted(validation, truth, rule).apply(test)
    return methods


def scores_of(prediction: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """The log-loss and the error of probabilities, or the RMSE of values."""
    if prediction.ndim == truth.ndim:
        return {"rmse": float(ensemble.rmse(prediction, truth))}
    return {
        "log_loss": float(ensemble.log_loss(prediction, truth)),
        "error": float(ensemble.error_rate(prediction, truth)),
    }


def ratio(ours: Sequence[float], beside: Sequence[float]) -> dict[str, float] | None:
    """The ratio of two means over the same seeds, and its standard error by the jackknife.

    Both are left out of the same seed in turn, so that what the seeds have in common goes out:
    `se = sqrt((n - 1) / n * sum((r_i - mean(r))**2))`, with `r_i` the ratio without seed i.

    Returns:
        None where the other mean is 0, with or without a seed: there is no ratio.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(beside, dtype=np.float64)
    without = b.sum() - b
    if b.sum() == 0 or (len(b) > 1 and (without == 0).any()):
        return None
    if len(b) < 2:
        return {"ratio": float(a.sum() / b.sum()), "error": math.nan}
    each = (a.sum() - a) / without
    spread = math.sqrt((len(b) - 1) / len(b) * float(((each - each.mean()) ** 2).sum()))
    return {"ratio": float(a.sum() / b.sum()), "error": spread}


def compared(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Each method's means over the seeds, beside the cosine, its own last snapshot, and its base.

    The base is the plain schedule, predicted with in the same way.
    """
    found: dict[str, Any] = {}
    for method, values in scores.items():
        schedule, _, way = method.partition("/")
        base = scores.get(f"{BASE_OF.get(schedule)}/{way}")
        own = scores.get(f"{schedule}/last")
        found[method] = {
            name: {
                "mean": float(np.mean(each)),
                "seeds": each,
                "to_cosine": ratio(each, scores[BASELINE][name]),
                "to_last": None if own is None else ratio(each, own[name]),
                **({} if base is None else {"to_base": ratio(each, base[name])}),
            }
            for name, each in values.items()
        }
    return found


def score_task(
    task: Task,
    budget: str,
    folder: Path,
    rules: Sequence[str],
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The results of one task at one budget.

    Args:
        task: which.
        budget: its name.
        folder: of the predictions.
        rules: values of `select` to try.
        kept: earlier results of the same, whose scores count where a schedule has no predictions.

    Raises:
        CacheError: a plain schedule that was not trained, and has no earlier scores.
    """
    from .training import recipe_of

    scores: dict[str, Scores] = {}
    peaks, seconds = {}, {}
    for schedule in SCORED:
        view = VIEWS.get(schedule)
        if view is not None and task.half == "reported" and not view.reported:
            continue
        run = schedule if view is None else view.run
        path = cache.place(folder, task.name, budget, run, None)
        recipe = recipe_of(task, budget, run, None)
        arrays = cache.read(path, recipe)
        if arrays is None:
            if kept is not None and schedule in kept["peaks"]:
                peaks[schedule] = kept["peaks"][schedule]
                seconds[schedule] = kept["seconds"][schedule]
                scores |= scores_kept(kept, schedule)
                continue
            if schedule not in PLAIN:  # not all of them were tried on all tasks
                continue
            arrays = cache.need(path, recipe)
        if view is not None:
            arrays |= {name: members_of(view, arrays[name]) for name in ("validation", "test")}
        peaks[schedule] = float(arrays["peak"])
        seconds[schedule] = round(float(arrays["seconds"]), 2)
        for seed in range(len(arrays["seeds"])):
            methods = predictions_of(
                schedule,
                arrays["validation"][:, seed],
                arrays["validation_labels"][seed],
                arrays["test"][:, seed],
                [name for name in rules if view is None or name != "auto"],  # which takes long
            )
            for method, prediction in methods.items():
                own = scores.setdefault(method, {})
                for name, value in scores_of(prediction, arrays["test_labels"][seed]).items():
                    own.setdefault(name, []).append(value)
    at_edge = [name for name, peak in peaks.items() if peak in (task.peaks[0], task.peaks[-1])]
    return {
        "steps": task.budget(budget),
        "seeds": task.seeds,
        "peaks": peaks,
        "peaks_at_the_edge": at_edge,
        "seconds": seconds,
        "methods": compared(scores),
    }


def members_of(view: View, predictions: NDArray[Any]) -> NDArray[Any]:
    """The members of a view, of all that its run kept: cycle after cycle."""
    cycles = len(predictions) // len(COLUMNS)
    columns = [COLUMNS.index(name) for name in view.columns]
    return predictions[[c * len(COLUMNS) + i for c in range(cycles) for i in columns]]


def scores_kept(kept: Mapping[str, Any], schedule: str) -> dict[str, Scores]:
    """The scores of a schedule's methods in earlier results."""
    return {
        method: {name: each["seeds"] for name, each in found.items()}
        for method, found in kept["methods"].items()
        if method.partition("/")[0] == schedule
    }


def summary(results: Mapping[str, Any], half: str, budget: str, beside: str) -> dict[str, Any]:
    """Each method over the tasks of a half, by log-loss or RMSE, and by the error.

    Of the ratios the geometric mean, the worst, and how many tasks are won and lost by more than
    two standard errors.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for task in results.values():
        if task["half"] != half or budget not in task["budgets"]:
            continue
        for method, scores in task["budgets"][budget]["methods"].items():
            for name, score in scores.items():
                if score.get(beside) is not None:
                    title = "error" if name == "error" else "loss"
                    own = found.setdefault(method, {"loss": [], "error": []})
                    own[title].append(score[beside])
    return {
        method: {title: None if not each else totals(each) for title, each in by_title.items()}
        for method, by_title in found.items()
    }


def totals(ratios: Sequence[Mapping[str, float]]) -> dict[str, float | int | None]:
    """Of the ratios of several tasks the geometric mean, the worst, and those won and lost."""
    values = np.array([each["ratio"] for each in ratios])
    errors = np.array([each["error"] for each in ratios])
    mean = float(np.exp(np.log(values).mean())) if (values > 0).all() else None
    return {
        "tasks": len(values),
        "mean": mean,
        "worst": float(values.max()),
        "won": int((values + 2 * errors < 1).sum()),
        "lost": int((values - 2 * errors > 1).sum()),
    }


def score(
    tasks: Sequence[Task],
    budgets: Sequence[str],
    folder: Path,
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The results of all tasks that were trained; what is missing is named under `missing`.

    Args:
        tasks: which.
        budgets: their names.
        folder: of the predictions.
        kept: earlier results, whose scores count where there are no predictions.

    Raises:
        CacheError: nothing was trained.
    """
    rules = selects()
    results: dict[str, Any] = {}
    missing = []
    for task in tasks:
        for budget in budgets:
            try:
                before = (kept or {}).get("tasks", {}).get(task.name, {}).get("budgets", {})
                found = score_task(task, budget, folder, rules, before.get(budget))
            except cache.CacheError:
                missing.append(f"{task.name}, {budget}")
                continue
            entry = results.setdefault(task.name, {"half": task.half, "budgets": {}})
            entry["budgets"][budget] = found
            print(f"scored {task.name} {budget}", flush=True)
    if not results:
        raise cache.CacheError(
            f"{folder} must hold the runs of a task. Received: none that is whole; "
            "run `python -m benchmarks.quality train`"
        )
    missing += [f"{n}, {b}" for n in TASKS for b in BUDGETS if TASKS[n] not in tasks]
    return {
        "rules": list(rules),
        "selection_seeds": list(SELECTION_SEEDS),
        "missing": missing,
        "tasks": results,
        "summary": {
            beside: {
                half: {budget: summary(results, half, budget, beside) for budget in budgets}
                for half in ("tuning", "reported")
            }
            for beside in BESIDE
        },
    }
