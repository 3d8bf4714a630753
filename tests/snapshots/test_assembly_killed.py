"""A run whose processes write snapshots in parts is killed at any instant, and resumed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME
from tests.shared.parted_killed_run import SCHEDULE, START, updated

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are not there")


class Runs:
    """The process that runs and kills them."""

    def __init__(self) -> None:
        script = Path(__file__).parents[1] / "shared" / "parted_killed_run.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # of those whose others are gone
            text=True,
        )

    def run(self, root: Path, options: dict[str, Any], **order: Any) -> list[int]:
        """The exit codes of the processes."""
        root.mkdir(exist_ok=True)
        (root / "report").write_text("")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        usual = {"size": 3, "each": 2, "delays": None, "at": None, "rank": None, "stop": 24}
        print(
            json.dumps({"root": str(root), "options": options, **usual, **order}),
            file=self.process.stdin,
            flush=True,
        )
        codes: list[int] = json.loads(self.process.stdout.readline())
        return codes


@pytest.fixture
def runs() -> Iterator[Runs]:
    runs = Runs()
    with runs.process:
        yield runs


def expected() -> dict[int, dict[str, bytes]]:
    """The weights after so many updates."""
    weights: dict[str, Any] = dict(START)
    found = {}
    for step in range(SCHEDULE.total_steps or 0):
        updated(weights, step)
        found[step + 1] = {name: value.tobytes() for name, value in weights.items()}
    return found


WHOLE = expected()


def looked_at(root: Path, *, keeps_all: bool) -> set[str]:
    """See that what is listed is whole, and what was durable is listed; what else there is."""
    store = SnapshotStore(root / "run")
    found = store.list()
    for snapshot in found:
        loaded = snapshot.load()
        assert {name: value.tobytes() for name, value in loaded.items()} == WHOLE[snapshot.step]
    durable = {int(line) for line in (root / "report").read_text().split()}
    if keeps_all:
        assert durable <= {snapshot.step for snapshot in found}
    files = {each.name for each in store.folder.iterdir()} if store.folder.exists() else set()
    return files - {snapshot.path.name for snapshot in found} - {LOCK_NAME}


def ended_well(root: Path, options: dict[str, Any], parts: int, stop: int = 24) -> None:
    """The snapshots are those of a run that was not killed, and nothing else is there."""
    rest = looked_at(root, keeps_all="keep_last" not in options)
    steps = [*range(2, stop + 1, 2)][-options.get("keep_last", 12) :]
    assert [each.step for each in SnapshotStore(root / "run").list()] == steps
    assert len(rest) == len(steps) * parts


def test_processes_killed_at_random_instants(
    tmp_path: Path, runs: Runs, pytestconfig: pytest.Config
) -> None:
    wanted: int = pytestconfig.getoption("--kills") // 20
    draws, kills, chain, left = random.Random(0), 0, 0, 0
    began = time.perf_counter()
    assert runs.run(tmp_path / "whole", {}) == [0, 0, 0]
    seconds = time.perf_counter() - began
    ended_well(tmp_path / "whole", {}, 6)
    while kills < wanted:
        options: dict[str, Any] = [{}, {"max_pending": 2}, {"keep_last": 2}][chain % 3]
        size, each = [(3, 2), (2, 3), (3, 3)][chain % 3]
        root, limit = tmp_path / str(chain), seconds / 2
        codes = [-9]
        while any(codes):
            # All of them, or one earlier than the others.
            first, later = draws.uniform(0, limit), draws.choice([0.0, 0.0, 0.02])
            delays = [first + later * draws.random() for _ in range(size)]
            codes = runs.run(root, options, size=size, each=each, delays=delays)
            limit *= 1.05  # else a machine that is slower by now never gets to a checkpoint
            kills += -9 in codes
            rest = looked_at(root, keeps_all="keep_last" not in options)
            named = [each.metadata["parts"] for each in SnapshotStore(root / "run").list()]
            left += len(rest) > sum(named)
        ended_well(root, options, size * each)
        chain += 1
    assert left > wanted // 10, f"only {left} of {kills} kills fell into a write"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_at_every_step_of_writing(tmp_path: Path, runs: Runs, rank: int) -> None:
    options = {"keep_last": 2}
    for at in range(0, 300, 6 - 2 * rank):
        root = tmp_path / str(at)
        codes = runs.run(root, options, size=2, each=3, stop=6, at=at, rank=rank)
        looked_at(root, keeps_all=False)
        if not any(codes):
            break
        assert codes[rank] == -9
        if at > 25:  # more than it takes to write one
            assert SnapshotStore(root / "run").list()
        assert runs.run(root, options, size=2, each=3, stop=6) == [0, 0]
        ended_well(root, options, 6, stop=6)
    assert at > 15
