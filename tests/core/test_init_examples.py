"""The examples in the docstrings of core run, and say what they say."""

from __future__ import annotations

import doctest
import importlib
import types
from pathlib import Path

import pytest

import cosanneal as ca

PACKAGE = Path(ca.__file__).parent
MODULES = sorted(
    ".".join(("cosanneal", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.glob("core/**/*.py")
    if file.stem != "__init__"
)
WITH_EXAMPLES = {
    "cosanneal.core.curve",
    "cosanneal.core.schedule",
    "cosanneal.core.cyclic",
    "cosanneal.core.graph.rows",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name), report=False)
    assert failed == 0
    assert attempted > 0 or name not in WITH_EXAMPLES


def test_the_modules_with_examples_are_there() -> None:
    assert set(MODULES) >= WITH_EXAMPLES


def test_a_wrong_example_would_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("wrong", doc=">>> 1 + 1\n3\n")
    assert doctest.testmod(module, report=False) == (1, 1)
    assert "Expected:" in capsys.readouterr().out
