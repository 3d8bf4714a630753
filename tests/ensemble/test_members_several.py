"""Members of several folders, of chosen files, and of ensembles that were added."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import SnapshotEnsemble, folder_results
from cosanneal.snapshots import SnapshotStore
from tests.ensemble.test_model import LinearModel, data, drawn
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder

NAMES = [f"cycle-{i:04d}-step-{i + 1:010d}" for i in range(9)]
few = pytest.mark.filterwarnings("ignore:The ensemble was chosen on:UserWarning")


def record(folder: Path, seeds: range, *, of: int = 0) -> Path:
    with ArrayRecorder(folder, EVERY_STEP, resume_from=of) as recorder:
        for seed in seeds:
            recorder.step(drawn(seed), {"seed": seed})
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of three snapshots, and one that goes on from the first elsewhere."""
    record(tmp_path / "a", range(1, 4))
    record(tmp_path / "b", range(11, 14))
    record(tmp_path / "on", range(4, 6), of=3)
    return tmp_path


def seeds(ensemble: SnapshotEnsemble[Any]) -> list[int]:
    return [each.metadata["metrics"]["seed"] for each in ensemble.members]


def mean_of(*seeds: int) -> Any:
    """The mean of the softmax of some members, by numpy alone."""
    x, _ = data()
    logits = [x @ w["w"].astype(float) + w["b"] for w in map(drawn, seeds)]
    return np.mean([np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in logits], axis=0)


@pytest.mark.parametrize("mode", MODES)
def test_two_runs_are_one_ensemble(runs: Path, mode: Any) -> None:
    ensemble = SnapshotEnsemble(LinearModel(), [runs / "b", SnapshotStore(runs / "a")])
    assert seeds(ensemble) == [11, 12, 13, 1, 2, 3]
    assert [each.folder.name for each in ensemble.stores] == ["b", "a"]
    expected = mean_of(11, 12, 13, 1, 2, 3)
    np.testing.assert_allclose(ensemble.predict(data()[0], mode=mode), expected, rtol=1e-5)
    assert f"6 snapshots of folders {runs / 'b'} and {runs / 'a'}: 1, 2, 3, 1" in repr(ensemble)


@pytest.mark.parametrize(
    ("members", "last", "expected"),
    [
        (None, 4, [3, 11, 12, 13]),
        (None, 2, [12, 13]),
        (lambda each: each.cycle != 1, None, [1, 3, 11, 13]),
        (lambda each: each.path.parent.name == "b", 2, [12, 13]),
        ([f"b/{NAMES[0]}", f"a/{NAMES[2]}.safetensors"], None, [3, 11]),
        ([f"a/{NAMES[0]}"], None, [1]),
    ],
)
def test_last_and_members_are_of_all_together(
    runs: Path, members: Any, last: int | None, expected: list[int]
) -> None:
    given = [runs / "a", runs / "b"]
    assert seeds(SnapshotEnsemble(LinearModel(), given, members=members, last=last)) == expected


def test_a_folder_continued_elsewhere_and_chosen_files(runs: Path) -> None:
    ensemble = SnapshotEnsemble(LinearModel(), [runs / "a", runs / "on"], last=3)
    assert seeds(ensemble) == [3, 4, 5]
    assert seeds(SnapshotEnsemble(LinearModel(), [runs / "a", runs / "on"], members=[0, 4])) == [
        1,
        5,
    ]
    files: list[Any] = [runs / "b" / f"{NAMES[2]}.safetensors", SnapshotStore(runs / "a").list()[1]]
    assert seeds(SnapshotEnsemble(LinearModel(), files)) == [13, 2]
    assert seeds(SnapshotEnsemble(LinearModel(), files[0])) == [13]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            ["a", "b"],
            {"members": [NAMES[1]]},
            rf"of folders \S+a and \S+b\. Received: '{NAMES[1]}', of which there is 2, "
            rf"a/{NAMES[1]}.safetensors, b/{NAMES[1]}.safetensors: give their names",
        ),
        (["a", "b"], {"members": [1]}, rf"cycle 1, of which there is 2, a/{NAMES[1]}"),
        (["a", "b"], {"members": [f"c/{NAMES[1]}"]}, r"there is none; the newest are a/.*b/"),
        (["a", "b"], {"last": 7}, r"Folders \S+a and \S+b must hold the 7 snapshots.*Received: 6"),
        (["a", "a"], {}, r"each snapshot once\. Received: \S+a, twice"),
        (["a", "copy"], {}, rf"each snapshot once\. Received: \S+copy/{NAMES[0]}\S+, and \S+a/"),
        ([], {}, r"at least one folder or file"),
        (["a", "nowhere"], {}, r"folders that hold snapshots\. Received: \S+nowhere, which"),
        (7, {}, r"must be a folder, the file of a snapshot"),
    ],
)
def test_what_cannot_be_is_said(
    runs: Path, given: Any, options: dict[str, Any], message: str
) -> None:
    shutil.copytree(runs / "a", runs / "copy")
    given = [runs / each for each in given] if isinstance(given, list) else given
    with pytest.raises(ca.EnsembleError, match=message):
        SnapshotEnsemble(LinearModel(), given, **options)
    if "copy" in str(given):  # of which it is left out
        chosen = SnapshotEnsemble(LinearModel(), given, last=3)
        assert seeds(chosen) == [1, 2, 3]


def test_one_that_does_not_fit_is_named_by_its_path(runs: Path) -> None:
    with ArrayRecorder(runs / "other", EVERY_STEP) as recorder:
        recorder.step({**drawn(1), "more": np.zeros(1)})
    ensemble = SnapshotEnsemble(LinearModel(), [runs / "a", runs / "other"])
    with pytest.raises(ca.EnsembleError, match=rf"Snapshot \S+other/{NAMES[0]}\S* must fit the mo"):
        ensemble.predict(data()[0])


def test_ensembles_are_added(runs: Path) -> None:
    model = LinearModel()
    first = SnapshotEnsemble(model, runs / "a", last=2, class_axis=-1)
    second = SnapshotEnsemble(model, runs / "b", members=[0], class_axis=-1)
    both = first + second
    assert type(both) is SnapshotEnsemble
    assert seeds(both) == [2, 3, 11]
    x, y = data()
    np.testing.assert_allclose(both.predict(x), mean_of(2, 3, 11), rtol=1e-5)
    third = both + SnapshotEnsemble(model, runs / "on", class_axis=-1)
    assert seeds(third) == [2, 3, 11, 4, 5]
    assert [each.folder.name for each in third.stores] == ["a", "b", "on"]
    # What was added stays as it was.
    assert (seeds(first), seeds(second)) == ([2, 3], [11])
    np.testing.assert_allclose(first.predict(x), mean_of(2, 3), rtol=1e-5)
    found = both.average_weights(x, y, barrier=1)
    expected = np.mean([drawn(seed)["w"].astype(float) for seed in (2, 3, 11)], axis=0)
    np.testing.assert_array_equal(found.weights["w"], expected.astype(np.float32))


@few
def test_a_choice_is_not_added(runs: Path) -> None:
    model = LinearModel()
    first, second = (SnapshotEnsemble(model, runs / name) for name in "ab")
    first.fit(*data(), select="greedy")
    both = first + second
    assert both.choice is None
    assert first.choice is not None
    np.testing.assert_allclose(both.predict(data()[0]), mean_of(1, 2, 3, 11, 12, 13), rtol=1e-5)


def test_what_cannot_be_added_is_said(runs: Path) -> None:
    model = LinearModel()
    first = SnapshotEnsemble(model, runs / "a")
    second = SnapshotEnsemble(LinearModel(), runs / "b")
    with pytest.raises(ca.EnsembleError, match=r"of one model to be added: the very same object"):
        first + second
    for options, message in (
        ({"pooling": "vote"}, r"same `pooling` .*pooling='probabilities' and pooling='vote'"),
        ({"class_axis": 1}, r"same `class_axis` .*class_axis='auto' and class_axis=1"),
        ({"outputs": "logits"}, r"same `outputs` .*outputs='auto' and outputs='logits'"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(ca.EnsembleError, match=message):
            first + SnapshotEnsemble(model, runs / "b", **given)
    with pytest.raises(ca.EnsembleError, match=rf"snapshot once\. Received: \S+a/{NAMES[1]}"):
        first + SnapshotEnsemble(model, runs / "a", members=[1])
    with pytest.raises(TypeError):
        first + 1  # type: ignore[operator]


@few
@pytest.mark.parametrize("added", [False, True])
def test_a_fit_says_of_which_folder_its_members_are(runs: Path, added: bool) -> None:
    model = LinearModel()
    given: Any = [runs / "a", runs / "b"]

    def made() -> SnapshotEnsemble[Any]:
        if added:
            first, second = (SnapshotEnsemble(model, each) for each in given)
            return first + second
        return SnapshotEnsemble(model, given)

    x, y = data()
    ensemble = made()
    choice = ensemble.fit(x, y, select="greedy")
    assert choice.members == tuple(
        f"{run}/{name}.safetensors" for run in "ab" for name in NAMES[:3]
    )
    for call in (ensemble.save, ensemble.load):
        with pytest.raises(ca.EnsembleError, match=r"`path` must be given .* for folder"):
            call()
    ensemble.save(runs / "both.json")
    assert json.loads((runs / "both.json").read_text())["members"][3]["name"].startswith("b/")
    again = made()
    assert again.load(runs / "both.json") == choice
    np.testing.assert_array_equal(again.predict(x), ensemble.predict(x))


@few
def test_a_choice_is_known_again_by_its_digests(runs: Path) -> None:
    model, (x, y) = LinearModel(), data()
    ensemble = SnapshotEnsemble(model, [runs / "a", runs / "b"])
    choice, expected = ensemble.fit(x, y, select="greedy"), ensemble.predict(x)
    ensemble.save(runs / "both.json")
    # Moved, and in another order: the choice says which are which.
    (runs / "b").rename(runs / "c")
    moved = SnapshotEnsemble(model, [runs / "c", runs / "a"])
    moved.load(runs / "both.json")
    assert seeds(moved) == [1, 2, 3, 11, 12, 13]
    np.testing.assert_array_equal(moved.predict(x), expected)
    assert choice.members[3].startswith("b/")
    # One run alone does not have all, and a third one has more.
    with pytest.raises(
        ca.EnsembleError, match=rf"Folder \S+a must hold .*Received: no b/{NAMES[0]}"
    ):
        SnapshotEnsemble(model, runs / "a").load(runs / "both.json")
    more = SnapshotEnsemble(model, [runs / "a", runs / "c", runs / "on"])
    with pytest.raises(ca.EnsembleError, match=rf"no newer snapshots .* on/{NAMES[4]}\S*; fit"):
        more.load(runs / "both.json")
    # And so has a run that went on.
    record(runs / "a", range(4, 5), of=3)
    with pytest.raises(ca.EnsembleError, match=rf"no newer snapshots .* a/{NAMES[3]}\S*; fit"):
        SnapshotEnsemble(model, [runs / "a", runs / "c"]).load(runs / "both.json")


@few
def test_a_choice_among_the_last_of_several_folders_loads_again(runs: Path) -> None:
    model = LinearModel()
    ensemble = SnapshotEnsemble(model, [runs / "a", runs / "b"], last=2)
    choice = ensemble.fit(*data(), select="greedy")
    ensemble.save(runs / "last.json")
    again = SnapshotEnsemble(model, [runs / "a", runs / "b"], last=2)
    assert again.load(runs / "last.json") == choice
    assert seeds(again) == [12, 13]


def test_a_folder_of_runs_says_which_hold_some(runs: Path) -> None:
    (runs / "aa").mkdir()  # which holds none
    record(runs / "c", range(1, 2))
    three = ", ".join(str(runs / name) for name in ("a", "b", "c"))
    with pytest.raises(ca.EnsembleError) as found:
        SnapshotEnsemble(LinearModel(), [runs, runs / "a"])
    assert "which holds none" in str(found.value)
    with pytest.raises(ca.EnsembleError) as found:
        SnapshotEnsemble(LinearModel(), runs)
    assert str(found.value) == (
        f"Folder {runs} must hold at least one snapshot. Received: 0; give a run in it, such as "
        f"{three}"
    )
    with pytest.raises(ca.SnapshotError, match=r"none there; give a run in it, such as .*/a, "):
        folder_results(runs)
