"""The processes of a run, here as threads: what one does, and what the others hear of it."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.snapshots import SnapshotStore
from cosanneal.snapshots.capture import EachStep, Gathered
from cosanneal.snapshots.ranks import ALONE, Ranks
from cosanneal.snapshots.recorder import Recorder
from tests.shared.ranks import Threads, together
from tests.shared.recording import EVERY_STEP, ArrayCapture, filled


def test_rank_0_alone_does_what_is_told() -> None:
    done: list[int] = []

    def do(ranks: Ranks, rank: int) -> Any:
        assert ranks.writes == (rank == 0)
        assert not ranks.alone

        def work() -> str:
            done.append(rank)
            return "made"

        return ranks.told(work)

    assert together(do) == ["made", None, None]
    assert done == [0]


def test_what_rank_0_makes_is_everyones() -> None:
    def do(ranks: Ranks, rank: int) -> Any:
        return ranks.shared(lambda: {"own": [rank + 5, 0.1], "none": None})

    assert together(do) == [{"own": [5, 0.1], "none": None}] * 3


def test_all_go_on_with_their_own_if_none_fails() -> None:
    assert together(lambda ranks, rank: ranks.agreed(lambda: rank * 10)) == [0, 10, 20]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_one_is_everyones(failing: int) -> None:
    def fail(rank: int) -> None:
        if rank == failing:
            raise ca.EnsembleError("it does not fit")

    found = together(lambda ranks, rank: ranks.agreed(lambda: fail(rank)))
    for rank, error in enumerate(found):
        assert isinstance(error, ca.EnsembleError)
        where = "" if rank == failing else f" (in the process of rank {failing})"
        assert str(error) == f"it does not fit{where}"


def test_an_error_of_others_is_said_in_ours() -> None:
    def fail() -> None:
        raise KeyError("loss")

    found = together(lambda ranks, _: ranks.told(fail))
    assert isinstance(found[0], KeyError)
    for error in found[1:]:
        assert isinstance(error, ca.SnapshotError)
        assert str(error) == "The process of rank 0 failed: KeyError: 'loss'"


def test_one_process_does_all_by_itself() -> None:
    assert ALONE.alone
    assert ALONE.writes
    assert (ALONE.told(lambda: 1), ALONE.shared(lambda: (2,)), ALONE.agreed(lambda: 3)) == (
        *(1, (2,), 3),
    )


def test_what_each_says_of_its_own_is_known_to_all() -> None:
    def say(ranks: Ranks, rank: int) -> Any:
        return ranks.said(lambda: rank * 10, lambda made: [made, rank])

    said = [[0, 0], [10, 1], [20, 2]]
    assert together(say) == [(0, said), (10, said), (20, said)]
    assert ALONE.said(lambda: 3, lambda made: [made]) == (3, [[3]])


@pytest.mark.parametrize("telling", [0, 2])
@pytest.mark.parametrize("failing", [None, 1])
def test_an_earlier_error_of_one_comes_in_the_same_message(
    failing: int | None, telling: int
) -> None:
    def check(rank: int) -> int:
        if rank == failing:
            raise ValueError("no metrics")
        return rank

    def tell() -> None:
        raise ca.SnapshotError("the disk is full")

    def do(ranks: Ranks, rank: int) -> Any:
        said = (lambda: check(rank)), (tell if rank == telling else int), (lambda made: made)
        return ranks.agreed_and_told(*said)

    for rank, found in enumerate(together(do)):
        if failing is None:
            made, said, earlier = found
            assert (made, said, type(earlier)) == (rank, [0, 1, 2], ca.SnapshotError)
        else:
            (note,) = found.__notes__
            assert "no metrics" in str(found)
            earlier = note
        assert str(earlier).startswith("the disk is full")
        assert str(earlier).endswith(f"(in the process of rank {telling})") == (rank != telling)
    assert ALONE.agreed_and_told(lambda: 3, tell, lambda made: made + 1) == (3, [4], None)


def test_a_snapshot_takes_one_meeting_in_which_all_gather_whoever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering = threading.Barrier(3)
    meetings = 0
    meet = Threads.everyones

    class Gathered(ArrayCapture):
        def tensors(self, *given: Any, **named: Any) -> Any:
            gathering.wait(10)  # as one would for ever, if another did not come
            return super().tensors(*given, **named)

    def counted(link: Threads, message: str) -> list[str]:
        nonlocal meetings
        meetings += link.rank == 0
        return meet(link, message)

    monkeypatch.setattr(Threads, "everyones", counted)

    def record(ranks: Ranks, rank: int) -> list[Any]:
        capture, found = Gathered(), []
        with Recorder(tmp_path, EVERY_STEP, capture, EachStep(), ranks=ranks) as recorder:
            for step in range(5):
                capture.weights = filled(step)
                before = meetings
                metrics: Any = partial(dict, loss={1} if step == rank else step)
                try:
                    taken: Any = recorder.look(metrics)
                except ca.SnapshotError as error:
                    taken = str(error)
                found.append(taken)
                if step == 4 and not rank:
                    assert meetings == before + 1
        return [*found, recorder.statistics.taken]

    for rank, found in enumerate(together(record)):
        assert isinstance(found, list), found
        *wrong, fourth, fifth, number = found
        assert number == 2
        assert fourth
        assert fifth
        for step, text in enumerate(wrong):
            assert "Argument `metrics` must be" in text
            assert text.endswith(f"(in the process of rank {step})") == (step != rank)
    assert [each.step for each in SnapshotStore(tmp_path).list()] == [4, 5]


def test_a_copy_that_fails_amid_weights_that_are_gathered_holds_nobody_up(tmp_path: Path) -> None:
    gathering = threading.Barrier(3)

    def gather(value: Any) -> Any:
        gathering.wait(10)
        return value

    class OneByOne(ArrayCapture):
        def tensors(self, *given: Any, **named: Any) -> Any:
            return Gathered(super().tensors(*given, **named), gather)

    good = {name: np.full(5, i, np.float32) for i, name in enumerate("abcd")}
    steps: list[dict[str, Any]] = [good, {**good, "b": np.zeros(5, np.complex128)}, good]

    def record(ranks: Ranks, rank: int) -> list[Any]:  # noqa: ARG001
        capture = OneByOne()
        found: list[Any] = []
        with Recorder(tmp_path, EVERY_STEP, capture, EachStep(), ranks=ranks) as recorder:
            for capture.weights in steps:
                try:
                    found.append(recorder.look())
                except ca.SnapshotError as error:
                    found.append(str(error))
        return found

    for rank, found in enumerate(together(record)):
        assert isinstance(found, list), found
        first, wrong, last = found
        assert first
        assert last
        assert "'b' must have a dtype that safetensors holds" in wrong
        assert wrong.endswith("(in the process of rank 0)") == bool(rank)
    one, two = SnapshotStore(tmp_path).list()
    assert (one.step, two.step) == (1, 3)
    assert all((two.load()[name] == value).all() for name, value in good.items())
