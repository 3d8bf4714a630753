"""DeepSpeed's engines that stop and go on: from a checkpoint amid a cycle, and after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.deepspeed_resumed import CASES, network
from tests.shared.deepspeed_run import SCHEDULE
from tests.shared.processes import ROOT, outputs, started
from tests.shared.ranked_run import batch, held_out

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SHORT = [name for name in CASES if name[:4] in DTYPES]
RUN = ["-m", "tests.shared.deepspeed_resumed"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where it is run, and the environment: what DeepSpeed compiles is kept apart."""
    place = tmp_path_factory.mktemp("resumed")
    compiled = str(tmp_path_factory.getbasetemp() / "extensions")
    return place, {"TORCH_EXTENSIONS_DIR": compiled, "DS_ACCELERATOR": "cpu"}


@pytest.fixture(scope="module")
def work(place: tuple[Path, dict[str, Any]]) -> Path:
    """The folders of all cases, which two processes have run, and of a run without an engine."""
    work, environment = place
    names = list(CASES)
    for part in (names[::2], names[1::2]):
        outputs([*RUN, str(work), json.dumps(part)], 2, cwd=ROOT, **environment)
    return work


@pytest.fixture(scope="module")
def alone(place: tuple[Path, dict[str, Any]]) -> dict[str, bytes]:
    """The snapshots of the same run without an engine."""
    model = network()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with SnapshotRecorder(place[0] / "alone", model, scheduler):
        for update in range(12):
            x, y = batch(update)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
    return files(place[0] / "alone")


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_stopped_amid_a_cycle_goes_on_byte_for_byte(work: Path, name: str) -> None:
    assert files(work / name / "resumed") == files(work / name / "whole")
    assert [each.step for each in SnapshotStore(work / name / "whole").list()] == [4, 8, 12]


@pytest.mark.parametrize("name", [name for name in CASES if name not in SHORT])
def test_whole_weights_are_byte_for_byte_those_without_an_engine(
    work: Path, alone: dict[str, bytes], name: str
) -> None:
    assert files(work / name / "whole") == alone


@pytest.mark.parametrize("name", CASES)
def test_recorded_is_what_the_engine_saves_as_the_model(work: Path, name: str) -> None:
    expected = torch.load(work / name / "weights.pt", weights_only=True)
    found = SnapshotStore(work / name / "whole").list()[0].load(framework="pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert {value.dtype for value in found.values()} == {DTYPES.get(name[:4], torch.float32)}


@pytest.mark.parametrize("name", SHORT)
def test_an_ensemble_predicts_with_short_floats(work: Path, name: str) -> None:
    dtype = DTYPES[name[:4]]
    folder = work / name / "whole"
    ensemble = SnapshotEnsemble(lambda: network().to(dtype), folder, outputs="logits")
    model, each = network().to(dtype), []
    with torch.inference_mode():
        for snapshot in SnapshotStore(folder).list():
            model.load_state_dict(snapshot.load(framework="pt"))
            each.append(model(held_out().to(dtype)).double().softmax(-1))
    found = ensemble.predict(held_out().to(dtype)).double()
    # It is rounded once, to the members' own precision.
    rounding = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=0, atol=rounding)


@pytest.mark.parametrize("name", CASES)
def test_an_update_that_is_skipped_for_overflow_is_none(work: Path, name: str) -> None:
    """As many as were skipped, no more and no fewer updates; and each at the schedule's rate."""
    skipped = 3 if name.startswith("fp16") else 0
    for rank in range(2):
        told = json.loads((work / name / f"found-{rank}.json").read_text())
        assert told["skipped"] == [skipped, skipped]
    for snapshot in SnapshotStore(work / name / "whole").list():
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)


@pytest.mark.parametrize(("name", "rank", "update"), [("plain-1", 0, 5), ("plain-3", 1, 10)])
def test_a_run_whose_process_was_killed_goes_on_byte_for_byte(
    place: tuple[Path, dict[str, Any]], alone: dict[str, bytes], name: str, rank: int, update: int
) -> None:
    place_, environment = place
    work = place_ / "killed"
    work.mkdir(exist_ok=True)
    arguments = [*RUN, str(work), json.dumps([[name, rank, update]])]
    with started(arguments, 2, **environment) as running:
        for each in running:
            each.communicate(timeout=120)  # the other one does not wait for ever
    codes = [each.returncode for each in running]
    assert codes[rank] == -9
    assert codes[1 - rank] not in (0, -9)
    before = files(work / name / "killed")
    assert before
    outputs([*RUN, str(work), json.dumps([[name, -1, -1]])], 2, **environment)
    assert before.items() <= files(work / name / "killed").items()
    assert files(work / name / "killed") == alone
