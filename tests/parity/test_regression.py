"""The same means and variances, and choices among them, in every framework."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .regression import BUILDS, expected
from .worker import environment


@functools.cache
def found(framework: str) -> dict[str, Any]:
    """What a framework predicts, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        command = [sys.executable, "-W", "error", "-m", "tests.parity.regression", framework]
        subprocess.run([*command, str(out)], env=environment(framework), check=True)
        result: dict[str, Any] = json.loads(out.read_text())
    return result


def mixture(weights: Any) -> Any:
    """The law of total variance, in float64."""
    (m, v), w = expected(), np.array(weights)
    mean = np.tensordot(w, m, 1)
    return mean, np.tensordot(w, v, 1) + np.tensordot(w, (m - mean) ** 2, 1)


@pytest.mark.parametrize("framework", BUILDS)
def test_the_mixture_is_that_of_float64(framework: str) -> None:
    result, size = found(framework), len(expected()[0])
    for pair in result["modes"]:
        for ours, exact in zip(pair, mixture([1 / size] * size), strict=True):
            np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-6)
    for select in ("last", "greedy", "weights"):
        chosen = result[select]
        mean, variance = mixture(chosen["weights"])
        for pair in (chosen["pair"], chosen["with_variance"]):
            np.testing.assert_allclose(pair[0], mean, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(pair[1], chosen["scale"] * variance, rtol=1e-6, atol=1e-6)


def test_every_pair_of_frameworks_chooses_the_same() -> None:
    for one, other in itertools.combinations(BUILDS, 2):
        for select in ("last", "greedy", "weights"):
            left, right = found(one)[select], found(other)[select]
            if select == "weights":
                np.testing.assert_allclose(left["weights"], right["weights"], rtol=0, atol=1e-5)
            else:
                assert left["weights"] == right["weights"]
            assert left["scale"] == pytest.approx(right["scale"], rel=1e-5)
            assert left["score"] == pytest.approx(right["score"], abs=1e-6)
    assert len({*found("torch")["weights"]["weights"]}) > 1
