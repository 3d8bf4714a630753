"""The schedule on each of Keras' backends: exact enough, at every step, compiled or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule
from tests.shared.compiling import BACKEND, Function, operations, ways
from tests.shared.oracle import curve_at, decimal
from tests.shared.plans import INT32, PLANS, assert_close, plan, steps_of

SCHEDULE, ORACLE = plan("warmed")


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def wide(request: pytest.FixtureRequest) -> Iterator[bool]:
    if not request.param:
        yield False
        return
    keras.config.set_floatx("float64")
    try:
        if BACKEND == "jax":
            from tests.shared.wide import enable_x64

            with enable_x64(True):
                yield True
        else:
            yield True
    finally:
        keras.config.set_floatx("float32")


def rates(computed: Function, steps: list[int], *, wide: bool) -> NDArray[Any]:
    """The rates at the steps; always of one size, for which JAX compiles each operation once."""
    padded = [*steps, *[0] * (1000 - len(steps))]
    found: NDArray[Any] = ops.convert_to_numpy(computed(tensor(padded, wide=wide)))
    return found[: len(steps)]


def tensor(steps: Any, *, wide: bool) -> Any:
    """Steps in the dtype in which the backend counts them."""
    dtype = "int64" if wide or BACKEND == "tensorflow" else "int32"
    return ops.convert_to_tensor(np.array(steps, dtype))


@pytest.mark.parametrize("kind", PLANS)
def test_rates_are_within_8_ulp_of_the_exact_ones(kind: str, wide: bool) -> None:
    schedule, oracle = plan(kind)
    steps = steps_of(schedule, 2**62 if wide else INT32, some=60)
    exact = [float(oracle.rate(step)) for step in steps]
    rate = CyclicCosineSchedule(schedule)
    few = slice(None, None, 40)
    for way, computed in ways(rate).items():
        got = rates(computed, steps, wide=wide)
        assert got.dtype == (np.float64 if wide else np.float32)
        assert_close(got, exact, steps, f"{kind}, {way}")
        # One at a time; eager, that is the schedule's own rate.
        single = [ops.convert_to_numpy(computed(step)) for step in tensor(steps[few], wide=wide)]
        assert {value.dtype for value in single} == {got.dtype}
        assert_close(single, exact[few], steps[few], f"{kind}, {way}, one at a time")
    single = [ops.convert_to_numpy(rate(step)) for step in steps[few]]
    assert_close(single, exact[few], steps[few], kind)


@pytest.mark.parametrize("kind", PLANS)
def test_every_restart_is_the_peak_itself_and_no_last_step_is_zero(kind: str, wide: bool) -> None:
    schedule, _ = plan(kind)
    limit = 2**62 if wide else INT32
    dtype = np.float64 if wide else np.float32
    given = PLANS[kind]
    endpoint, warmed = "endpoint" in given, {"warmup_steps", "restart_warmup_steps"} & {*given}
    peaks: dict[int, float] = {}
    lasts: list[int] = []
    for cycle in schedule.cycles()[: schedule.num_cycles or 30]:
        if cycle.stop > limit:
            break
        if not warmed and not (endpoint and cycle.length == 1):
            peaks[cycle.start] = float(dtype(cycle.max_lr))
        if not endpoint and cycle.min_lr == 0:
            lasts.append(cycle.last_step)
    for way, computed in ways(CyclicCosineSchedule(schedule)).items():
        if peaks:
            got = rates(computed, [*peaks], wide=wide)
            assert got.tolist() == [*peaks.values()], way
        if lasts:
            assert rates(computed, lasts, wide=wide).min() > 0, way
        if schedule.total_steps is not None and schedule.total_steps <= limit:
            after = [schedule.total_steps, min(schedule.total_steps + 1, limit), limit]
            floor = float(dtype(given.get("min_lr", 0.0)))
            got = rates(computed, after, wide=wide)
            assert got.tolist() == [floor] * 3, way


@pytest.mark.parametrize("length", [Fraction(1000, 3), Fraction(355, 113)])
def test_cycles_of_fractional_length(length: Fraction, wide: bool) -> None:
    steps = [*range(800), 10**6, 2**24 - 1, 2**24 + 1, INT32 - 1, INT32]
    peak, floor = decimal(0.1), decimal(0)
    exact = [
        float(curve_at(Fraction(step) % length / length, first=peak, last=floor)) for step in steps
    ]
    for way, computed in ways(CyclicCosineSchedule(ca.presets.sgdr(0.1, length))).items():
        assert_close(rates(computed, steps, wide=wide), exact, steps, f"{length}, {way}")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"warmup_steps": 3, "restart_warmup_steps": 2, "min_lr": 1e-3},
        {"cycle_decay": 0.9999, "restart_warmup_steps": 2},
    ],
    ids=["equal", "warmed", "decaying"],
)
def test_the_graph_does_not_grow_with_the_cycles(given: dict[str, Any]) -> None:
    steps = tensor([3, 5], wide=False)
    sizes = []
    for cycles in (100, 1000, 10_000):
        schedule = ca.CyclicCosine(0.1, total_steps=10 * cycles, num_cycles=cycles, **given)
        sizes.append(operations(CyclicCosineSchedule(schedule), steps))
    assert max(sizes) == min(sizes)
    # The counting counts.
    assert operations(lambda x: x * 2 * 2, steps) > operations(lambda x: x * 2, steps)


def test_a_graph_made_after_another_has_constants_of_its_own() -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    steps = tensor([40, 41], wide=False)
    exact = [float(ORACLE.rate(step)) for step in (40, 41)]
    for _ in range(2):
        for way, computed in ways(lambda x: rate(x) * 1.0).items():
            assert_close(ops.convert_to_numpy(computed(steps)), exact, [40, 41], way)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_every_integer_is_a_step(dtype: str) -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    exact = [float(ORACLE.rate(40))]
    for step in (np.dtype(dtype).type(40), np.array(40, dtype)):
        assert_close([ops.convert_to_numpy(rate(step))], exact, [40], dtype)
    if dtype == "int64" and BACKEND == "jax":
        return  # jax has no 64-bit arrays without x64, numpy has
    for computed in ways(rate).values():
        got = ops.convert_to_numpy(computed(ops.convert_to_tensor([40], dtype)))
        assert_close(got, exact, [40], dtype)


def test_the_optimizers_count_is_a_step() -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    optimizer = keras.optimizers.SGD(rate)
    optimizer.iterations.assign(40)
    exact = [float(ORACLE.rate(40))]
    assert_close([ops.convert_to_numpy(rate(optimizer.iterations))], exact, [40], "variable")
    assert_close([ops.convert_to_numpy(optimizer.learning_rate)], exact, [40], "optimizer")


def test_floatx_may_change_between_two_calls() -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    try:
        for computed in ways(rate).values():
            got = ops.convert_to_numpy(computed(tensor([40], wide=True)))
            assert got.dtype == np.float64
            assert_close(got, [float(ORACLE.rate(40))], [40], "float64")
    finally:
        keras.config.set_floatx("float32")
        if BACKEND == "jax":
            jax.config.update("jax_enable_x64", False)
    assert ops.convert_to_numpy(rate(40)).dtype == np.float32


def test_steps_that_cannot_be() -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    others: list[Any] = [
        *(1.5, True, "3", None, float("nan"), float("inf"), np.float32(0.5), np.bool_(True)),
        *(np.array([1.0, 1.5]), np.array([1.0, np.nan]), np.array([True]), np.array(["3"])),
        *(np.array([1j]), ops.convert_to_tensor(0.5), ops.convert_to_tensor([1.0, 0.5])),
        *(ops.convert_to_tensor(True), keras.Variable(0.5)),
    ]
    for step in others:
        with pytest.raises(ca.ScheduleError, match=r"`step` must be an integer"):
            rate(step)
    for way, computed in ways(rate).items():
        if way != "eager":  # TensorFlow puts it into an error of its own
            with pytest.raises(Exception, match=r"tensor of float32.*2\*\*24"):
                computed(ops.convert_to_tensor(1.0))
    with pytest.raises(ca.ScheduleError, match=r"at most 2147483647.*floatx to float64"):
        rate(2**31)
    # A tensor's cannot be raised inside of a graph.
    for computed in ways(rate).values():
        steps = tensor([-1, -(2**31)], wide=False)
        assert ops.convert_to_numpy(computed(steps)).tolist() == [float(rate(0))] * 2
        assert float(computed(steps[1])) == float(rate(0))


def test_schedules_that_cannot_be() -> None:
    for value in (0.1, None, keras.optimizers.schedules.CosineDecay(0.1, 10)):
        with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
            CyclicCosineSchedule(value)  # type: ignore[arg-type]
    with pytest.raises(ca.ScheduleError, match=r"at most 32768 rows"):
        CyclicCosineSchedule(ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=0.9))
    with pytest.raises(ca.ScheduleError, match=r"in the range of float32.*1e\+300"):
        CyclicCosineSchedule(ca.CyclicCosine(1e300, cycle_steps=10))


@pytest.mark.parametrize("kind", ["warmed", "list", "endless growing"])
def test_its_config_is_plain_data(kind: str) -> None:
    schedule, _ = plan(kind)
    rate = CyclicCosineSchedule(schedule)
    assert CyclicCosineSchedule.from_config(json.loads(json.dumps(rate.get_config()))).schedule == (
        schedule
    )
    data = json.loads(json.dumps(keras.optimizers.schedules.serialize(rate)))
    assert data["registered_name"] == "cosanneal>CyclicCosineSchedule"
    again = keras.optimizers.schedules.deserialize(data)
    assert isinstance(again, CyclicCosineSchedule)
    assert again.schedule == schedule
    with pytest.raises(ca.ScheduleError, match=r"description must be a dict whose 'format' is"):
        CyclicCosineSchedule.from_config({"schedule": {}})


def regression(rate: Any, **compiled: Any) -> Any:
    """A model whose every update lowers its one weight by the rate."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(rate), loss=lambda _, y_pred: ops.mean(y_pred), **compiled)
    model.set_weights([np.zeros((1, 1), np.float32)])
    return model


class Weights(keras.callbacks.Callback):
    """The weight after each update."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [0.0]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.seen.append(float(self.model.get_weights()[0].item()))


def rates_seen(model: Any, updates: int) -> Any:
    weights = Weights()
    ones = np.ones((updates, 1), np.float32)
    model.fit(ones, ones, batch_size=1, shuffle=False, callbacks=[weights], verbose=0)
    return -np.diff(weights.seen)


@pytest.mark.parametrize(
    "compiled",
    [{"jit_compile": False}, {"jit_compile": "auto"}, {"run_eagerly": True}],
    ids=["uncompiled", "compiled", "eager"],
)
def test_each_update_of_fit_uses_its_rate(compiled: dict[str, Any]) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=3, warmup_steps=2)
    seen = rates_seen(regression(CyclicCosineSchedule(schedule), **compiled), 22)
    # The weight is a float32 of less than 2.
    np.testing.assert_allclose(seen, schedule.rates(0, 22), rtol=0, atol=2e-7)


def test_a_saved_model_goes_on_at_the_same_step(tmp_path: Path) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=20, num_cycles=3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(CyclicCosineSchedule(schedule), momentum=0.5), "mse")
    x, y = np.ones((9, 1), np.float32), np.full((9, 1), 5, np.float32)
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer._learning_rate.schedule == schedule
    assert int(loaded.optimizer.iterations) == 9
    for each in (model, loaded):
        each.fit(x, y, batch_size=1, shuffle=False, verbose=0)
    assert int(loaded.optimizer.iterations) == 18
    assert np.array_equal(model.get_weights()[0], loaded.get_weights()[0])


def test_where_keras_own_schedule_is_right_ours_is_the_same() -> None:
    theirs = keras.optimizers.schedules.CosineDecayRestarts(0.1, 13, t_mul=2.0, m_mul=0.5)
    ours = CyclicCosineSchedule(ca.presets.keras_cosine_decay_restarts(0.1, 13, 2.0, 0.5))
    # Not at the restarts themselves, nor where its cosine cancels.
    steps = [*range(1, 11), *range(15, 34), *range(42, 70)]
    expected = np.array([float(theirs(step)) for step in steps])
    got = ops.convert_to_numpy(ours(tensor(steps, wide=False)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-8)


def test_where_keras_own_schedule_is_wrong_ours_is_right() -> None:
    """Beyond 2**24 steps are no float32 any more; and 1 + cos cancels near a cycle's end."""
    for length, step in ((1000, 100_000_999), (100_000, 99_999)):
        theirs = keras.optimizers.schedules.CosineDecayRestarts(0.1, length, t_mul=1.0)
        ours = CyclicCosineSchedule(ca.presets.keras_cosine_decay_restarts(0.1, length, 1.0))
        remains = Fraction(length - step % length, length)
        exact = float(curve_at(1 - remains, first=decimal(0.1), last=decimal(0)))
        theirs_there = float(theirs(step))
        assert abs(theirs_there - exact) > 0.9 * exact
        for way, computed in ways(ours).items():
            got = ops.convert_to_numpy(computed(tensor([step], wide=False)))
            assert_close(got, [exact], [step], way)


def test_known_floats_and_negative_numbers_are_steps() -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    seventh = float(rate(7))
    tensors = [ops.convert_to_tensor(7.0), keras.Variable(7.0), ops.cast(7, "bfloat16")]
    for seven in [7.0, np.float32(7), np.array(7.0), *tensors]:
        assert ops.shape(rate(seven)) == ()
        assert float(rate(seven)) == seventh
    for negative in (-1, np.int64(-3), -2.0, -(2**70), np.array(-1), ops.convert_to_tensor(-1.0)):
        assert float(rate(negative)) == float(rate(0))


def test_arrays_of_steps_are_taken_as_tensors(wide: bool) -> None:
    rate = CyclicCosineSchedule(SCHEDULE)
    steps = np.array([[-4, 0, 1], [7, 40, 100]])
    expected = ops.convert_to_numpy(rate(tensor([-4, 0, 1, 7, 40, 100], wide=wide))).reshape(2, 3)
    for dtype in (np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64):
        got = ops.convert_to_numpy(rate(steps.astype(dtype)))
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    floats = ops.convert_to_tensor(steps.astype(np.float32))
    np.testing.assert_array_equal(ops.convert_to_numpy(rate(floats)), expected)
    largest = ops.convert_to_numpy(rate(np.array([2**64 - 1], np.uint64)))
    assert largest.tolist() == [float(rate(2**62 if wide else INT32))]


def test_an_optimizer_that_is_given_the_schedule_itself_says_what_to_do() -> None:
    schedule: Any = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
    with pytest.raises(ca.ScheduleError, match=r"no step; .*CyclicCosineSchedule\(schedule\) as K"):
        _ = keras.optimizers.SGD(schedule).learning_rate
