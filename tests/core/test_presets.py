"""The presets, as far as they need no peer: their laws, their lengths, their errors."""

from __future__ import annotations

import doctest
import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import cosanneal as ca
from cosanneal import Schedule, ScheduleError, presets

PEAKS = st.floats(1e-6, 10)
SHARES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
STEPS = st.integers(1, 200)
LENGTHS = st.one_of(STEPS, st.fractions(1, 200, max_denominator=9), st.floats(1, 200))
GROWTHS = st.sampled_from([1, 2, 3, 1.5, 1.1, Fraction(4, 3)])
MULTIPLIED = st.sampled_from([1.0, 2.0, 1.5, 1.15, 1.4, 1.05, 0.8])
DECAYS = st.sampled_from([1.0, 0.9, 0.5])


def share_of(name: str, peak: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Turns a share under `name` into a rate."""
    return lambda kwargs: {**kwargs, name: kwargs[name] * kwargs[peak]}


def fixed(**kwargs: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in kwargs.items()}
    )


def one_optax_cycle() -> st.SearchStrategy[dict[str, Any]]:
    return (
        fixed(
            init_value=SHARES,
            peak_value=PEAKS,
            warmup_steps=st.integers(0, 30),
            decay_steps=STEPS,
            end_value=SHARES,
            exponent=st.sampled_from([1.0, 2.0, 0.5]),
        )
        .map(share_of("init_value", "peak_value"))
        .map(share_of("end_value", "peak_value"))
        .map(lambda k: {**k, "decay_steps": k["decay_steps"] + k["warmup_steps"]})
    )


def hf(**kwargs: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A warmup, a total beyond it, and not more cycles than steps."""
    drawn = fixed(
        base_lr=PEAKS, num_warmup_steps=st.integers(0, 50), num_training_steps=STEPS, **kwargs
    )
    return drawn.map(
        lambda k: {
            **k,
            "num_training_steps": k["num_training_steps"] + k["num_warmup_steps"],
            "num_cycles": min(
                k["num_cycles"],
                k["num_training_steps"] / 2
                if k["num_cycles"] != int(k["num_cycles"]) or "exact" not in k
                else k["num_training_steps"],
            ),
        }
    ).map(lambda k: {name: v for name, v in k.items() if name != "exact"})


# For each preset, the arguments that it takes.
ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "snapshot_ensembles": fixed(T=st.integers(20, 500), M=st.integers(1, 20), alpha_0=PEAKS),
    "snapshot_ensembles_lua": fixed(
        epochs=st.integers(8, 60),
        M=st.integers(1, 8),
        batches_per_epoch=st.integers(1, 9),
        alpha_0=PEAKS,
    ),
    "sgdr": fixed(eta_max=PEAKS, T_0=LENGTHS, T_mult=GROWTHS, eta_min=SHARES).map(
        share_of("eta_min", "eta_max")
    ),
    "keras_contrib_snapshot": fixed(
        nb_epochs=st.integers(20, 500), nb_snapshots=st.integers(1, 20), init_lr=PEAKS
    ),
    "torch_cosine_annealing": fixed(base_lr=PEAKS, T_max=LENGTHS, eta_min=SHARES).map(
        share_of("eta_min", "base_lr")
    ),
    "torch_warm_restarts": fixed(
        base_lr=PEAKS, T_0=STEPS, T_mult=st.integers(1, 4), eta_min=SHARES
    ).map(share_of("eta_min", "base_lr")),
    "torch_one_cycle": fixed(
        max_lr=PEAKS,
        total_steps=STEPS,
        pct_start=st.floats(0, 0.99),
        div_factor=st.floats(1, 100),
        final_div_factor=st.floats(1, 1e5),
    ),
    "keras_cosine_decay": fixed(
        initial_learning_rate=PEAKS,
        decay_steps=LENGTHS,
        alpha=SHARES,
        warmup_target=st.one_of(st.none(), PEAKS),
        warmup_steps=st.integers(0, 50),
    ),
    "keras_cosine_decay_restarts": fixed(
        initial_learning_rate=PEAKS,
        first_decay_steps=LENGTHS,
        t_mul=GROWTHS,
        m_mul=DECAYS,
        alpha=SHARES,
    ),
    "optax_cosine_decay": fixed(
        init_value=PEAKS, decay_steps=STEPS, alpha=SHARES, exponent=st.floats(0.1, 5)
    ),
    "optax_warmup_cosine_decay": one_optax_cycle(),
    "optax_sgdr": fixed(cosine_kwargs=st.lists(one_optax_cycle(), min_size=1, max_size=4)),
    "timm_cosine": fixed(
        base_lr=PEAKS,
        t_initial=st.one_of(st.integers(31, 200), st.floats(31, 200)),
        lr_min=st.floats(0, 0.1),
        cycle_mul=st.sampled_from([1.0, 1.5, 2, 0.9]),
        cycle_decay=DECAYS,
        cycle_limit=st.integers(1, 4),
        warmup_t=st.integers(0, 20),
        warmup_lr_init=SHARES,
        warmup_prefix=st.booleans(),
        k_decay=st.sampled_from([1.0, 0.5, 2.0]),
    )
    .map(share_of("lr_min", "base_lr"))
    .map(share_of("warmup_lr_init", "base_lr")),
    "hf_cosine": hf(num_cycles=st.sampled_from([0.5, 0.3, 2])),
    "hf_cosine_with_min_lr": hf(num_cycles=st.sampled_from([0.5, 0.3, 2]), min_lr_rate=SHARES),
    "hf_hard_restarts": hf(num_cycles=st.integers(1, 12), exact=True),
    "ignite_cosine": fixed(
        start_value=PEAKS,
        end_value=SHARES,
        cycle_size=st.integers(2, 100),
        cycle_mult=MULTIPLIED,
        start_value_mult=DECAYS,
        end_value_mult=DECAYS,
        warmup_duration=st.integers(0, 30),
    ),
    "fastai_sgdr": fixed(
        lr_max=PEAKS,
        n_cycles=st.integers(1, 4),
        cycle_len=st.integers(1, 5),
        cycle_mult=st.integers(1, 3),
        batches_per_epoch=st.integers(1, 9),
    ),
    "composer_warm_restarts": fixed(base_lr=PEAKS, t_0=STEPS, t_mult=MULTIPLIED, alpha_f=SHARES),
    "torchensemble_snapshot": fixed(
        base_lr=PEAKS,
        n_estimators=st.integers(1, 5),
        epochs=st.sampled_from([60, 120]),
        batches_per_epoch=st.integers(1, 5),
    ),
    "mmengine_cosine_restart": st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from([0.5, 1.0, 1.2])), min_size=1, max_size=5
    ).flatmap(
        lambda cycles: fixed(
            base_lr=PEAKS,
            periods=[length for length, _ in cycles],
            restart_weights=[weight for _, weight in cycles],
            eta_min_ratio=st.floats(0, 0.5),
        )
    ),
}

CASES = st.one_of([st.tuples(st.just(name), arguments) for name, arguments in ARGUMENTS.items()])


def make(case: tuple[str, dict[str, Any]]) -> Schedule:
    name, kwargs = case
    schedule = getattr(presets, name)(**kwargs)
    assert isinstance(schedule, Schedule)
    return schedule


def first_cycles(schedule: Schedule, count: int = 5) -> list[ca.Cycle]:
    return list(itertools.islice(schedule.cycles(), count))


def annealing(schedule: Schedule, cycle: ca.Cycle) -> Iterator[ca.Segment]:
    """The segments of the cycle's annealing, which comes last but for mmengine's last step."""
    for segment in schedule.segments(cycle.start, cycle.stop):
        if segment.first == cycle.max_lr and segment.last == cycle.min_lr:
            yield segment


def test_every_preset_has_its_arguments_here() -> None:
    assert sorted(ARGUMENTS) == sorted(presets.__all__)
    assert ca.presets is presets


@pytest.mark.parametrize("name", presets.__all__)
def test_the_docstring_has_what_it_must(name: str) -> None:
    function = getattr(presets, name)
    text = inspect.getdoc(function) or ""
    assert all(part in text for part in ("Args:", "Raises:", "Example:", "Source:", "rate(t)"[:3]))
    assert all(f"    {arg}: " in text for arg in inspect.signature(function).parameters)


def test_the_examples_run() -> None:
    results = doctest.testmod(presets)
    assert results.attempted >= len(presets.__all__)
    assert results.failed == 0


@given(CASES)
def test_rates_stay_in_range(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    cycles = first_cycles(schedule)
    segments = list(schedule.segments(0, cycles[-1].stop + 3))
    low = min(min(segment.first, segment.last) for segment in segments)
    high = max(max(segment.first, segment.last) for segment in segments)
    assert low >= 0
    assert all(low <= rate <= high for rate in schedule.rates(0, cycles[-1].stop + 3))


@given(CASES)
def test_cycles_tile_the_steps(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    cycles = first_cycles(schedule)
    assert cycles[0].start == 0
    assert all(a.stop == b.start and a.length > 0 for a, b in itertools.pairwise(cycles))
    assert [cycle.index for cycle in cycles] == list(range(len(cycles)))
    stop = cycles[-1].stop
    ends = {cycle.last_step for cycle in cycles}
    assert {step for step in range(stop) if schedule.is_cycle_end(step)} == ends
    assert all(schedule.cycle_at(cycle.last_step) == cycle for cycle in cycles)
    segments = list(schedule.segments(0, stop))
    assert segments[0].start == 0
    assert segments[-1].stop == stop
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))


@given(CASES, st.lists(st.integers(0, 40), max_size=30))
def test_cycles_completed_miss_none(case: tuple[str, dict[str, Any]], strides: list[int]) -> None:
    schedule = make(case)
    marks = list(itertools.accumulate(strides, initial=0))
    found = [c for a, b in itertools.pairwise(marks) for c in schedule.cycles_completed(a, b)]
    assert [c.last_step for c in found] == schedule.cycle_ends(marks[-1])


@given(CASES)
def test_every_restart_is_at_its_peak(case: tuple[str, dict[str, Any]]) -> None:
    """Exactly, where an annealing's clock starts at a whole step of its own."""
    schedule = make(case)
    for cycle in first_cycles(schedule):
        for segment in annealing(schedule, cycle):
            if segment.origin == segment.start:
                assert schedule.rate(segment.start) == segment.first
            last = (segment.stop or 0) - 1
            if segment.origin + segment.length == last:
                assert schedule.rate(last) == segment.last


@given(CASES)
def test_a_cycles_rates_are_greatest_where_its_annealing_starts(
    case: tuple[str, dict[str, Any]],
) -> None:
    """Its maximum is `max_lr`, where the clock starts at a whole step, and else below it."""
    schedule = make(case)
    for cycle in first_cycles(schedule):
        parts = list(annealing(schedule, cycle))
        assume(len(parts) == 1)  # a fall and a rise of the same height are told apart by no level
        rates = schedule.rates(parts[0].start, cycle.stop)
        if parts[0].first < parts[0].last:
            rates.reverse()
        assert max(rates) == rates[0] <= cycle.max_lr
        assert min(rates) >= cycle.min_lr
        if parts[0].origin == parts[0].start and parts[0].first >= parts[0].last:
            assert rates[0] == cycle.max_lr


@given(CASES)
def test_an_annealing_is_monotone(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    for cycle in first_cycles(schedule):
        for segment in schedule.segments(cycle.start, cycle.stop):
            rates = schedule.rates(segment.start, segment.stop)
            if segment.first < segment.last:
                rates.reverse()
            assert all(a >= b for a, b in itertools.pairwise(rates))


@given(CASES)
def test_json_round_trip(case: tuple[str, dict[str, Any]]) -> None:
    schedule = make(case)
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    stop = first_cycles(schedule)[-1].stop + 3
    assert again.rates(0, stop) == schedule.rates(0, stop)


@given(CASES, st.integers(0, 2**62))
def test_a_rate_is_that_of_its_segment(case: tuple[str, dict[str, Any]], step: int) -> None:
    """However it is looked up: the quick paths against the table's own rows."""
    schedule = make(case)
    stop = first_cycles(schedule)[-1].stop + 3
    for at in (step % stop, step):
        segment = next(iter(schedule.segments(at, at + 1)))
        assert schedule.rate(at) == segment.rate(at)


def multiplied(length: int, mult: float) -> Iterator[int]:
    while length:
        yield length
        length = int(length * mult)


@given(st.integers(2, 10**6), st.sampled_from([1.15, 1.4, 1.001, 1.5, 2.0, 0.7, 0.999, 1.0]))
def test_lengths_multiplied_in_place(length: int, mult: float) -> None:
    """Composer's and Ignite's rounding, against the loop that they run."""
    expected = list(itertools.islice(multiplied(length, mult), 50))
    for schedule in (
        presets.composer_warm_restarts(0.1, length, mult),
        presets.ignite_cosine(0.1, 0.0, length, mult),
    ):
        assert [c.length for c in first_cycles(schedule, 50)] == expected


def test_a_product_of_floats_decides_a_length() -> None:
    """int(100 * 1.15) is 114, int(5 * 1.4) is 7: neither decimal nor binary fraction alone."""
    cycles = presets.composer_warm_restarts(0.1, 100, 1.15).cycles()
    assert cycles[1].length == 114 != math.floor(100 * Fraction("1.15"))
    cycles = presets.composer_warm_restarts(0.1, 5, 1.4).cycles()
    assert cycles[1].length == 7 != math.floor(5 * Fraction(1.4))


@given(st.integers(2, 60), st.integers(1, 20), st.sampled_from([1.0, 2, 1.5, 1.15, 0.7]))
def test_ignites_warmup_is_multiplied_too(size: int, warmup: int, mult: float) -> None:
    schedule = presets.ignite_cosine(0.1, 0.01, size, mult, warmup_duration=warmup)
    expected, rest = [size], warmup
    while len(expected) < 6 and (size := int(size * mult)):
        expected.append(rest + size)
        rest = int(rest * mult)
    assert [c.length for c in first_cycles(schedule, 6)] == expected


def test_a_length_that_no_longer_grows_has_no_end_of_cycles() -> None:
    """int(5 * 1.1) is 5: equal cycles from there on."""
    schedule = presets.composer_warm_restarts(0.1, 5, 1.1)
    assert schedule.cycle_at(2**62).index == 2**62 // 5
    assert schedule.rate(5 * 10**18) == 0.1


@given(
    st.fractions(1, 50, max_denominator=12),
    st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(11, 10), Fraction(2)]),
)
def test_real_valued_cycles_begin_at_the_first_step_at_or_after(
    length: Fraction, growth: Fraction
) -> None:
    """Against a loop of Fractions, and the clock of every step with it."""
    schedule = presets.sgdr(1.0, length, growth)
    begin = Fraction(0)
    for cycle in first_cycles(schedule, 8):
        assert cycle.start == math.ceil(begin)
        for step in range(cycle.start, cycle.stop):
            share = (step - begin) / length
            assert 0 <= share < 1
            # cos(pi x) = 1 - 2 sin²(pi x / 2) is another formula than the one under test.
            expected = 1 - math.sin(math.pi * float(share) / 2) ** 2
            assert math.isclose(schedule.rate(step), expected, rel_tol=0, abs_tol=8e-16)
        begin, length = begin + length, length * growth


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 30))
def test_hf_restarts_are_where_the_fraction_says(steps: int, cycles: int, warmup: int) -> None:
    assume(cycles <= steps)
    schedule = presets.hf_hard_restarts(0.1, warmup, warmup + steps, cycles)
    expected = [math.ceil(Fraction(i * steps, cycles)) + warmup - 1 for i in range(1, cycles + 1)]
    assert schedule.cycle_ends() == expected
    for i in range(cycles):
        if i * steps % cycles == 0:
            assert schedule.rate(warmup + i * steps // cycles) == 0.1


@given(LENGTHS, st.integers(0, 6))
def test_waves_turn_at_their_ends(t_max: float, wave: int) -> None:
    half = t_max if isinstance(t_max, int | Fraction) else Fraction(repr(t_max))
    schedule = presets.torch_cosine_annealing(0.1, t_max, eta_min=0.01)
    turn = wave * half
    if turn.denominator == 1:
        assert schedule.rate(int(turn)) == (0.01 if wave % 2 else 0.1)
    # A cycle ends at the bottom, where the snapshot is good.
    ends = schedule.cycle_ends(math.ceil(7 * half))
    assert ends == [math.ceil((2 * i + 1) * half) - 1 for i in range(4)]


def test_a_waves_last_step_is_one_above_the_floor() -> None:
    schedule = presets.hf_cosine(0.1, 10, 110)
    assert schedule.rate(109) == schedule.rate(111) > schedule.rate(110) == 0


def test_timms_clock_runs_during_its_warmup() -> None:
    runs = presets.timm_cosine(1.0, 100, warmup_t=50)
    assert runs.rate(49) == 0.98
    assert math.isclose(runs.rate(50), 0.5)
    waits = presets.timm_cosine(1.0, 100, warmup_t=50, warmup_prefix=True)
    assert waits.rate(50) == 1.0
    assert (runs.total_steps, waits.total_steps) == (100, 150)


def test_mmengine_holds_the_last_rate_and_not_the_floor() -> None:
    schedule = presets.mmengine_cosine_restart(1.0, [4, 4, 4], [1, 1, 1], eta_min=0.0)
    assert schedule.cycle_ends() == [3, 7, 11]
    assert schedule.rate(12) == schedule.rate(11) == schedule.rate(7) > 0.1
    assert presets.mmengine_cosine_restart(1.0, [1], [0.5], eta_min=0.0).rates(0, 3) == [0.5] * 3


def test_keras_ignores_warmup_steps_without_a_target() -> None:
    assert presets.keras_cosine_decay(0.1, 50, warmup_steps=9) == presets.keras_cosine_decay(
        0.1, 50
    )


def test_equal_neighbours_share_a_rule() -> None:
    cycle = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 9}
    assert len(presets.optax_sgdr([cycle] * 1000).rules) == 1
    assert len(presets.mmengine_cosine_restart(0.1, [9] * 50, [1] * 50, 0.0).rules) == 2


def test_peaks_without_bound_fail_only_where_no_float_is() -> None:
    schedule = presets.keras_cosine_decay_restarts(0.1, 10, t_mul=1.0, m_mul=2.0)
    assert schedule.rate(50) == 0.1 * 2**5
    with pytest.raises(ScheduleError, match="cycle 100000 is beyond the range of floats"):
        schedule.rate(10**6)


CYCLE = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 9}
ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("snapshot_ensembles", {"T": 5, "M": 6, "alpha_0": 0.1}, "`M` must not exceed `T`"),
    ("snapshot_ensembles", {"T": 5.0, "M": 1, "alpha_0": 0.1}, "`T` must be"),
    ("snapshot_ensembles", {"T": 5, "M": True, "alpha_0": 0.1}, "`M` must be"),
    ("snapshot_ensembles", {"T": 5, "M": 1, "alpha_0": math.nan}, "`alpha_0` must be"),
    (
        "snapshot_ensembles_lua",
        {"epochs": 3, "M": 4, "batches_per_epoch": 1, "alpha_0": 0.1},
        "`M` must not exceed `epochs`",
    ),
    (
        "snapshot_ensembles_lua",
        {"epochs": 3, "M": 1, "batches_per_epoch": 0, "alpha_0": 0.1},
        "`batches_per_epoch`",
    ),
    ("sgdr", {"eta_max": 0.1, "T_0": 0.5}, "`T_0` must be at least 1"),
    ("sgdr", {"eta_max": 0.1, "T_0": 5, "T_mult": 0.5}, "`T_mult` must be at least 1"),
    ("sgdr", {"eta_max": 0.1, "T_0": 5, "eta_min": 0.2}, "`eta_min` must give a floor"),
    (
        "keras_contrib_snapshot",
        {"nb_epochs": 3, "nb_snapshots": 4},
        "`nb_snapshots` must not exceed `nb_epochs`",
    ),
    ("torch_cosine_annealing", {"base_lr": -0.1, "T_max": 9}, "`base_lr` must be"),
    ("torch_cosine_annealing", {"base_lr": 0.1, "T_max": "9"}, "`T_max` must be"),
    ("torch_cosine_annealing", {"base_lr": 0.1, "T_max": 9, "eta_min": 1}, "`eta_min`"),
    ("torch_warm_restarts", {"base_lr": 0.1, "T_0": 9.5}, "`T_0` must be"),
    ("torch_warm_restarts", {"base_lr": 0.1, "T_0": 9, "T_mult": 1.5}, "`T_mult` must be"),
    ("torch_one_cycle", {"max_lr": 0.1, "total_steps": 0}, "`total_steps` must be"),
    ("torch_one_cycle", {"max_lr": 0.1, "total_steps": 9, "pct_start": 1.0}, "`pct_start`"),
    ("torch_one_cycle", {"max_lr": 0.1, "total_steps": 9, "pct_start": -0.1}, "`pct_start`"),
    ("torch_one_cycle", {"max_lr": 0.1, "total_steps": 9, "div_factor": 0}, "`div_factor`"),
    (
        "torch_one_cycle",
        {"max_lr": 0.1, "total_steps": 9, "final_div_factor": 1e-3},
        "`final_div_factor` must give a floor",
    ),
    ("keras_cosine_decay", {"initial_learning_rate": 0.1, "decay_steps": 0}, "`decay_steps`"),
    (
        "keras_cosine_decay",
        {"initial_learning_rate": 0.1, "decay_steps": 9, "alpha": 1.5},
        "`alpha` must lie in",
    ),
    (
        "keras_cosine_decay_restarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 9, "t_mul": 0.9},
        "`t_mul` must be at least 1",
    ),
    ("optax_cosine_decay", {"init_value": 0.1, "decay_steps": 9, "exponent": 0}, "`exponent`"),
    ("optax_cosine_decay", {"init_value": 0.1, "decay_steps": 9, "alpha": -1}, "`alpha`"),
    ("optax_warmup_cosine_decay", {**CYCLE, "warmup_steps": 9}, "`decay_steps` includes"),
    ("optax_warmup_cosine_decay", {**CYCLE, "end_value": 0.2}, "`end_value` must give"),
    ("optax_sgdr", {"cosine_kwargs": []}, "`cosine_kwargs` must name at least one"),
    ("optax_sgdr", {"cosine_kwargs": [CYCLE, 3]}, r"'cosine_kwargs\[1\]': must be a dict"),
    ("optax_sgdr", {"cosine_kwargs": [{}]}, r"'cosine_kwargs\[0\]': lacks 'init_value'"),
    ("optax_sgdr", {"cosine_kwargs": [{**CYCLE, "x": 1}]}, "the unknown 'x'"),
    (
        "optax_sgdr",
        {"cosine_kwargs": [CYCLE, {**CYCLE, "peak_value": -1}]},
        r"'cosine_kwargs\[1\]': Argument `peak_value`",
    ),
    ("timm_cosine", {"base_lr": 0.1, "t_initial": 9, "noise_range_t": 3}, "`noise_range_t`"),
    ("timm_cosine", {"base_lr": 0.1, "t_initial": 9, "warmup_t": 9}, "`warmup_t` must be smaller"),
    ("timm_cosine", {"base_lr": 0.1, "t_initial": 9, "cycle_limit": 0}, "`cycle_limit`"),
    ("timm_cosine", {"base_lr": 0.1, "t_initial": 9, "lr_min": 1.0}, "`lr_min` must give"),
    ("timm_cosine", {"base_lr": 0.1, "t_initial": 9, "k_decay": 0.0}, "`k_decay`"),
    (
        "timm_cosine",
        {"base_lr": 1.0, "t_initial": 9, "lr_min": 0.3, "cycle_decay": 0.5, "cycle_limit": 3},
        "cycle 2 would peak at 0.25",
    ),
    (
        "timm_cosine",
        {"base_lr": 1.0, "t_initial": 9, "cycle_mul": 0.1, "cycle_limit": 3},
        "cycle_mul=0.1, cycle_limit=3",
    ),
    (
        "hf_cosine",
        {"base_lr": 0.1, "num_warmup_steps": 0, "num_training_steps": 9, "num_cycles": 5},
        "`num_cycles` must leave every fall",
    ),
    (
        "hf_cosine",
        {"base_lr": 0.1, "num_warmup_steps": -1, "num_training_steps": 9},
        "`num_warmup_steps`",
    ),
    (
        "hf_cosine_with_min_lr",
        {"base_lr": 0.1, "num_warmup_steps": 0, "num_training_steps": 9},
        "exactly one of the arguments `min_lr` and `min_lr_rate`",
    ),
    (
        "hf_hard_restarts",
        {"base_lr": 0.1, "num_warmup_steps": 2, "num_training_steps": 9, "num_cycles": 8},
        "`num_cycles` must leave every cycle",
    ),
    ("ignite_cosine", {"start_value": 0.1, "end_value": 0, "cycle_size": 1}, "`cycle_size`"),
    (
        "ignite_cosine",
        {"start_value": 0.1, "end_value": 0, "cycle_size": 9, "cycle_mult": 1.0005},
        "`cycle_mult` must be 1, at most 0.999",
    ),
    ("fastai_sgdr", {"lr_max": 0.1, "n_cycles": 99, "cycle_len": 1}, "`n_cycles` must be smaller"),
    ("composer_warm_restarts", {"base_lr": 0.1, "t_0": 9, "t_mult": -1}, "`t_mult`"),
    ("composer_warm_restarts", {"base_lr": 0.1, "t_0": 9, "alpha_f": 2}, "`alpha_f`"),
    (
        "torchensemble_snapshot",
        {"base_lr": 0.1, "n_estimators": 3, "epochs": 10, "batches_per_epoch": 2},
        "`epochs` must be a multiple of `n_estimators`",
    ),
    (
        "mmengine_cosine_restart",
        {"base_lr": 0.1, "periods": [3, 0], "restart_weights": [1, 1], "eta_min": 0},
        r"`periods\[1\]`",
    ),
    ("mmengine_cosine_restart", {"base_lr": 0.1, "periods": [3], "eta_min": 1}, "`eta_min` must"),
    ("mmengine_cosine_restart", {"base_lr": 0.1, "periods": [3]}, "exactly one of"),
    (
        "mmengine_cosine_restart",
        {"base_lr": 0.1, "periods": [3, 3], "eta_min": 0},
        "1 weights, 2 periods",
    ),
]


@pytest.mark.parametrize(("name", "kwargs", "message"), ERRORS)
def test_an_argument_that_cannot_be_is_named(
    name: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        getattr(presets, name)(**kwargs)


def test_every_preset_has_an_error_here() -> None:
    assert {name for name, _, _ in ERRORS} == set(presets.__all__)


@pytest.mark.parametrize("mult", [1e19, 1e308])
def test_a_second_cycle_longer_than_any_run_is_refused(mult: float) -> None:
    for make in (presets.composer_warm_restarts, partial(presets.ignite_cosine, 0.1)):
        with pytest.raises(ScheduleError, match=r"at most 2\*\*63 steps long"):
            make(0.1, 100, mult)
