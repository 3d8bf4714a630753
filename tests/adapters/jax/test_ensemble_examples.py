"""The examples of JAX run as their readers would run them."""

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


def test_a_module_of_nnx(tmp_path: Path) -> None:
    told = run("jax_nnx.py", tmp_path)
    wrong, sure, unsure = map(float, re.findall(r"[0-9]+\.[0-9]+", told))
    assert wrong < 5
    assert sure < unsure
