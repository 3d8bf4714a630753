"""This repository keeps to the rules of the house. That breaches are found, its neighbours show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.house.__main__ import CHECKS
from tests.project.house.reaches import ALLOWED
from tests.project.house.sizes import EXCEPTIONS
from tests.project.house.source import imports, read
from tests.project.house.trees import write

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "cosanneal"


@pytest.mark.parametrize("check", CHECKS)
def test_the_rules_of_the_house_are_kept(check: str) -> None:
    assert CHECKS[check](SOURCE) == []


def test_every_file_is_looked_at() -> None:
    files = read(SOURCE)
    assert {"cosanneal", "cosanneal.core", "cosanneal.core.schedule"} <= files.keys()
    seen = {each.module for each in imports(files["cosanneal.core.schedule"], files)}
    assert {"cosanneal.core.errors", "fractions"} <= seen
    lazily = {each.module for each in imports(files["cosanneal"], files)}
    assert {"cosanneal.core.schedule", "cosanneal.core.cyclic"} <= lazily


def test_contributing_says_what_may_be_longer() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in EXCEPTIONS:
        assert name.partition(":")[0].removeprefix("cosanneal.").replace(".", "/") in text


def test_every_exception_has_its_reason() -> None:
    assert all(reason.strip() for reason in (*ALLOWED.values(), *EXCEPTIONS.values()))


def test_the_checks_can_be_run_by_hand(tmp_path: Path) -> None:
    source = write(tmp_path / "src" / "cosanneal", {"core/a.py": "'A.'\nfrom .b import _x"})
    command = [sys.executable, "-m", "tests.project.house", str(source), "reaches", "sizes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "cosanneal.core.a:2 reaches for cosanneal.core.b._x (an import)" in done.stdout
    assert "sizes: 0" in done.stdout
    command[-2:] = ["sizes"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
