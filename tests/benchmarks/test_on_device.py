"""The run of all that needs a device, with parts of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import on_device
from benchmarks.on_device import PARTS, ROOT, SECONDS, Part, main


def part(name: str, code: str, seconds: float = 60, **options: Any) -> Part:
    return Part(name=name, arguments=["-c", code], seconds=seconds, **options)


def results_in(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "on_device.json").read_text(encoding="utf-8"))
    assert set(found) == {"machine", "parts"}
    return dict(found["parts"])


def test_all_parts_are_there_and_fit_nine_minutes() -> None:
    assert sum(each.seconds for each in PARTS) <= SECONDS <= 540
    tests = {name for each in PARTS for name in each.arguments if name.startswith("tests/gpu/")}
    assert tests == {str(each.relative_to(ROOT)) for each in ROOT.glob("tests/gpu/test_*.py")}
    measured = {each.name for each in PARTS if each.measures}
    assert measured == {each.stem for each in ROOT.glob("benchmarks/gpu_*.py")}


def test_each_part_has_a_process_and_what_came_of_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [{"figure": "f", "met": False}]
    code = main(
        tmp_path / "new" / "folder",
        [
            part("works", "import os; print(os.environ['HERE'])", environment={"HERE": "so"}),
            part("fails", "print('said'); raise SystemExit(3)"),
            part(
                "measures",
                f"print('first'); print({json.dumps(json.dumps(figures))})",
                measures=True,
            ),
            part("skips", "print('\"no CUDA device was found\"')", measures=True),
        ],
    )
    found = results_in(tmp_path / "new" / "folder")
    assert code == 1
    assert {name: (each["ended"], each["passed"]) for name, each in found.items()} == {
        "works": (0, True),
        "fails": (3, False),
        "measures": (0, True),
        "skips": (0, False),
    }
    assert found["works"]["last line"] == "so"
    assert found["measures"]["figures"] == figures
    assert found["skips"]["last line"] == "no CUDA device was found"
    assert (tmp_path / "new" / "folder" / "fails.txt").read_text(encoding="utf-8") == "said\n"
    assert "fails: at most 60 s\n  FAILED (3)" in capsys.readouterr().out


def test_a_part_out_of_time_ends_with_its_processes_and_the_next_has_what_is_left(
    tmp_path: Path,
) -> None:
    child = "import time; time.sleep(600)"
    code = (
        "import subprocess, sys, time; "
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); "
        "time.sleep(600)"
    )
    start = time.monotonic()
    parts = [part("sleeps", code, 8), part("late", child, 600), part("never", "print(1)")]
    assert main(tmp_path, parts, seconds=10) == 1
    assert time.monotonic() - start < 60
    found = results_in(tmp_path)
    assert {name: each["ended"] for name, each in found.items()} == {
        "sleeps": "out of time",
        "late": "out of time",
        "never": "not begun: no time was left",
    }
    pid = int(found["sleeps"]["last line"])
    for _ in range(100):  # until somebody has taken note of its end
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        state = Path(f"/proc/{pid}/stat")
        if state.is_file() and ") Z " in state.read_text(encoding="utf-8"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child still runs")


def test_tests_for_the_device_fail_where_there_is_none(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    only = on_device.tests_of("torch", "torch", 100)
    few = Part(name="torch", arguments=[*only.arguments[:-1], "-x"], seconds=100)
    assert main(tmp_path, [few]) == 1
    assert "must find a device" in (tmp_path / "torch.txt").read_text(encoding="utf-8")


def test_the_script_hands_its_folder_on(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "on_device.sh"
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$PYTHONPATH|$*"\n', encoding="utf-8")
    fake.chmod(0o755)
    done = subprocess.run(
        [script, "there"],
        env=os.environ | {"PYTHON": str(fake)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    path, _, arguments = done.stdout.strip().partition("|")
    assert path.split(":")[:2] == [str(ROOT / "src"), str(ROOT)]
    assert arguments == "-m benchmarks.on_device there"
