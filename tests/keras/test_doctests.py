"""The examples of the adapter's docstrings run as they are printed."""

from __future__ import annotations

import doctest

import cosanneal.adapters.keras


def test_examples_run() -> None:
    done = doctest.testmod(cosanneal.adapters.keras)
    assert done.attempted > 0
    assert done.failed == 0
