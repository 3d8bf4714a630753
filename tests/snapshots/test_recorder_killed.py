"""A run that records is killed at random instants, resumed, and killed again."""

from __future__ import annotations

import json
import logging
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.lock import LOCK_NAME
from tests.shared.killed_run import SCHEDULE
from tests.shared.recording import contents

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_pending": 3},
    {"background": False},
    {"keep_last": 3},
    {"keep_best": 3, "metric": "loss", "max_pending": 2},
    {"keep_best": 2, "metric": "loss", "mode": "max", "keep_last": 2},
]


class Runs:
    """The process that runs and kills them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "shared" / "killed_run.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        root: Path,
        options: dict[str, Any],
        delay: float | None = None,
        at: int | None = None,
        stop: int = 60,
        schedule: ca.Schedule | None = None,
    ) -> int:
        """Run until the end, or so many seconds or calls of the file system; the exit code."""
        root.mkdir(exist_ok=True)
        (root / "report").write_text("")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {
            "root": str(root),
            "delay": delay,
            "at": at,
            "stop": stop,
            "schedule": None if schedule is None else schedule.to_dict(),
            "options": options,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def runs() -> Iterator[Runs]:
    runs = Runs()
    with runs.process:
        yield runs


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are not there")
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, runs: Runs, pytestconfig: pytest.Config
) -> None:
    wanted: int = pytestconfig.getoption("--kills")
    draws = random.Random(0)
    whole: list[dict[str, bytes]] = []
    for i, options in enumerate(OPTIONS):
        began = time.perf_counter()
        assert runs.run(tmp_path / f"whole{i}", options) == 0
        seconds = time.perf_counter() - began
        whole.append(contents(tmp_path / f"whole{i}" / "run"))
    every = whole[0]
    assert len(every) == 12
    assert [len(each) for each in whole[1:4]] == [12, 12, 3]

    kills = into_a_write = reported = chain = 0
    while kills < wanted:
        which = chain % len(OPTIONS)
        root = tmp_path / str(chain)
        limit = seconds / 4
        while (code := runs.run(root, OPTIONS[which], draws.uniform(0, limit))) != 0:
            assert code == -9
            kills += 1
            limit *= 1.03  # else a machine that is slower by now never gets to a checkpoint
            store = SnapshotStore(root / "run")
            found = contents(store.folder) if store.folder.exists() else {}
            names = [snapshot.path.name for snapshot in store.list()]
            # What is listed is whole: every byte is that of the run that was not killed.
            assert all(found[name] == every[name] for name in names)
            assert store.verify() == len(names)
            leftovers = found.keys() - names - {LOCK_NAME}
            assert all(name.endswith(".tmp") for name in leftovers)
            assert len(leftovers) <= 1
            into_a_write += bool(leftovers)
            durable = {int(line) for line in (root / "report").read_text().split()}
            reported += len(durable)
            if OPTIONS[which].keys() <= {"max_pending", "background"}:
                assert durable <= {snapshot.step for snapshot in store.list()}
        assert contents(root / "run") == whole[which]
        chain += 1
    assert into_a_write > wanted // 100, f"only {into_a_write} of {kills} kills fell into a write"
    assert reported > wanted // 10
    logging.getLogger(__name__).info(  # seen with --log-cli-level=info
        "%d kills in %d runs, %d of them in the middle of a write; %d snapshots reported durable",
        kills,
        chain,
        into_a_write,
        reported,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are not there")
@pytest.mark.parametrize("options", [{}, {"keep_last": 2}, OPTIONS[-1]], ids=str)
def test_a_resumed_run_killed_at_every_phase_is_never_without_snapshots(
    tmp_path: Path, runs: Runs, options: dict[str, Any]
) -> None:
    """It goes on at step 40 in a folder that has those of a run that came to step 55."""
    later, early = tmp_path / "later", tmp_path / "early"
    assert runs.run(later, options, stop=55) == runs.run(early, options, stop=40) == 0
    assert runs.run(tmp_path / "whole", options) == 0
    whole, before = contents(tmp_path / "whole" / "run"), contents(later / "run")
    shutil.copy(early / "checkpoint.npz", later / "checkpoint.npz")
    old = {path.stat().st_mtime_ns for path in (later / "run").iterdir()}
    phases = 0
    while True:
        root = tmp_path / str(phases)
        shutil.copytree(later, root)
        code = runs.run(root, options, at=phases)
        if code == 0:
            break
        assert code == -9
        store = SnapshotStore(root / "run")
        assert store.verify() >= 1
        # Until one of its own is there, nothing is missing.
        own = {each.path.stat().st_mtime_ns for each in store.list()} - old
        assert own or contents(root / "run").items() >= before.items()
        assert runs.run(root, options) == 0
        assert contents(root / "run") == whole, phases
        shutil.rmtree(root)
        phases += 1
    assert contents(root / "run") == whole
    assert phases > 15


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are not there")
@pytest.mark.parametrize("options", [{}, {"keep_last": 3, "max_pending": 2}], ids=str)
def test_a_run_killed_across_an_extension_ends_as_one_that_had_it_all_along(
    tmp_path: Path, runs: Runs, options: dict[str, Any]
) -> None:
    """It comes to step 30 of 60, and goes on from there with other cycles, killed all the way."""
    longer = SCHEDULE.extended(at=30, num_cycles=4, total_steps=58)
    whole = tmp_path / "whole"
    began = time.perf_counter()
    assert runs.run(whole, options, stop=58, schedule=longer) == 0
    seconds = time.perf_counter() - began
    draws, kills = random.Random(1), 0
    for chain in range(4):
        root = tmp_path / str(chain)
        for stop, schedule in ((30, SCHEDULE), (58, longer)):
            limit = seconds / 3
            while (
                code := runs.run(root, options, draws.uniform(0, limit), None, stop, schedule)
            ) != 0:
                assert code == -9
                kills += 1
                limit *= 1.05
                store = SnapshotStore(root / "run")
                assert store.verify() == len(store.list())
        ours, theirs = (SnapshotStore(each / "run").list() for each in (root, whole))
        assert [each.path.name for each in ours] == [each.path.name for each in theirs]
        for each, other in zip(ours, theirs, strict=True):
            loaded, expected = each.load(), other.load()
            assert all(loaded[name].tobytes() == expected[name].tobytes() for name in expected)
            if each.step > 30:
                assert each.path.read_bytes() == other.path.read_bytes()
            else:
                assert each.schedule == SCHEDULE
        checkpoints = (each / "checkpoint.npz" for each in (root, whole))
        first, second = (each.read_bytes() for each in checkpoints)
        assert first == second
    assert kills > 8
