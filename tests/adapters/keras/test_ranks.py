"""Recorders and ensembles of Keras in several processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.snapshots import SnapshotStore
from tests.shared.compiling import BACKEND
from tests.shared.processes import outputs

MODULE = ["-m", "tests.shared.keras_ranked_run"]
NAMES = ("copies", "parts", "over", "part")

WORKERS = """
import json, os, sys
rank, ports = int(os.environ["RANK"]), [int(os.environ["MASTER_PORT"]) + i for i in (0, 1)]
workers = [f"127.0.0.1:{port}" for port in ports]
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
)
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import cosanneal as ca
from cosanneal.adapters.keras import SnapshotRecorder
from tests.shared.keras_runs import SCHEDULE, small_net
folder = sys.argv[1] + str(rank)
said = []

def refused(call):
    try:
        call()
    except ca.SnapshotError as error:
        said.append(str(error))

refused(lambda: SnapshotRecorder(folder, SCHEDULE))
with strategy.scope():
    model = small_net()
    refused(lambda: SnapshotRecorder(folder, SCHEDULE))
config = os.environ.pop("TF_CONFIG")
recorder = SnapshotRecorder(folder, SCHEDULE)
os.environ["TF_CONFIG"] = config
recorder.set_model(model)
refused(recorder.on_train_begin)
print(json.dumps(said))
"""

TORCH = """
import os, sys
import torch.distributed as dist
dist.init_process_group("gloo")
import cosanneal as ca
from cosanneal.adapters.keras import SnapshotRecorder
from tests.shared.keras_runs import SCHEDULE
try:
    SnapshotRecorder(sys.argv[1], SCHEDULE)
    said = "made"
except ca.SnapshotError as error:
    said = str(error)
dist.barrier()
dist.destroy_process_group()
print(said)
"""

on_jax = pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is of JAX")


def cases(place: Path) -> list[dict[str, Any]]:
    together = place.name == "together"
    return [
        {"folder": str(place / "copies"), "kind": "copies", "ensembles": together},
        {"folder": str(place / "parts"), "kind": "parts", "set_lr": True, "load": True},
        {"folder": str(place / "over"), "kind": "over", "ensembles": together},
        {"folder": str(place / "part"), "kind": "over", "by_hand": True, "which": "trainable"},
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what was run: by one process, and by two; and what the two printed."""
    place = tmp_path_factory.mktemp("ranks")
    alone, together = place / "alone", place / "together"
    outputs([*MODULE, json.dumps(cases(alone))], 1)
    together.mkdir()
    (together / "file").touch()
    failing = [
        {"folder": str(together / "file"), "kind": "copies"},
        {"folder": str(together / "metrics"), "kind": "copies", "by_hand": True, "bad_metrics": 1},
        {"folder": str(together / "disk"), "kind": "copies", "by_hand": True, "full_disk": True},
        {
            "folder": str(together / "lent"),
            "kind": "over",
            "by_hand": True,
            "own": True,
            "ensembles": True,
        },
    ]
    printed = outputs([*MODULE, json.dumps(cases(together) + failing), str(place / "early")], 2)
    (place / "printed.json").write_text(
        json.dumps([json.loads(each.splitlines()[-1]) for each in printed])
    )
    return place


def said(place: Path, name: str) -> list[list[str]]:
    return [each[name] for each in json.loads((place / "printed.json").read_text())]


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.glob("*.safetensors"))}


@on_jax
@pytest.mark.parametrize("name", [*NAMES, "parts-loaded"])
def test_the_snapshots_are_those_of_one_process(place: Path, name: str) -> None:
    found = files(place / "together" / name)
    assert len(found) == {"part": 2, "parts-loaded": 1}.get(name, 3)
    assert found == files(place / "alone" / name)
    if name != "parts-loaded":
        assert said(place, name) == [[], []]


@on_jax
def test_weights_in_parts_are_whole_in_a_snapshot_and_move(place: Path) -> None:
    first, *_, last = SnapshotStore(place / "together" / "over").list()
    tensors, later = first.load(), last.load()
    assert tensors["narrow/kernel"].shape == tensors["first/kernel"].shape == (4, 8)
    for name in ("first/kernel", "narrow/kernel"):
        assert not np.array_equal(tensors[name], later[name])
    assert set(SnapshotStore(place / "together" / "part").list()[0].load()) == {
        f"{layer}/{weight}" for layer in ("first", "narrow") for weight in ("kernel", "bias")
    }


@on_jax
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "must be a folder"),
        ("metrics", "no metrics here"),
        ("disk", "the disk is full"),
        ("early", "must be made when the processes of its run are there"),
        ("lent", "must be a function that builds the model in this process"),
    ],
)
def test_what_goes_wrong_in_one_process_is_raised_in_all(
    place: Path, name: str, message: str
) -> None:
    for rank, wrong in enumerate(said(place, name)):
        assert len(wrong) == 1, rank
        assert message in wrong[0], rank


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow's")
def test_several_workers_of_tensorflow_are_refused_by_name(tmp_path: Path) -> None:
    for printed in outputs(["-c", WORKERS, str(tmp_path / "run")], 2):
        configured, scope, model = json.loads(printed.splitlines()[-1])
        assert "Received: TF_CONFIG with 2; take tf.distribute.MirroredStrategy" in configured
        for each in (scope, model):
            assert "Received: MultiWorkerMirroredStrategy with 2; take" in each


@pytest.mark.skipif(BACKEND != "torch", reason="processes of torch.distributed")
def test_of_several_processes_of_torch_rank_0_has_the_recorder(tmp_path: Path) -> None:
    first, second = outputs(["-c", TORCH, str(tmp_path / "run")], 2)
    assert first.splitlines()[-1] == "made"
    assert "Received: a recorder in that of rank 1 of 2" in second


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's TF_CONFIG")
@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"cluster": 3}',
        '{"cluster": {"chief": ["a:1"], "evaluator": ["b:1"]}}',
    ],
)
def test_a_config_of_one_worker_or_none_is_none(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosanneal.adapters.keras import SnapshotRecorder
    from tests.shared.keras_runs import SCHEDULE

    monkeypatch.setenv("TF_CONFIG", config)
    SnapshotRecorder(tmp_path / "run", SCHEDULE)
