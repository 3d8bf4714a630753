"""The examples of torch run as their readers would run them."""

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
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        # Of so small networks, threads only wait for each other.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout


def test_a_transformer_on_padded_batches(tmp_path: Path) -> None:
    told = run("torch_transformers.py", tmp_path)
    errors = [float(each) for each in re.findall(r"([0-9.]+)% of the test", told)]
    assert len(errors) == 5
    assert errors[-1] < min(10, errors[0])


def test_a_segmentation_with_pixels_that_do_not_count(tmp_path: Path) -> None:
    told = run("torch_segmentation.py", tmp_path)
    scores = [float(each) for each in re.findall(r"mean IoU ([0-9.]+)", told)]
    assert len(scores) == 5
    assert scores[-1] >= max(scores[:-1]) - 0.02
