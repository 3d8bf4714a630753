"""Warnings are of the line from which a user came, whatever stands in between."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from cosanneal.core.warn import warn


def module(name: str, call: Callable[..., None]) -> Callable[[], None]:
    """A function of a module of that name, which calls another."""
    made = types.ModuleType(name)
    made.call = call  # type: ignore[attr-defined]
    said = "" if call is not warn else "'so'"
    code = f"def passed():\n    call({said})\n"
    exec(compile(code, f"<{name}>", "exec"), made.__dict__)  # noqa: S102
    passed: Callable[[], None] = made.passed
    return passed


def where(call: Callable[[], None]) -> tuple[str, str]:
    with pytest.warns(UserWarning, match="so") as found:
        call()
    (one,) = found
    return one.filename, str(one.message)


def test_without_anything_between_it_is_the_caller() -> None:
    assert where(lambda: warn("so")) == (__file__, "so")


@pytest.mark.parametrize("names", [("cosanneal.a",), ("cosanneal.a", "torch.optim", "cosanneal")])
def test_modules_of_the_library_and_of_frameworks_are_passed_over(names: tuple[str, ...]) -> None:
    call = module("cosanneal.core", warn)
    for name in names:
        call = module(name, call)
    assert where(call)[0] == __file__
    assert where(module("theirs", call))[0] == "<theirs>"
    assert where(module("cosanneally", call))[0] == "<cosanneally>"


def test_a_warning_has_its_own_category() -> None:
    with pytest.warns(RuntimeWarning, match="worse") as found:
        warn(RuntimeWarning("worse"))
    assert Path(found[0].filename) == Path(__file__)
    with pytest.warns(RuntimeWarning, match="worse"):
        warn("worse", RuntimeWarning)
