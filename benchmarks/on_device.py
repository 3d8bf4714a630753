"""Runs all that needs a GPU, and keeps what came out: what benchmarks/on_device.sh calls.

    python -m benchmarks.on_device [FOLDER]

The tests of tests/gpu by framework, then the benchmarks of the device, each in a
process of its own and within its share of nine minutes. After each part,
on_device.json in the folder has what is known by then (so a run that is cut off
loses nothing but the part it was at), and a file each its output. A part fails
where a test does, where a benchmark finds no device, or where its time is over;
a goal that a benchmark misses is its result, no failure.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runner import machine

ROOT = Path(__file__).parents[1]
SECONDS = 530.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process: what it runs, how long it may take, and what it needs of the environment.

    Args:
        name: also of its output's file.
        arguments: Python's.
        seconds: after so many it is ended.
        environment: beside what is there.
        measures: its last line is what it measured, as `runner.as_data` prints it.
    """

    name: str
    arguments: Sequence[str]
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)
    measures: bool = False


def tests_of(name: str, framework: str, seconds: float, **environment: str) -> Part:
    """The tests of a framework, named one by one: of one that is not installed, they fail."""
    files = sorted((ROOT / "tests/gpu").glob(f"test_{framework}_*.py"))
    places = [str(file.relative_to(ROOT)) for file in files]
    pytest = [
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "--durations=5",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    return Part(name=name, arguments=[*pytest, *places], seconds=seconds, environment=environment)


def benchmark(name: str, seconds: float) -> Part:
    """A benchmark of the device."""
    code = f"from benchmarks.runner import as_data; as_data({name!r})"
    return Part(name=name, arguments=["-c", code], seconds=seconds, measures=True)


PARTS = (
    tests_of("tests_torch", "torch", 120),
    tests_of("tests_jax", "jax", 90),
    tests_of("tests_keras_torch", "keras", 60, KERAS_BACKEND="torch"),
    tests_of("tests_keras_jax", "keras", 60, KERAS_BACKEND="jax"),
    benchmark("gpu_capture", 80),
    benchmark("gpu_predict", 60),
    benchmark("gpu_schedule", 60),
)


def run(part: Part, seconds: float, output: Path) -> dict[str, Any]:
    """Run a part for at most so many seconds; how it ended, and what it measured."""
    start = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | dict(part.environment),
            start_new_session=True,  # it may have processes of its own, which end with it
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    found: dict[str, Any] = {
        "ended": "out of time" if code is None else code,
        "seconds": round(time.monotonic() - start, 1),
        "passed": code == 0,
    }
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if not part.measures or code != 0:
        return found | {"last line": lines[-1]}
    figures = json.loads(lines[-1])
    if isinstance(figures, str):  # why it was skipped
        return found | {"passed": False, "last line": figures}
    return found | {"figures": figures}


def main(folder: Path, parts: Sequence[Part] = PARTS, seconds: float = SECONDS) -> int:
    """Run the parts one after the other; 1 where one failed."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "parts": {}}
    end = time.monotonic() + seconds
    for part in parts:
        left = min(part.seconds, end - time.monotonic())
        print(f"{part.name}: at most {max(left, 0):.0f} s", flush=True)
        if left > 0:
            found = run(part, left, folder / f"{part.name}.txt")
        else:
            found = {"ended": "not begun: no time was left", "seconds": 0.0, "passed": False}
        results["parts"][part.name] = found
        said = "passed" if found["passed"] else f"FAILED ({found['ended']})"
        print(f"  {said} in {found['seconds']} s. {found.get('last line', '')}", flush=True)
        text = json.dumps(results, indent=1, sort_keys=True) + "\n"
        partial = folder / "on_device.json.tmp"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / "on_device.json")
    return 0 if all(found["passed"] for found in results["parts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "on_device")))
