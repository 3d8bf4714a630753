"""What importing cosanneal adds to a bare interpreter, and how soon the command line answers.

    python -m benchmarks.import_time

In the processor's time, from a copy of the package that is compiled, as an
installed one is. The limits are those that we set ourselves; the peer of the
command line is a typer application of two commands that do nothing.

typer takes most of the help's time. The list of the commands is in plain text, for
rich takes as long to import as typer does, and nothing is imported for it but the
commands' first lines are read. A command's own help is drawn by rich.
"""

from __future__ import annotations

import compileall
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn

IMPORT_LIMIT, HELP_LIMIT = 15.0, 150.0  # milliseconds

TYPER = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def plan(steps: int = 1): "Plan."
@app.command()
def demo(): "Demo."
app(["--help"])
"""
FIRST = "import cosanneal as ca; ca.CyclicCosine(0.1, cycle_steps=100).rate(3)"


def children() -> float:
    """The processors' time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure() -> Iterator[Figure]:
    """Whole processes, from their start to their end."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(ca.__file__).parent
        shutil.copytree(package, Path(folder) / package.name)
        compileall.compile_dir(folder, quiet=1)
        codes = {
            "bare": "pass",
            "import": "import cosanneal",
            "first": FIRST,
            "help": "from cosanneal.cli.app import app; app(['--help'])",
            "typer": TYPER,
        }

        def run(code: str) -> None:
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": folder},
            )

        runs = {name: lambda code=code: run(code) for name, code in codes.items()}
        times = in_turn(runs, repeats=25, per=1e-3, clock=children)

    def added(name: str) -> list[float]:
        return [took - bare for took, bare in zip(times[name], times["bare"], strict=True)]

    yield Figure(
        name="import cosanneal", unit="ms", ours=added("import"), limit=IMPORT_LIMIT, goal=1.0
    )
    yield Figure(name="import, and the first rate", unit="ms", ours=added("first"))
    yield Figure(
        name="cosanneal --help",
        unit="ms",
        ours=times["help"],
        peers={"an empty typer application": times["typer"]},
        limit=HELP_LIMIT,
        goal=1.0,
    )


if __name__ == "__main__":
    sys.exit(alone(measure()))
