"""The files of the training: one for each run, all there or not there.

`CACHE/TASK/BUDGET/SCHEDULE/peak-RATE.npz` has the validation predictions of the selection seeds,
`report.npz` the validation and test predictions of the reported ones.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cosanneal.core.atomic import replacing

CACHE: Final = Path(__file__).parents[2] / ".bench_cache"

README: Final = """\
# Predictions of the bench of ordinary tasks

Written by `python -m benchmarks.quality train`; a file that is here is not made again.

    TASK/BUDGET/SCHEDULE/peak-RATE.npz   the seeds by which the peak is chosen, at one peak
    TASK/BUDGET/SCHEDULE/report.npz      the reported seeds, at the chosen peak

BUDGET is short or long; SCHEDULE is cosine, cyclic3, cyclic5, doubling4, or separate (five runs
of a fifth of the budget). Which tasks are for tuning: `half` in `benchmarks/quality/tasks.py`.
Arrays (no pickle: `numpy.load(path)`):

    validation         (members, seeds, samples[, time], classes) float32 probabilities; of a
                       regression (members, seeds, samples) values, of standardized targets.
                       Members are oldest first. `cosanneal.ensemble.fit(validation[:, s],
                       validation_labels[s])` chooses for seed s.
    validation_labels  (seeds, samples[, time]) int64 classes; of a regression float64 values
    test, test_labels  the same of the test data; only in report.npz
    seeds              (seeds,) which they are
    peak               the peak of the learning rate
    seconds            what the training took, all seeds of the file together
    recipe             JSON: what the run depends on; another recipe is trained anew
"""


class CacheError(RuntimeError):
    """A run that is needed and is not there."""


def place(cache: Path, task: str, budget: str, schedule: str, peak: float | None) -> Path:
    """The file of the selection seeds at a peak; of the reported seeds without one."""
    name = "report.npz" if peak is None else f"peak-{peak:g}.npz"
    return cache / task / budget / schedule / name


def write(path: Path, arrays: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Write a run's arrays and its recipe, so that the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, recipe=np.array(json.dumps(recipe, sort_keys=True)), **arrays)


def read(path: Path, recipe: Mapping[str, Any] | None = None) -> dict[str, NDArray[Any]] | None:
    """A run's arrays; None if it is not there, or was made by another recipe or is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError):
        return None
    if recipe is not None:
        text = json.dumps(recipe, sort_keys=True)
        if "recipe" not in arrays or str(arrays["recipe"]) != text:
            return None
    return arrays


def need(path: Path, recipe: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A run's arrays.

    Raises:
        CacheError: it is not there, or was made by another recipe.
    """
    arrays = read(path, recipe)
    if arrays is None:
        raise CacheError(
            f"{path} must hold the predictions of this recipe. Received: no such file, or "
            "another recipe's; run `python -m benchmarks.quality train`"
        )
    return arrays
