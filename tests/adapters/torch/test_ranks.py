"""Recorders in several processes, which torch.distributed brings together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cosanneal.snapshots import SnapshotStore
from tests.shared.processes import outputs, started

ENGINES = ("ddp", "fsdp2", "tensor")


def launch(cases: list[dict[str, Any]], processes: int = 2) -> None:
    """Have processes run the cases, which end well."""
    outputs(["-m", "tests.shared.ranked_run", json.dumps(cases)], processes)


def killed(cases: list[dict[str, Any]], processes: int = 2) -> list[int]:
    """The exit codes of processes that run cases in which one is killed."""
    with started(["-m", "tests.shared.ranked_run", json.dumps(cases)], processes) as running:
        for each in running:
            each.communicate(timeout=240)
    return [each.returncode for each in running]


def case(place: Path, name: str, how: str, **options: Any) -> dict[str, Any]:
    work = place / name
    return {"how": how, "folder": str(work / "run"), "work": str(work), **options}


def files(place: Path, name: str) -> dict[str, bytes]:
    found = sorted((place / name / "run").glob("*.safetensors"))
    return {each.name: each.read_bytes() for each in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what was run: by one process, and by two."""
    place = tmp_path_factory.mktemp("ranks")
    launch([case(place, "alone", "alone")], processes=1)
    (place / "file").mkdir()
    (place / "file" / "run").touch()
    together = [
        *(case(place, how, how, keep=True) for how in ENGINES),
        case(place, "file", "ddp"),
        case(place, "metrics", "fsdp2", bad_metrics=1),
        case(place, "disk", "ddp", full_disk=True),
    ]
    launch(together)
    return place


def wrong(place: Path, name: str) -> list[list[str]]:
    return [json.loads((place / name / f"wrong-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("how", ENGINES)
def test_every_engine_records_whole_weights_once(place: Path, how: str) -> None:
    assert wrong(place, how) == [[], []]
    snapshots = SnapshotStore(place / how / "run").list()
    assert [each.step for each in snapshots] == [4, 8, 12]
    for snapshot in snapshots:
        snapshot.verify()
        own = torch.load(place / how / f"weights-{snapshot.step}.pt", weights_only=True)
        found = snapshot.load(framework="pt")
        plain = {name.removeprefix("module."): value for name, value in own.items()}
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_snapshots_are_byte_for_byte_those_of_one_process(place: Path, how: str) -> None:
    assert files(place, how) == files(place, "alone")


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


@pytest.mark.parametrize(("rank", "update"), [(0, 6), (1, 9)])
def test_a_run_whose_process_dies_goes_on(place: Path, rank: int, update: int) -> None:
    name = f"killed-{rank}"
    (place / name).mkdir()
    codes = killed([case(place, name, "ddp", kill=[rank, update])])
    assert codes[rank] == 9
    assert codes[1 - rank] != 0  # which does not wait for ever
    assert files(place, name)
    launch([case(place, name, "ddp", resume=True)])
    assert wrong(place, name) == [[], []]
    assert files(place, name) == files(place, "alone")
