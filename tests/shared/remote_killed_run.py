"""Records at a URL in child processes, which kill themselves where they are told to.

    python remote_killed_run.py

Each line of the input is a JSON object: `root`, a folder; `cache`, the name of another in it; `at`,
the call of the store's before which the child kills itself, or null; `options` of the recorder.
What it was putting there then is there by half. Each line of the output is the child's exit code,
and with a null the calls that it made. The child goes on from the newest snapshot but the last,
records at faulty://root/run, and appends to root/report each step whose snapshot is durable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from tests.shared.faulty import FaultyFileSystem, register
from tests.shared.recording import ArrayRecorder, filled

SCHEDULE = ca.CyclicCosine(0.1, total_steps=4, num_cycles=4)


def kill_at(number: int) -> None:
    """End this process before it asks the store for the so-manieth time."""
    real = FaultyFileSystem.do

    def do(method: str, call: Any, at: Any, *arguments: Any, **options: Any) -> Any:
        if len(FaultyFileSystem.calls) == number:
            if method == "put_file":
                path, there = map(Path, arguments)
                there.write_bytes(path.read_bytes()[:-100])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(method, call, at, *arguments, **options)

    FaultyFileSystem.do = staticmethod(do)  # type: ignore[method-assign, assignment]


def train(root: Path, cache: str, options: dict[str, Any]) -> None:
    store = SnapshotStore(f"faulty://{root}/run", cache=root / cache)
    root.mkdir(exist_ok=True)
    report = os.open(root / "report", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(snapshot: Snapshot) -> None:
        os.write(report, f"{snapshot.step}\n".encode())

    # The last is taken in any case, and with it what retention had yet to delete.
    done = min(max((each.step for each in store.list()), default=0), 3)
    with ArrayRecorder(store, SCHEDULE, resume_from=done, on_durable=say, **options) as recorder:
        for step in range(done, 4):
            recorder.step(filled(step), {"loss": float(step != 1)})


def main() -> None:
    register()
    for line in sys.stdin:
        order = json.loads(line)
        calls, told = os.pipe()
        child = os.fork()
        if not child:
            if order["at"] is not None:
                kill_at(order["at"])
            train(Path(order["root"]), order["cache"], order["options"])
            os.write(told, f"{len(FaultyFileSystem.calls)}".encode())
            os._exit(0)
        os.close(told)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps([code, os.read(calls, 100).decode()]) + "\n")
        sys.stdout.flush()
        os.close(calls)


if __name__ == "__main__":
    main()
