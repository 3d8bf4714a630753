"""Runs of two processes that record in parts, of which one is killed; started by tests.

`python -m tests.shared.torch_parts_killed_run FOLDER KILLS SEED`. The runs of one line go on from
each other, as a scheduler restarts them; each is forked from this process, which has imported
everything. The kills come at random instants of the training, of either process. Printed is a JSON
object: what came of each kill, and what was found wrong.
"""

from __future__ import annotations

import faulthandler
import hashlib
import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore, assembly
from cosanneal.snapshots.options import RecorderOptions

UPDATES = 40
SCHEDULE = ca.CyclicCosine(0.1, total_steps=UPDATES, num_cycles=20)
WIDTH = int(os.environ.get("WIDTH", "301"))  # which two processes part unevenly
WORLD = 2
WAITS = 2.0  # seconds that rank 0 waits for the parts of others, in place of ten minutes
ENDS = 20.0  # seconds within which the other process must have ended


def train(root: Path, rank: int, attempt: int) -> None:
    """Go on from the checkpoint, and report each snapshot that is durable."""
    assembly.PARTS_SECONDS = WAITS  # type: ignore[misc]
    torch.set_num_threads(1)
    met = f"file://{root}/met-{attempt}"
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    newest = newest_checkpoint(root)
    if newest is not None:
        saved = torch.load(newest / f"{rank}.pt", weights_only=False)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    report = os.open(root / "report", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def durable(snapshot: Any) -> None:
        os.write(report, f"{attempt} {snapshot.step}\n".encode())

    options: RecorderOptions = {"sharded": True, "max_pending": 2, "on_durable": durable}
    if newest is None:  # it starts over
        options["resume_from"] = 0
    with SnapshotRecorder(root / "run", model, scheduler, **options) as recorder:
        (root / f"began-{attempt}-{rank}").touch()
        for update in range(scheduler.last_epoch, UPDATES):
            generator = torch.Generator().manual_seed(update)
            x = torch.randn(4, WIDTH, generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
            scheduler.step()
            if update % 5 == 4:
                recorder.wait()
                dist.barrier()  # rank 0 has waited, so that the snapshot is there
                place = root / f"checkpoint-{update:04}"
                place.mkdir(exist_ok=True)
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state["scheduler"] = scheduler.state_dict()
                temporary = place / f"{rank}.tmp"
                torch.save(state, temporary)
                temporary.replace(place / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def newest_checkpoint(root: Path) -> Path | None:
    """The newest that all processes have saved."""
    whole = [
        each
        for each in sorted(root.glob("checkpoint-*"))
        if all((each / f"{rank}.pt").exists() for rank in range(WORLD))
    ]
    return whole[-1] if whole else None


def start(root: Path, attempt: int) -> list[int]:
    """The processes of a run, by rank."""
    found = []
    for rank in range(WORLD):
        child = os.fork()
        if not child:
            code = 1
            try:
                errors = os.open(root / f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(errors, 2)
                faulthandler.register(signal.SIGUSR1, errors)
                train(root, rank, attempt)
                code = 0
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(code)
        found.append(child)
    return found


def ended(children: list[int], within: float) -> list[int | None]:
    """The exit codes; None for one that had not ended in time, and is killed."""
    codes: list[int | None] = []
    stop = time.monotonic() + within
    for child in children:
        code = None
        while code is None:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > stop:
                os.kill(child, signal.SIGUSR1)  # it says where it is
                time.sleep(0.5)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            else:
                time.sleep(0.01)
        codes.append(code)
    return codes


def digests(root: Path) -> dict[int, str]:
    """Of the weights of each snapshot, by its step; each is verified."""
    found = {}
    for snapshot in SnapshotStore(root / "run").list():
        snapshot.verify()
        digest = hashlib.sha256()
        for name, value in sorted(snapshot.load().items()):
            digest.update(name.encode() + value.tobytes())
        found[snapshot.step] = digest.hexdigest()
    return found


def look(root: Path, attempt: int, kept: int, expected: dict[int, str]) -> list[str]:
    """What is wrong with a folder: what was durable must be there, and right.

    Args:
        root: of the run.
        attempt: the one that ended.
        kept: the updates at the checkpoint from which it went on. Later snapshots, of earlier
            attempts, are replaced from its own first on.
        expected: the digests of a run without a kill.
    """
    reported = [
        tuple(map(int, each.split())) for each in (root / "report").read_text().split("\n")[:-1]
    ]
    own = {step for of, step in reported if of == attempt}
    must = own | {step for _, step in reported if not own or step <= kept}
    found = digests(root)
    wrong = [f"{step}: the weights are others" for step in found if found[step] != expected[step]]
    return wrong + [f"{step}: it was durable, and is gone" for step in sorted(must - found.keys())]


def waited(root: Path, attempt: int) -> None:
    """Return when the training has begun."""
    stop = time.monotonic() + 120
    while not all((root / f"began-{attempt}-{rank}").exists() for rank in range(WORLD)):
        assert time.monotonic() < stop, (root / "said-0").read_text()
        time.sleep(0.002)


def kill_one(root: Path, attempt: int, draw: random.Random, whole: float) -> dict[str, Any]:
    """Start a run, kill one of its processes, and say what came of it.

    Args:
        root: of the run.
        attempt: how many there were before.
        draw: draws which process, and when.
        whole: the seconds of a training from its begin to its end.
    """
    checkpoint = newest_checkpoint(root)
    kept = 0 if checkpoint is None else int(checkpoint.name[-4:]) + 1
    children = start(root, attempt)
    waited(root, attempt)
    rank, left = draw.randrange(WORLD), whole * (1 - kept / UPDATES)
    delay = draw.uniform(0.0, left)
    time.sleep(delay)
    os.kill(children[rank], signal.SIGKILL)
    began = time.monotonic()
    codes = ended(children, ENDS)
    return {
        "rank": rank,
        "delay": delay,
        "kept": kept,
        "killed": codes[rank] == -signal.SIGKILL,
        "codes": codes,
        "ended": time.monotonic() - began,
        "snapshots": len(SnapshotStore(root / "run").list()),
        "parts": len([*(root / "run").glob("*-part-*")]),
    }


def finish(root: Path, attempt: int, expected: dict[int, str]) -> list[str]:
    """Run to the end, and say what is then wrong."""
    codes = ended(start(root, attempt), 60)
    if codes != [0, 0]:
        return [f"the last run ended with {codes}: {(root / 'said-0').read_text()}"]
    parts = len([*(root / "run").glob("*-part-*")])
    wrong = [] if parts == WORLD * len(expected) else [f"{parts} files of parts in the end"]
    return wrong if digests(root) == expected else [*wrong, "other snapshots than without a kill"]


def main() -> None:
    """Kill so many, and say what came of it."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    roots = (folder / f"line-{line}" for line in itertools.count())
    root = next(roots)
    root.mkdir()
    children = start(root, 0)
    waited(root, 0)
    began = time.monotonic()
    assert ended(children, 60) == [0, 0], (root / "said-0").read_text()
    whole = time.monotonic() - began
    expected = digests(root)
    assert len(expected) == 20
    events: list[dict[str, Any]] = []
    wrong: list[str] = []
    attempt, snapshots = 0, len(expected)
    while len(events) < kills:
        if snapshots > 14:  # the next line
            root = next(roots)
            root.mkdir()
            (root / "report").touch()
        attempt += 1
        event = kill_one(root, attempt, draw, whole)
        found = look(root, attempt, event["kept"], expected)
        if event["codes"][1 - event["rank"]] is None:
            said = root / f"said-{1 - event['rank']}"
            found.append(f"the other process hung: {said.read_text()}")
        snapshots = event["snapshots"]
        if snapshots > 14 or len(events) == kills - 1:
            attempt += 1
            found += finish(root, attempt, expected)
        wrong += [f"{event}: {each}" for each in found]
        if event["killed"]:
            events.append(event)
    sys.stdout.write(json.dumps({"wrong": wrong, "events": events}))


if __name__ == "__main__":
    main()
