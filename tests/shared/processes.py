"""Starts the processes that torch.distributed brings together, as a launcher does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    processes: int,
    *,
    cwd: Path = ROOT,
    group: bool | None = None,
    **environment: str,
) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of this Python, by rank; those that still run are killed at the end.

    One alone is of no group, unless `group` says so.
    """
    group = processes > 1 if group is None else group
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    common = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    if group:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    running = []
    try:
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}
            running.append(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    env=os.environ | common | own,
                    cwd=cwd,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield running
    finally:
        for each in running:
            each.kill()
            each.communicate()


def outputs(
    arguments: Sequence[str],
    processes: int,
    *,
    cwd: Path = ROOT,
    group: bool | None = None,
    **environment: str,
) -> list[str]:
    """What each of them prints, once all have ended well."""
    with started(arguments, processes, cwd=cwd, group=group, **environment) as running:
        said = [each.communicate(timeout=240) for each in running]
    assert [each.returncode for each in running] == [0] * processes, said
    return [printed for printed, _ in said]
