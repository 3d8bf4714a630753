"""Recorders in several processes, which torch.distributed brings together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.shared.processes import started
from tests.shared.ranked import RUN, case, check_predicted, check_recorded, launch, wrong

ENGINES = ("ddp", "fsdp2", "tensor")


def killed(cases: list[dict[str, Any]], processes: int = 2) -> list[int]:
    """The exit codes of processes that run cases in which one is killed."""
    with started([*RUN, json.dumps(cases)], processes) as running:
        for each in running:
            each.communicate(timeout=240)
    return [each.returncode for each in running]


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
        *(case(place, how, how, keep=True, predict=True) for how in ENGINES),
        case(place, "file", "ddp"),
        case(place, "metrics", "fsdp2", bad_metrics=1),
        case(place, "disk", "ddp", full_disk=True),
    ]
    launch(together)
    one = [case(place, f"one-{how}", how, keep=True, predict=True) for how in ("ddp", "fsdp2")]
    launch(one, processes=1, group=True)
    return place


@pytest.mark.parametrize("how", ENGINES)
def test_every_engine_records_whole_weights_once(place: Path, how: str) -> None:
    check_recorded(place, how)


@pytest.mark.parametrize("how", ENGINES)
def test_an_ensemble_of_the_model_predicts_in_every_process(place: Path, how: str) -> None:
    check_predicted(place, how)


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_a_group_of_one_process_records_and_predicts_too(place: Path, how: str) -> None:
    check_recorded(place, f"one-{how}", processes=1)
    check_predicted(place, f"one-{how}", processes=1)


@pytest.mark.parametrize("how", ["ddp", "fsdp2", "one-ddp", "one-fsdp2"])
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
