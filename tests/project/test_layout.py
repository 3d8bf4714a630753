"""Tests that lie elsewhere than what they test are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.house.layout import found
from tests.project.house.trees import write

APART = {"peers": "beside the peers", "shared": "helpers"}


def layout(tmp_path: Path, *places: str) -> list[str]:
    """What is found of these files of tests/, for a package of a few."""
    files = ("core/lookup.py", "core/graph/rows.py", "cli/app.py", "__main__.py")
    source = write(tmp_path / "src" / "cosanneal", dict.fromkeys(files, ""))
    write(tmp_path / "tests", dict.fromkeys((*places, "peers/conftest.py", "shared/a.py"), ""))
    return found(source, None, APART)


@pytest.mark.parametrize(
    "place",
    [
        "core/test_lookup.py",
        "core/test_lookup_growth.py",
        "core/graph/test_rows.py",
        "core/test_init.py",
        "core/test_init_examples.py",
        "test_init.py",
        "test_main.py",
        "conftest.py",
        "core/conftest.py",
        "core/graph/__init__.py",
        "peers/test_anything.py",
        "peers/deep/helper.py",
        "shared/oracle.py",
    ],
)
def test_a_test_that_lies_as_what_it_tests_is_let_pass(place: str, tmp_path: Path) -> None:
    assert layout(tmp_path, place) == []


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("core/test_growth.py", "names no file of src/cosanneal/core"),
        ("core/test_lookups.py", "names no file of src/cosanneal/core"),
        ("core/test_look.py", "names no file of src/cosanneal/core"),
        ("core/test_rows.py", "names no file of src/cosanneal/core"),
        ("core/test_graph.py", "names no file of src/cosanneal/core"),
        ("cli/test_lookup.py", "names no file of src/cosanneal/cli"),
        ("graph/test_rows.py", "names no file of src/cosanneal/graph"),
        ("torch/test_peers.py", "names no file of src/cosanneal/torch"),
        ("test_lookup.py", "names no file of src/cosanneal"),
        ("core/oracle.py", "is no test; what tests share stands in tests/shared"),
        ("helper.py", "is no test; what tests share stands in tests/shared"),
        ("shared/test_a.py", "is a test"),
    ],
)
def test_a_test_that_lies_elsewhere_is_found(place: str, fault: str, tmp_path: Path) -> None:
    assert layout(tmp_path, place) == [f"tests/{place} {fault}"]


def test_a_folder_apart_that_is_gone_is_found(tmp_path: Path) -> None:
    source = write(tmp_path / "src" / "cosanneal", {})
    tests = write(tmp_path / "elsewhere", {"shared/a.py": ""})
    assert found(source, tests, APART) == ["tests/peers is no folder"]
