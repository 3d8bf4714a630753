"""Kills one process of a training run at random instants, and looks at what is left.

An engine trains in several processes, each of them started by the driver, and records into
`ROOT/run`. It runs once without a kill, which says what every snapshot must be. Then one process is
killed at a random instant, and all are started again, which go on from their newest checkpoint; and
so on, until the run is nearly over, and a last attempt finishes it. After each kill it is looked at

- whether all that was reported durable is there, verified, and what it is without a kill;
- whether the other processes ended by themselves, and how long that took;
- and after the last, whether the folder is the one without a kill, with nothing left over.
"""

from __future__ import annotations

import faulthandler
import hashlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore

BEGINS = 180.0  # seconds within which all processes of an attempt must have begun
FINISHES = 180.0  # seconds within which an attempt that nobody kills must have ended


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What is trained by, and how.

    Attributes:
        name: its own.
        processes: how many train.
        schedule: of so many updates as an attempt does at most; at each cycle's end there is a
            snapshot.
        train: goes on from the newest checkpoint in `root`, as the process of a `rank`, and to
            the end: `train(root, rank, attempt)`. It calls `begun` when all processes have met,
            before the recorder is made, and has `on_durable=reporter(root, attempt)`.
        plain: the same training in one process without an engine, recorded into a folder.
        tolerance: how far a weight may be from that of `plain`; at 0 all are the same bytes.
        forks: whether a process is forked from this, which has imported everything; else each
            is a Python of its own.
        parted: whether a snapshot is several files, whose names differ from run to run.
        ends: the seconds within which the others must have ended when one was killed.
    """

    name: str
    processes: int
    schedule: ca.Schedule
    train: Callable[[Path, int, int], None]
    plain: Callable[[Path], None] | None = None
    tolerance: float = 0.0
    forks: bool = True
    parted: bool = False
    ends: float = 30.0


@dataclass
class Found:
    """What came of an engine's kills.

    Attributes:
        kills: how many there were; those that came when all was over do not count.
        snapshots: how often a snapshot was looked at after a kill.
        wrong: what was found wrong, in words.
        waits: the seconds until the last of the others had ended, for each kill.
        codes: how the others ended: their exit codes.
        beside: how the snapshots are to those of one plain process, in words.
    """

    kills: int = 0
    snapshots: int = 0
    wrong: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    codes: Counter[int | None] = field(default_factory=Counter)
    beside: str = "-"


@dataclass(frozen=True)
class Whole:
    """A run without a kill: its snapshots, its files, and the seconds that things took."""

    digests: dict[int, str]
    files: list[str]
    before: float  # from the begin to the first update
    update: float


@dataclass(frozen=True)
class Child:
    """A process that was started, and how to ask for its exit code."""

    pid: int
    code: Callable[[], int | None]


# What an engine calls.


def begun(root: Path, rank: int, attempt: int, updates: int) -> None:
    """A process met the others, and goes on after so many updates."""
    place = root / f"begun-{attempt}-{rank}"
    temporary = place.with_suffix(".tmp")
    temporary.write_text(f"{updates} {time.monotonic()}")
    temporary.replace(place)


def reporter(root: Path, attempt: int) -> Callable[[Any], None]:
    """An `on_durable` that reports each snapshot: what was written is there after a kill."""
    report = os.open(root / "report", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def durable(snapshot: Any) -> None:
        os.write(report, f"{attempt} {snapshot.step} {time.monotonic()}\n".encode())

    return durable


# How processes are started, and how they end.


def train(engine: Engine, root: Path, rank: int, attempt: int, port: str) -> None:
    """One process, as a launcher would have it."""
    errors = os.open(root / f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    faulthandler.register(signal.SIGUSR1, errors)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(engine.processes),
        "LOCAL_WORLD_SIZE": str(engine.processes),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    engine.train(root, rank, attempt)


def start(engine: Engine, root: Path, attempt: int) -> list[Child]:
    """The processes of an attempt, by rank."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    children = []
    for rank in range(engine.processes):
        if engine.forks:
            own = (engine, root, rank, attempt, port)
            forked = multiprocessing.get_context("fork").Process(target=train, args=own)
            forked.start()
            assert forked.pid is not None
            children.append(Child(forked.pid, lambda forked=forked: forked.exitcode))  # type: ignore[misc]
        else:
            told = ["--train", str(root), str(rank), str(attempt), port]
            command = [sys.executable, "-m", "tests.kills", engine.name, *told]
            spawned = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            children.append(Child(spawned.pid, spawned.poll))
    return children


def ended(children: list[Child], within: float) -> list[tuple[int | None, float]]:
    """The exit codes and the seconds until then; None for one that is killed as it is late."""
    began = time.monotonic()
    found: list[tuple[int | None, float] | None] = [None] * len(children)
    while None in found and time.monotonic() < began + within:
        for rank, child in enumerate(children):
            if found[rank] is None and (code := child.code()) is not None:
                found[rank] = code, time.monotonic() - began
        time.sleep(0.005)
    late = [child for child, each in zip(children, found, strict=True) if each is None]
    for child in late:
        os.kill(child.pid, signal.SIGUSR1)  # it says where it is
    time.sleep(1.0 if late else 0.0)
    for child in late:
        os.kill(child.pid, signal.SIGKILL)
        while child.code() is None:
            time.sleep(0.005)
    return [(None, within) if each is None else each for each in found]


def all_begun(engine: Engine, root: Path, attempt: int, children: list[Child]) -> bool:
    """Wait until all have begun; whether they do, and none of them ends or is late."""
    places = [root / f"begun-{attempt}-{rank}" for rank in range(engine.processes)]
    stop = time.monotonic() + BEGINS
    while not all(place.exists() for place in places):
        if time.monotonic() > stop or any(child.code() is not None for child in children):
            return False
        time.sleep(0.002)
    return True


def first_reported(root: Path, attempt: int, children: list[Child]) -> None:
    """Wait until an attempt has reported a snapshot, or one of its processes has ended."""
    while all(child.code() is None for child in children):
        if any(of == attempt for of, _, _ in reported(root)):
            return
        time.sleep(0.005)


def said(engine: Engine, root: Path) -> str:
    """The last words of all processes."""
    texts = [(root / f"said-{rank}").read_text() for rank in range(engine.processes)]
    return "".join(f"\n[{rank}] {text[-3000:].strip()}" for rank, text in enumerate(texts))


# What is looked at.


def digests(engine: Engine, root: Path) -> dict[int, str]:
    """Of each snapshot, by its step; each is verified.

    Of the whole file; of one in parts, whose bytes say which writing they are of, of the tensors.
    """
    found = {}
    for snapshot in SnapshotStore(root / "run").list():
        snapshot.verify()
        digest = hashlib.sha256()
        if engine.parted:
            digest.update(f"{snapshot.cycle} {snapshot.metadata['rate']!r}".encode())
            for name, value in sorted(snapshot.load().items()):
                digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        else:
            digest.update(snapshot.path.read_bytes())
        found[snapshot.step] = digest.hexdigest()
    return found


def files(root: Path) -> list[str]:
    """The names in the folder, without what tells one writing in parts from another."""
    names = (each.name for each in (root / "run").iterdir())
    return sorted(re.sub(r"(-part-\d+-of-\d+-)[0-9a-f]{8}", r"\1", name) for name in names)


def reported(root: Path) -> list[tuple[int, int, float]]:
    """The attempt, the step and the time of each snapshot that was reported durable."""
    path = root / "report"
    text = path.read_text() if path.exists() else ""
    rows = (each.split() for each in text.split("\n")[:-1])
    return [(int(attempt), int(step), float(at)) for attempt, step, at in rows]


def beside_plain(engine: Engine, folder: Path) -> tuple[str, list[str]]:
    """How the snapshots are to those of one plain process, and what is wrong with that."""
    if engine.plain is None:
        return "-", []
    place = folder / "plain" / "run"
    if engine.forks:  # so that this process, of which others are forked, has done nothing
        alone = multiprocessing.get_context("fork").Process(target=engine.plain, args=(place,))
        alone.start()
        alone.join()
        if alone.exitcode:
            return "others", ["one process alone failed"]
    else:
        engine.plain(place)
    own, other = (SnapshotStore(folder / each / "run").list() for each in ("whole", "plain"))
    if [each.step for each in own] != [each.step for each in other]:
        return "others", ["the snapshots are at other steps than those of one process"]
    most = 0.0
    for one, two in zip(own, other, strict=True):
        found, expected = one.load(), two.load()
        if found.keys() != expected.keys():
            return "others", [f"{one.step}: other tensors than those of one process"]
        for name, value in expected.items():
            if value.dtype != found[name].dtype or value.shape != found[name].shape:
                return "others", [f"{one.step}: {name} is of another kind than in one process"]
            if value.tobytes() != found[name].tobytes():
                apart = np.abs(value.astype(np.float64) - found[name].astype(np.float64))
                most = max(most, float(np.max(apart, initial=0.0)), np.finfo(np.float64).tiny)
    words = f"within {most:.1e}" if most else "equal"
    return words, [] if most <= engine.tolerance else [f"{words} of one process' weights"]


def durable(root: Path, attempt: int) -> set[int]:
    """The steps whose snapshots must be there once an attempt was killed.

    When an attempt has its first snapshot, those of earlier ones beyond the updates from which it
    went on are replaced.
    """
    rows, must = reported(root), set[int]()
    for number in range(attempt + 1):
        own = {step for of, step, _ in rows if of == number}
        if own:
            kept = int((root / f"begun-{number}-0").read_text().split()[0])
            must = {step for step in must if step <= kept} | own
    return must


def look(engine: Engine, root: Path, attempt: int, whole: Whole, got: Found) -> None:
    """See that what was reported durable is there, and that all that is there is right.

    Args:
        engine: that was killed.
        root: of its run.
        attempt: the one that was killed.
        whole: the run without a kill.
        got: what is found is added to it.
    """
    must = durable(root, attempt)
    try:
        found = digests(engine, root) if (root / "run").exists() else {}
    except Exception as error:
        got.wrong.append(f"{type(error).__name__}: {error}")
        return
    got.snapshots += len(found)
    for step in sorted(must | found.keys()):
        if step not in found:
            got.wrong.append(f"the snapshot of step {step} was durable, and is gone")
        elif found[step] != whole.digests.get(step):
            got.wrong.append(f"the snapshot of step {step} is another than without a kill")


# One engine's kills.


def unkilled(engine: Engine, root: Path) -> Whole:
    """Run without a kill.

    Raises:
        RuntimeError: it does not end well, or not with the snapshots that it should have.
    """
    root.mkdir(parents=True)
    children = start(engine, root, 0)
    codes = [code for code, _ in ended(children, BEGINS + FINISHES)]
    if codes != [0] * engine.processes:
        raise RuntimeError(f"{engine.name} ended with {codes}: {said(engine, root)}")
    found, steps = digests(engine, root), [each + 1 for each in engine.schedule.cycle_ends()]
    rows = reported(root)
    if [*found] != steps or [step for _, step, _ in rows] != steps:
        raise RuntimeError(f"{engine.name} has snapshots at {[*found]}, and should at {steps}")
    begins = max(float(each.read_text().split()[1]) for each in root.glob("begun-0-*"))
    update = (rows[-1][2] - rows[0][2]) / max(steps[-1] - steps[0], 1)
    before = max(rows[0][2] - begins - update * steps[0], 0.0)
    return Whole(found, files(root), before, update)


def kill_one(
    engine: Engine, root: Path, attempt: int, draw: random.Random, whole: Whole, got: Found
) -> bool | None:
    """Start an attempt, kill one of its processes, and look.

    Returns:
        Whether it was killed; None if it did not even begin.
    """
    children = start(engine, root, attempt)
    if not all_begun(engine, root, attempt, children):
        codes = [code for code, _ in ended(children, 10.0)]
        where = f"{engine.name}, {root.name}, attempt {attempt}"
        got.wrong.append(f"{where} did not begin, and ended with {codes}: {said(engine, root)}")
        return None
    kept = int((root / f"begun-{attempt}-0").read_text().split()[0])
    total = engine.schedule.total_steps
    assert total is not None
    rank = draw.randrange(engine.processes)
    delay, since = draw.uniform(0.0, whole.before), "it began"
    if draw.random() < 0.75:
        # The update's seconds are those of a quiet machine; and all is closed after the last.
        delay, since = draw.uniform(0.0, 1.2 * whole.update * (total - kept)), "its first snapshot"
        first_reported(root, attempt, children)
    time.sleep(delay)
    if children[rank].code() is None:
        os.kill(children[rank].pid, signal.SIGKILL)
    outcomes = ended(children, engine.ends)
    killed = outcomes[rank][0] == -signal.SIGKILL
    others = [each for other, each in enumerate(outcomes) if other != rank]
    before = len(got.wrong)
    look(engine, root, attempt, whole, got)
    if any(code is None for code, _ in others):
        got.wrong.append(
            f"another process went on for {engine.ends:g} seconds: {said(engine, root)}"
        )
    if not killed and any(code for code, _ in outcomes):
        got.wrong.append(f"it failed before it was killed: {outcomes} {said(engine, root)}")
    where = f"{engine.name}, {root.name}, attempt {attempt} from update {kept}"
    where += f", rank {rank} killed {delay:.3f} s after {since}"
    got.wrong[before:] = [f"{where}: {each}" for each in got.wrong[before:]]
    if killed:
        got.kills += 1
        got.waits += [seconds for _, seconds in others]
        got.codes.update(code for code, _ in others)
    return killed


def finish(engine: Engine, root: Path, attempt: int, whole: Whole, got: Found) -> None:
    """Run to the end, and see that all is there as without a kill, and nothing else."""
    codes = [code for code, _ in ended(start(engine, root, attempt), BEGINS + FINISHES)]
    where = f"{engine.name}, {root.name}, the last attempt"
    if codes != [0] * engine.processes:
        got.wrong.append(f"{where} ended with {codes}: {said(engine, root)}")
        return
    found = digests(engine, root)
    got.snapshots += len(found)
    if found != whole.digests:
        got.wrong.append(f"{where}: other snapshots than without a kill, {[*found]}")
    if files(root) != whole.files:
        apart = sorted({*files(root)} ^ {*whole.files})
        got.wrong.append(f"{where}: other files than without a kill, such as {apart[:9]}")


def kill(engine: Engine, folder: Path, kills: int, seed: int) -> Found:
    """Kill a process so many times.

    Args:
        engine: what is trained by.
        folder: for the runs; those that are right are removed.
        kills: how many.
        seed: draws which process is killed, and when.
    """
    draw, got = random.Random(seed), Found()
    try:
        whole = unkilled(engine, folder / "whole")
    except RuntimeError as error:
        got.wrong.append(str(error))
        return got
    got.beside, wrong = beside_plain(engine, folder)
    got.wrong += [f"{engine.name}: {each}" for each in wrong]
    line = 0
    # Where much is wrong, or no kill comes in time, more of it tells no more.
    while got.kills < kills and len(got.wrong) < kills and line < 4 * kills:
        root, attempt, wrong_before = folder / f"line-{line}", 0, len(got.wrong)
        root.mkdir()
        killed: bool | None = True
        while killed and got.kills < kills and 4 * _newest(root) < 3 * max(whole.digests):
            killed = kill_one(engine, root, attempt, draw, whole, got)
            attempt += 1
        if killed is not None:
            finish(engine, root, attempt, whole, got)
        if len(got.wrong) == wrong_before:
            shutil.rmtree(root)
        line += 1
    return got


def _newest(root: Path) -> int:
    """The updates at which the last attempt began."""
    begins = sorted(root.glob("begun-*-0"), key=lambda each: each.stat().st_mtime_ns)
    return int(begins[-1].read_text().split()[0]) if begins else 0


def row(engine: Engine, got: Found) -> str:
    """What came of it, as a line of a table; see `HEAD`."""
    waits = f"{max(got.waits):.1f} s" if got.waits else "-"
    cells = (engine.name, engine.processes, got.kills, got.snapshots, len(got.wrong), waits)
    return f"| {' | '.join(map(str, (*cells, got.beside)))} |"


HEAD = """\
| engine | processes | kills | snapshots | wrong | longest wait of the others | beside one process |
|---|---|---|---|---|---|---|"""
