"""DeepSpeed's engines on CPUs, in one process and in two: recorded as plain modules are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cosanneal.adapters.torch import SnapshotEnsemble
from cosanneal.snapshots import SnapshotStore
from tests.shared.deepspeed_run import SCHEDULE, alone, network
from tests.shared.processes import ROOT, outputs
from tests.shared.ranked_run import held_out

LOOPS = ("stage-0", "stage-1", "stage-2", "stage-3", "whole", "groups")
ENGINES = ("engine-1", "engine-3")


@pytest.fixture(scope="module", params=[1, 2])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what so many processes have run, and of what one did without an engine."""
    work = tmp_path_factory.mktemp("deepspeed")
    run = ["-m", "tests.shared.deepspeed_run", str(work)]
    # What it compiles is kept apart: the lock of a process that was killed would be waited for.
    compiled = str(tmp_path_factory.getbasetemp() / "extensions")
    kept = {"TORCH_EXTENSIONS_DIR": compiled}
    outputs(run, request.param, cwd=ROOT, group=True, DS_ACCELERATOR="cpu", **kept)
    alone(work / "alone")
    alone(work / "alone-2", passes=2)
    return work


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.glob("*.safetensors"))}


def found(work: Path) -> list[dict[str, Any]]:
    return [json.loads(each.read_text()) for each in sorted(work.glob("found-*.json"))]


@pytest.mark.parametrize("name", LOOPS)
def test_snapshots_are_byte_for_byte_those_of_a_plain_run(work: Path, name: str) -> None:
    assert files(work / name) == files(work / "alone")
    assert len(files(work / name)) == 3


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_steps_the_scheduler_records_too(work: Path, name: str) -> None:
    assert files(work / name) == files(work / "alone-2")
    assert len(files(work / name)) == 3


def test_a_part_of_what_is_in_shards_is_recorded(work: Path) -> None:
    parts, whole = (SnapshotStore(work / name).list() for name in ("part", "alone"))
    for part, each in zip(parts, whole, strict=True):
        weights, all_of_them = part.load(framework="pt"), each.load(framework="pt")
        assert all_of_them.keys() - weights.keys() == {"4.weight", "4.bias"}
        assert all(torch.equal(value, all_of_them[key]) for key, value in weights.items())


def test_ensembles_predict_with_engines_and_with_plain_models(work: Path) -> None:
    for name in (*LOOPS, "part"):
        expected = SnapshotEnsemble(network(), work / "alone", outputs="logits").predict(held_out())
        for each in sorted(work.glob(f"{name}-predicted-*.pt")):
            torch.testing.assert_close(torch.load(each, weights_only=True), expected)


def test_nothing_is_warned_of(work: Path) -> None:
    for each in found(work):
        assert {name: said for name, said in each["said"].items() if said} == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ensemble", r"EnsembleError: .*'0.weight', a shard.*a function that builds one"),
        ("pipeline", r"SnapshotError: .*ZeRO alone.*Received: a pipeline's engine"),
        ("experts", r"SnapshotError: .*Received: an engine with experts"),
        ("schedule", r"SnapshotError: .*`schedule` must be the CyclicCosineLR of the engine's opt"),
        ("tensor", r"SnapshotError: .*Received: an engine with tensor parallelism"),
    ],
)
def test_what_is_no_whole_model_is_refused(work: Path, name: str, message: str) -> None:
    for each in found(work):
        assert re.search(f"^{message}", each["refused"][name])


def test_rates_are_those_of_the_schedule(work: Path) -> None:
    for name in (*LOOPS, *ENGINES):
        for snapshot in SnapshotStore(work / name).list():
            assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_run_of_accelerate_stops_and_goes_on_byte_for_byte(tmp_path: Path, stage: int) -> None:
    compiled = str(tmp_path.parent / "extensions")
    kept: dict[str, Any] = {"TORCH_EXTENSIONS_DIR": compiled, "DS_ACCELERATOR": "cpu"}
    kept["ACCELERATE_USE_DEEPSPEED"] = "true"
    for stop in (6, 12):
        run = ["-m", "tests.shared.deepspeed_accelerate", str(tmp_path), str(stage), str(stop)]
        outputs(run, 2, cwd=ROOT, **kept)
    alone(tmp_path / "alone", passes=2)
    assert files(tmp_path / "run") == files(tmp_path / "alone")
    assert len(files(tmp_path / "run")) == 3
