"""Runs on several processes that write snapshots in parts, and are killed when told to.

    python parted_killed_run.py

Each line of the input is a JSON object: `root`, a folder; `size`, of how many processes; `each`,
how many parts each writes; `delays`, the seconds after which each of them is killed, or null; `at`,
the call of the file system before which the one of rank `rank` kills itself, or null, and with it
soon the others; `stop`, the updates after which they end; `options` of
the recorder. Each line of the output is the exit codes, by rank. The
processes go on from the checkpoint in `root`, record into `root/run`, and append to `root/report`
each step whose snapshot rank 0 calls durable. They meet by files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import cosanneal as ca
from cosanneal.snapshots.ranks import Together
from tests.shared.killed_run import kill_at
from tests.shared.parted import Cuts, PartedCapture, PartedRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=24, num_cycles=12)
CUTS: Cuts = {"w": [(40, 77), (30,)], "b": [(11, 12, 50)]}
START: dict[str, Any] = {
    "w": np.zeros((120, 64)),
    "b": np.zeros(70, np.float32),
    "n": np.zeros((), np.int64),
}


class Files:
    """A link of processes that meet by files in a folder of their own."""

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self.folder, self.rank, self.size = folder, rank, size
        self.meetings = 0

    def everyones(self, message: str) -> list[str]:
        own = self.folder / f"{self.meetings}-{self.rank}"
        temporary = own.with_suffix(".tmp")
        temporary.write_text(message)
        os.replace(temporary, own)  # noqa: PTH105 - which `kill_at` does not count
        names = [self.folder / f"{self.meetings}-{rank}" for rank in range(self.size)]
        self.meetings += 1
        ends = time.monotonic() + 20
        while not all(each.exists() for each in names):
            assert time.monotonic() < ends, "the others are gone"
            time.sleep(0.0002)
        return [each.read_text() for each in names]


def updated(weights: dict[str, Any], step: int) -> None:
    """One update, the same whoever does it."""
    draws = np.random.default_rng(step)
    for name, each in weights.items():
        weights[name] = each + np.asarray(draws.integers(1, 9, each.shape)).astype(each.dtype)


def train(root: Path, rank: int, order: dict[str, Any]) -> None:
    size, each, stop, options = (order[name] for name in ("size", "each", "stop", "options"))
    done = int((root / "done").read_text()) if (root / "done").exists() else 0
    weights = {name: value.copy() for name, value in START.items()}
    for step in range(done):
        updated(weights, step)
    ranks = Together(Files(root / "meetings", rank, size))
    capture = PartedCapture(rank, size, CUTS, each)
    taken: list[int] = []
    reported = 0
    with PartedRecorder(
        root / "run", capture, ranks, SCHEDULE, resume_from=done, **options
    ) as recorder:
        for step in range(done, stop):
            updated(weights, step)
            if recorder.step(weights):
                taken.append(step + 1)
            durable = recorder.statistics.durable
            if not rank and durable > reported:
                with (root / "report").open("a") as file:
                    file.write("".join(f"{each}\n" for each in taken[reported:durable]))
                reported = durable
            if step % 5 == 4:
                recorder.wait()
                ranks.told(lambda: None)  # the others' parts are there, and so is the index
                if not rank:
                    (root / "done.tmp").write_text(str(recorder.updates))
                    (root / "done.tmp").replace(root / "done")


def ended(children: list[int], order: dict[str, Any]) -> list[int]:
    """Kill the children as the order says; their exit codes."""
    codes: dict[int, int] = {}

    def wait(child: int) -> None:
        codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    if order["at"] is not None:
        wait(children[order["rank"]])
        if codes[children[order["rank"]]]:
            time.sleep(0.02)  # in which the others write theirs
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
    began = time.monotonic()
    delays = zip(order["delays"] or [], children, strict=False)
    for delay, child in sorted(delays):
        time.sleep(max(0.0, began + delay - time.monotonic()))
        os.kill(child, signal.SIGKILL)  # it has not been waited for: it is still ours
    for child in children:
        if child not in codes:
            wait(child)
    return [codes[child] for child in children]


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        root = Path(order["root"])
        shutil.rmtree(root / "meetings", ignore_errors=True)
        (root / "meetings").mkdir(parents=True)
        children = []
        for rank in range(order["size"]):
            child = os.fork()
            if not child:
                if order["at"] is not None and rank == order["rank"]:
                    kill_at(order["at"])
                train(root, rank, order)
                sys.exit(0)
            children.append(child)
        sys.stdout.write(json.dumps(ended(children, order)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
