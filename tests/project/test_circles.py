"""Circles of files are found, on however long a way and however an import is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.house.circles import found
from tests.project.house.trees import write

FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
LAZY_ROOT = """
    def __getattr__(name):
        from importlib import import_module
        return import_module(f".core.{HOMES[name]}", __name__)
"""


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "from . import b\nfrom .c import x", "b.py": "from .c import x", "c.py": ""},
        {"core/__init__.py": "from .a import x", "core/a.py": "from .b import x", "core/b.py": ""},
        # A sibling is taken from the package, and not the package itself.
        {"core/__init__.py": "from .a import x", "core/a.py": "from . import b", "core/b.py": ""},
        {"core/__init__.py": "from .a import x", "core/a.py": "from .. import other"},
        {"a.py": "import numpy, a, other.a", "other/a.py": "from .. import name"},
        {"__init__.py": LAZY_ROOT, "core/a.py": "from . import b", "core/b.py": ""},
        {"a.py": "import_module(f'.{name}', __package__)", "b.py": ""},
        {"a.py": "'from .b import x'  # import b", "b.py": "from .a import x"},
    ],
)
def test_a_tree_without_a_circle_is_let_pass(files: dict[str, str], tmp_path: Path) -> None:
    assert found(write(tmp_path / "cosanneal", files)) == []


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a.py": "from .b import x", "b.py": "from .a import y"}, "a:1 -> b:1 -> a"),
        ({"a.py": "from . import b", "b.py": "\nimport cosanneal.a"}, "a:1 -> b:2 -> a"),
        ({"a.py": FOR_TYPES + "from .b import x", "b.py": "from .a import y"}, "a:3 -> b:1 -> a"),
        (
            {"a.py": "def f():\n  def g():\n    from .b import x", "b.py": "from .a import y"},
            "a:3 -> b:1 -> a",
        ),
        (
            {"a.py": "from .b import x", "b.py": "from .c import x", "c.py": "from .a import x"},
            "a:1 -> b:1 -> c:1 -> a",
        ),
        (
            {"core/__init__.py": "from .a import x", "core/a.py": "from . import x"},
            "core:1 -> core.a:1 -> core",
        ),
        (
            {"core/__init__.py": "from .a import x", "core/a.py": "from cosanneal.core import x"},
            "core:1 -> core.a:1 -> core",
        ),
        (
            {"a.py": "import_module('.b', __package__)", "b.py": "from .a import x"},
            "a:1 -> b:1 -> a",
        ),
        (
            {"a.py": "import_module(f'.b_{x}', p)", "b_c.py": "from .a import x"},
            "a:1 -> b_c:1 -> a",
        ),
        ({"a.py": "from . import a"}, "a:1 -> a"),
    ],
)
def test_a_circle_is_found(files: dict[str, str], circle: str, tmp_path: Path) -> None:
    named = " -> ".join(f"cosanneal.{each}" for each in circle.split(" -> "))
    assert found(write(tmp_path / "cosanneal", files)) == [named]


@pytest.mark.parametrize("taken", ["from ..core.a import x", "from . import b"])
def test_the_lazy_names_of_the_package_count(taken: str, tmp_path: Path) -> None:
    files = {"__init__.py": LAZY_ROOT, "core/a.py": "from .. import Name", "core/b.py": ""}
    source = write(tmp_path / "cosanneal", files)
    assert found(source) == ["cosanneal:4 -> cosanneal.core.a:1 -> cosanneal"]
    assert found(write(source, {"core/a.py": taken.replace("core.a", "core.b")})) == []


def test_each_circle_is_said_once(tmp_path: Path) -> None:
    files = {"a.py": "from . import b", "b.py": "from . import a, c", "c.py": "from . import b"}
    assert found(write(tmp_path / "cosanneal", files)) == [
        "cosanneal.a:1 -> cosanneal.b:1 -> cosanneal.a",
        "cosanneal.b:1 -> cosanneal.c:1 -> cosanneal.b",
    ]
