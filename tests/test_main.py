"""`python -m cosanneal` is the command."""

from __future__ import annotations

import subprocess
import sys

import cosanneal


def test_python_m_cosanneal_runs_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosanneal", "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout == f"cosanneal {cosanneal.__version__}\n"
    assert done.stderr == ""
