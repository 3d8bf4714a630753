"""A function of the user's is found by its module, and each way that it fails is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosanneal.cli.functions import called, named_function
from cosanneal.core.errors import CosannealError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.startswith("their_"):
            del sys.modules[name]


def error_of(text: str) -> str:
    with pytest.raises(CosannealError) as caught:
        called(named_function(text, "--model"), text, "--model")
    return str(caught.value)


def test_a_function_of_a_file_or_a_package_is_called() -> None:
    Path("their_file.py").write_text("def build(): return 'a'")
    Path("their_package").mkdir()
    Path("their_package/inner.py").write_text("import their_file\nbuild = their_file.build")
    for text in ("their_file:build", "their_package.inner:build"):
        assert called(named_function(text, "--model"), text, "--model") == "a"


@pytest.mark.parametrize("text", ["", "build", "a:", ":b", "a.py:b:c", "a/b:c", "a:b()", "a..b:c"])
def test_what_is_no_name_is_refused(text: str) -> None:
    assert error_of(text).startswith("Option --model must be module:function, such as ")
    assert repr(text) in error_of(text)


def test_a_module_that_is_not_there_or_fails_is_said(tmp_path: Path) -> None:
    there = f"looked for from the folder {tmp_path}"
    assert error_of("their_none:f").endswith(f"there is no module 'their_none', {there}")
    Path("their_bad.py").write_text("1 / 0")
    assert error_of("their_bad:f").endswith(
        "whose import fails: ZeroDivisionError: division by zero"
    )
    Path("their_needy.py").write_text("import their_absent")
    assert error_of("their_needy:f").endswith(
        "whose import fails: ModuleNotFoundError: No module named 'their_absent'"
    )
    Path("their_exit.py").write_text("raise SystemExit(3)")
    assert error_of("their_exit:f").endswith("whose import fails: SystemExit: 3")
    Path("their_syntax.py").write_text("def (")
    assert "whose import fails: SyntaxError" in error_of("their_syntax:f")


def test_a_function_that_is_not_there_or_fails_is_said() -> None:
    Path("their_names.py").write_text(
        "number = 3\ndef f(x): pass\ndef g(): raise OSError('no file')"
    )
    assert error_of("their_names:h").endswith("their_names.py) has none of that name under it")
    assert error_of("their_names:number").endswith("their_names.py) has a int under it")
    assert "missing 1 required positional argument: 'x'" in error_of("their_names:f")
    assert error_of("their_names:g").endswith("which fails: OSError: no file")
