"""Snapshots that the devices of one process, or of two, write in parts, each its own."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.adapters.jax import SnapshotEnsemble
from cosanneal.snapshots import SnapshotStore
from tests.shared.jax_sharded_run import apply, plain, x
from tests.shared.processes import outputs, started

MODULE = ["-m", "tests.shared.jax_ranked_run"]
OWN = ["-m", "tests.shared.jax_sharded_run"]
KILLS = 2


def case(place: Path, name: str, **options: Any) -> dict[str, Any]:
    work = place / name
    return {"folder": str(work / "run"), "work": str(work), **options}


def wrong(place: Path, name: str) -> list[list[str]]:
    return [json.loads((place / name / f"wrong-{rank}.json").read_text()) for rank in range(2)]


def contents(folder: Path) -> dict[int, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Each snapshot's tensors, bit for bit, by its step."""
    found = {}
    for snapshot in SnapshotStore(folder).list():
        snapshot.verify()
        tensors = snapshot.load()
        found[snapshot.step] = {
            name: (each.dtype.name, each.shape, each.tobytes()) for name, each in tensors.items()
        }
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what was run: by one process, and by two."""
    place = tmp_path_factory.mktemp("sharded")
    parted = {"sharded": True}
    alone = [case(place, "alone"), case(place, "alone-parts", **parted)]
    alone += [
        case(place, "buffer", buffer=True),
        case(place, "alone-buffer", buffer=True, **parted),
    ]
    outputs([*MODULE, json.dumps(alone)], 1)
    together = [
        case(place, "parts", **parted),
        case(place, "buffer-parts", buffer=True, **parted),
        case(place, "deleted", deleted=1, **parted),
        case(place, "unlike", unlike=1, **parted),
    ]
    outputs([*MODULE, json.dumps(together)], 2)
    return place


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("alone-parts", "alone"),
        ("parts", "alone"),
        ("alone-buffer", "buffer"),
        ("buffer-parts", "buffer"),
    ],
)
def test_the_parts_are_what_is_gathered(place: Path, name: str, of: str) -> None:
    found = contents(place / name / "run")
    assert list(found) == [4, 8, 12]
    assert found == contents(place / of / "run")
    files = [each.name for each in (place / name / "run").glob("*.safetensors")]
    assert len(files) == 3 * (1 + 4)  # of each, its own and one of each device
    for snapshot in SnapshotStore(place / name / "run").list():
        parts = list((place / name / "run").glob(f"{snapshot.path.stem}*"))
        assert snapshot.size == sum(each.stat().st_size for each in parts)


def test_a_run_in_parts_goes_well_and_a_buffers_other_member_is_said(place: Path) -> None:
    assert wrong(place, "parts") == [[], []]
    for each in wrong(place, "buffer-parts"):
        assert len(each) == 1
        assert "a member at step 11, of which there is a snapshot of other params" in each[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deleted", "'here', whose buffer was deleted or donated"),
        ("unlike", "'more' of float32 and shape (4,), and in the first process 'near' of float32"),
    ],
)
def test_params_that_cannot_be_parted_are_refused_in_every_process(
    place: Path, name: str, text: str
) -> None:
    other, own = wrong(place, name)
    assert len(own) >= 3
    assert all(text in each for each in own)
    assert other == [f"{each} (in the process of rank 1)" for each in own]
    assert not list((place / name / "run").iterdir())


def test_an_ensemble_of_parts_is_that_of_whole_ones(tmp_path: Path) -> None:
    """With `like` in shards, in two processes; and with a plain one, in this."""
    outputs([*OWN, str(tmp_path), "ensemble"], 2)
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert contents(folder) == contents(whole)
    ours, theirs = (SnapshotEnsemble(apply, each, like=plain(0)) for each in (folder, whole))
    expected = np.asarray(theirs.predict(x()))
    np.testing.assert_array_equal(ours.predict(x()), expected)
    for rank in range(2):
        np.testing.assert_allclose(
            np.load(tmp_path / f"predicted-{rank}.npy"), expected, rtol=1e-5, atol=1e-6
        )
    y = np.arange(len(x())) % 3
    means = [each.average_weights(x(), y, barrier=99.0).weights for each in (ours, theirs)]
    for name, value in means[0].items():
        assert np.asarray(value).tobytes() == np.asarray(means[1][name]).tobytes(), name


def test_what_was_durable_outlives_every_kill(tmp_path: Path) -> None:
    """One process dies at some instant; all begin again after what is there."""
    rng = random.Random()
    kills: list[tuple[int, float]] = []
    folder, report = tmp_path / "run", tmp_path / "durable"
    report.touch()
    for _ in range(KILLS):
        with started([*OWN, str(tmp_path), "train"], 2) as running:
            durable = len(report.read_text().splitlines())
            end = time.monotonic() + 60
            while len(report.read_text().splitlines()) == durable:
                assert time.monotonic() < end, kills
                time.sleep(0.01)
            kills.append((rng.randrange(2), rng.random() / 2))
            time.sleep(kills[-1][1])
            running[kills[-1][0]].send_signal(signal.SIGKILL)
            time.sleep(rng.random() / 4)  # in which the other goes on, and waits for it
        check_durable(folder, report, kills)
    outputs([*OWN, str(tmp_path), "finish"], 2)
    check_durable(folder, report, kills)
    store = SnapshotStore(folder)
    assert len(store.list()) >= 8, kills
    left = {each.name for each in folder.iterdir() if each.is_file() and each.name[0] != "."}
    assert len(left) == 5 * len(store.list()), kills


def check_durable(folder: Path, report: Path, kills: Any) -> None:
    steps = {int(each) for each in report.read_text().split()}
    found = {each.step: each for each in SnapshotStore(folder).list()}
    assert steps <= found.keys(), kills
    for step, snapshot in found.items():
        snapshot.verify()
        for name, value in plain(step).items():
            assert snapshot.load()[name].tobytes() == value.tobytes(), (kills, step, name)
