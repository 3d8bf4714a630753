"""Snapshots of a training loop that runs inside of jit and scan."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import cosanneal as ca
from cosanneal.adapters.jax import (
    SnapshotBuffer,
    SnapshotEnsemble,
    SnapshotRecorder,
    snapshot_buffer,
)
from cosanneal.snapshots import SnapshotStore
from tests.shared.graphs import equations
from tests.shared.plans import INT32, PLANS, plan, steps_of
from tests.shared.wide import enable_x64

SCHEDULE = ca.CyclicCosine(0.1, total_steps=23, num_cycles=4)
STEPS = 23


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def wide(request: pytest.FixtureRequest) -> Iterator[bool]:
    with enable_x64(request.param):
        yield request.param


def net() -> dict[str, Any]:
    return {
        "hidden": {"kernel": jnp.arange(8.0).reshape(4, 2), "bias": jnp.zeros(2, jnp.bfloat16)},
        "out": (jnp.arange(3), jax.random.key(1), jnp.array(True), jnp.ones((0, 2))),
    }


def train_step(params: Any, step: Any) -> Any:
    """An update in exact arithmetic: two programs must not round differently."""
    count, key, flag, empty = params["out"]
    hidden = jax.tree.map(lambda leaf: leaf + step.astype(leaf.dtype), params["hidden"])
    return {"hidden": hidden, "out": (count + 1, jax.random.fold_in(key, step), ~flag, empty)}


@functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=(2, 3))
def in_scan(params: Any, buffer: Any, start: int, stop: int) -> Any:
    def one(carry: Any, step: Any) -> Any:
        params, buffer = carry
        params = train_step(params, step)
        return (params, buffer.update(step, params)), None

    return lax.scan(one, (params, buffer), jnp.arange(start, stop))[0]


def by_hand(folder: Path) -> None:
    """The same run in a loop of the host's."""
    params = net()
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        for step in range(STEPS):
            params = train_step(params, jnp.array(step))
            recorder.step(params)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("kind", PLANS)
def test_members_are_taken_at_the_ends_of_cycles(kind: str, wide: bool) -> None:
    schedule, _ = plan(kind)
    steps = steps_of(schedule, 2**62 if wide else INT32, some=60)
    wanted = [step for step in steps if schedule.is_cycle_end(step)]
    buffer = snapshot_buffer(schedule, jnp.array(0), len(wanted) + 1)

    def one(buffer: Any, step: Any) -> Any:
        return buffer.update(step, step), None

    buffer, _ = jax.jit(lambda *given: lax.scan(one, *given))(buffer, jnp.array(steps))
    assert [step for step, _ in buffer.list()] == wanted
    assert [int(params) for _, params in buffer.list()] == wanted
    assert (int(buffer.latest), int(buffer.taken)) == (steps[-1], len(wanted))
    assert len(buffer) == len(wanted)
    assert wanted or schedule.cycle_at(0).stop > INT32


@pytest.mark.usefixtures("wide")
def test_the_graph_does_not_grow_with_the_cycles() -> None:
    sizes = []
    for cycles in (100, 1000, 10_000):
        schedule = ca.CyclicCosine(0.1, total_steps=10 * cycles + 7, num_cycles=cycles)
        buffer = snapshot_buffer(schedule, jnp.zeros(2), 3)
        graph = jax.make_jaxpr(lambda buffer, step: buffer.update(step, jnp.ones(2)))
        sizes.append(equations(graph(buffer, jnp.array(3)).jaxpr))
    assert min(sizes) == max(sizes) <= 60


@pytest.mark.parametrize("members", [1, 3, 4, 6])
@pytest.mark.usefixtures("wide")
def test_a_recorded_buffer_is_what_a_loop_of_the_host_records(tmp_path: Path, members: int) -> None:
    by_hand(tmp_path / "host")
    expected = contents(tmp_path / "host")
    assert len(expected) == 4
    params = net()
    _, buffer = in_scan(params, snapshot_buffer(SCHEDULE, params, members), 0, STEPS)
    assert int(buffer.taken) == 4
    assert len(buffer) == min(members, 4)
    with SnapshotRecorder(tmp_path / "scan", SCHEDULE) as recorder:
        assert recorder.record(buffer) == len(buffer)
        assert recorder.updates == STEPS
    assert contents(tmp_path / "scan") == dict(sorted(expected.items())[-members:])


def test_a_run_in_pieces_is_recorded_in_pieces(tmp_path: Path) -> None:
    by_hand(tmp_path / "host")
    params = net()
    buffer = snapshot_buffer(SCHEDULE, params, 2)
    counts = []
    with SnapshotRecorder(tmp_path / "scan", SCHEDULE) as recorder:
        for start, stop in ((0, 3), (3, 12), (12, 12), (12, 20)):
            params, buffer = in_scan(params, buffer, start, stop)
            counts.append(recorder.record(buffer))
        # The rest by hand, from where the buffer ends.
        for step in range(20, STEPS):
            params = train_step(params, jnp.array(step))
            recorder.step(params)
    assert counts == [0, 2, 0, 1]
    assert contents(tmp_path / "scan") == contents(tmp_path / "host")
    # A run resumed from a checkpoint, which the buffer may be part of.
    with SnapshotRecorder(tmp_path / "scan", SCHEDULE, resume_from=12) as recorder:
        assert recorder.record(buffer) == 1
        assert recorder.updates == 20


def test_a_buffer_and_its_folder_go_on_under_an_extended_schedule(tmp_path: Path) -> None:
    whole = SCHEDULE.total_steps or STEPS
    longer = SCHEDULE.extended(num_cycles=2, total_steps=whole + 9)
    params = net()
    params, buffer = in_scan(params, snapshot_buffer(SCHEDULE, params, 9), 0, whole)
    with SnapshotRecorder(tmp_path / "a", SCHEDULE) as recorder:
        recorder.record(buffer)
    # The buffer as it was, then the same one under the new schedule.
    with SnapshotRecorder(tmp_path / "a", longer, resume_from=whole) as recorder:
        assert recorder.record(buffer) == 0
        _, buffer = in_scan(params, buffer.extended(longer), whole, whole + 9)
        assert recorder.record(buffer) == 2
    params = net()
    _, other = in_scan(params, snapshot_buffer(longer, params, 9), 0, whole + 9)
    with SnapshotRecorder(tmp_path / "b", longer) as recorder:
        recorder.record(other)
    folders = [SnapshotStore(tmp_path / name).list() for name in ("a", "b")]
    assert [each.step for each in folders[0]] == [end + 1 for end in longer.cycle_ends()]
    for ours, theirs in zip(*folders, strict=True):
        assert ours.path.name == theirs.path.name
        loaded, expected = ours.load(), theirs.load()
        assert all(loaded[name].tobytes() == x.tobytes() for name, x in expected.items())
    with pytest.raises(ca.SnapshotError, match=rf"as far as it came, {whole + 9} updates"):
        buffer.extended(SCHEDULE)
    with (
        SnapshotRecorder(tmp_path / "c", SCHEDULE) as recorder,
        pytest.raises(ca.SnapshotError, match="must have the recorder's schedule"),
    ):
        recorder.record(buffer)


def apply(params: Any, x: Any) -> Any:
    return x @ params["hidden"]["kernel"] / 50 + params["hidden"]["bias"].astype(x.dtype)


def test_an_ensemble_of_a_buffer_is_that_of_its_folder(tmp_path: Path) -> None:
    params = net()
    _, buffer = in_scan(params, snapshot_buffer(SCHEDULE, params, 3), 0, STEPS)
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        recorder.record(buffer)
    x = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    for last in (None, 2):
        held = SnapshotEnsemble(apply, buffer, last=last)
        written = SnapshotEnsemble(apply, tmp_path, like=net(), last=last)
        assert np.array_equal(held.predict(x), written.predict(x))
        assert len(held) == len(written) == (last or 3)
        for left, right in zip(held.members, written.members, strict=True):
            assert (left.cycle, left.step) == (right.cycle, right.step)
            assert left.layout() == right.layout()
            assert left.schedule == right.schedule == SCHEDULE
            assert left.metadata["rate"] == right.metadata["rate"]
            old, new = held.params(left), written.params(right)
            assert jax.tree.structure(old) == jax.tree.structure(new) == jax.tree.structure(net())
            for one, other in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
                assert bool(jnp.all(one == other))
    shown = repr(SnapshotEnsemble(apply, buffer))
    assert re.search(r"3 snapshots of folder \(buffer \d+\): 11, 17, 23", shown)
    with pytest.raises(ca.EnsembleError, match=r"the 4 snapshots asked for\. Received: 3"):
        SnapshotEnsemble(apply, buffer, last=4)
    empty = snapshot_buffer(SCHEDULE, params=net(), num_members=2)
    with pytest.raises(ca.EnsembleError, match=r"at least one snapshot\. Received: 0"):
        SnapshotEnsemble(apply, empty)
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor 'more' is not in it"):
        SnapshotEnsemble(apply, buffer, like={**net(), "more": jnp.ones(1)}).predict(x)


def test_an_ensemble_of_a_buffer_is_fitted_as_that_of_its_folder(tmp_path: Path) -> None:
    params = net()
    _, buffer = in_scan(params, snapshot_buffer(SCHEDULE, params, 3), 0, STEPS)
    folder = tmp_path / "snapshots"
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        recorder.record(buffer)
    x = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(int)
    held = SnapshotEnsemble(apply, buffer)
    written = SnapshotEnsemble(apply, folder, like=net())
    ours, theirs = (each.fit(x, y, select="greedy") for each in (held, written))
    assert (ours.weights, ours.temperature) == (theirs.weights, theirs.temperature)
    assert np.array_equal(held.predict(x), written.predict(x))
    with pytest.raises(ca.EnsembleError, match=r"`path` must be given"):
        held.save()
    held.save(tmp_path / "choice.json")
    assert (tmp_path / "choice.json").exists()
    assert not list(Path().glob("(buffer*"))


def test_several_runs_at_once() -> None:
    """Under vmap, each run has a buffer of its own."""

    def run(seed: Any) -> SnapshotBuffer:
        params = jnp.zeros(2) + seed
        buffer = snapshot_buffer(SCHEDULE, params, 2)

        def one(carry: Any, step: Any) -> Any:
            params, buffer = carry
            return (params + 1, buffer.update(step, params + 1)), None

        carry, _ = lax.scan(one, (params, buffer), jnp.arange(STEPS))
        found: SnapshotBuffer = carry[1]
        return found

    buffers = jax.jit(jax.vmap(run))(jnp.array([0.0, 100.0]))
    for i, seed in enumerate((0, 100)):
        members = jax.tree.map(lambda leaf, i=i: leaf[i], buffers).list()
        assert [(step, params.tolist()) for step, params in members] == [
            (16, [17.0 + seed] * 2),
            (22, [23.0 + seed] * 2),
        ]
    reads: tuple[Callable[..., Any], ...] = (
        len,
        SnapshotBuffer.list,
        functools.partial(SnapshotEnsemble, apply),
    )
    for read in reads:
        with pytest.raises(ca.SnapshotError, match=r"one run.*several, of shape \(2,\).*leaf\[i\]"):
            read(buffers)


@pytest.mark.parametrize("slots", [2, 3])
def test_steps_that_are_counted_anew_are_refused(tmp_path: Path, slots: int) -> None:
    """Each cycle is a scan of its own, whose steps begin at 0: two snapshots would be lost."""
    schedule = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)
    buffer = snapshot_buffer(schedule, jnp.zeros(2), slots)
    with SnapshotRecorder(tmp_path, schedule) as recorder:
        for step in range(4):
            buffer = buffer.update(step, jnp.full(2, float(step)))
        assert recorder.record(buffer) == 1
        for step in range(4):
            buffer = buffer.update(step, jnp.full(2, 4.0 + step))
        with pytest.raises(ca.SnapshotError, match=r"step 3 after one at step 3; .*start \+ i"):
            recorder.record(buffer)
    with pytest.raises(ca.SnapshotError, match=r"whole run"):
        SnapshotEnsemble(apply, buffer)
    assert [params.tolist() for _, params in buffer.list()] == [[3.0, 3.0], [7.0, 7.0]]


def test_a_new_buffer_for_each_cycle_must_count_the_steps_of_the_run(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)

    def cycle(start: int, value: float) -> SnapshotBuffer:
        return snapshot_buffer(schedule, jnp.zeros(2), 1).update(
            start + 3, jnp.full(2, float(value))
        )

    with SnapshotRecorder(tmp_path, schedule) as recorder:
        assert [recorder.record(cycle(start, start)) for start in (0, 4, 8)] == [1, 1, 1]
    with SnapshotRecorder(tmp_path / "anew", schedule) as recorder:
        assert recorder.record(cycle(0, 1.0)) == 1
        assert recorder.record(cycle(0, 1.0)) == 0  # the very same
        with pytest.raises(ca.SnapshotError, match=r"step 3, of which there is .*other params"):
            recorder.record(cycle(0, 2.0))


def test_a_buffer_is_compiled_once_and_not_changed_in_place() -> None:
    compiled = jax.jit(lambda buffer, step: buffer.update(step, jnp.ones(2)))
    buffer = snapshot_buffer(SCHEDULE, jax.ShapeDtypeStruct((2,), jnp.float32), 2)
    later = compiled(buffer, 4)
    assert (len(buffer), len(later)) == (0, 1)
    # Another buffer of an equal schedule has the same pytree type.
    again = ca.CyclicCosine(0.1, total_steps=23, num_cycles=4)
    compiled(snapshot_buffer(again, jnp.zeros(2), 2), 10)
    assert compiled._cache_size() == 1
    other = ca.CyclicCosine(0.1, total_steps=24, num_cycles=4)
    compiled(snapshot_buffer(other, jnp.zeros(2), 2), 10)
    assert compiled._cache_size() == 2


def test_buffers_that_cannot_be(tmp_path: Path) -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones((2, 3))}
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        snapshot_buffer(0.1, params, 2)  # type: ignore[arg-type]
    with pytest.raises(ca.EnsembleError, match=r"`num_members` must be a positive integer\. Rec"):
        snapshot_buffer(SCHEDULE, params, 0)
    with pytest.raises(ca.SnapshotError, match=r"must consist of arrays.*'f'"):
        snapshot_buffer(SCHEDULE, {"f": jnp.sin}, 2)
    growing = ca.CyclicCosine(0.1, cycle_steps=10, cycle_mult=1.0001)
    with pytest.raises(ca.ScheduleError, match=r"at most 32768 cycles"):
        snapshot_buffer(growing, params, 2)
    buffer = snapshot_buffer(SCHEDULE, params, 2)
    changes: list[tuple[Any, str]] = [
        ({"a": params["a"]}, r"its tensor 'b' is not in the model"),
        ({**params, "c": jnp.ones(1)}, r"the model's tensor 'c' is not in it"),
        ({**params, "b": jnp.ones((3, 2))}, r"'b' is float32 of shape \(2, 3\), .* \(3, 2\)"),
        ({**params, "a": jnp.ones(2, jnp.bfloat16)}, r"'a' is float32 .* bfloat16 of shape"),
    ]
    for changed, message in changes:
        with pytest.raises(ca.SnapshotError, match="must keep the structure.*" + message):
            jax.jit(lambda step, changed=changed: buffer.update(step, changed))(3)
    nested = snapshot_buffer(SCHEDULE, {"a": (jnp.ones(2),)}, 2)
    with pytest.raises(ca.SnapshotError, match="other containers"):
        nested.update(3, {"a": [jnp.ones(2)]})
    with pytest.raises(ca.ScheduleError, match=r"`step` must be an integer of at least 0"):
        buffer.update(-1, params)
    recorder = SnapshotRecorder(tmp_path, ca.CyclicCosine(0.1, total_steps=23, num_cycles=2))
    with pytest.raises(ca.SnapshotError, match=r"must have the recorder's schedule.*4 cycles"):
        recorder.record(buffer)
    with pytest.raises(ca.SnapshotError, match=re.escape("what snapshot_buffer(...) gave")):
        recorder.record(params)  # type: ignore[arg-type]
    recorder.close()
    assert SnapshotStore(tmp_path).list() == []


def test_buffers_and_folders_are_one_ensemble(tmp_path: Path) -> None:
    params = net()
    _, buffer = in_scan(params, snapshot_buffer(SCHEDULE, params, 3), 0, STEPS)
    other = {**net(), "hidden": jax.tree.map(lambda leaf: leaf - 1, net()["hidden"])}
    _, second = in_scan(other, snapshot_buffer(SCHEDULE, other, 2), 0, STEPS)
    with SnapshotRecorder(tmp_path / "a", SCHEDULE) as recorder:
        recorder.record(buffer)
    x = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    held = [SnapshotEnsemble(apply, each) for each in (buffer, second)]
    written = SnapshotEnsemble(apply, tmp_path / "a", like=net())
    parts = [written.predict(x) * 3, held[1].predict(x) * 2]
    expected = np.sum(np.asarray(parts, float), axis=0) / 5
    lists: list[Any] = [[tmp_path / "a", second], [buffer, second]]
    for ensemble in (
        *(SnapshotEnsemble(apply, each) for each in lists),
        held[0] + held[1],
        written + held[1],
    ):
        assert len(ensemble) == 5
        np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5)
        assert ensemble.params(ensemble.members[4])["out"][0].shape == (3,)
    # Members of a buffer are no files: a choice among them is one of arrays.
    for several in (held[0] + held[1], written + held[1]):
        with pytest.warns(UserWarning, match="validation samples"):
            found = several.fit(np.tile(x, (4, 1)), np.arange(44) % 2)
        assert len(set(found.members)) == 5
        assert found.digests is None
    with pytest.raises(ca.EnsembleError, match=r"snapshot once\."):
        held[0] + held[0]
    with pytest.raises(ca.EnsembleError, match="of one model to be added"):
        held[0] + SnapshotEnsemble(jax.jit(apply), tmp_path / "a", like=net())
