"""What the benchmarks' runner makes of the benchmarks."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import runner
from benchmarks.harness import Skipped

FOLDER = Path(runner.__file__).parent


def test_every_module_is_a_benchmark() -> None:
    # They are read, not imported: their frameworks are not all here.
    assert {"core_rate", "ensemble_selection", "keras_fit", "snapshot_cost"} <= set(
        runner.BENCHMARKS
    )
    for name in runner.BENCHMARKS:
        module = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
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
from benchmarks.harness import Figure, alone, optional

def measure(name="figure"):
    print("peer:", optional("no_such_peer"), optional("no_such_peer"))
    yield Figure(name=name, unit="s", ours=[2.0], limit=1.0, goal=3.0)

if __name__ == "__main__":
    sys.exit(alone(measure(*sys.argv[1:])))
"""


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """A folder of the runner and the harness, one benchmark that works, and no page."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("harness.py", "runner.py"):
        shutil.copy(FOLDER / name, folder)
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
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(Skipped, match="no CUDA device"):
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
