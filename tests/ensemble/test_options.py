"""A function's error for an option that there is not names the function that was called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, is_typeddict

import pytest

from cosanneal import ensemble

TAKERS = {
    name: value
    for name, value in vars(ensemble).items()
    if callable(value)
    and getattr(value, "__module__", "").startswith("cosanneal.")
    and not is_typeddict(value)
    and value is not ensemble.Model  # a protocol, which nobody makes one of
    and any(each.kind is each.VAR_KEYWORD for each in inspect.signature(value).parameters.values())
}


def test_there_are_functions_that_take_options() -> None:
    assert {"fit", "analyze", "log_loss", "HeldOut", "calibration_error"} <= {*TAKERS}


@pytest.mark.parametrize("name", TAKERS)
def test_an_unknown_option_is_said_by_the_public_name_with_the_nearest(name: str) -> None:
    function: Callable[..., Any] = TAKERS[name]
    nearest = r"^{} has no option 'ignore_indx'; did you mean 'ignore_index'\?$"
    with pytest.raises(TypeError, match=nearest.format(name)):
        function([[[0.9, 0.1]]], [0], ignore_indx=-1)


def test_an_argument_of_its_own_counts_as_an_option() -> None:
    with pytest.raises(TypeError, match=r"^fit has no option 'selct'; did you mean 'select'\?$"):
        ensemble.fit([[[0.9, 0.1]]], [0], selct="all")  # type: ignore[call-arg]
