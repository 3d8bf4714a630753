"""Trains and records in child processes, and kills them when told to.

    python killed_run.py

Each line of the input is a JSON object: `root`, a folder; `delay`, the seconds
after which the child is killed, or null; `at`, the call of the file system before
which it kills itself, or null; `stop`, the updates after which it ends; `schedule`, the
run's description, or null for the usual one; `options` of the recorder. Each line of
the output is the child's exit code, which is -9 where it
was killed. A child is forked from this process, which has imported everything, so that it costs
milliseconds. It goes on from the checkpoint in `root`, records into `root/run`,
and appends to `root/report` each step whose snapshot the recorder calls durable.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import cosanneal as ca
from tests.shared.recording import ArrayRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=60, num_cycles=12)
CHECKPOINT_STEPS = (5, 7)  # now and then right after a snapshot, and in mid-cycle


def kill_at(number: int) -> None:
    """End this process before it syncs, renames or deletes for the so-manieth time."""
    calls = itertools.count()

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    os.fsync = counted(os.fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))


def train(root: Path, stop: int, schedule: ca.Schedule, options: dict[str, Any]) -> None:
    checkpoint = root / "checkpoint.npz"
    done = 0
    weights = {f"block/{i}": np.zeros((64, 50 * i + 1), np.float32) for i in range(12)}
    if checkpoint.exists():
        with np.load(checkpoint) as file:
            done = int(file["done"])
            weights = {name: file[name] for name in weights}
    report = os.open(root / "report", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    taken: list[int] = []
    reported = 0
    with ArrayRecorder(root / "run", schedule, resume_from=done, **options) as recorder:
        for step in range(done, stop):
            noise = np.random.default_rng(step)
            for each in weights.values():
                each *= 0.9
                each += noise.standard_normal(each.shape, np.float32)
            loss = float(noise.integers(4))
            if recorder.step(weights, {"loss": loss}):
                taken.append(step + 1)
            durable = recorder.statistics.durable
            if durable > reported:
                os.write(report, "".join(f"{each}\n" for each in taken[reported:durable]).encode())
                reported = durable
            if any(recorder.updates % steps == 0 for steps in CHECKPOINT_STEPS):
                recorder.wait()
                temporary = root / "checkpoint.tmp.npz"
                np.savez(temporary, done=recorder.updates, **weights)  # type: ignore[arg-type]
                temporary.replace(checkpoint)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            if order["at"] is not None:
                kill_at(order["at"])
            given = order["schedule"]
            schedule = SCHEDULE if given is None else ca.Schedule.from_dict(given)
            train(Path(order["root"]), order["stop"], schedule, order["options"])
            sys.exit(0)
        if order["delay"] is not None:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)  # it has not been waited for: it is still ours
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
