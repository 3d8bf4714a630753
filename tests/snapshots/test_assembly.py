"""Several processes, here threads, write one snapshot: each its parts, and rank 0 the index."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore, assembly
from cosanneal.snapshots.capture import EachStep
from cosanneal.snapshots.file import write_file
from cosanneal.snapshots.lock import LOCK_NAME
from cosanneal.snapshots.ranks import Ranks
from cosanneal.snapshots.recorder import Recorder
from tests.shared.parted import Cuts, PartedCapture, PartedRecorder, recorded
from tests.shared.ranks import together
from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled

CUTS: Cuts = {"w": [(3, 4), (2,)], "b": [(5,)]}


def weights(seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    return {
        "w": draws.standard_normal((7, 5)),
        "b": draws.standard_normal(9).astype(np.float32),
        "count": np.int64(seed),
        "none": np.zeros((0, 4), np.float16),
    }


def same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.asarray(value).dtype
        assert found[name].shape == np.shape(value)
        assert found[name].tobytes() == np.asarray(value).tobytes()


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} - {LOCK_NAME}


@pytest.mark.parametrize(("size", "each"), [(1, 6), (3, 2), (6, 1)])
@pytest.mark.parametrize("background", [True, False])
def test_all_write_and_what_is_read_is_whole(
    tmp_path: Path, size: int, each: int, background: bool
) -> None:
    steps = [weights(seed) for seed in range(3)]
    done = recorded(tmp_path, steps, CUTS, size=size, each=each, background=background)
    assert done == [None] * size
    store = SnapshotStore(tmp_path)
    assert store.verify() == 3
    for snapshot, expected in zip(store.list(), steps, strict=True):
        same(snapshot.load(), expected)
        assert snapshot.metadata["parts"] == size * each
        assert snapshot.metadata["framework"] == "numpy"
        with snapshot.open() as reader:
            same(reader, expected)
        parts = [name for name in files(tmp_path) if name.startswith(snapshot.path.stem + "-part-")]
        assert len(parts) == size * each
        sizes = [(tmp_path / name).stat().st_size for name in (*parts, snapshot.path.name)]
        assert snapshot.size == sum(sizes)
    assert len(files(tmp_path)) == 3 * (1 + size * each)


def test_one_process_alone_writes_one_part(tmp_path: Path) -> None:
    with PartedRecorder(tmp_path, PartedCapture(0, 1, {})) as recorder:
        for seed in range(2):
            recorder.step(weights(seed))
        recorder.wait()
        statistics = recorder.statistics
        assert (statistics.taken, statistics.durable, statistics.failed) == (2, 2, 0)
        assert statistics.data_bytes == 2 * (7 * 5 * 8 + 9 * 4 + 8)
        assert len(files(tmp_path)) == 4
    same(SnapshotStore(tmp_path).list()[1].load(), weights(1))


def test_a_part_is_a_file_of_safetensors_that_says_where_its_blocks_begin(tmp_path: Path) -> None:
    assert recorded(tmp_path, [weights(0)], CUTS, size=6) == [None] * 6
    whole, seen = weights(0), 0
    for path in tmp_path.glob("*-part-*"):
        with safetensors.safe_open(path, framework="numpy") as file:
            starts = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            assert starts.keys() == {*file.keys()}
            for name, start in starts.items():
                block = file.get_tensor(name)
                at = start["saved_offsets"]
                place = tuple(slice(a, a + n) for a, n in zip(at, block.shape, strict=True))
                assert block.tobytes() == np.asarray(whole[name])[place].tobytes()
                seen += block.size
    assert seen == sum(np.size(each) for each in whole.values())


def test_what_is_deleted_and_replaced_goes_with_its_parts(tmp_path: Path) -> None:
    steps = [weights(seed) for seed in range(5)]
    assert recorded(tmp_path, steps, CUTS, size=6, keep_last=2) == [None] * 6
    assert len(files(tmp_path)) == 2 * 7
    # Resumed from before the last, which another takes the place of; and then started over.
    assert recorded(tmp_path, [weights(9)], CUTS, size=3, each=2, resume_from=4) == [None] * 3
    assert len(files(tmp_path)) == 2 * 7
    same(SnapshotStore(tmp_path).list()[-1].load(), weights(9))
    with ArrayRecorder(tmp_path, EVERY_STEP, resume_from=4) as recorder:
        recorder.step(weights(8))
    assert len(files(tmp_path)) == 7 + 1
    same(SnapshotStore(tmp_path).list()[-1].load(), weights(8))
    assert recorded(tmp_path, [filled(1)], {}, overwrite=True, size=1) == [None]
    assert len(files(tmp_path)) == 2


def test_a_snapshot_taken_again_replaces_its_parts(tmp_path: Path) -> None:
    def again(recorder: PartedRecorder, _: int) -> None:
        recorder.take_at(recorder._standing, {"loss": 2.0})

    done = recorded(tmp_path, [weights(0)], CUTS, size=6, look=again, max_pending=2)
    assert done == [None] * 6
    (snapshot,) = SnapshotStore(tmp_path).list()
    assert snapshot.metadata["metrics"] == {"loss": 2.0}
    same(snapshot.load(), weights(0))
    assert len(files(tmp_path)) == 7


def test_what_killed_runs_left_goes_and_what_is_there_stays(tmp_path: Path) -> None:
    assert recorded(tmp_path, [weights(0), weights(1)], CUTS, size=6) == [None] * 6
    before = files(tmp_path)
    first, second = SnapshotStore(tmp_path).list()
    stem = first.path.stem
    left = [
        f"{stem}-part-0001-of-0006-00000000.safetensors",  # of an earlier writing
        "cycle-0007-step-0000000008-part-0002-of-0002-00000000.safetensors",
        f".{stem}-part-0001-of-0006-00000000.safetensors.0a0b.tmp",
        f".{stem}-part-0001-of-0006-00000000.safetensors.failed",
    ]
    kept = [f"{stem}-part-1-of-6-00000000.safetensors", f"{stem}-part-0001.safetensors"]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"x")
    # Of one whose index cannot be read nobody knows which parts are its own: they stay.
    second.path.write_bytes(second.path.read_bytes()[:-3])
    SnapshotStore(tmp_path).prepare()
    assert files(tmp_path) == before | {*kept}
    same(first.load(), weights(0))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("failing", [0, 2])
def test_a_disk_that_fails_one_is_told_to_all_and_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, background: bool
) -> None:
    told: list[tuple[int, int, str]] = []
    begun = threading.Event()

    def fail(path: Path, *rest: Any) -> None:
        if f"step-0000000002-part-{failing + 1:04d}" in path.name:
            begun.set()
            raise ca.SnapshotError("No space left")
        write_file(path, *rest)

    monkeypatch.setattr(assembly, "write_file", fail)

    def run(ranks: Ranks, rank: int) -> None:
        capture = PartedCapture(rank, 3, {"w": [(400, 700)]})
        with PartedRecorder(tmp_path, capture, ranks, background=background) as recorder:
            for step in range(1, 5):
                try:
                    recorder.step(filled(step))
                except ca.SnapshotError as error:
                    told.append((rank, step, str(error)))

    assert together(run) == [None] * 3
    assert begun.is_set()
    assert sorted(each[:2] for each in told) == [(rank, 2 + background) for rank in range(3)]
    assert all("No space left" in each[2] for each in told)
    # Each says its own, and rank 0 of whose part it has waited for.
    assert [each[2] for each in told if each[0] == failing] == ["No space left"]
    (first,) = [each[2] for each in told if each[0] == 0]
    assert "cycle-0001-step-0000000002" in first or not failing
    found = SnapshotStore(tmp_path).list()
    assert [each.step for each in found] == [1, 3, 4]
    assert SnapshotStore(tmp_path).verify() == 3
    assert len(files(tmp_path)) == 3 * 4


def test_rank_0_does_not_wait_for_ever_for_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "PARTS_SECONDS", 0.05)

    def lose(path: Path, *rest: Any) -> None:
        if "part-0002" not in path.name:
            write_file(path, *rest)

    monkeypatch.setattr(assembly, "write_file", lose)
    found = recorded(tmp_path, [filled(1)], {"w": [(400, 700)]})
    assert "of its 3 parts, 1 did not come within 0.05 seconds, such as 2" in str(found[0])
    assert "(in the process of rank 0)" in str(found[1])
    assert files(tmp_path) == set()


@pytest.mark.parametrize("alive", [False, True])
def test_of_a_run_that_broke_off_a_process_without_a_sign_of_life_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr(assembly, "QUIET_SECONDS", 1.0)
    broken = threading.Event()

    def lose(path: Path, *rest: Any) -> None:
        if "part-0002" not in path.name:
            write_file(path, *rest)
        elif alive:  # longer than may be without a sign
            temporary = path.with_name(f".{path.name}.0123abcd.tmp")
            assert broken.wait(10)
            for turn in range(15):
                temporary.write_bytes(bytes(turn))
                time.sleep(0.1)
            temporary.unlink()
            write_file(path, *rest)

    def stop(*_: Any) -> None:
        broken.set()
        raise KeyError("loss")

    monkeypatch.setattr(assembly, "write_file", lose)
    began = time.monotonic()
    found = recorded(tmp_path, [filled(1)], {"w": [(400, 700)]}, look=stop)
    assert 1.0 < time.monotonic() - began < 20
    assert [type(each) for each in found] == [KeyError] * 3
    assert [each.step for each in SnapshotStore(tmp_path).list()] == [1] * alive
    notes = "".join(getattr(found[0], "__notes__", []))
    assert ("1 did not come within 1 seconds after the run broke off, such as 2" in notes) != alive
    assert len(files(tmp_path)) == 4 * alive


def test_parts_of_which_processes_say_different_things_are_refused_by_all(tmp_path: Path) -> None:
    def other(recorder: PartedRecorder, rank: int) -> None:
        if rank == 1:
            recorder.capture.size = 4

    found = recorded(tmp_path, [filled(1), filled(2)], {}, look=other)
    assert all("4 parts of other tensors in the process of rank 1" in str(each) for each in found)

    def twice(recorder: PartedRecorder, rank: int) -> None:
        recorder.capture.rank = min(rank, 1)

    found = recorded(tmp_path, [filled(3), filled(4)], {}, look=twice, resume_from=0)
    assert all("Received: those with the indices [0, 1, 1]" in str(each) for each in found)


def test_pieces_that_leave_a_gap_make_no_snapshot(tmp_path: Path) -> None:
    def gap(recorder: PartedRecorder, rank: int) -> None:
        real = recorder.capture.parts

        def parts() -> Any:
            found = real()
            if rank == 1:
                return found._replace(pieces={1: {}})
            return found

        recorder.capture.parts = parts  # type: ignore[method-assign]

    found = recorded(tmp_path, [filled(1), filled(2)], {"w": [(400, 700)]}, look=gap)
    assert all("those of 'w', of shape (1000,), overlap or leave gaps" in str(e) for e in found)
    assert len(files(tmp_path)) == 4


def test_a_folder_of_each_process_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "PROBE_SECONDS", 0.05)

    def run(ranks: Ranks, rank: int) -> None:
        (tmp_path / str(rank)).mkdir()
        PartedRecorder(tmp_path / str(rank), PartedCapture(rank, 3, {}), ranks)

    for error in together(run):
        assert re.search(r"must be one that all processes share.*give an absolute", str(error))
    assert files(tmp_path / "0") == set()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_noted(tmp_path: Path, value: float) -> None:
    bad = filled(1)
    bad["w"][600] = value
    with pytest.warns(UserWarning, match="update 1 are not finite: tensor 'w'"):
        assert recorded(tmp_path, [bad], {"w": [(400, 700)]}) == [None] * 3
    (snapshot,) = SnapshotStore(tmp_path).list()
    assert snapshot.metadata["nonfinite"] == snapshot.first_nonfinite() == "w"


def test_a_mask_is_meant_also_where_a_piece_of_it_is_minus_infinity_alone(tmp_path: Path) -> None:
    mask = np.triu(np.full((6, 6), -np.inf, np.float32), 1)
    assert recorded(tmp_path, [{"mask": mask}], {"mask": [(3,), (3,)]}, size=4) == [None] * 4
    (snapshot,) = SnapshotStore(tmp_path).list()
    assert snapshot.metadata["nonfinite"] is None


def test_weights_that_stayed_as_they_were_are_said_to_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert recorded(tmp_path, [filled(1), filled(2)], {"w": [(400, 700)]}) == [None] * 3
    assert "to the last bit" not in caplog.text
    done = recorded(tmp_path, [filled(3)] * 2, {"w": [(400, 700)]}, resume_from=0)
    assert done == [None] * 3
    assert "update 2 are those at update 1, to the last bit" in caplog.text


def test_what_cannot_be_parted_is_refused_at_once(tmp_path: Path) -> None:
    capture = PartedCapture(0, 1, {})
    with pytest.raises(ca.SnapshotError, match=r"sharded=True, and the URL memory://run"):
        PartedRecorder("memory://run", capture)
    with pytest.raises(ca.SnapshotError, match="and which='trainable'; leave it out"):
        PartedRecorder(tmp_path, capture, which="trainable")
    with pytest.raises(ca.SnapshotError, match="sharded=True, and weights of numpy, which are"):
        ArrayRecorder(tmp_path, EVERY_STEP, sharded=True)
    with pytest.raises(ca.SnapshotError, match="`sharded` must be True or False"):
        Recorder(tmp_path, EVERY_STEP, capture, EachStep(), sharded=1)  # type: ignore[arg-type]
    assert files(tmp_path) == set()
