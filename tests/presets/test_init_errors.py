"""Arguments that cannot be, of every preset."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosanneal import ScheduleError, presets

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
