"""For each preset, the arguments that it takes, for hypothesis to draw from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

import cosanneal as ca
from cosanneal import Schedule, presets

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
