"""Engines of numpy alone: one that is sound, and those with a fault that the driver must tell."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cosanneal as ca
from tests.kills.driver import Engine, begun, reporter
from tests.shared.recording import ArrayRecorder

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=20)


def met(rank: int) -> socket.socket:
    """What joins the two processes."""
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if rank == 0:
        with socket.create_server(place) as server:
            return server.accept()[0]
    while True:
        try:
            return socket.create_connection(place)
        except ConnectionRefusedError:
            time.sleep(0.002)


def train(fault: str, root: Path, rank: int, attempt: int) -> None:
    """Both processes go step by step; the first one records."""
    fault = "" if root.name == "whole" else fault
    if fault == "refuses" and attempt:
        raise RuntimeError("this engine does not go on")
    joined, checkpoint = met(rank), root / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    joined.sendall(b".")
    joined.recv(1)
    begun(root, rank, attempt, done)

    def each() -> None:
        try:
            joined.sendall(b".")
            if not joined.recv(1):
                raise ConnectionError("the other process is gone")
        except ConnectionError:
            time.sleep(60 if fault == "hangs" else 0)
            raise

    if rank == 0:
        record(fault, root, attempt, done, each)
    else:
        for _ in range(done, 20):
            each()


def record(fault: str, root: Path, attempt: int, done: int, each: Callable[[], None]) -> None:
    report = reporter(root, attempt)

    def durable(snapshot: Any) -> None:
        report(snapshot)
        if fault == "loses":
            snapshot.path.unlink()

    with ArrayRecorder(root / "run", SCHEDULE, resume_from=done, on_durable=durable) as recorder:
        for update in range(done, 20):
            each()
            time.sleep(0.005)
            value = update + (fault == "changes" and attempt > 0)
            recorder.step({"w": np.full(1000, value, np.float32)})
            if update % 5 == 4:
                recorder.wait()
                (root / "checkpoint.tmp").write_text(str(update + 1))
                (root / "checkpoint.tmp").replace(root / "checkpoint")
    if fault == "leaves":
        (root / "run" / "left").touch()


def plain(folder: Path) -> None:
    with ArrayRecorder(folder, SCHEDULE) as recorder:
        for update in range(20):
            recorder.step({"w": np.full(1000, update, np.float32)})


ENGINES = {
    fault: Engine(
        name=fault,
        processes=2,
        schedule=SCHEDULE,
        train=partial(train, fault),
        plain=plain,
        ends=1.0 if fault == "hangs" else 30.0,
    )
    for fault in ("sound", "loses", "changes", "hangs", "leaves", "refuses")
}
