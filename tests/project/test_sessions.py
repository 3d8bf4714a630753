"""The sessions of noxfile.py, and those that CI runs and CONTRIBUTING.md describes."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"

# Which take long, or write what people look at.
NOT_IN_CI = {"bench", "demo", "quality", "tutorials"}


@pytest.fixture(scope="module")
def sessions() -> set[str]:
    """The full names of the sessions, as nox is asked for them."""
    command = [sys.executable, "-m", "nox", "--list", "--non-interactive", "--nocolor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = set(re.findall(r"^[*-] (\S+) -> \S", done.stdout, re.MULTILINE))
    assert len(found) > 15
    return found


@pytest.fixture(scope="module")
def noxfile() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return runpy.run_path(str(ROOT / "noxfile.py"))


def family(session: str) -> str:
    """A session's name without its Python and its parameters."""
    return re.sub(r"(-[\d.]+)?(\(.*)?$", "", session)


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return found


def test_ci_runs_every_session_and_no_other(sessions: set[str]) -> None:
    run: list[str] = []
    for job in jobs().values():
        assert job["steps"][-1]["run"] == 'python -m nox -s "${{ matrix.session }}"'
        run += job["strategy"]["matrix"]["session"]
    assert len(run) == len({*run})
    assert {*run} == {name for name in sessions if family(name) not in NOT_IN_CI}


def test_ci_runs_the_core_on_every_supported_python(noxfile: dict[str, Any]) -> None:
    matrix = jobs()["check"]["strategy"]["matrix"]
    (oldest,) = matrix["python"]
    assert noxfile["PROJECT"]["project"]["requires-python"] == f">={oldest}"
    core = [each["python"] for each in matrix["include"]]
    assert [each["session"] for each in matrix["include"]] == ["core"] * len(core)
    minors = [int(python.removeprefix("3.")) for python in (oldest, *core)]
    assert minors == [*range(minors[0], minors[0] + len(minors))]
    classifiers = noxfile["PROJECT"]["project"]["classifiers"]
    named = [each.rpartition(" :: ")[2] for each in classifiers if " :: 3." in each]
    assert named == [oldest, *core]


def test_contributing_describes_every_session_and_no_other(sessions: set[str]) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted({family(name) for name in sessions})
    for called in re.findall(r"nox [^`\n]*?-s (\w+)", text):
        assert called in described


def test_the_oldest_versions_are_those_of_pyproject(noxfile: dict[str, Any]) -> None:
    noxfile["PROJECT"]["project"]["optional-dependencies"].update(
        one=["torch>=2.4", "some_thing[more]>=1.2.3,<9"], two=["cosanneal[one]", "tensorflow>=2"]
    )
    assert noxfile["oldest"]("two") == [
        *("torch==2.4.*", "some_thing==1.2.3.*", "tensorflow-cpu==2.*"),
    ]
    for extras, group, _ in noxfile["MINIMUMS"].values():
        pins = noxfile["oldest"](extras)
        assert len(pins) >= 4
        assert all(re.fullmatch(r"[\w-]+==\d[\d.]*\.\*", pin) for pin in pins)
        assert group in noxfile["PROJECT"]["dependency-groups"]


def test_the_tests_of_a_device_stand_in_a_module_for_each_session(sessions: set[str]) -> None:
    frameworks = {family(name).removeprefix("gpu_") for name in sessions if "gpu_" in name}
    modules = (ROOT / "tests" / "gpu").glob("test_*.py")
    assert {module.stem.split("_")[1] for module in modules} == frameworks
