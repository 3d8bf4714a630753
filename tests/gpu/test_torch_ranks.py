"""Recorders and ensembles in processes that NCCL brings together, each on a GPU of its own.

The runs and what is looked at are those of `tests/adapters/torch/test_ranks.py` and
`test_share.py`, which have them on CPUs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.shared.processes import outputs
from tests.shared.ranked import case, check_predicted, check_recorded, launch, wrong

pytestmark = pytest.mark.gpu

ENGINES = ("ddp", "fsdp2")
SHARED = ("dealt", "shuffled", "batches", "labels")


@pytest.fixture(scope="module")
def place(gpus: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what so many processes have run."""
    place = tmp_path_factory.mktemp("ranks")
    cases = [case(place, how, how, keep=True, predict=True) for how in ENGINES]
    cases.append(case(place, "metrics", "fsdp2", bad_metrics=gpus - 1))
    launch(cases, gpus, device="cuda", group=True)
    return place


@pytest.mark.parametrize("how", ENGINES)
def test_every_engine_records_whole_weights_once(place: Path, gpus: int, how: str) -> None:
    check_recorded(place, how, gpus)


@pytest.mark.parametrize("how", ENGINES)
def test_an_ensemble_predicts_in_every_process(place: Path, gpus: int, how: str) -> None:
    check_predicted(place, how, gpus)


def test_an_error_of_one_process_is_raised_in_every_process(place: Path, gpus: int) -> None:
    found = wrong(place, "metrics", gpus)
    assert [len(each) for each in found] == [3] * gpus  # of three snapshots, and nobody waits
    assert all("ValueError: no metrics here" in each for some in found for each in some)


def test_a_share_of_the_data_gives_what_all_of_it_gives(several_gpus: int, tmp_path: Path) -> None:
    outputs(["-m", "tests.shared.shared_run", str(tmp_path), "cuda"], several_gpus)
    found = [
        json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(several_gpus)
    ]
    assert len(found[0]["alone"][0]) == 11
    for each in found:
        for kind in SHARED:
            assert each[kind] == found[0]["alone"], kind
        assert each["regression"] == found[0]["regression alone"]
        assert "the disk is gone" in each["wrong"]["reading to fit"]
