"""Which snapshots are members: those that are asked for, and never one that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import SnapshotEnsemble
from cosanneal.ensemble.members import Chosen
from cosanneal.snapshots import Snapshot
from tests.ensemble.test_model import LinearModel, data, drawn
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder

pytestmark = pytest.mark.filterwarnings("ignore:The weights at update . are not:UserWarning")

NAMES = [f"cycle-{i:04d}-step-{i + 1:010d}" for i in range(4)]


def record(folder: Path, *, broken: int | None = None, value: float = np.nan) -> None:
    """Four members, of which one may not be finite, in its bias."""
    with ArrayRecorder(folder, EVERY_STEP) as recorder:
        for i in range(4):
            weights = drawn(i + 1)
            if i == broken:
                weights["b"][1] = value
            recorder.step(weights)


def cycles(ensemble: SnapshotEnsemble[Any]) -> list[int]:
    return [snapshot.cycle for snapshot in ensemble.members]


@pytest.mark.parametrize(
    ("members", "last", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        (lambda snapshot: snapshot.cycle != 2, None, [0, 1, 3]),
        (lambda snapshot: snapshot.cycle != 3, 2, [1, 2]),
        (lambda snapshot: snapshot.metadata["metrics"] == {}, 1, [3]),
        ([3, 0], None, [0, 3]),
        (np.array([2, 1]), 1, [2]),
        ((NAMES[1], f"{NAMES[3]}.safetensors", 0), None, [0, 1, 3]),
        ({NAMES[2]}, None, [2]),
        (NAMES[2], None, [2]),
        (range(1, 3), None, [1, 2]),
    ],
)
def test_those_that_are_asked_for_are_members(
    tmp_path: Path, members: Chosen | None, last: int | None, expected: list[int]
) -> None:
    record(tmp_path)
    ensemble = SnapshotEnsemble(LinearModel(), tmp_path, members=members, last=last)
    assert cycles(ensemble) == expected
    x, _ = data()
    alone = [SnapshotEnsemble(LinearModel(), tmp_path, members=[i]).predict(x) for i in expected]
    np.testing.assert_allclose(ensemble.predict(x), np.mean(alone, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("members", "last", "message"),
    [
        ([7], None, rf"cycle 7, of which there is none; the newest are {NAMES[0]}.*{NAMES[3]}"),
        (["x"], None, r"`members` must name snapshots of folder .*Received: 'x'"),
        ([1, NAMES[1]], None, rf"must name a snapshot once.* which are both {NAMES[1]}"),
        ([2, 2], None, r"must name a snapshot once\. Received: 2 and 2"),
        ([], None, r"at least one snapshot among those of members=\. Received: 0"),
        (lambda _: False, None, r"at least one snapshot among those of members=\. Received: 0"),
        ([0, 1], 3, r"the 3 snapshots asked for among those of members=\. Received: 2"),
        (3, None, r"must be a function of a snapshot, or a list of names.*Received: 3"),
        ([True], None, r"must be a function of a snapshot"),
        ([1.0], None, r"must be a function of a snapshot"),
        (b"x", None, r"must be a function of a snapshot"),
    ],
)
def test_what_cannot_be_members_is_said(
    tmp_path: Path, members: Any, last: int | None, message: str
) -> None:
    record(tmp_path)
    with pytest.raises(ca.EnsembleError, match=message):
        SnapshotEnsemble(LinearModel(), tmp_path, members=members, last=last)


def test_a_cycle_of_two_snapshots_is_asked_for_by_name(tmp_path: Path) -> None:
    record(tmp_path)
    twice = tmp_path / "cycle-0003-step-0000000009.safetensors"
    twice.write_bytes((tmp_path / f"{NAMES[3]}.safetensors").read_bytes())
    with pytest.raises(ca.EnsembleError, match=r"cycle 3, of which there is 2, .*give their names"):
        SnapshotEnsemble(LinearModel(), tmp_path, members=[3])


CALLS: dict[str, Callable[[SnapshotEnsemble[Any]], object]] = {
    **{mode: lambda each, mode=mode: each.predict(data()[0], mode=mode) for mode in MODES},  # type: ignore[misc]
    "member_predictions": lambda each: list(each.member_predictions(data()[0])),
    "fit": lambda each: each.fit(*data()),
    "average_weights": lambda each: each.average_weights(*data(), barrier=1),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("call", CALLS)
def test_a_member_that_is_not_finite_is_refused_by_name_and_left_out_when_told(
    tmp_path: Path, call: str, value: float
) -> None:
    record(tmp_path, broken=2, value=value)
    message = (
        rf"must be finite\. Received: \S+{NAMES[2]}\.safetensors with a NaN or an infinity in its "
        r"tensor 'b', .*leave it out, .*members=lambda .*snapshot\.first_nonfinite\(\) is None"
    )
    with pytest.raises(ca.EnsembleError, match=message):
        CALLS[call](SnapshotEnsemble(LinearModel(), tmp_path))
    # As the message says: those after it stay.
    without = SnapshotEnsemble(
        LinearModel(), tmp_path, members=lambda snapshot: snapshot.first_nonfinite() is None
    )
    assert [each.cycle for each in without.members] == [0, 1, 3]
    if call == "fit":
        with pytest.warns(UserWarning, match="validation samples"):
            CALLS[call](without)
    else:
        CALLS[call](without)


def test_a_choice_among_chosen_members_is_taken_over(tmp_path: Path) -> None:
    record(tmp_path)
    x, y = data()

    def without(snapshot: Snapshot) -> bool:
        return snapshot.cycle not in (1, 3)

    first = SnapshotEnsemble(LinearModel(), tmp_path, members=without)
    with pytest.warns(UserWarning, match="validation samples"):
        first.fit(x, y, select="greedy")
    first.save()
    again = SnapshotEnsemble(LinearModel(), tmp_path, members=without)
    assert again.load() == first.choice
    assert cycles(again) == [0, 2]
    assert np.array_equal(again.predict(x), first.predict(x))
    # What is newer, and could be a member, is not passed over without a word.
    with pytest.raises(ca.EnsembleError, match=rf"{NAMES[3]}\S+; fit .* or leave it out by member"):
        SnapshotEnsemble(LinearModel(), tmp_path).load()
    with pytest.raises(ca.EnsembleError, match=rf"no {NAMES[0]}\S* among those of members="):
        SnapshotEnsemble(LinearModel(), tmp_path, members=[2]).load()
