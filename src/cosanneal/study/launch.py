"""The study itself: which runs there are, what is done already, and what came of them."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, get_args

from ..core.atomic import make_folder
from ..core.cyclic import CyclicCosine
from ..core.errors import StudyError, plural, shown
from ..core.paths import lasting_path
from ..core.version import __version__
from ..ensemble.choose.record import Select
from .document import FORMAT, VERSION, check_study, write_study
from .job import Job, Train
from .pool import check_importable, in_processes, through
from .verdict import summarize

_MOST: Final = 10_000  # runs


def run(
    train: Train,
    *,
    total_steps: int,
    max_lr: float | Mapping[int, float],
    num_cycles: Sequence[int] = (1, 2, 3, 5),
    seeds: int | Sequence[int] = 3,
    folder: str | os.PathLike[str] = "study",
    executor: Executor | None = None,
    workers: int = 1,
    select: Select = "last",
    title: str = "Does it pay on this task?",
    progress: Callable[[str], object] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train one budget as one cosine and as cycles, over several seeds, and compare.

    Each number of cycles M and each seed is one run of `total_steps` updates by
    `CyclicCosine(max_lr, total_steps=total_steps, num_cycles=M)`. M = 1 is the
    plain cosine, with a temperature of its own: what all is compared with.

    A run that is done is written to a document of its own in the folder, and
    not done again: a study that was killed goes on when it is called again, and
    one that is called with more seeds or other numbers of cycles does those
    alone. What `train` does besides its arguments is not looked at: change it,
    and take another folder. Snapshots stay in the folder, those of killed runs too.

    Args:
        train: `train(schedule, folder, seed)`: trains from fresh weights by the
            schedule, records a snapshot at each cycle's end in the folder, which
            is new and empty, and returns a `Run`, mostly by `Run.of`.
        total_steps: the budget of each run, in optimizer updates.
        max_lr: the highest rate; or one for each number of cycles, as a dict.
            Each has a best peak of its own; tune it for the ensemble, on the
            validation data, and with seeds that are not among these.
        num_cycles: into how many cycles the budget is cut; 1 is added.
        seeds: how many, from 0; or which.
        folder: where runs, snapshots and `results.json` are.
        executor: any `concurrent.futures.Executor`; it is not shut down. By
            default processes that are started afresh, so that `train` must be a
            function that can be imported, and a script calls this under
            `if __name__ == "__main__":`.
        workers: how many processes at a time where no executor is given. One
            run often takes all cores, or the device.
        select: how ensembles are chosen on validation data, as in
            `cosanneal.ensemble.fit`.
        title: of the page.
        progress: called with a line of text for every run that ended; by
            default it goes to stderr.
        options: further arguments of `CyclicCosine`, such as `warmup_steps`.

    Returns:
        The results document, as `cosanneal.study.document` describes it, which
        is also written to `results.json` in the folder. `summarize` and
        `sentences` say what it says, and `write_page` makes a page of it.

    Raises:
        StudyError: arguments that cannot be; runs in the folder of other
            settings; or, when all others are done and written, runs that failed.
            Those are named; the next call tries them again.
        ScheduleError: the budget cannot be cut so, or the rate cannot be.

    Example:
        >>> import tempfile
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from cosanneal.study import Run, read_study, run, sentences, summarize, write_page
        >>> def train(schedule, folder, seed):  # in place of a training
        ...     random = np.random.default_rng(seed)
        ...     members = 0.6 + 0.3 * random.random((len(schedule.cycle_ends()), 200))
        ...     right = random.random(200) < 0.8
        ...     half = (members[:, :100], right[:100]), (members[:, 100:], right[100:])
        ...     return Run(validation=half[0], test=half[1], class_axis=None)
        >>> with ThreadPoolExecutor() as executor:
        ...     results = run(
        ...         train,
        ...         total_steps=100,
        ...         max_lr=0.1,
        ...         num_cycles=(1, 3),
        ...         seeds=2,
        ...         folder=(folder := tempfile.mkdtemp()),
        ...         executor=executor,
        ...         progress=lambda line: None,
        ...     )
        >>> len(results["runs"]), summarize(results)[0]["passes"]
        (4, 1.0)
        >>> results == read_study(Path(folder, "results.json"))
        True
        >>> page, *figures = write_page(results, Path(folder, "page.html"))
        >>> "95 % interval" in sentences(results)[1]
        True

    Other executors go in the same way; each must reach `folder`, and import `train`:

    - Dask: `executor=Client(...).get_executor()` of `distributed`;
    - MPI: `executor=MPIPoolExecutor()` of `mpi4py.futures`;
    - loky: `executor=get_reusable_executor()`, whose `train` need not be imported.

    Threads share a framework's one stream of random numbers: with more than one
    at a time, runs are not repeated number by number.

    Source: Huang et al., "Snapshot Ensembles" (2017), section 4, for the comparison
    at one budget.
    """
    if not callable(train):
        raise StudyError(
            "Argument `train` must be a function train(schedule, folder, seed). "
            f"Received: train={shown(train)}"
        )
    if select not in get_args(Select):
        raise StudyError(
            f"Argument `select` must be one of {', '.join(map(repr, get_args(Select)))}. "
            f"Received: select={shown(select)}"
        )
    place = lasting_path(folder, error=StudyError)
    jobs = _jobs(train, total_steps, max_lr, num_cycles, seeds, place, select, options)
    if executor is None:
        check_importable(train)
        _whole("workers", workers, 1)
    try:
        make_folder(place)
    except OSError as error:
        raise StudyError(f"{place} could not be made: {error.strerror or error}") from error
    found: dict[tuple[int, int], dict[str, Any] | Exception] = {}
    for job in jobs:
        if (done := job.done()) is not None:
            found[job.cycles, job.seed] = done
    left = [job for job in jobs if (job.cycles, job.seed) not in found]
    say = progress or _to_stderr
    if found:
        say(f"{plural(len(found), 'run')} of {len(jobs)} done before")
    ended = in_processes(left, workers) if executor is None else through(executor, left)
    for job, what in ended if left else ():
        found[job.cycles, job.seed] = what
        say(
            f"run {len(found)} of {len(jobs)}, {job.title}: "
            f"{'failed, ' if isinstance(what, Exception) else ''}{_told(what)}"
        )
    keys = [(job.cycles, job.seed) for job in jobs]
    failed = [(key, what) for key in keys if isinstance(what := found[key], Exception)]
    results = check_study(
        {
            "format": FORMAT,
            "version": VERSION,
            "title": title,
            "cosanneal": __version__,
            "updates": total_steps,
            "select": select,
            "runs": [found[key] for key in keys if isinstance(found[key], dict)],
            "failed": [
                {"cycles": key[0], "seed": key[1], "error": _told(what)} for key, what in failed
            ],
        }
    )
    write_study(results, place / "results.json")
    if failed:
        told = "; ".join(
            f"{plural(key[0], 'cycle')}, seed {key[1]}: {_told(what)}" for key, what in failed
        )
        raise StudyError(
            f"{plural(len(failed), 'run')} of {len(jobs)} failed ({told}). The others are in "
            f"{place / 'results.json'}; the same call again does only what failed"
        ) from failed[0][1]
    summarize(results)
    return results


def _jobs(
    train: Train,
    total_steps: int,
    max_lr: float | Mapping[int, float],
    num_cycles: Sequence[int],
    seeds: int | Sequence[int],
    folder: Path,
    select: Select,
    options: Mapping[str, Any],
) -> list[Job]:
    """Every run, seed by seed, so that what is known early is of all numbers of cycles."""
    cycles = sorted({1, *_wholes("num_cycles", num_cycles, 1)})
    if len(cycles) == 1:
        raise StudyError(
            "Argument `num_cycles` must have a number above 1, to compare with one cosine. "
            f"Received: num_cycles={shown(num_cycles)}"
        )
    several = not isinstance(seeds, int) or isinstance(seeds, bool)
    chosen = _wholes("seeds", seeds, 0) if several else range(_whole("seeds", seeds, 1))
    if len(cycles) * len(chosen) > _MOST:
        raise StudyError(
            f"A study must have at most {_MOST} runs. Received: {len(cycles) * len(chosen)}"
        )
    schedules = {}
    for count in cycles:
        peak = max_lr.get(count) if isinstance(max_lr, Mapping) else max_lr
        if peak is None:
            raise StudyError(
                "Argument `max_lr` must have a rate for every number of cycles, 1 too. "
                f"Received: none for {count} in {shown(max_lr)}"
            )
        schedule = CyclicCosine(peak, total_steps=total_steps, num_cycles=count, **options)
        schedules[count] = schedule.to_dict()
    return [
        Job(
            train=train,
            name=str(getattr(train, "__qualname__", type(train).__name__)),
            folder=str(folder),
            cycles=count,
            seed=seed,
            schedule=schedules[count],
            select=select,
        )
        for seed in chosen
        for count in cycles
    ]


def _wholes(name: str, values: Any, least: int) -> list[int]:
    try:
        found = sorted({_whole(name, each, least) for each in values})
    except TypeError:
        found = []
    if not found:
        raise StudyError(
            f"Argument `{name}` must be a sequence of at least one integer. "
            f"Received: {name}={shown(values)}"
        )
    return found


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise StudyError(
            f"Argument `{name}` must have integers of at least {least}. Received: {shown(value)}"
        )
    return number


def _told(what: dict[str, Any] | Exception) -> str:
    if isinstance(what, Exception):
        return f"{type(what).__name__}: {what}".removesuffix(": ")
    fitted = what["fitted"]
    return (
        f"error {100 * fitted['error']:.2f} %, log-loss {fitted['log_loss']:.4f}, "
        f"{what['seconds']:.1f} s"
    )


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
