"""The examples of Keras run as their readers would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(name: str, folder: Path) -> str:
    """What an example prints, without a warning."""
    script = EXAMPLES / name
    assert len(script.read_text().splitlines()) < 60
    return subprocess.run(
        # Keras itself uses what numpy will drop.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(script)],
        cwd=folder,
        # Of so small networks, threads only wait for each other.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout


def test_a_model_with_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    told = run("keras_two_outputs.py", tmp_path)
    errors = [float(each) for each in re.findall(r"([0-9.]+)% of the kinds", told)]
    assert len(errors) == 2
    assert max(errors) < 40
    prices = [float(each) for each in re.findall(r"off by ([0-9.]+)", told)]
    assert max(prices) < 1
