"""A process that records is killed at random instants: what it reported durable is whole."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosanneal.snapshots import SnapshotStore

CHILD = """
import sys
import numpy as np
import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.file import TensorBytes

store = SnapshotStore(sys.argv[1])
store.prepare()
schedule = ca.CyclicCosine(0.1, cycle_steps=10)
data = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
tensors = {"w": TensorBytes(dtype="float32", shape=data.shape, data=memoryview(data).cast("B"))}
print("ready", flush=True)
for cycle in range(10_000):
    store.write(tensors, cycle=cycle, step=10 * (cycle + 1), rate=0.0, schedule=schedule,
                framework="numpy", versions={})
    print(10 * (cycle + 1), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not there")
def test_what_was_reported_durable_survives_a_kill(tmp_path: Path) -> None:
    delays = random.Random(0)
    interrupted = 0
    for kill in range(25):
        folder = tmp_path / str(kill)
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True
        ) as child:
            if child.stdout is None:
                raise RuntimeError("no pipe")
            assert child.stdout.readline() == "ready\n"
            time.sleep(delays.uniform(0.0, 0.06))
            child.kill()
            reported = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        store = SnapshotStore(folder)
        listed = [snapshot.step for snapshot in store.list()]
        # One more may be durable than the process had time to report.
        assert listed[: len(reported)] == reported
        assert len(listed) <= len(reported) + 1
        assert store.verify() == len(listed)
        interrupted += len(list(folder.iterdir())) > len(listed)
        store.prepare()
        assert len(list(folder.iterdir())) == len(listed)
    assert interrupted > 0, "no kill fell into a write"
