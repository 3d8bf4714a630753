"""A run at a URL is killed at each thing that it asks of the store, and goes on elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosanneal.snapshots import SnapshotStore
from tests.shared.recording import contents

SCRIPT = Path(__file__).parents[1] / "shared" / "remote_killed_run.py"


class Runs:
    """The process that runs and kills them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, root: Path, cache: str, at: int | None, options: Any) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"root": str(root), "cache": cache, "at": at, "options": options}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code, calls = json.loads(self.process.stdout.readline())
        return code, calls


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    found = Runs()
    yield found
    assert found.process.stdin is not None
    assert found.process.stdout is not None
    found.process.stdin.close()
    assert found.process.wait(30) == 0
    found.process.stdout.close()


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("options", "every"), [({}, 3), ({"keep_last": 2}, 7), ({"keep_best": 1, "metric": "loss"}, 7)]
)
def test_nothing_durable_is_lost(runs: Runs, tmp_path: Path, options: Any, every: int) -> None:
    code, calls = runs.run(tmp_path / "whole", "cache", None, options)
    assert code == 0
    whole = contents(tmp_path / "whole/run")
    assert len(whole) == options.get("keep_last", options.get("keep_best", 4))
    killed = 0
    for at in range(0, int(calls), every):
        root = tmp_path / f"at-{at}"
        code, _ = runs.run(root, "first", at, options)
        killed += code == -9
        report = root / "report"
        durable = {int(line) for line in report.read_text().split()} if report.exists() else set()
        store = SnapshotStore(f"faulty://{root}/run", cache=root / "reader")
        found = store.list()
        assert store.verify() == len(found)
        there = {each.step for each in found}
        if not options:
            assert durable <= there
        elif "keep_last" in options:
            assert {step for step in durable if step > max(there, default=0) - 2} <= there
        else:
            assert not durable or min(durable, key=lambda step: (step != 2, -step)) in there
        assert runs.run(root, "second", None, options)[0] == 0
        assert contents(root / "run") == whole
    assert killed == len(range(0, int(calls), every))
