"""The schedule inside a graph: exact enough, at every step, and of one size."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import cosanneal as ca
from cosanneal.adapters.jax import cyclic_cosine_schedule
from cosanneal.core.curve import CurveName
from cosanneal.core.rules import CycleRule, Level, Phase
from tests.shared.graphs import equations
from tests.shared.oracle import curve_at, decimal
from tests.shared.plans import INT32, PLANS, ULPS, assert_close, plan, steps_of
from tests.shared.wide import enable_x64

# Older releases of JAX take a row apart in more equations.
MOST_EQUATIONS = 60 if hasattr(jax, "enable_x64") else 80


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def wide(request: pytest.FixtureRequest) -> Iterator[bool]:
    with enable_x64(request.param):
        yield request.param


@pytest.mark.parametrize("kind", PLANS)
def test_rates_are_within_8_ulp_of_the_exact_ones(kind: str, wide: bool) -> None:
    schedule, oracle = plan(kind)
    rate = cyclic_cosine_schedule(schedule)
    steps = steps_of(schedule, 2**62 if wide else INT32)
    exact = [float(oracle.rate(step)) for step in steps]
    array = jnp.asarray(np.array(steps))
    assert array.dtype == (np.int64 if wide else np.int32)
    got = jax.jit(jax.vmap(rate))(array)
    assert got.dtype == (np.float64 if wide else np.float32)
    assert_close(got, exact, steps, kind)
    # One at a time, compiled alone and not at all.
    compiled = jax.jit(rate)
    few = slice(None, None, 7)
    assert_close([compiled(step) for step in array[few]], exact[few], steps[few], kind)
    few = slice(None, None, 37)
    assert_close([rate(step) for step in steps[few]], exact[few], steps[few], kind)
    # Outside of jit jax compiles every operation anew for another number of steps.
    some = np.linspace(0, len(steps) - 1, 64).astype(int)
    got = rate(jnp.asarray(np.array(steps)[some]).reshape(1, -1))[0]
    assert_close(got, [exact[i] for i in some], [steps[i] for i in some], kind)


@pytest.mark.parametrize("kind", PLANS)
def test_every_restart_is_the_peak_itself_and_no_last_step_is_zero(kind: str, wide: bool) -> None:
    schedule, _ = plan(kind)
    limit = 2**62 if wide else INT32
    rate = jax.jit(cyclic_cosine_schedule(schedule))
    dtype = np.float64 if wide else np.float32
    number = schedule.num_cycles or 30
    given = PLANS[kind]
    endpoint, warmed = "endpoint" in given, {"warmup_steps", "restart_warmup_steps"} & {*given}
    for cycle in schedule.cycles()[:number]:
        if cycle.stop > limit:
            break
        at_floor = endpoint and cycle.length == 1
        if not warmed and not at_floor:
            assert float(rate(cycle.start)) == dtype(cycle.max_lr)
        if not endpoint and cycle.min_lr == 0:
            assert float(rate(cycle.last_step)) > 0
    if schedule.total_steps is not None and schedule.total_steps <= limit:
        for after in (schedule.total_steps, schedule.total_steps + 1, limit):
            assert float(rate(min(after, limit))) == dtype(given.get("min_lr", 0.0))


@pytest.mark.parametrize("length", [Fraction(1000, 3), Fraction(7, 2), Fraction(355, 113)])
@pytest.mark.usefixtures("wide")
def test_cycles_of_fractional_length(length: Fraction) -> None:
    rate = cyclic_cosine_schedule(ca.presets.sgdr(0.1, length))
    steps = [*range(800), 10**6, 2**24 - 1, 2**24 + 1, INT32 - 1, INT32]
    peak, floor = decimal(0.1), decimal(0)
    exact = [
        float(curve_at(Fraction(step) % length / length, first=peak, last=floor)) for step in steps
    ]
    assert_close(jax.jit(jax.vmap(rate))(jnp.array(steps)), exact, steps, str(length))


@pytest.mark.parametrize(
    ("schedule", "ulps"),
    [
        (ca.presets.torch_cosine_annealing(0.1, 13, 0.01), ULPS),
        (ca.presets.timm_cosine(0.1, 50, warmup_t=5), ULPS),
        (ca.presets.timm_cosine(0.1, 50, warmup_t=5, lr_min=1e-3, k_decay=1.5), 12),
        (ca.presets.optax_warmup_cosine_decay(0.01, 0.1, 10, 60, 0.002), ULPS),
        (ca.presets.optax_cosine_decay(0.1, 70, exponent=2.0), 2 * 12),
    ],
    ids=repr,
)
def test_presets(schedule: ca.Schedule, ulps: float, wide: bool) -> None:
    rate = cyclic_cosine_schedule(schedule)
    # Itself within as many ulp in float64, so that two of its own may come on top.
    exact = schedule.rates(0, 300)
    got = np.asarray(jax.jit(jax.vmap(rate))(jnp.arange(300)))
    limit = (2 if wide else 1) * ulps * np.spacing(np.array(exact, got.dtype)).astype(float)
    assert (np.abs(got.astype(float) - exact) <= limit).all()


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize(
    ("curve", "exponent", "k"),
    [
        ("cosine", 2.0, 1.0),
        ("cosine", 3.7, 1.0),
        ("cosine", 1.0, 1.7),
        ("cosine", 1.0, 0.5),
        ("cosine", 0.5, 0.8),
        ("linear", 2.0, 1.3),
    ],
)
def test_powers_are_within_their_bound(
    curve: CurveName, exponent: float, k: float, rising: bool, wide: bool
) -> None:
    draw = random.Random(f"{curve} {exponent} {k} {rising} {wide}")
    first, last = (0.0, 0.1) if rising else (0.1, 0.0)
    phase = Phase(
        steps=None, first=Level(first), last=Level(last), curve=curve, exponent=exponent, k=k
    )
    for length in (97, 10**6 + 7, INT32):
        schedule = ca.Schedule((CycleRule(count=1, length=length, phases=(phase,)),))
        steps = [0, 1, 2, length - 2, length - 1]
        steps += [draw.randrange(length) for _ in range(60)]
        steps += [int(length ** draw.random()) for _ in range(30)]
        steps += [length - int(length ** draw.random()) for _ in range(30)]
        exact = [
            float(
                curve_at(
                    Fraction(step, length),
                    first=decimal(first),
                    last=decimal(last),
                    curve=curve,
                    exponent=exponent,
                    k=k,
                )
            )
            for step in steps
        ]
        rates = jax.jit(jax.vmap(cyclic_cosine_schedule(schedule)))(jnp.array([*steps, length]))
        assert float(rates[0]) == rates.dtype.type(first)
        assert float(rates[-1]) == rates.dtype.type(last)
        normal = [i for i, value in enumerate(exact) if value > 1e-36 or value == 0.0]
        assert_close(
            rates[np.array(normal)],
            [exact[i] for i in normal],
            [steps[i] for i in normal],
            f"{length}",
            ulps=12 * max(exponent, 1.0),
        )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"warmup_steps": 3, "restart_warmup_steps": 2, "min_lr": 1e-3},
        {"cycle_decay": 0.9999, "restart_warmup_steps": 2},
    ],
    ids=["equal", "warmed", "decaying"],
)
@pytest.mark.usefixtures("wide")
def test_the_graph_does_not_grow_with_the_cycles(given: dict[str, Any]) -> None:
    sizes = []
    for cycles in (100, 1000, 10_000):
        schedule = ca.CyclicCosine(0.1, total_steps=10 * cycles, num_cycles=cycles, **given)
        rate = cyclic_cosine_schedule(schedule)
        sizes.append(equations(jax.make_jaxpr(rate)(jnp.array(3)).jaxpr))
    assert max(sizes) == min(sizes) <= MOST_EQUATIONS
    draw = random.Random(3)
    for longest in (30, 10_000):
        # The more the lengths differ, the more it takes to find a cycle.
        lengths = [draw.randint(6, longest) for _ in range(1000)]
        mixed = cyclic_cosine_schedule(ca.CyclicCosine(0.1, cycle_steps=lengths, **given))
        assert equations(jax.make_jaxpr(mixed)(jnp.array(3)).jaxpr) <= MOST_EQUATIONS
        run = ca.CyclicCosine(0.1, cycle_steps=[*lengths[:9], *[8] * 100, *lengths], **given)
        mixed = cyclic_cosine_schedule(run)
        assert equations(jax.make_jaxpr(mixed)(jnp.array(3)).jaxpr) <= MOST_EQUATIONS
    few = cyclic_cosine_schedule(ca.CyclicCosine(0.1, total_steps=100, num_cycles=10, **given))
    assert equations(jax.make_jaxpr(few)(jnp.array(3)).jaxpr) <= MOST_EQUATIONS
    # The counting counts: optax' graph does grow.
    cycle = {"init_value": 0.0, "peak_value": 0.1, "decay_steps": 10, "warmup_steps": 0}
    peers = [optax.sgdr_schedule([cycle] * number) for number in (2, 4)]
    two, four = (equations(jax.make_jaxpr(peer)(jnp.array(3)).jaxpr) for peer in peers)
    assert four > two + 30


SCHEDULE, ORACLE = plan("warmed")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_dtype_is_a_step(dtype: str, wide: bool) -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    expected = float(ORACLE.rate(40))
    for step in (np.dtype(dtype).type(40), np.array(40, dtype)):
        assert_close([rate(step)], [expected], [40], dtype)
    if "64" in dtype and not wide:
        return  # jax has no 64-bit arrays without x64, numpy has
    assert_close([rate(jnp.asarray(40, dtype))], [expected], [40], dtype)
    assert_close([jax.jit(rate)(jnp.asarray(40, dtype))], [expected], [40], dtype)
    largest = jnp.iinfo(dtype).max
    got = float(jax.jit(rate)(jnp.asarray(largest, dtype)))
    assert_close(np.array([got], rate(40).dtype), [float(ORACLE.rate(largest))], [largest], dtype)


def test_x64_may_change_between_two_calls() -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    assert rate(40).dtype == jnp.float32
    with enable_x64(True):
        assert rate(40).dtype == jnp.float64
        assert_close([rate(40)], [float(ORACLE.rate(40))], [40], "x64")
    assert rate(40).dtype == jnp.float32


@pytest.mark.usefixtures("wide")
def test_scan_and_grad() -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    _, rates = lax.scan(lambda step, _: (step + 1, rate(step)), jnp.array(0), length=320)
    steps = [*range(320)]
    assert_close(rates, [float(ORACLE.rate(step)) for step in steps], steps, "scan")

    def loss(weight: Any) -> Any:
        return rate(jnp.asarray(weight, int)) * 3.0 + weight

    assert float(jax.grad(loss)(40.7)) == 1.0


def test_in_optax() -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    rates = np.array(SCHEDULE.rates(0, 320))
    params = jnp.zeros(2)

    def follow(tx: Any, updates: int) -> Any:
        @jax.jit
        def update(state: Any) -> Any:
            change, state = tx.update(jnp.ones(2), state, params)
            return change[0], state

        state, seen = tx.init(params), []
        for _ in range(updates):
            change, state = update(state)
            seen.append(-float(change))
        return np.array(seen), state

    seen, _ = follow(optax.sgd(rate), 320)
    np.testing.assert_allclose(seen, rates, rtol=1e-6)
    seen, state = follow(optax.inject_hyperparams(optax.sgd)(learning_rate=rate), 40)
    np.testing.assert_allclose(seen, rates[:40], rtol=1e-6)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(rates[39], rel=1e-6)
    chain = optax.chain(optax.scale_by_schedule(rate), optax.scale(-1.0))
    np.testing.assert_allclose(follow(chain, 40)[0], rates[:40], rtol=1e-6)
    seen, _ = follow(optax.MultiSteps(optax.sgd(rate), every_k_schedule=3), 30)
    np.testing.assert_allclose(seen[2::3], rates[:10], rtol=1e-6)


def test_steps_that_cannot_be() -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    others: list[Any] = [
        *(1.5, True, "3", None, float("nan"), float("inf"), np.float32(0.5), np.bool_(True)),
        *(np.array([1.0, 1.5]), np.array([1.0, np.nan]), np.array([True]), np.array(["3"])),
        *(np.array([1j]), jnp.array(0.5), jnp.array([1.0, 0.5]), jnp.array(True), []),
    ]
    for step in others:
        with pytest.raises(ca.ScheduleError, match=r"`step` must be an integer"):
            rate(step)
    with pytest.raises(
        ca.ScheduleError, match=r"`step` must be an integer.*array of float32.*2\*\*24"
    ):
        jax.jit(rate)(1.0)
    with pytest.raises(ca.ScheduleError, match=r"at most 2147483647.*enable x64"):
        rate(2**31)
    # An array's cannot be raised inside of a graph.
    for step in (-1, -(2**31)):
        assert float(jax.jit(rate)(jnp.array(step))) == float(rate(0))
    assert float(jax.jit(rate)(jnp.array(2**32 - 1, jnp.uint32))) == float(rate(INT32))


def test_schedules_that_cannot_be() -> None:
    for value in (0.1, None, optax.constant_schedule(0.1)):
        with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
            cyclic_cosine_schedule(value)  # type: ignore[arg-type]
    with pytest.raises(ca.ScheduleError, match=r"at most 32768 rows"):
        cyclic_cosine_schedule(ca.CyclicCosine(0.1, cycle_steps=10, cycle_decay=0.9))
    with pytest.raises(ca.ScheduleError, match=r"in the range of float32.*1e\+300"):
        cyclic_cosine_schedule(ca.CyclicCosine(1e300, cycle_steps=10))
    with enable_x64(True):
        assert float(cyclic_cosine_schedule(ca.CyclicCosine(1e300, cycle_steps=10))(0)) == 1e300


def test_known_floats_and_negative_numbers_are_steps(wide: bool) -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    for seven in (7.0, np.float32(7), np.array(7.0), jnp.array(7.0), jnp.array(7, jnp.bfloat16)):
        assert rate(seven).shape == ()
        assert float(rate(seven)) == float(rate(7))
    for negative in (-1, np.int64(-3), -2.0, -(2**70), np.array(-1), jnp.array(-1.0)):
        assert float(rate(negative)) == float(rate(0))
    assert rate(7.0).dtype == (np.float64 if wide else np.float32)
    assert float(jax.jit(lambda: rate(7.0))()) == pytest.approx(float(rate(7)), rel=1e-6)


def test_numpy_arrays_of_steps_are_taken_as_jaxs(wide: bool) -> None:
    rate = cyclic_cosine_schedule(SCHEDULE)
    steps = np.array([[-4, 0, 1], [7, 40, 100]])
    expected = [[float(rate(max(step, 0))) for step in row] for row in steps.tolist()]
    for dtype in (np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64):
        assert rate(steps.astype(dtype)).tolist() == expected
    unsigned = rate(np.array([7, 2**64 - 1], np.uint64)).tolist()
    assert unsigned == [float(rate(7)), float(rate(2**62 if wide else INT32))]
    assert rate(np.array([1e30, -1e30])).tolist() == [unsigned[1], float(rate(0))]
    assert rate(jnp.array([7.0, 40.0])).tolist() == expected[1][:2]
    assert rate(np.zeros((0, 3), int)).shape == (0, 3)


def test_within_optax_join_schedules() -> None:
    part = cyclic_cosine_schedule(SCHEDULE)
    joined = optax.join_schedules([optax.linear_schedule(0.0, 0.1, 5), part], [5])
    for steps in (range(40), np.arange(40), jnp.arange(40)):
        rates = [float(joined(step)) for step in steps]
        assert rates[5:] == [float(part(step)) for step in range(35)]
        assert rates[:5] == pytest.approx([0.02 * step for step in range(5)], rel=1e-6)
    np.testing.assert_array_equal(joined(np.arange(40)), jnp.array(rates))


def test_a_variable_that_is_a_jax_array_is_a_step() -> None:
    class Variable:  # as Keras' on JAX, and Flax's
        def __jax_array__(self) -> jax.Array:
            return jnp.array(40)

    rate = cyclic_cosine_schedule(SCHEDULE)
    assert float(rate(Variable())) == float(rate(40))


def test_a_schedule_that_is_given_to_optax_itself_says_what_to_do() -> None:
    schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
    params = jnp.ones(2)
    tx = optax.sgd(schedule)
    with pytest.raises(ca.ScheduleError, match=r"Trace.* cyclic_cosine_schedule\(schedule\) as O"):
        jax.jit(tx.update)(params, tx.init(params))
