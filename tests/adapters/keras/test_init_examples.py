"""The examples of the adapter's docstrings run as they are printed."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["ensemble", "recorder", "schedule"])
def test_examples_run(name: str) -> None:
    done = doctest.testmod(importlib.import_module(f"cosanneal.adapters.keras.{name}"))
    assert done.attempted > 0
    assert done.failed == 0
