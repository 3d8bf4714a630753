"""Recorders of which each process writes its own part, in processes of torch.distributed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict_loader import load

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.ensemble import average_snapshots
from cosanneal.snapshots import SnapshotStore
from tests.shared.processes import outputs
from tests.shared.ranked import case, check_predicted, check_recorded, launch, wrong
from tests.shared.ranked_run import held_out, plain_model

ENGINES = ("ddp", "fsdp2", "tensor")


def loaded(place: Path, name: str) -> dict[int, dict[str, Any]]:
    """The weights of each snapshot, by its step."""
    snapshots = SnapshotStore(place / name / "run").list()
    return {each.step: each.load(framework="pt") for each in snapshots}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what two processes ran."""
    place = tmp_path_factory.mktemp("parts")
    told = {"sharded": True}
    cases = [case(place, how, how, keep=True, predict=True, **told) for how in ENGINES]
    launch([*cases, case(place, "disk", "fsdp2", full_disk=True, **told)])
    return place


@pytest.mark.parametrize("how", ENGINES)
def test_joined_parts_are_the_weights_that_torch_saves_whole(place: Path, how: str) -> None:
    check_recorded(place, how)
    parts = sorted((place / how / "run").glob("*-part-*"))
    assert len(parts) == 3 * 2  # of two processes
    # Neither has them all.
    whole = sum(each.nbytes for each in loaded(place, how)[4].values())
    assert all(each.stat().st_size < whole + 1500 for each in parts)


@pytest.mark.parametrize("how", ENGINES)
def test_an_ensemble_of_parts_predicts_with_the_model_in_shards_or_whole(
    place: Path, how: str
) -> None:
    check_predicted(place, how)


def test_files_in_parts_are_averaged_as_whole_ones(place: Path, tmp_path: Path) -> None:
    snapshots = SnapshotStore(place / "fsdp2" / "run").list()
    average_snapshots(snapshots, tmp_path / "mean.safetensors")
    found = load_file(tmp_path / "mean.safetensors")
    members = loaded(place, "fsdp2").values()
    for name, value in found.items():
        mean = torch.stack([each[name].double() for each in members]).mean(0)
        assert torch.equal(value, mean.to(value.dtype))
    model = plain_model()
    x = held_out()
    averaged = SnapshotEnsemble(model, place / "fsdp2" / "run", outputs="logits")
    one = averaged.average_weights(x, x[:, 0].gt(0).long())
    assert all(torch.equal(found[name], value) for name, value in one.weights.items())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("how", ENGINES)
def test_torchs_own_reader_reads_the_parts(place: Path, how: str, tmp_path: Path) -> None:
    storage = pytest.importorskip("torch.distributed.checkpoint.hf_storage")  # of torch 2.8
    last = loaded(place, how)[12]
    for part in (place / how / "run").glob("*step-0000000012-part-*"):
        os.link(part, tmp_path / part.name)
    state = {name: torch.zeros_like(value) for name, value in last.items()}
    load(state, storage_reader=storage.HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert all(torch.equal(state[name], value) for name, value in last.items())


def test_an_error_of_writing_is_raised_in_every_process(place: Path) -> None:
    first, second = wrong(place, "disk")
    assert all("the disk is full" in each for each in first + second)
    assert len(first) == len(second) >= 2
    assert not [*(place / "disk" / "run").glob("*.safetensors")]


def test_no_kill_takes_what_was_durable(tmp_path: Path) -> None:
    """At random instants, of either process; nobody hangs, and the runs end as without."""
    told = ["--kills", "2", "--folder", str(tmp_path)]
    (said,) = outputs(["-m", "tests.kills", "fsdp2-sharded", *told], 1)
    found = re.search(
        r"^\| fsdp2-sharded \| 2 \| 2 \| (\d+) \| 0 \|.*\| equal \|$", said, re.MULTILINE
    )
    assert found, said
