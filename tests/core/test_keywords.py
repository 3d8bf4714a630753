"""An option that there is not is said by the public name, with the nearest."""

from __future__ import annotations

import inspect
from typing import Any, TypedDict

import pytest

from cosanneal.core.keywords import check_options, takes_options


class Options(TypedDict, total=False):
    batch_size: int


class Thing:
    @takes_options(Options)
    def __init__(self, folder: str, **options: Any) -> None:
        self.made = folder, options

    @takes_options(Options)
    def run(self, x: int, *, exact: bool = False, **options: Any) -> Any:
        """Runs."""
        return x, exact, options


def test_what_is_not_known_is_said_with_the_nearest_or_all() -> None:
    with pytest.raises(TypeError, match=r"^run has no option 'szie'; did you mean 'size'\?$"):
        check_options("run", ["mode", "szie"], ["mode", "size"])
    with pytest.raises(TypeError, match=r"^run has no option 'zzz'; there are mode, size$"):
        check_options("run", ["zzz"], ["mode", "size"])


def test_a_method_says_its_own_name_and_takes_what_it_took() -> None:
    wrong: dict[str, Any] = {"batchsize": 3}
    with pytest.raises(TypeError, match=r"^Thing.run has no option 'batchsize'; .*'batch_size'\?$"):
        Thing("a").run(1, **wrong)
    with pytest.raises(TypeError, match=r"^Thing has no option 'batchsize'"):
        Thing("a", **wrong)
    assert Thing(folder="a", batch_size=2).made == ("a", {"batch_size": 2})
    assert Thing("a").run(x=1, exact=True, batch_size=2) == (1, True, {"batch_size": 2})
    assert Thing.run.__doc__ == "Runs."
    assert [*inspect.signature(Thing).parameters] == ["folder", "options"]
