"""Every public name says what it takes, what it raises, and shows an example that runs."""

from __future__ import annotations

import ast

import pytest

from tests.project.house.docstrings import definition, lacking, lacking_in_methods
from tests.project.test_pages import public_names

NAMES = sorted(public_names())


def test_there_are_many() -> None:
    assert len(NAMES) > 130


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name: str) -> None:
    node = definition(name)
    assert lacking(node) == []
    if isinstance(node, ast.ClassDef):
        assert lacking_in_methods(node) == []


GOOD = '''
def f(x, *, y=1):
    """Does.

    Args:
        x: one.
        y: two.

    Raises:
        ValueError: never.

    Example:
        >>> f(1)
    """
    raise ValueError
'''


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        (GOOD, []),
        (GOOD.replace("y: two.", "z: two."), ["does not name y"]),
        (
            GOOD.replace("    Raises:\n        ValueError: never.\n", ""),
            ["does not say what it raises"],
        ),
        (GOOD.replace(">>> f(1)", "f(1)"), ["has no example"]),
        (GOOD.replace("    Example:\n        >>> f(1)\n", "    Example: see `g`.\n"), []),
        ("def f(x): ...", ["has no docstring"]),
        ("def f(x):\n    'Args as for `g`. >>> no'", ["has no example"]),
        (
            "class A:\n    'Is.'\n    def __init__(self, x): ...",
            ["does not name x", "has no example"],
        ),
        ("@dataclass\nclass A:\n    'Is.'\n    x: int", ["does not name x"]),
        ("class A(Protocol):\n    'Is.'", []),
    ],
)
def test_what_is_lacking_is_found(code: str, wrong: list[str]) -> None:
    (node,) = ast.parse(code).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    assert lacking(node) == wrong


METHOD = '''
class A:
    def f(self, x, y):
        """Does with `x`.

        Raises:
            ValueError: of y.
        """
        raise ValueError
'''


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        (METHOD, []),
        (METHOD.replace("of y", "never"), ["f does not name y"]),
        (METHOD.replace("Raises:", "Say:"), ["f does not say what it raises"]),
        (METHOD.replace("`x`", "it").replace("f(self", "on_f(self"), []),
        (METHOD.replace("`x`", "it. Args as of `g`"), []),
        (METHOD.replace("f(self", "_f(self").replace("`x`", "it"), []),
        ("class A:\n    def f(self): ...", ["f has no docstring"]),
        ("class A:\n    @overload\n    def f(self, x): ...", []),
    ],
)
def test_what_is_lacking_in_methods_is_found(code: str, wrong: list[str]) -> None:
    (node,) = ast.parse(code).body
    assert isinstance(node, ast.ClassDef)
    assert lacking_in_methods(node) == wrong
