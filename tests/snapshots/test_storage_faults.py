"""A store that fails, tears, loses or lags: nothing wrong is listed, and nothing right is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore, storage
from cosanneal.snapshots.cache import Cache
from cosanneal.snapshots.storage import ATTEMPTS
from tests.shared.faulty import FaultyFileSystem, fail, flip, garble, lose, tear
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents, filled

FAULTS = FaultyFileSystem.faults


def steps(url: str, tmp_path: Path) -> list[int]:
    """Those at the store, each of them read to the end, from another machine."""
    store = SnapshotStore(url, cache=tmp_path / "reader")
    store.verify()
    return [each.step for each in store.list()]


@pytest.mark.parametrize(
    ("method", "fault", "whole"),
    [
        *(("put_file", fault, whole) for fault in (fail, tear, flip) for whole in (False, True)),
        *(("mv", fault, False) for fault in (fail, lose)),
    ],
)
def test_what_fails_now_and_then_is_tried_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, fault: Any, whole: bool
) -> None:
    monkeypatch.setattr(storage, "WHOLE", {"faulty"} if whole else set())
    (tmp_path / "store/run").mkdir(parents=True)
    FAULTS[method] = [fault] * (ATTEMPTS - 1)
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        assert recorder.statistics.durable == 1
        recorder.step(filled(2))
    assert steps(url, tmp_path) == [1, 2]
    assert FAULTS[method] == []
    assert len(contents(tmp_path / "store/run")) == 2  # no temporary ones


@pytest.mark.parametrize(
    ("method", "fault", "message", "whole"),
    [
        ("put_file", fail, r"could not be put there: ConnectionResetError: the line is", False),
        ("put_file", fail, r"could not be put there: ConnectionResetError: the line is", True),
        ("put_file", tear, r"could not be put there: it has \d+ of \d+ bytes there", False),
        ("put_file", tear, r"could not be put there: it has \d+ of \d+ bytes there", True),
        ("put_file", flip, r"could not be put there: it is not the same there", True),
        ("mv", lose, r"could not be put there: FileNotFoundError", False),
    ],
)
def test_what_fails_for_good_is_an_error_of_the_background(
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    fault: Any,
    message: str,
    whole: bool,
) -> None:
    monkeypatch.setattr(storage, "WHOLE", {"faulty"} if whole else set())
    (tmp_path / "store/run").mkdir(parents=True)
    with ArrayRecorder(url, EVERY_STEP, keep_last=1) as recorder:
        recorder.step(filled(1))
        recorder.wait()
        FAULTS[method] = [fault] * ATTEMPTS
        recorder.step(filled(2))
        with pytest.raises(ca.SnapshotError, match=rf"{message}.*\(tried {ATTEMPTS} times\)"):
            recorder.wait()
        recorder.wait()  # once
        assert (recorder.statistics.durable, recorder.statistics.failed) == (1, 1)
        # Nothing was removed for it, and nothing of it is there.
        assert steps(url, tmp_path) == [1]
        assert len(contents(tmp_path / "store/run")) == 2  # with the lease
        recorder.step(filled(3))
    assert steps(url, tmp_path) == [3]


def test_what_is_forbidden_is_not_tried_again(url: str) -> None:
    def forbid(*_: Any, **__: Any) -> None:
        raise PermissionError("not yours")

    FAULTS["put_file"] = [forbid]
    recorder = ArrayRecorder(url, EVERY_STEP, on_error="warn")
    recorder.step(filled(1))
    with pytest.warns(RuntimeWarning, match=r"could not be put there: PermissionError: not yours"):
        recorder.close()
    assert FaultyFileSystem.count("put_file") == 1


def test_a_local_file_that_is_gone_before_it_is_put_is_said(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "opened", lambda *_: None)
    recorder = ArrayRecorder(url, EVERY_STEP)
    recorder.step(filled(1))
    with pytest.raises(ca.SnapshotError, match=r"must stay until it is put into faulty:.*none"):
        recorder.close()
    assert SnapshotStore(url).list() == []


def test_what_replaces_another_leaves_that_until_it_is_there(url: str, tmp_path: Path) -> None:
    """A run that is started over writes the same names; until then the old ones are whole."""
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        for value in (1, 2):
            recorder.step(filled(value))
    before = contents(tmp_path / "store/run")
    recorder = ArrayRecorder(url, EVERY_STEP, resume_from=0)
    FAULTS["put_file"] = [tear] * ATTEMPTS
    recorder.step(filled(3))
    with pytest.raises(ca.SnapshotError, match=r"could not be put there"):
        recorder.close()
    assert contents(tmp_path / "store/run") == before
    assert steps(url, tmp_path) == [1, 2]


@pytest.mark.parametrize(("fault", "fetches"), [(fail, 2), (garble, 2)])
def test_a_fetch_that_fails_once_is_tried_again(
    url: str, tmp_path: Path, fault: Any, fetches: int
) -> None:
    with ArrayRecorder(SnapshotStore(url, cache=tmp_path / "other"), EVERY_STEP) as recorder:
        recorder.step(filled(1))
    FAULTS["get_file"] = [fault]
    assert (SnapshotStore(url).list()[0].load()["w"] == 1).all()
    assert FaultyFileSystem.count("get_file") == fetches


def test_a_store_that_is_down_is_said(url: str, tmp_path: Path) -> None:
    with ArrayRecorder(SnapshotStore(url, cache=tmp_path / "other"), EVERY_STEP) as recorder:
        recorder.step(filled(1))
    snapshot = SnapshotStore(url).list()[0]
    for method, read in (
        ("ls", lambda: SnapshotStore(url).list()),
        ("cat_file", lambda: snapshot.metadata),
        ("get_file", snapshot.load),
    ):
        FAULTS[method] = [fail] * ATTEMPTS
        with pytest.raises(ca.SnapshotError, match=rf"{url}\S* could not be .*dead \(tried 4"):
            read()
        assert FAULTS[method] == []


@pytest.mark.parametrize(
    "options", [{"keep_last": 2}, {"keep_best": 1, "metric": "loss"}, {"keep_last": 1}]
)
def test_a_listing_that_lags_changes_nothing(url: str, tmp_path: Path, options: Any) -> None:
    """Each listing is that of three listings before."""
    losses = [3.0, 1.0, 2.0, 0.0, 5.0]

    def run(folder: Any) -> None:
        with ArrayRecorder(folder, EVERY_STEP, **options) as recorder:
            for value, loss in enumerate(losses):
                recorder.step(filled(value), {"loss": loss})
                recorder.wait()
                known.append([each.step for each in recorder.store.list()])

    known: list[list[int]] = []
    run(tmp_path / "local")
    expected, known = known, []
    listings: list[Any] = [[], [], []]

    def lag(real: Any, *arguments: Any, **found: Any) -> Any:
        listings.append(real(*arguments, **found))
        return listings[-4]

    FAULTS["ls"] = [lag] * 1000
    run(url)
    FAULTS.clear()
    assert known == expected
    there = contents(tmp_path / "store/run")
    assert there == contents(tmp_path / "local")


def test_a_leftover_of_a_killed_put_goes_with_the_next_run(url: str, tmp_path: Path) -> None:
    there = tmp_path / "store/run"
    there.mkdir(parents=True)
    (there / ".cycle-0000-step-0000000001.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    (there / ".cycle-0000-step-0000000001.safetensors.txt").write_bytes(b"the user's")
    with ArrayRecorder(url, EVERY_STEP) as recorder:
        recorder.step(filled(1))
    assert sorted(each.name for each in there.iterdir()) == [
        ".cycle-0000-step-0000000001.safetensors.txt",
        "cycle-0000-step-0000000001.safetensors",
    ]
