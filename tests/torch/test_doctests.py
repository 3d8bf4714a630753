"""The examples of the docstrings outside the core run as they are printed."""

from __future__ import annotations

import doctest
import importlib
import warnings

import pytest

MODULES = (
    "cosanneal.adapters.torch.ensemble",
    "cosanneal.adapters.torch.recorder",
    "cosanneal.adapters.torch.scheduler",
    "cosanneal.adapters.torch.migration",
    "cosanneal.ensemble.weights.files",
    "cosanneal.ensemble.score.analysis",
    "cosanneal.ensemble.weights.barrier",
    "cosanneal.ensemble.weights.moments",
    "cosanneal.ensemble.choose.calibration",
    "cosanneal.ensemble.score.evidence",
    "cosanneal.ensemble.choose.choice",
    "cosanneal.ensemble.score.metrics",
    "cosanneal.ensemble.predict.pooling",
    "cosanneal.ensemble.findings",
    "cosanneal.ensemble.choose.selection",
    "cosanneal.ensemble.weights.means",
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
