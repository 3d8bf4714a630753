"""What the benchmarks' runner makes of the times it is given, and of the benchmarks."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

RUNNER = Path(__file__).parents[2] / "benchmarks" / "runner.py"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_runner", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_those_of_the_rounds_beside_the_best_peer(runner: ModuleType) -> None:
    # The machine was three times as slow in the second round.
    figure = runner.Figure(
        name="step",
        unit="µs",
        ours=[2.0, 6.0, 2.5],
        peers={"slow": [9.0, 27.0, 9.0], "quick": [4.0, 12.0, 4.0]},
        limit=[1.0, 3.0, 1.0],
        goal=2.0,
    )
    summary = figure.summary()
    assert summary["best_peer"] == "quick"
    assert summary["ratio_to_peer"] == pytest.approx([0.5, 0.5, 0.5625])
    assert summary["ratio_to_limit"] == pytest.approx([2.0, 2.0, 2.25])
    assert summary["met"] is True


@pytest.mark.parametrize(("ours", "met"), [(14.0, True), (16.0, False)])
def test_a_limit_may_be_a_number(runner: ModuleType, ours: float, met: bool) -> None:
    figure = runner.Figure(name="import", unit="ms", ours=[ours], limit=15.0, goal=1.0)
    assert figure.summary()["met"] is met
    assert figure.summary()["limit"] == 15.0


def test_all_take_turns_and_the_first_round_is_not_counted(runner: ModuleType) -> None:
    calls: list[str] = []

    def ours() -> None:
        calls.append("ours")

    def peer() -> float:
        calls.append("peer")
        return float(len(calls))

    clock = iter(range(100))
    times = runner.in_turn(
        {"ours": ours, "peer": peer}, repeats=2, per=0.5, clock=lambda: float(next(clock))
    )
    assert calls == ["ours", "peer"] * 3
    assert times == {"ours": [2.0, 2.0], "peer": [4.0, 6.0]}


def test_the_table_fits_80_columns_and_says_what_was_missed(
    runner: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = runner.Figure(
        name="x" * 33, unit="µs", ours=[123456.0], peers={"a": [98765.0]}, limit=[12345.0], goal=1.5
    )
    assert runner.show([figure.summary()]) is False
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "1.25" in lines[1]
    assert "10.00" in lines[1]
    assert lines[2] == "  above the goal: 1.5 x the limit"


def test_every_module_is_a_benchmark(runner: ModuleType) -> None:
    # They are read, not imported: their frameworks are not all here.
    assert {"core_rate", "ensemble_selection", "keras_fit", "snapshot_cost"} <= set(
        runner.BENCHMARKS
    )
    for name in runner.BENCHMARKS:
        module = ast.parse(RUNNER.with_name(f"{name}.py").read_text(encoding="utf-8"))
        found = {each.name: each for each in module.body if isinstance(each, ast.FunctionDef)}
        assert "measure" in found, name
        given = found["measure"].args
        assert len(given.posonlyargs + given.args) == len(given.defaults), name
        assert None not in given.kw_defaults, name
        assert isinstance(module.body[-1], ast.If), name
        assert ast.unparse(module.body[-1].test) == "__name__ == '__main__'", name
        text = ast.get_docstring(module) or ""
        assert f"python -m benchmarks.{name}" in text.split("\n\n")[1], name


WORKS = """
import sys
from benchmarks.runner import Figure, alone, optional

def measure(name="figure"):
    print("peer:", optional("no_such_peer"), optional("no_such_peer"))
    yield Figure(name=name, unit="s", ours=[2.0], limit=1.0, goal=3.0)

if __name__ == "__main__":
    sys.exit(alone(measure(*sys.argv[1:])))
"""


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """A folder in which there are the runner, one benchmark that works, and no page."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(RUNNER, folder)
    (folder / "works.py").write_text(WORKS, encoding="utf-8")
    (folder / "performance.py").write_text("def main(): print('page')", encoding="utf-8")
    return folder


def run(benchmarks: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=benchmarks.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_not_installed_is_left_out_or_skipped_and_said(benchmarks: Path) -> None:
    (benchmarks / "lacks.py").write_text("import no_such_framework.sub", encoding="utf-8")
    (benchmarks / "results.json").write_text('{"lacks": "as it was"}', encoding="utf-8")
    done = run(benchmarks, "runner")
    assert done.returncode == 0
    assert done.stderr == "no_such_peer is left out: no_such_peer is not installed\n"
    assert "  skipped: no_such_framework is not installed\n" in done.stdout
    results = json.loads((benchmarks / "results.json").read_text(encoding="utf-8"))
    assert results["lacks"] == "as it was"
    assert [figure["figure"] for figure in results["works"]["figures"]] == ["figure"]


def test_what_needs_a_device_is_skipped_without_one_and_said(benchmarks: Path) -> None:
    (benchmarks / "device.py").write_text(
        WORKS.replace("import Figure", "import Skipped, Figure").replace(
            "    yield", "    raise Skipped('no CUDA device was found')\n    yield"
        ),
        encoding="utf-8",
    )
    done = run(benchmarks, "runner")
    assert done.returncode == 0
    assert "  skipped: no CUDA device was found\n" in done.stdout
    assert [*json.loads((benchmarks / "results.json").read_text(encoding="utf-8"))] == ["works"]
    done = run(benchmarks, "device")
    assert done.returncode == 0
    assert done.stdout.endswith("skipped: no CUDA device was found\n")


@pytest.mark.parametrize("name", ["gpu_capture", "gpu_predict", "gpu_schedule"])
def test_benchmarks_of_a_device_look_for_it_first(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.syspath_prepend(str(RUNNER.parents[1]))
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(module.need_cuda.__globals__["Skipped"], match="no CUDA device"):
        next(module.measure())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import json.no_such_part", "No module named 'json.no_such_part'"),
        ("import benchmarks.no_such_part", "No module named 'benchmarks.no_such_part'"),
        ("import cosanneal.no_such_part", "No module named 'cosanneal"),
        ("def measure(): import no_such_part", "No module named 'no_such_part'"),
    ],
)
def test_a_benchmark_that_is_broken_is_not_skipped(benchmarks: Path, code: str, error: str) -> None:
    (benchmarks / "broken.py").write_text(code, encoding="utf-8")
    done = run(benchmarks, "runner", "broken")
    assert done.returncode == 1
    assert error in done.stderr
    assert "failed, for the reason above" in done.stdout


def test_a_benchmark_runs_alone_with_options_of_its_own(benchmarks: Path) -> None:
    done = run(benchmarks, "works", "renamed")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["peer:", "figure", "renamed"]
