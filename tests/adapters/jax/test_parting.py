"""The parts in which params lie on devices, joined by hand, are what is gathered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - the names of its dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.shared.processes import outputs

CASES = ("line", "square", "kinds", "host")


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "together"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where one process, or two, wrote down their pieces; and how many they were."""
    place = tmp_path_factory.mktemp("parts")
    outputs(["-m", "tests.shared.jax_parted_run", str(place)], request.param)
    return place, request.param


def pieces(place: Path, case: str, processes: int) -> list[tuple[int, list[Any], NDArray[Any]]]:
    """The process, [part, name, start, shape] and bytes of each piece."""
    found = []
    for rank in range(processes):
        with np.load(place / f"{case}-{rank}.npz") as own:
            found += [(rank, json.loads(at), own[at]) for at in own.files]
    return found


def said(place: Path, case: str, processes: int) -> list[dict[str, Any]]:
    return [json.loads((place / f"{case}-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("case", CASES)
def test_the_pieces_joined_are_what_is_gathered(ran: Any, case: str) -> None:
    place, processes = ran
    every = said(place, case, processes)
    layout = every[0]["layout"]
    assert all((each["layout"], each["number"]) == (layout, every[0]["number"]) for each in every)
    parts = [part for each in every for part in each["parts"]]
    assert sorted(parts) == list(range(every[0]["number"]))
    with np.load(place / f"{case}.npz") as gathered:
        assert set(gathered.files) == set(layout)
        for name, (shape, dtype) in layout.items():
            bits = np.dtype(f"V{np.dtype(dtype).itemsize}")
            joined, times = np.zeros(shape, bits), np.zeros(shape, int)
            for _, (part, its, start, size), data in pieces(place, case, processes):
                if its == name:
                    at = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
                    joined[at], times[at] = data.view(bits).reshape(size), times[at] + 1
                    assert part in parts
            assert (times == 1).all(), name
            assert joined.tobytes() == gathered[name].tobytes(), name


def test_a_part_is_a_devices(ran: Any) -> None:
    place, processes = ran
    for case, number in (("line", 4), ("square", 4), ("kinds", 4), ("host", 1)):
        every = said(place, case, processes)
        assert every[0]["number"] == number
        if number == 4:
            devices = 4 // processes
            own = [[*range(rank * devices, (rank + 1) * devices)] for rank in range(processes)]
            assert [each["parts"] for each in every] == own
    rows = {at[0]: at[2] for _, at, _ in pieces(place, "line", processes) if at[1] == "rows"}
    assert rows == {0: [0, 0], 1: [2, 0], 2: [4, 0], 3: [6, 0]}


def test_what_several_devices_hold_is_shared_out_by_size(ran: Any) -> None:
    place, processes = ran
    written: dict[int, int] = {}
    for _, at, data in pieces(place, "square", processes):
        written[at[0]] = written.get(at[0], 0) + data.nbytes
    # No two differ by more than the largest block that had a choice, which has 256 bytes.
    assert max(written.values()) - min(written.values()) <= 256
    assert sum(written.values()) > 4 * 256


def test_what_is_of_no_several_processes_is_the_first_ones(ran: Any) -> None:
    place, processes = ran
    own = {"host", "number", "here", "near"}
    assert own <= {at[1] for rank, at, _ in pieces(place, "kinds", processes) if rank == 0}
    assert not own & {at[1] for rank, at, _ in pieces(place, "kinds", processes) if rank == 1}


def test_params_that_lie_otherwise_are_refused_in_all(ran: Any) -> None:
    place, processes = ran
    if processes == 1:
        return
    for rank in range(2):
        wrong = json.loads((place / f"wrong-{rank}.json").read_text())
        assert len(wrong) == 3
        assert "Received: 'columns' of bfloat16 and shape (3, 4), and in the first" in wrong[0]
        assert "the same, over other devices or in one process alone; step all" in wrong[0]
        assert (
            "Received: 'w' of bfloat16 and shape (3, 4), and in the first process 'w' of fl"
            in (wrong[1])
        )
        assert "'w' of float64 and shape (3,), and in the first process no other" in wrong[2]
