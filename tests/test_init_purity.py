"""Importing cosanneal imports the standard library and itself; what it makes public is held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cosanneal as ca

SOURCE = Path(ca.__file__).parents[1]


def foreign_modules(code: str) -> list[str]:
    """The packages that a fresh interpreter has after `code`, and had not before, but may not."""
    program = "\n".join(
        [
            "import json, sys",
            "before = set(sys.modules)",
            code,
            "new = {name.partition('.')[0] for name in set(sys.modules) - before}",
            "print(json.dumps(sorted(new)))",
        ]
    )
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    new: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert "cosanneal" in new, "the code was to import cosanneal"
    return [name for name in new if name != "cosanneal" and name not in sys.stdlib_module_names]


PACKAGE = Path(ca.__file__).parent
BARE = sorted(
    ".".join(("cosanneal", *file.relative_to(PACKAGE).with_suffix("").parts))
    for room in ("core", "presets")
    for file in PACKAGE.glob(f"{room}/**/*.py")
    if file.stem != "__init__"
)


def test_importing_cosanneal_imports_no_third_party_package() -> None:
    assert foreign_modules("import cosanneal") == []


def test_no_module_of_core_or_presets_imports_a_third_party_package() -> None:
    assert {"cosanneal.core.graph.rows", "cosanneal.presets.torch"} <= set(BARE)
    assert foreign_modules("\n".join(f"import {name}" for name in BARE)) == []


def test_using_a_schedule_imports_no_third_party_package() -> None:
    code = (
        "import cosanneal as ca, json, pickle\n"
        "schedule = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=1.1)\n"
        "json.dumps(schedule.to_dict()); pickle.dumps(schedule); schedule.rates(0, 100)"
    )
    assert foreign_modules(code) == []


@pytest.mark.parametrize("code", ["import pytest", "def f():\n    import pytest\nf()"])
def test_a_third_party_package_would_be_found(code: str) -> None:
    assert "pytest" in foreign_modules(f"import cosanneal\n{code}")


def test_a_check_that_imports_nothing_would_be_found() -> None:
    with pytest.raises(AssertionError, match="was to import cosanneal"):
        foreign_modules("pass")


PUBLIC = {
    "CosannealError",
    "Cycle",
    "CyclicCosine",
    "EnsembleError",
    "MissingExtraError",
    "Recommendation",
    "Schedule",
    "ScheduleError",
    "Segment",
    "SnapshotError",
    "StudyError",
    "__version__",
    "presets",
    "range_test",
    "recommend",
    "suggest_max_lr",
}


def test_public_names_are_these() -> None:
    assert set(ca.__all__) == PUBLIC
    assert len(ca.__all__) == len(PUBLIC)
    assert list(ca.__all__) == sorted(ca.__all__)


def test_public_names_exist_and_nothing_else_is_public() -> None:
    for name in ca.__all__:
        assert getattr(ca, name) is not None
    code = (
        "import cosanneal, types, json\n"
        "from cosanneal import *\n"
        "print(json.dumps([n for n, v in vars(cosanneal).items() if not n.startswith('_')\n"
        "    and not isinstance(v, types.ModuleType)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert set(json.loads(done.stdout)) == PUBLIC - {"__version__", "presets"}


def test_names_are_imported_when_asked_for() -> None:
    code = (
        "import sys\n"
        "known = set(sys.modules)\n"
        "import cosanneal\n"
        "assert {'Schedule', 'presets', '__version__'} <= set(dir(cosanneal))\n"
        "assert {n.partition('.')[0] for n in set(sys.modules) - known} == {'cosanneal'}\n"
        "cosanneal.ScheduleError\n"
        "assert 'cosanneal.core.rules' not in sys.modules\n"
        "from cosanneal import presets, Schedule\n"
        "assert presets is sys.modules['cosanneal.presets']\n"
        "assert vars(cosanneal)['Schedule'] is Schedule\n"
        "assert dir(cosanneal).count('Schedule') == 1\n"
    )
    subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"],
        check=True,
        timeout=60,
    )


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match=r"module 'cosanneal' has no attribute 'Shedule'"):
        ca.Shedule  # type: ignore[attr-defined]  # noqa: B018


def test_version_is_a_release_number() -> None:
    assert [part.isdigit() for part in ca.__version__.split(".")][:2] == [True, True]
