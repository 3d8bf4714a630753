"""Recording params of JAX: what is recorded when, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, snapshot_buffer
from tests.shared.jax_runs import EVERY_STEP, SCHEDULE, Training, apply, data, recorded

# Runs are ended wherever a test is done with them.
pytestmark = pytest.mark.filterwarnings("ignore:The run ended at update:UserWarning")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("saved", "killed"), [(3, 4), (8, 13), (10, 10), (9, 20), (0, 2)])
def test_a_killed_run_resumed_from_a_checkpoint_is_the_run_that_was_not(
    tmp_path: Path, saved: int, killed: int
) -> None:
    whole = Training(tmp_path / "whole")
    for _ in range(20):
        whole.update()

    broken = Training(tmp_path / "broken")
    for step in range(killed):
        if step == saved:
            broken.save(tmp_path / "checkpoint")
        broken.update()
    if saved == killed:
        broken.save(tmp_path / "checkpoint")
    broken.recorder.close(unfinished=True)

    resumed = Training.load(tmp_path / "checkpoint", tmp_path / "broken")
    for _ in range(20 - saved):
        resumed.update()
    for run in (whole, resumed):
        run.recorder.close()

    for left, right in zip(*map(jax.tree.leaves, (whole.state, resumed.state)), strict=True):
        assert np.array_equal(left, right)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


def test_a_run_at_a_url_predicts_as_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url, (x, _) = "memory://test-jax/run", data(30)
    try:
        for folder in (url, tmp_path / "local"):
            run = Training(folder)
            for _ in range(20):
                run.update()
            run.recorder.close()
        params = run.state[0]
        files = fsspec.filesystem("memory")
        local = sorted((tmp_path / "local").iterdir())
        assert [files.cat_file(f"/test-jax/run/{path.name}") for path in local] == [
            path.read_bytes() for path in local
        ]
        ensembles = [
            SnapshotEnsemble(apply, folder, like=params, last=3)
            for folder in (url, tmp_path / "local")
        ]
        there, here = (each.predict(x) for each in ensembles)
        assert np.array_equal(there, here)
    finally:
        fsspec.filesystem("memory").store.clear()


def test_snapshots_are_the_params_after_each_cycles_last_update(tmp_path: Path) -> None:
    run = Training(tmp_path)
    expected = {}
    for step in range(20):
        run.update()
        if SCHEDULE.is_cycle_end(step):
            expected[step + 1] = jax.tree.map(lambda leaf: np.array(leaf), run.state[0])
    run.recorder.wait()
    snapshots = run.recorder.store.list()
    assert [(snapshot.cycle, snapshot.step) for snapshot in snapshots] == [
        (0, 5),
        (1, 10),
        (2, 15),
        (3, 20),
    ]
    for snapshot in snapshots:
        # Donated buffers have been written over since.
        loaded, params = snapshot.load(), expected[snapshot.step]
        assert {*loaded} == {"hidden.kernel", "hidden.bias", "out.kernel", "out.bias"}
        assert np.array_equal(loaded["hidden.kernel"], params["hidden"]["kernel"])
        assert np.array_equal(loaded["out.bias"], params["out"]["bias"])
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
        assert snapshot.metadata["metrics"] == {"seen": snapshot.step - 1}
        assert snapshot.metadata["framework"] == "jax"
        assert snapshot.metadata["versions"]["jax"] == jax.__version__
        assert snapshot.schedule == SCHEDULE
    assert not np.array_equal(
        expected[15]["hidden"]["kernel"], snapshots[-1].load()["hidden.kernel"]
    )


def test_params_are_copied_before_step_returns(tmp_path: Path) -> None:
    params = jnp.arange(5.0)
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        overwrite = jax.jit(lambda values: values * 0 - 1, donate_argnums=0)
        recorder.step({"w": params})
        overwrite(params)
        assert params.is_deleted()
        with pytest.raises(ca.SnapshotError, match=r"that the update returned.*'w'.*donated"):
            recorder.step({"w": params})
    assert recorder.store.list()[0].load()["w"].tolist() == [0, 1, 2, 3, 4]


def test_params_are_looked_at_in_the_first_step_and_where_a_cycle_ends(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {}

    params = {"w": jnp.ones(2)}
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        assert recorder.step(params, measure) is False
        for _ in range(3):
            assert recorder.step(object(), measure) is False
        assert recorder.step(params, measure) is True
    assert len(calls) == 1


def test_params_whose_structure_changed_are_refused(tmp_path: Path) -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones((2, 3))}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"a": params["a"]}, r"its tensor 'b' is not in the model"),
        ({**params, "c": jnp.ones(1)}, r"the model's tensor 'c' is not in it"),
        ({**params, "b": jnp.ones((3, 2))}, r"'b' is float32 of shape \(2, 3\), .* \(3, 2\)"),
        ({**params, "a": jnp.ones(2, jnp.bfloat16)}, r"'a' is float32 .* bfloat16 of shape"),
    ]
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        recorder.step(params)
        for changed, message in changes:
            with pytest.raises(ca.SnapshotError, match="must keep its structure.*" + message):
                recorder.step(changed)
        recorder.step(params)
    # Another model is refused at its first step, also where no cycle ends.
    longer = ca.CyclicCosine(0.1, cycle_steps=2)
    other = {"a": params["a"].astype(jnp.bfloat16), "key": jax.random.key(0)}
    for schedule, updates in ((EVERY_STEP, 6), (EVERY_STEP, 0)):
        with (
            SnapshotRecorder(tmp_path, schedule, resume_from=updates) as recorder,
            pytest.raises(ca.SnapshotError, match=r"this model alone.*'b' is not in the model"),
        ):
            recorder.step({"a": params["a"]})
    with SnapshotRecorder(tmp_path, longer, overwrite=True) as recorder:
        assert not recorder.step(other)
        assert len(recorder.store.list()) == 2
        assert recorder.step(other)
    with SnapshotRecorder(tmp_path, longer, resume_from=2) as recorder:
        assert not recorder.step(other)  # whose dtypes and keys are told alike from both
    with (
        SnapshotRecorder(tmp_path, longer, resume_from=2) as recorder,
        pytest.raises(ca.SnapshotError, match=r"this model alone.*overwrite=True"),
    ):
        recorder.step(params)
    with SnapshotRecorder(tmp_path, longer, resume_from=2, overwrite=True) as recorder:
        recorder.step(params)
        assert [each.step for each in recorder.store.list()] == [2]
        recorder.step(params)
    assert [each.step for each in recorder.store.list()] == [4]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: {"f": jnp.sin}, r"must consist of arrays\. Received: 'f', a .*equinox.filter"),
        (lambda: {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}, r"two whose path reads 'a\.b'"),
        (lambda: {"four": jnp.ones(2, jnp.int4)}, r"'four' must have a dtype that .*int4"),
        (lambda: {"__metadata__": jnp.ones(2)}, r"must not be named '__metadata__'"),
        (lambda: {"n": 2**40}, r"JAX' integers hold\. Received: 'n', 1099511627776; enable"),
        (dict, r"at least one array\. Received: \{\}"),
    ],
)
def test_params_that_cannot_be_held_are_refused_by_name(
    tmp_path: Path, build: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ca.SnapshotError, match=message):
        recorded(tmp_path, build())
    assert list(tmp_path.iterdir()) == []
    # The very first update says so, and not the first cycle's end.
    with (
        pytest.raises(ca.SnapshotError, match=message),
        SnapshotRecorder(tmp_path, SCHEDULE) as recorder,
    ):
        recorder.step(build())
    assert recorder.updates == 1


def test_a_recorder_inside_jit_is_refused(tmp_path: Path) -> None:
    recorder = SnapshotRecorder(tmp_path, EVERY_STEP)
    with pytest.raises(ca.SnapshotError, match=r"outside of jit\. Received: 'w' as a tracer"):
        jax.jit(lambda w: recorder.step({"w": w}))(jnp.ones(2))
    recorder.close()
    with pytest.raises(ca.SnapshotError, match="closed"):
        recorder.step({})
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        SnapshotRecorder(tmp_path, 3)  # type: ignore[arg-type]


def test_a_run_beyond_its_schedule_is_said_once(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=4, num_cycles=2, min_lr=0.01)
    params = {"w": jnp.ones(2)}
    message = (
        r"has done 5 updates of a schedule of 4.*stays at 0\.01.*more total_steps.*"
        "than once an update"
    )
    with SnapshotRecorder(tmp_path / "loop", schedule) as recorder:
        taken = [recorder.step(params) for _ in range(4)]
        with pytest.warns(UserWarning, match=message) as caught:
            taken.append(recorder.step(params))
        assert caught[0].filename == __file__
        taken.append(recorder.step(params))
    assert taken == [False, True, False, True, False, False]
    buffer = snapshot_buffer(schedule, params, 2)
    for step in range(5):
        buffer = buffer.update(step, params)
    with (
        SnapshotRecorder(tmp_path / "buffer", schedule) as recorder,
        pytest.warns(UserWarning, match=message) as caught,
    ):
        assert recorder.record(buffer) == 2
    assert caught[0].filename == __file__


def test_on_durable_is_called_with_each_file_that_is_there(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    with SnapshotRecorder(
        tmp_path, EVERY_STEP, on_durable=lambda one: told.append((one.step, one.path.is_file()))
    ) as recorder:
        for _ in range(2):
            recorder.step({"w": jnp.ones(3)})
    assert told == [(1, True), (2, True)]
