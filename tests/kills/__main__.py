"""Kills engines: `python -m tests.kills ENGINE [...] --kills N --seed S` prints a row for each.

A module's name, such as torch_engines, means all of its engines. What was found wrong goes to the
error output, and so do the exit codes of the processes that were not killed. Ends with 1 where
anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.kills.driver import HEAD, kill, row, train
from tests.kills.engines import MODULES, engine_of, names


def main() -> int:
    """Read the arguments, and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("engine", nargs="+", choices=names())
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs; those that are wrong stay")
    parser.add_argument(
        "--spawned", action="store_true", help="each process is a Python of its own, to its end"
    )
    parser.add_argument("--train", nargs=4, metavar=("ROOT", "RANK", "ATTEMPT", "PORT"))
    told = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any framework is imported
    if told.train:  # one process of an engine that is not forked
        root, rank, attempt, port = told.train
        train(engine_of(told.engine[0]), Path(root), int(rank), int(attempt), port)
        return 0
    folder = told.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    sys.stdout.write(f"{HEAD}\n")
    wrong: list[str] = []
    for name in [name for each in told.engine for name in MODULES.get(each, (each,))]:
        engine = engine_of(name)
        engine = replace(engine, forks=engine.forks and not told.spawned)
        got = kill(engine, folder / name, told.kills, told.seed)
        wrong += got.wrong
        if not got.wrong:
            shutil.rmtree(folder / name)
        sys.stdout.write(f"{row(engine, got)}\n")
        sys.stdout.flush()
        lines = [*got.wrong, f"{name}: the others ended with {dict(got.codes)}; in {folder}"]
        sys.stderr.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
