"""`cosanneal demo`, called as a user would; it needs a framework, unlike the other commands."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosanneal.cli.app import app
from cosanneal.demo import Backend
from cosanneal.snapshots import SnapshotStore
from tests.shared.backends import SMALL, STUDY
from tests.shared.calling import BLOCK, run_python


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)


@pytest.mark.usefixtures("small")
def test_the_command_writes_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo"
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    written = json.loads((out / "results.json").read_text())
    rows = written["comparison"]["rows"]
    for text in (
        "Single (",
        "NoCycle",
        "One cosine cycle",
        "SingleCycle",
        "last snapshot",
        "fitted",
    ):
        assert any(text in row["model"] for row in rows)
    for row in rows:
        line = next(line for line in result.stdout.splitlines() if row["model"] in line)
        assert f"{100 * row['test_error']['mean']:.2f}" in line
        assert f"{row['test_nll']['mean']:.4f}" in line
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [
        "figure.png",
        "results.json",
        "snapshots",
    ]
    assert SnapshotStore(out / "snapshots" / "seed-0" / "cyclic").verify() == 3
    assert "study" not in written
    # Again into the same folder: it starts over.
    again = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert again.exit_code == 0
    assert json.loads((out / "results.json").read_text()) == written


@pytest.mark.usefixtures("small")
def test_the_study_is_drawn_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.STUDY_CYCLES", STUDY)
    given = ["demo", "--seeds", "2", "--study", "budget", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "2 seeds x 6 runs of 18 updates" in result.stdout
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    study = json.loads((tmp_path / "results.json").read_text())["study"]
    assert [row["cycles"] for row in study["rows"]] == [1, 2, 3]
    for row in study["rows"]:
        for way in ("last", "all", "best"):
            assert f"{100 * row[way]['test_error']['mean']:.2f} ±" in result.stdout
            assert f"{row[way]['test_nll']['mean']:.4f} ±" in result.stdout
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "must be a folder that can be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_each_backend_has_its_module_and_others_are_refused() -> None:
    for backend in Backend:
        assert find_spec(f"cosanneal.demo.{backend.value}_backend") is not None
    result = CliRunner().invoke(app, ["demo", "--backend", "theano"])
    assert result.exit_code == 2
    for text in ("--backend", "theano", *(backend.value for backend in Backend)):
        assert text in result.stderr


@pytest.mark.parametrize(
    ("backend", "missing", "command"),
    [
        ("torch", "torch", "cosanneal[torch]"),
        ("jax", "jax", "cosanneal[jax]"),
        ("jax", "optax", "cosanneal[jax]"),
        ("keras", "keras", "cosanneal[tf]"),
        ("torch", "sklearn", "cosanneal[demo]"),
        ("torch", "matplotlib", "[plot]"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, missing: str, command: str
) -> None:
    if backend == "jax" and missing != "jax" and find_spec("jax") is None:
        missing = "jax"  # where nothing of it is installed, that is what is missed
    monkeypatch.chdir(tmp_path)
    code = BLOCK.format(name=missing)
    done = run_python(code, "demo", "--backend", backend, COLUMNS="300")
    assert done.returncode == 2
    assert "python -m pip install 'cosanneal" in done.stderr
    assert command in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
