"""Training, snapshots and prediction on a device, with JAX and Optax."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import cosanneal as ca
from cosanneal.adapters.jax import (
    SnapshotEnsemble,
    SnapshotRecorder,
    cyclic_cosine_schedule,
    snapshot_buffer,
)
from cosanneal.snapshots import SnapshotStore
from tests.shared.plans import INT32, PLANS, assert_close, peaks_of, plan, steps_of
from tests.shared.wide import enable_x64

pytestmark = pytest.mark.gpu

SCHEDULE = ca.CyclicCosine(0.1, total_steps=30, num_cycles=3)
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)
TX = optax.sgd(cyclic_cosine_schedule(SCHEDULE), momentum=0.9)


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Devices multiply float32 in fewer bits, unless told otherwise."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def wide(request: pytest.FixtureRequest) -> Iterator[bool]:
    with enable_x64(request.param):
        yield request.param


def network(seed: int = 0) -> dict[str, dict[str, jax.Array]]:
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "hidden": {"kernel": jax.random.normal(first, (6, 16)), "bias": jnp.zeros(16)},
        "out": {"kernel": jax.random.normal(second, (16, 3)), "bias": jnp.zeros(3)},
    }


def apply(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def data(samples: int = 96) -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(samples, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def update(params: Any, state: Any, x: Any, y: Any) -> Any:
    def loss(params: Any) -> Any:
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, state = TX.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def trained(folder: Path) -> tuple[Any, list[Any]]:
    """A small run, and its params at the cycles' ends."""
    params = network()
    state = TX.init(params)
    x, y = map(jnp.asarray, data())
    ends = []
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        for step in range(SCHEDULE.total_steps or 0):
            params, state = update(params, state, x, y)
            if SCHEDULE.is_cycle_end(step):
                ends.append(jax.device_get(params))
            recorder.step(params)
    return params, ends


def flat(params: Any) -> dict[str, Any]:
    """The arrays by the names that snapshots give them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {".".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def assert_holds(snapshot: Any, params: Any) -> None:
    """The snapshot has these very params, and no others."""
    loaded, wanted = snapshot.load(), flat(params)
    assert loaded.keys() == wanted.keys()
    for name, value in wanted.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].tobytes() == value.tobytes(), name


def probabilities(folder: Path, x: Any) -> Any:
    """What the ensemble should say, by numpy in float64."""
    members = []
    for snapshot in SnapshotStore(folder).list():
        w = {name: value.astype(float) for name, value in snapshot.load().items()}
        hidden = np.maximum(x.astype(float) @ w["hidden.kernel"] + w["hidden.bias"], 0)
        logits = hidden @ w["out.kernel"] + w["out.bias"]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        members.append(powers / powers.sum(1, keepdims=True))
    return np.mean(members, axis=0)


@pytest.mark.parametrize("kind", PLANS)
def test_rates_on_the_device_are_within_8_ulp_of_the_exact_ones(
    kind: str, wide: bool, jax_device: Any
) -> None:
    schedule, oracle = plan(kind)
    limit = 2**62 if wide else INT32
    rate = jax.jit(jax.vmap(cyclic_cosine_schedule(schedule)))
    steps = steps_of(schedule, limit)
    got = rate(jax.device_put(jnp.asarray(np.array(steps)), jax_device))
    assert got.devices() == {jax_device}
    assert got.dtype == (np.float64 if wide else np.float32)
    assert_close(got, [float(oracle.rate(step)) for step in steps], steps, kind)
    peaks = peaks_of(kind, limit)
    if peaks:
        at_peaks = rate(jnp.asarray(np.array([*peaks])))
        assert at_peaks.tolist() == [float(got.dtype.type(peak)) for peak in peaks.values()]


def test_a_whole_training_with_snapshots_and_ensemble(tmp_path: Path, jax_device: Any) -> None:
    params, ends = trained(tmp_path)
    assert all(leaf.devices() == {jax_device} for leaf in jax.tree.leaves(params))
    found = SnapshotStore(tmp_path).list()
    assert [(each.cycle, each.step) for each in found] == [(0, 10), (1, 20), (2, 30)]
    for snapshot, weights in zip(found, ends, strict=True):
        assert_holds(snapshot, weights)
    x, y = data()
    ensemble = SnapshotEnsemble(jax.jit(apply), tmp_path, like=params)
    predicted = ensemble.predict(jnp.asarray(x))
    assert predicted.devices() == {jax_device}
    assert (np.asarray(predicted).argmax(1) == y).mean() > 0.6  # guessing has less than 0.5
    with pytest.warns(UserWarning, match="chosen on"):
        ensemble.fit(jnp.asarray(x), y)
    assert ensemble.predict(jnp.asarray(x)).devices() == {jax_device}


@pytest.mark.parametrize("batch_size", [None, 1, 40])
def test_the_device_predicts_as_the_host_does(
    tmp_path: Path, batch_size: int | None, jax_device: Any
) -> None:
    params, _ = trained(tmp_path)
    x, _ = data()
    expected = probabilities(tmp_path, x)
    ensemble = SnapshotEnsemble(jax.jit(apply), tmp_path, like=params)
    # From wherever the input comes.
    for given in (jnp.asarray(x), x):
        found = ensemble.predict(given, batch_size=batch_size)
        assert found.devices() == {jax_device}
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    members = [np.asarray(each) for each in ensemble.member_predictions(x)]
    assert max(np.abs(each - expected).max() for each in members) > 1e-3


@pytest.mark.parametrize("mode", ["stream", "resident", "stacked"])
def test_every_mode_predicts_the_same(tmp_path: Path, mode: str, jax_device: Any) -> None:
    params, _ = trained(tmp_path)
    x, _ = data()
    given: dict[str, Any] = {"mode": mode}
    ensemble = SnapshotEnsemble(jax.jit(apply), tmp_path, like=params)
    for batch_size in (None, 40):
        found = ensemble.predict(jnp.asarray(x), batch_size=batch_size, **given)
        assert found.devices() == {jax_device}
        np.testing.assert_allclose(found, probabilities(tmp_path, x), rtol=1e-5, atol=1e-6)


@functools.partial(jax.jit, donate_argnums=0)
def count(params: Any) -> Any:
    """One more in every element, after work that keeps the device busy meanwhile."""
    busy = lax.fori_loop(0, 50, lambda _, x: jnp.sin(x @ x), params["work"])
    # What is added is 1, which the device cannot know before the work is done.
    one = 1 + 0 * jnp.clip(busy[0, 0], -1, 1)
    return {"work": params["work"], "counted": [each + one for each in params["counted"]]}


@pytest.mark.usefixtures("jax_device")
def test_donated_buffers_are_copied_before_the_next_update_writes_them(tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "work": jnp.ones((512, 512)) / 512,
        "counted": [jnp.zeros((1024, 1024)) for _ in range(16)],  # 64 MB
    }
    first = params["counted"][0]
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for _ in range(6):
            params = count(params)
            recorder.step(params)  # and the next update starts at once
    assert first.is_deleted()  # its buffer was given away
    for value, snapshot in enumerate(recorder.store.list(), 1):
        loaded = snapshot.load()
        assert all((loaded[f"counted.{i}"] == value).all() for i in range(16))


def test_a_buffer_filled_within_a_scan_holds_what_a_loop_records(
    tmp_path: Path, jax_device: Any
) -> None:
    x, y = map(jnp.asarray, data())

    @jax.jit
    def train(params: Any) -> Any:
        def step(carry: Any, number: Any) -> Any:
            params, state, buffer = carry
            params, state = update(params, state, x, y)
            return (params, state, buffer.update(number, params)), params["out"]["bias"]

        carry = params, TX.init(params), snapshot_buffer(SCHEDULE, params, 3)
        (_, _, buffer), biases = lax.scan(step, carry, jnp.arange(30))
        return buffer, biases

    buffer, biases = train(network())
    assert [step for step, _ in buffer.list()] == [9, 19, 29]
    for step, params in buffer.list():
        assert np.array_equal(params["out"]["bias"], biases[step])
    with SnapshotRecorder(tmp_path, SCHEDULE) as recorder:
        assert recorder.record(buffer) == 3
    for snapshot, (_, params) in zip(recorder.store.list(), buffer.list(), strict=True):
        assert_holds(snapshot, params)
    predicted = SnapshotEnsemble(jax.jit(apply), buffer).predict(x)
    assert predicted.devices() == {jax_device}
    np.testing.assert_allclose(
        predicted, probabilities(tmp_path, np.asarray(x)), rtol=1e-5, atol=1e-6
    )


def test_snapshots_of_low_precision_come_back_from_the_device(
    tmp_path: Path, jax_device: Any
) -> None:
    def params(value: int) -> dict[str, Any]:
        numbers = jnp.arange(-6, 6) * 0.3 * value
        eights = (jnp.float8_e4m3fn, jnp.float8_e5m2)
        return {
            "brain": numbers.astype(jnp.bfloat16),
            "eights": {str(jnp.dtype(kind)): numbers.astype(kind) for kind in eights},
        }

    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for value in (1, 2, 3):
            recorder.step(params(value))
    ensemble = SnapshotEnsemble(
        lambda params, x: x * params["brain"], tmp_path, params(1), outputs="values"
    )
    for value, snapshot in enumerate(recorder.store.list(), 1):
        assert snapshot.layout()["eights.float8_e5m2"] == ((12,), "float8_e5m2")
        assert_holds(snapshot, params(value))
        back = ensemble.params(snapshot)
        for old, new in zip(*map(jax.tree.leaves, (params(value), back)), strict=True):
            assert (new.dtype, new.devices()) == (old.dtype, {jax_device})
            assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    found = ensemble.predict(jnp.ones((2, 1), jnp.bfloat16))
    assert (found.dtype, found.devices()) == (jnp.bfloat16, {jax_device})
    expected = np.mean([np.asarray(params(value)["brain"], float) for value in (1, 2, 3)], axis=0)
    np.testing.assert_allclose(np.asarray(found, float)[0], expected, rtol=2**-8)


def test_streaming_takes_the_memory_of_one_member_however_many_there_are(
    tmp_path: Path, jax_device: Any
) -> None:
    def params(value: int) -> dict[str, Any]:
        return {"wide": jnp.full((2048, 4096), value / 2048), "narrow": jnp.ones((4096, 4))}

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params(0)))  # about 34 MB
    with SnapshotRecorder(tmp_path, EVERY_STEP) as recorder:
        for value in range(8):
            recorder.step(params(value))
    used: list[int] = []

    def observed(params: Any, x: Any) -> Any:
        used.append(jax_device.memory_stats()["bytes_in_use"])
        return jax.nn.relu(x @ params["wide"]) @ params["narrow"]

    like = jax.eval_shape(lambda: params(0))
    ensemble = SnapshotEnsemble(observed, tmp_path, like=like)
    x = jnp.ones((16, 2048))
    before = jax_device.memory_stats()["bytes_in_use"]
    assert np.isfinite(ensemble.predict(x)).all()
    assert len(used) == 8
    # Of the member at hand, and at most of the one before it.
    taken = [each - before for each in used]
    assert min(taken) >= 0.9 * size
    assert max(taken) <= 2.1 * size
    assert taken[-1] <= taken[1] + 0.1 * size
