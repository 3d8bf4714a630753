"""`python -m benchmarks.quality [train|score|table|peaks]`: without a word the first three."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from . import cache
from .tasks import BUDGETS, SCHEDULES, TASKS


def train(
    tasks: Sequence[str],
    budgets: Sequence[str],
    folder: Path,
    jobs: int,
    schedules: Sequence[str] = tuple(SCHEDULES),
    *,
    known_peaks: bool = False,
) -> None:
    """Train what is missing, in so many processes; one line for each schedule that is done."""
    from .training import run

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(cache.README, encoding="utf-8")
    # Task after task, so that a training that is cut short leaves whole tasks.
    wanted = [(t, b, s) for t in tasks for b in budgets for s in schedules]
    began = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {
            pool.submit(run, TASKS[t], b, s, folder, known_peaks=known_peaks): (t, b, s)
            for t, b, s in wanted
        }
        for done, future in enumerate(as_completed(running), start=1):
            made = len(future.result())
            seconds = time.perf_counter() - began
            what = f"{made} files made" if made else "there already"
            name = " ".join(running[future])
            print(f"{done}/{len(wanted)} {name}: {what}, {seconds:.0f} s", flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("verb", nargs="?", choices=("train", "score", "table", "peaks"))
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--budget", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--schedules", nargs="+", choices=tuple(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument(
        "--keep",
        action="store_true",
        help="where a schedule has no predictions here, keep its scores of the results",
    )
    parser.add_argument(
        "--known-peaks",
        action="store_true",
        help="train at the peaks of the results, without a search",
    )
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--cache", type=Path, default=cache.CACHE)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; 1 where something needed is not there."""
    given = parsed(arguments)
    # Before torch and numpy are imported in the processes: each of them is to use one core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from . import peaks, table
    from .data import DataError
    from .scoring import score

    verbs: dict[str, Callable[[], None]] = {
        "train": lambda: train(
            given.tasks,
            given.budget,
            given.cache,
            given.jobs,
            given.schedules,
            known_peaks=given.known_peaks,
        ),
        "score": lambda: table.write_results(
            score(
                [TASKS[name] for name in given.tasks],
                given.budget,
                given.cache,
                table.read_results() if given.keep else None,
            )
        ),
        "table": table.write_page,
        "peaks": peaks.write,
    }
    try:
        for verb in [given.verb] if given.verb else ("train", "score", "table"):
            verbs[verb]()
    except (DataError, cache.CacheError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
