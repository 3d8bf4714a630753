"""The examples of the docstrings outside the core run as they are printed."""

from __future__ import annotations

import doctest
import importlib
import warnings

import pytest

MODULES = (
    "cosanneal.adapters.torch",
    "cosanneal.ensemble.average",
    "cosanneal.ensemble.analysis",
    "cosanneal.ensemble.averaged",
    "cosanneal.ensemble.calibration",
    "cosanneal.ensemble.evidence",
    "cosanneal.ensemble.choice",
    "cosanneal.ensemble.metrics",
    "cosanneal.ensemble.pooling",
    "cosanneal.ensemble.results",
    "cosanneal.ensemble.selection",
    "cosanneal.ensemble.weights",
    "cosanneal.report.figures",
    "cosanneal.report.page",
    "cosanneal.report.rates",
    "cosanneal.snapshots.store",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    with warnings.catch_warnings():
        # An example without gradients or data has nothing to train on.
        warnings.filterwarnings("ignore", message="Detected call", category=UserWarning)
        done = doctest.testmod(importlib.import_module(name))
    assert done.attempted > 0
    assert done.failed == 0
