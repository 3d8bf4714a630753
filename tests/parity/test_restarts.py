"""Shrunk weights, and the update after the momentum is forgotten, in every framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .restarts import MOMENTUM, RATE, RESTARTS, SHARES, SLOPES, weights
from .worker import environment


@pytest.mark.parametrize("framework", RESTARTS)
def test_they_are_those_of_float64(framework: str, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-W", "error", "-m", "tests.parity.restarts", framework]
    subprocess.run([*command, str(out)], env=environment(framework), check=True)
    shrunk, updated = json.loads(out.read_text())
    old, fresh = (each.astype(np.float64) for each in weights())
    # Two updates, the second with what the first left of its slope.
    first, second, third = SLOPES
    before = old - RATE * (first + second + MOMENTUM * first)
    expected = SHARES["shrink"] * before + SHARES["perturb"] * fresh
    np.testing.assert_allclose(shrunk, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(updated, expected - RATE * third, rtol=0, atol=1e-6)
