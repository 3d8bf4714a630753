"""Runs the scripts of examples/, as their readers would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """What a script of under 60 lines prints, without a warning."""
    script = EXAMPLES / name
    assert len(script.read_text().splitlines()) < 60
    # Keras itself uses what numpy will drop.
    quiet = ["-W", "ignore::DeprecationWarning"] if name.startswith("keras") else []
    done = subprocess.run(
        [sys.executable, "-W", "error", *quiet, str(script), *arguments],
        cwd=folder,
        # Of so small networks, threads only wait for each other.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
