"""The examples of the docstrings run as they are printed, and each is run by some test."""

from __future__ import annotations

import warnings

import pytest

from tests.shared.examples import check_examples, modules_with_examples

PACKAGES = ("snapshots", "ensemble", "report", "study", "adapters.torch")
# Whose examples tests of their own run, where no more is installed than they need.
ELSEWHERE = (
    *("core", "presets", "adapters.jax", "adapters.keras"),
    *("adapters.lightning", "adapters.transformers"),
)
MODULES = modules_with_examples(*(f"cosanneal.{package}" for package in PACKAGES))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    with warnings.catch_warnings():
        # An example without gradients or data has nothing to train on.
        warnings.filterwarnings("ignore", message="Detected call", category=UserWarning)
        check_examples(name)


def test_no_example_is_forgotten() -> None:
    elsewhere = modules_with_examples(*(f"cosanneal.{package}" for package in ELSEWHERE))
    assert sorted([*MODULES, *elsewhere]) == sorted(modules_with_examples("cosanneal"))
