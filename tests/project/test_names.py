"""Names that differ by an ending are found, and files that do not say what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.house.names import found
from tests.project.house.trees import write


def names(tmp_path: Path, *places: str) -> list[str]:
    return found(write(tmp_path / "cosanneal", dict.fromkeys(places, '"""What it is for."""\n')))


@pytest.mark.parametrize(
    "pair",
    [
        ("average", "averaged"),
        ("average", "averages"),
        ("averaged", "averaging"),
        ("plot", "plots"),
        ("weight", "weights"),
        ("schedule", "scheduler"),
        ("record", "recorder"),
        ("records", "recorders"),
        ("plan", "planning"),
        ("class", "classes"),
        ("batch", "batches"),
        ("evaluate", "evaluation"),
        ("evaluator", "evaluate"),
        ("select", "selection"),
        ("read", "reader"),
        ("analysis", "analyses"),
        ("torch_backend", "torch_backends"),
        ("table", "table2"),
    ],
)
def test_names_that_differ_by_an_ending_are_found(pair: tuple[str, str], tmp_path: Path) -> None:
    (line,) = names(tmp_path, *(f"core/{name}.py" for name in pair))
    assert line.startswith("cosanneal.core has names that differ by an ending: ")
    assert {*line.partition(": ")[2].split(", ")} == {f"{name}.py" for name in pair}


def test_a_file_and_a_folder_are_compared_as_well(tmp_path: Path) -> None:
    assert names(tmp_path, "core/weights/means.py", "core/weight.py") == [
        "cosanneal.core has names that differ by an ending: weight.py, weights"
    ]
    assert names(tmp_path / "root", "plots.py", "plot.py") != []


@pytest.mark.parametrize(
    "places",
    [
        ("core/plot.py", "cli/plots.py"),
        ("core/plot.py", "core/inner/plots.py"),
        ("core/model.py", "core/modes.py", "core/moments.py", "core/metrics.py"),
        (
            "core/store.py",
            "core/storage.py",
            "core/reader.py",
            "core/writer.py",
            "core/recorder.py",
        ),
        ("core/rows.py", "core/rules.py", "core/records.py", "core/errors.py", "core/curve.py"),
        ("core/schedule.py", "core/segment.py", "core/selection.py", "core/calibration.py"),
        (
            "core/choose/choice.py",
            "core/ensemble.py",
            "core/evidence.py",
            "core/is.py",
            "core/as.py",
        ),
        ("core/__init__.py", "core/__main__.py", "core/init.py"),
    ],
)
def test_names_that_differ_are_let_pass(places: tuple[str, ...], tmp_path: Path) -> None:
    assert names(tmp_path, *places) == []


@pytest.mark.parametrize(
    ("place", "code", "fine"),
    [
        ("core/a.py", "'One line.'", True),
        ("core/a.py", '# A comment first.\n"""Then what it is for."""\nx = 1', True),
        ("core/__init__.py", "", True),
        ("core/__init__.py", "from . import a", False),
        ("core/a.py", "", False),
        ("core/a.py", "x = 1\n'Too late.'", False),
        ("core/a.py", "# A comment.", False),
    ],
)
def test_a_file_begins_by_saying_what_it_is_for(
    place: str, code: str, fine: bool, tmp_path: Path
) -> None:
    module = "cosanneal.core.a" if place.endswith("a.py") else "cosanneal.core"
    lines = found(write(tmp_path / "cosanneal", {place: code}))
    assert lines == ([] if fine else [f"{module} begins without a docstring"])
