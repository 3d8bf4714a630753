"""What each of several processes writes of a model in parts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotRecorder
from cosanneal.adapters.torch.capture import ModuleCapture
from tests.shared.processes import outputs

ENGINES = ("fsdp2", "tensor", "ddp", "apart", "plain")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes find."""
    folder = tmp_path_factory.mktemp("parted")
    outputs(["-m", "tests.shared.parted_run", str(folder), *ENGINES], 2)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("how", ENGINES)
def test_all_parts_make_the_whole_and_each_element_is_written_once(found: Any, how: str) -> None:
    for each in found[how]:
        assert each["wrong"] == []
        assert each["number"] == 2
        assert each["numbers"] == [0, 1]


def test_nobody_writes_what_only_another_has(found: Any) -> None:
    first, second = found["fsdp2"][0]["bytes"]
    assert second == (8 * 8 + 8 + 8 + 8 + 8 * 8 + 8) * 4 / 2
    assert first == second + (8 + 8) * 4 + 8  # with the statistics, which no two have the same


def test_what_ddp_keeps_alike_is_spread_by_size(found: Any) -> None:
    first, second = found["ddp"][0]["bytes"]
    statistics = (8 + 8) * 4 + 8
    assert first - statistics == second == (8 * 8 + 8 + 8) * 4
    for how in ("apart", "plain"):  # which nobody keeps alike: all is rank 0's, as gathered
        assert found[how][0]["bytes"][1] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("partial", r"cut along their axes as DTensors\. Received: 'sum', .*Partial"),
        (
            "others",
            r"the same tensors, cut in the same way\. Received: bias: \(\(2,\), 'float32'\), whole "
            r"in the process of rank 0, and bias: \(\(3,\), 'float32'\), whole in that of rank 1",
        ),
        ("away", r"rank 0 must have its part .*Received: 'weight', on a mesh of the ranks \[1\]"),
    ],
)
def test_what_cannot_be_parted_is_refused_in_every_process(
    found: Any, name: str, message: str
) -> None:
    for each in found["refused"]:
        assert re.search(f"^SnapshotError: .*{message}", each[name])


def test_one_process_alone_has_one_part() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    )
    parts = ModuleCapture(model).parts()
    assert (parts.number, [*parts.pieces]) == (1, [0])
    state = model.state_dict()
    assert parts.pieces[0].keys() == parts.layout.keys() == state.keys()
    for name, (data, start) in parts.pieces[0].items():
        assert torch.equal(data, state[name])
        assert start == (0,) * state[name].ndim


def test_what_zero_has_parted_is_refused_by_its_name_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, schedule = nn.Linear(2, 2), ca.CyclicCosine(0.1, cycle_steps=1)
    monkeypatch.setattr("cosanneal.adapters.torch.parts.is_parted", lambda _: True)
    with pytest.raises(ca.SnapshotError, match=r"'weight', parted by DeepSpeed's ZeRO-3"):
        SnapshotRecorder(tmp_path / "run", model, schedule, sharded=True)
    assert not (tmp_path / "run").exists()
    SnapshotRecorder(tmp_path / "run", model, schedule).close(unfinished=True)
