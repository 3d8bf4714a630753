"""Recorders in several processes, which jax.distributed brings together."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cosanneal.snapshots import SnapshotStore
from tests.shared.processes import outputs, started

MODULE = ["-m", "tests.shared.jax_ranked_run"]
CHOSEN = ("w", "whole", "rows", "host", "number")
# Of jax.distributed's heartbeats, and what else an end takes.
TIMEOUT = 10 + 30
# Whether a process can name an array of which it has nothing.
HAS_ELSEWHERE = "dtype" in inspect.signature(jax.make_array_from_callback).parameters


def case(place: Path, name: str, **options: Any) -> dict[str, Any]:
    work = place / name
    return {"folder": str(work / "run"), "work": str(work), **options}


def files(place: Path, name: str) -> dict[str, bytes]:
    found = sorted((place / name / "run").glob("*.safetensors"))
    return {each.name: each.read_bytes() for each in found}


def wrong(place: Path, name: str) -> list[list[str]]:
    return [json.loads((place / name / f"wrong-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what was run: by one process, and by two; and what the two printed."""
    place = tmp_path_factory.mktemp("ranks")
    alone = [case(place, "alone"), case(place, "alone-part", which=CHOSEN)]
    alone.append(case(place, "alone-buffer", buffer=True))
    outputs([*MODULE, json.dumps(alone)], 1)
    (place / "file").mkdir()
    (place / "file" / "run").touch()
    together = [
        case(place, "together"),
        case(place, "part", which=CHOSEN),
        case(place, "buffer", buffer=True),
        case(place, "file"),
        case(place, "metrics", bad_metrics=1),
        case(place, "disk", full_disk=True),
        case(place, "deleted", deleted=1),
        case(place, "unlike", unlike=1),
        case(place, "elsewhere", elsewhere=HAS_ELSEWHERE),
    ]
    printed = outputs([*MODULE, json.dumps(together), str(place / "early")], 2)
    (place / "printed.json").write_text(json.dumps(printed))
    return place


def test_snapshots_are_byte_for_byte_those_of_one_process(place: Path) -> None:
    assert wrong(place, "together") == [[], []]
    assert files(place, "together") == files(place, "alone")
    snapshots = SnapshotStore(place / "together" / "run").list()
    assert [each.step for each in snapshots] == [4, 8, 12]
    w = np.arange(32.0).reshape(8, 4)
    for number in range(4):
        w = w / 2 + np.random.default_rng(number).integers(9, size=(8, 4)).sum(0)
    found = snapshots[0].load()
    np.testing.assert_array_equal(found["w"], w)
    rows = np.arange(12).reshape(4, 3) + 4
    np.testing.assert_array_equal(found["rows"].astype(float), rows)
    assert found["rows"].dtype == jnp.bfloat16
    assert {"keys", "key", "none", "flags", "host", "here", "near", "number"} <= found.keys()
    assert found["none"].shape == (0, 2)


def test_a_part_is_byte_for_byte_that_of_one_process(place: Path) -> None:
    assert wrong(place, "part") == [[], []]
    assert len(files(place, "part")) == 3
    assert files(place, "part") == files(place, "alone-part")
    rest = SnapshotStore(place / "part" / "run").list()[0].metadata["rest"]
    assert {"keys", "flags", "near"} <= rest.keys()


def test_a_buffer_is_recorded_byte_for_byte_as_by_one_process(place: Path) -> None:
    (own,), (other,) = wrong(place, "buffer")
    assert "a member at step 11, of which there is a snapshot of other params" in own
    assert other == f"{own} (in the process of rank 0)"
    assert len(files(place, "buffer")) == 3
    assert files(place, "buffer") == files(place, "alone-buffer")


def test_what_is_no_number_is_gathered_as_it_is(place: Path) -> None:
    for printed in json.loads((place / "printed.json").read_text()):
        assert "[true, true, true]" in printed


@pytest.mark.skipif(
    not hasattr(jax.distributed, "is_initialized"), reason="this jax cannot be asked"
)
def test_a_recorder_made_before_the_processes_is_refused(place: Path) -> None:
    for printed in json.loads((place / "printed.json").read_text()):
        assert "make it after jax.distributed.initialize(...)" in printed


def test_an_error_of_the_folder_is_raised_in_every_process(place: Path) -> None:
    (own,), (other,) = wrong(place, "file")
    assert "must be a folder that can be written to" in own
    assert other == f"{own} (in the process of rank 0)"


def test_an_error_of_one_process_is_raised_in_every_process(place: Path) -> None:
    """All three snapshots are lost, in both, and nobody waits for ever."""
    first, second = wrong(place, "metrics")
    assert second == [f"update {n}: ValueError: no metrics here" for n in (4, 8, 12)]
    assert [each.partition(": ")[2] for each in first] == [
        "SnapshotError: The process of rank 1 failed: ValueError: no metrics here"
    ] * 3
    assert not files(place, "metrics")


def test_an_error_of_writing_is_raised_in_every_process(place: Path) -> None:
    first, second = wrong(place, "disk")
    assert all("the disk is full" in each for each in first + second)
    assert len(first) == len(second) >= 2
    assert not files(place, "disk")


@pytest.mark.parametrize(
    ("name", "of", "text"),
    [
        ("deleted", 1, "'here', whose buffer was deleted or donated"),
        ("unlike", 1, "'more' of float32 and shape (4,) in parts, and in the first process 'none'"),
        pytest.param(
            *("elsewhere", 0, "lie in all of them. Received: 'there', which lies in some alone"),
            marks=pytest.mark.skipif(not HAS_ELSEWHERE, reason="this jax makes no such array"),
        ),
    ],
)
def test_params_that_cannot_be_gathered_are_refused_in_every_process(
    place: Path, name: str, of: int, text: str
) -> None:
    own, other = wrong(place, name)[:: 1 if of == 0 else -1]
    assert len(own) >= 3
    assert all(text in each for each in own)
    assert other == [f"{each} (in the process of rank {of})" for each in own]
    assert not files(place, name)


@pytest.mark.skipif(
    "heartbeat_timeout_seconds" not in inspect.signature(jax.distributed.initialize).parameters,
    reason="this jax takes minutes to hear of it",
)
def test_a_run_whose_process_dies_goes_on(place: Path) -> None:
    """Each of the two dies once, at some update; nobody waits longer than for a heartbeat."""
    kills = [[rank, random.randrange(3, 12)] for rank in range(2)]
    cases = [case(place, f"killed-{rank}", save=True) for rank in range(2)]
    for one, (rank, update) in zip(cases, kills, strict=True):
        arguments = [*MODULE, json.dumps([{**one, "kill": [rank, update]}])]
        with started(arguments, 2) as running:
            for each in running:
                each.communicate(timeout=TIMEOUT)
        codes = [each.returncode for each in running]
        assert codes[rank] == 9, kills
        assert codes[1 - rank] != 0, kills
    kept = [files(place, f"killed-{rank}") for rank in range(2)]
    outputs([*MODULE, json.dumps([{**one, "resume": True} for one in cases])], 2)
    for rank, (_, update) in enumerate(kills):
        assert wrong(place, f"killed-{rank}") == [[], []]
        # What was durable before the last checkpoint is there.
        assert len(kept[rank]) >= (update + 1) // 3 * 3 // 4, kills
        assert files(place, f"killed-{rank}") == files(place, "alone"), kills
