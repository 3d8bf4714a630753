"""A part of the weights: what is recorded, what is known of the rest, and that it must not move."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_128

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.part import rest_mismatch
from tests.shared.files import write
from tests.shared.recording import EVERY_STEP, ArrayRecorder, contents


def weights(value: float = 0.0, size: int = 1000) -> dict[str, Any]:
    """Of two tensors one trains; the other is 40 times as large."""
    return {
        "base.kernel": np.arange(40 * size, dtype=np.float32).reshape(40, size),
        "base.bias": np.array(7, np.int64),
        "trained.lora": np.full(size, value, np.float32),
    }


def named(text: str) -> Callable[[str], bool]:
    return lambda name: text in name


@pytest.mark.parametrize("which", ["trainable", named("lora")])
def test_a_part_is_recorded_with_digests_of_the_rest(tmp_path: Path, which: Any) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which=which) as recorder:
        for value in (1, 2):
            recorder.step(weights(value))
    first, second = recorder.store.list()
    assert list(second.load()) == ["trained.lora"]
    np.testing.assert_array_equal(second.load()["trained.lora"], np.full(1000, 2, np.float32))
    # By the words of docs/snapshot-format.md.
    expected = {}
    for name, array in weights().items():
        if name != "trained.lora":
            text = f"{array.dtype.name} {json.dumps(list(array.shape))}\n".encode()
            expected[name] = xxh3_128(text + array.tobytes()).hexdigest()
    assert first.metadata["rest"] == second.metadata["rest"] == expected
    assert second.path.stat().st_size < 8_000
    assert recorder.statistics.data_bytes == 2 * 4000
    assert recorder.store.verify() == 2


def test_all_is_the_default_and_has_no_rest(tmp_path: Path) -> None:
    every: list[dict[str, Any]] = [{}, {"which": "all"}, {"which": lambda _: True}]
    for i, options in enumerate(every):
        with ArrayRecorder(tmp_path / str(i), EVERY_STEP, **options) as recorder:
            recorder.step(weights(1))
        (snapshot,) = recorder.store.list()
        assert snapshot.metadata["rest"] is None
        assert snapshot.load().keys() == weights().keys()
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("name", ["base.kernel", "base.bias"])
def test_what_is_left_out_and_moves_is_an_error_with_its_name(tmp_path: Path, name: str) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable") as recorder:
        recorder.step(weights(1))
        moved = weights(2)
        moved[name] = moved[name] + 1
        message = rf"`which` leaves out must stay as it is.*Received: tensor '{name}'.*freeze it"
        with pytest.raises(ca.SnapshotError, match=message):
            recorder.step(moved)
        recorder.step(weights(3))  # and nothing else is lost
    assert [snapshot.step for snapshot in recorder.store.list()] == [1, 3]


def test_what_is_written_to_alone_is_found_where_the_framework_tells(tmp_path: Path) -> None:
    """One element of many, which a look at some does not see, by a count of changes."""
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable") as recorder:
        count = [0]
        recorder.capture.stamps = lambda names: dict.fromkeys(names, count[0])  # type: ignore[method-assign]
        recorder.step(weights(1))
        count[0] = 1  # written to, by what was there
        recorder.step(weights(2))
        moved = weights(3)
        moved["base.kernel"][1, 1] += 1
        recorder.step(moved)  # which no count tells
        count[0] = 2
        with pytest.raises(ca.SnapshotError, match=r"tensor 'base.kernel', which is another"):
            recorder.step(moved)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("some", r"`which` must be 'all', 'trainable', or a function.*Received: which='some'"),
        (["trained.lora"], r"`which` must be 'all'.*Received: which=\['trained.lora'\]"),
        (None, r"`which` must be 'all'.*Received: which=None"),
    ],
)
def test_a_which_that_cannot_be_is_refused(tmp_path: Path, which: Any, message: str) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        ArrayRecorder(tmp_path, EVERY_STEP, which=which)


def test_a_which_that_chooses_nothing_is_refused_at_the_first_step(tmp_path: Path) -> None:
    tens = ca.CyclicCosine(0.1, cycle_steps=10)
    recorder = ArrayRecorder(tmp_path, tens, which=named("LoRA"))
    message = r"at least one.*a function, which chooses none of 3, such as 'base.kernel', 'base.b"
    with pytest.raises(ca.SnapshotError, match=message):
        recorder.step(weights(1))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("all", "trainable", r"of 3 of 3 tensors, where .* chooses 1: 'base.bias' is in it"),
        ("trainable", "all", r"of 1 of 3 tensors, where .* chooses 3: 'base.bias' is not in it"),
        ("trainable", named("base"), r"of 1 of 3 tensors, where .* chooses 2: 'base.bias' is not"),
    ],
)
def test_a_folder_keeps_to_one_part(tmp_path: Path, before: Any, after: Any, message: str) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which=before) as recorder:
        recorder.step(weights(1))
    again = ArrayRecorder(tmp_path, EVERY_STEP, which=after, resume_from=1)
    with pytest.raises(
        ca.SnapshotError, match=rf"one part of the model\. .*{message}.*`which` of that run"
    ):
        again.step(weights(2))
    again.close()
    with ArrayRecorder(
        tmp_path, EVERY_STEP, which=after, resume_from=1, overwrite=True
    ) as recorder:
        recorder.step(weights(2))
    assert [snapshot.step for snapshot in recorder.store.list()] == [2]


def test_another_model_of_the_same_part_is_refused(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable") as recorder:
        recorder.step(weights(1))
    other = {**weights(2), "base.more": np.zeros(3)}
    again = ArrayRecorder(tmp_path, EVERY_STEP, which="trainable", resume_from=1)
    with pytest.raises(ca.SnapshotError, match=r"this model alone\..*leaves out, 'base.more'"):
        again.step(other)


def test_a_run_goes_on_with_the_same_rest_and_no_other(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable") as recorder:
        recorder.step(weights(1))
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable", resume_from=1) as recorder:
        recorder.step(weights(2))
    other = weights(3)
    other["base.kernel"][3, 3] += 1
    message = r"`which` leaves out must be what it was.*'base.kernel'.* than at .*cycle-0001-step"
    again = ArrayRecorder(tmp_path, EVERY_STEP, which="trainable", resume_from=2)
    with pytest.raises(ca.SnapshotError, match=message):
        again.step(other)
    again.close()
    assert [snapshot.step for snapshot in recorder.store.list()] == [1, 2]
    with ArrayRecorder(
        tmp_path, EVERY_STEP, which="trainable", resume_from=2, overwrite=True
    ) as recorder:
        recorder.step(other)
    assert [snapshot.step for snapshot in recorder.store.list()] == [3]


def test_a_tensor_that_comes_or_goes_is_refused(tmp_path: Path) -> None:
    with ArrayRecorder(tmp_path, EVERY_STEP, which="trainable") as recorder:
        recorder.step(weights(1))
        with pytest.raises(ca.SnapshotError, match=r"keep its structure.*'base.more' at one"):
            recorder.step({**weights(2), "base.more": np.zeros(3)})
        without = weights(2)
        del without["trained.lora"]
        with pytest.raises(ca.SnapshotError, match=r"keep its structure.*'trained.lora' at one"):
            recorder.step(without)


@pytest.mark.parametrize("rest", [{"weight": "0" * 32}, {"other": 3}, {"other": None}])
def test_metadata_that_cannot_be_are_refused(tmp_path: Path, rest: Any) -> None:
    snapshot = write(SnapshotStore(tmp_path), rest=rest)
    with pytest.raises(ca.SnapshotError, match=r"bad metadata \(in 'rest': '(weight|other)' is"):
        Snapshot(snapshot.path, cycle=3, step=12_000).layout()


def test_the_first_tensor_that_differs_is_named() -> None:
    assert rest_mismatch({"b": "1", "a": "2"}, {"a": "2", "b": "1", "c": "3"}) is None
    assert rest_mismatch({"b": "1", "a": "2"}, {"b": "2"}) == "a"
