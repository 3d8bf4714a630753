"""`cosanneal plan --preset NAME key=value ...` and `--presets`."""

from __future__ import annotations

import inspect
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from cosanneal import CyclicCosine, Schedule, presets
from cosanneal.cli import preset as module
from tests.shared.calling import Command, png_size

PLAN = Command("plan")
call, error_of, json_of, text_of = PLAN.call, PLAN.error_of, PLAN.json_of, PLAN.text_of

WARM = ["--preset", "torch_warm_restarts", "base_lr=0.1", "T_0=10"]

# One call of every preset; between them every kind of value that is not a plain number.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "composer_warm_restarts": (
        "base_lr=1/10 t_0=10 t_mult=1.5",
        {"base_lr": 0.1, "t_0": 10, "t_mult": 1.5},
    ),
    "fastai_sgdr": (
        "lr_max=0.1 n_cycles=2 cycle_len=1",
        {"lr_max": 0.1, "n_cycles": 2, "cycle_len": 1},
    ),
    "hf_cosine": (
        "base_lr=0.1 num_warmup_steps=10 num_training_steps=110 num_cycles=3/2",
        {"base_lr": 0.1, "num_warmup_steps": 10, "num_training_steps": 110}
        | {"num_cycles": Fraction(3, 2)},
    ),
    "hf_cosine_with_min_lr": (
        "base_lr=0.1 num_warmup_steps=0 num_training_steps=100 min_lr=None min_lr_rate=0.1",
        {"base_lr": 0.1, "num_warmup_steps": 0, "num_training_steps": 100}
        | {"min_lr": None, "min_lr_rate": 0.1},
    ),
    "hf_hard_restarts": (
        "base_lr=0.1 num_warmup_steps=10 num_training_steps=110 num_cycles=3",
        {"base_lr": 0.1, "num_warmup_steps": 10, "num_training_steps": 110, "num_cycles": 3},
    ),
    "ignite_cosine": (
        "start_value=0.1 end_value=0 cycle_size=10",
        {"start_value": 0.1, "end_value": 0.0, "cycle_size": 10},
    ),
    "keras_contrib_snapshot": ("nb_epochs=10 nb_snapshots=4", {"nb_epochs": 10, "nb_snapshots": 4}),
    "keras_cosine_decay": (
        "initial_learning_rate=0 decay_steps=100 warmup_target=0.1 warmup_steps=10",
        {"initial_learning_rate": 0.0, "decay_steps": 100}
        | {"warmup_target": 0.1, "warmup_steps": 10},
    ),
    "keras_cosine_decay_restarts": (
        "initial_learning_rate=1e-1 first_decay_steps=10.5 t_mul=3/2",
        {"initial_learning_rate": 0.1, "first_decay_steps": 10.5, "t_mul": Fraction(3, 2)},
    ),
    "mmengine_cosine_restart": (
        "base_lr=0.1 periods=10,20 restart_weights=1,1/2 eta_min=0",
        {"base_lr": 0.1, "periods": [10, 20], "restart_weights": [1.0, 0.5], "eta_min": 0.0},
    ),
    "optax_cosine_decay": (
        "init_value=0.1 decay_steps=100",
        {"init_value": 0.1, "decay_steps": 100},
    ),
    "optax_sgdr": (
        'cosine_kwargs=[{"init_value": 0, "peak_value": 0.1, "warmup_steps": 5,"decay_steps": 20}]',
        {
            "cosine_kwargs": [
                {"init_value": 0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 20}
            ]
        },
    ),
    "optax_warmup_cosine_decay": (
        "init_value=0 peak_value=0.1 warmup_steps=10 decay_steps=100",
        {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 10, "decay_steps": 100},
    ),
    "sgdr": ("eta_max=0.05 T_0=10 T_mult=2", {"eta_max": 0.05, "T_0": 10, "T_mult": 2}),
    "snapshot_ensembles": ("T=100 M=4 alpha_0=0.1", {"T": 100, "M": 4, "alpha_0": 0.1}),
    "snapshot_ensembles_lua": (
        "epochs=4 M=2 batches_per_epoch=5 alpha_0=0.1",
        {"epochs": 4, "M": 2, "batches_per_epoch": 5, "alpha_0": 0.1},
    ),
    "timm_cosine": (
        "base_lr=0.1 t_initial=100 warmup_t=5 warmup_prefix=True t_in_epochs=false "
        "noise_range_t=none",
        {"base_lr": 0.1, "t_initial": 100, "warmup_t": 5, "warmup_prefix": True}
        | {"t_in_epochs": False, "noise_range_t": None},
    ),
    "torch_cosine_annealing": ("base_lr=0.1 T_max=10", {"base_lr": 0.1, "T_max": 10}),
    "torch_one_cycle": ("max_lr=1 total_steps=10", {"max_lr": 1.0, "total_steps": 10}),
    "torch_warm_restarts": (
        "base_lr=0.1 T_0=10 T_mult=2 eta_min=1e-3",
        {"base_lr": 0.1, "T_0": 10, "T_mult": 2, "eta_min": 0.001},
    ),
    "torchensemble_snapshot": (
        "base_lr=0.1 n_estimators=2 epochs=4 batches_per_epoch=5",
        {"base_lr": 0.1, "n_estimators": 2, "epochs": 4, "batches_per_epoch": 5},
    ),
}

# What each of those calls says a step is, unless it is an optimizer update.
NOTES = {
    "fastai_sgdr": ("epochs", "A step is an epoch here: batches_per_epoch is 1."),
    "keras_contrib_snapshot": ("epochs", "A step is an EPOCH: the rate changes once in an epoch."),
    "mmengine_cosine_restart": (
        "epochs or optimizer updates",
        "periods: the length of each cycle, in epochs, or in optimizer steps with MMEngine's "
        "by_epoch=False.",
    ),
    "timm_cosine": (
        "epochs or optimizer updates",
        "t_initial: the length of the first cycle, in the unit that the caller counts: epochs for "
        "timm's `step`, updates for its `step_update`.",
    ),
}


def words_of(name: str) -> list[str]:
    return re.findall(r"\w+=(?:\[.*\]|\S+)", CALLS[name][0])


def test_every_preset_has_a_call_here() -> None:
    assert sorted(CALLS) == sorted(presets.__all__) == sorted(module.PRESETS)


@pytest.mark.parametrize("name", CALLS)
def test_json_is_the_schedule_that_the_function_makes(name: str) -> None:
    arguments = CALLS[name][1]
    document = json_of("--preset", name, *words_of(name), "--steps", "40")
    schedule: Schedule = getattr(presets, name)(**arguments)
    assert Schedule.from_dict(document["schedule"]) == schedule
    assert document["steps"] == 40
    assert document["cycle_ends"] == schedule.cycle_ends(40)
    unit, _ = NOTES.get(name, ("optimizer updates", ""))
    written = {k: str(v) if isinstance(v, Fraction) else v for k, v in arguments.items()}
    assert document["preset"] == {"name": name, "arguments": written, "step": unit}


@pytest.mark.parametrize("name", CALLS)
def test_the_text_names_the_preset_and_its_unit_in_80_columns(name: str) -> None:
    text = text_of("--preset", name, *words_of(name))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    doc = inspect.getdoc(getattr(presets, name))
    assert doc is not None
    heading = f"{name}: {doc.splitlines()[0].removesuffix('.')} "
    note = f"{NOTES[name][1]} " if name in NOTES else ""
    assert re.match(re.escape(heading + note) + r"(Cycles without end|\d+ cycles? in)", flat)


def test_enough_batches_make_a_step_an_update() -> None:
    words = ["--preset", "fastai_sgdr", "lr_max=0.1", "n_cycles=2", "cycle_len=1"]
    document = json_of(*words, "batches_per_epoch=10")
    assert document["preset"]["step"] == "optimizer updates"


def test_a_preset_shows_its_cycles_like_any_schedule() -> None:
    own = text_of("--cycle-steps", "10", "--steps", "35")
    heading, _, rest = text_of(*WARM, "--steps", "35").partition("\n")
    assert heading == "torch_warm_restarts: PyTorch's CosineAnnealingWarmRestarts"
    assert rest == own


def test_options_may_stand_between_the_arguments() -> None:
    document = json_of("base_lr=0.1", "--preset", "torch_warm_restarts", "--steps", "35", "T_0=10")
    assert Schedule.from_dict(document["schedule"]) == CyclicCosine(0.1, cycle_steps=10)


def test_a_first_cycle_longer_than_every_run_is_cut() -> None:
    document = json_of("--preset", "sgdr", "eta_max=0.1", "T_0=1e30")
    assert document["steps"] == 2**63
    assert document["cycles"][0]["stop"] == 10**30
    assert "up to step 9223372036854775807" in text_of("--preset", "sgdr", "eta_max=1", "T_0=1e30")


def test_a_plot_is_written_and_names_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.png"
    result = call(*WARM, "--plot", str(path))
    assert (result.exit_code, result.stderr) == (0, f"Wrote {path}\n")
    assert min(png_size(path)) > 400
    labels: list[str] = []
    monkeypatch.setattr(
        "cosanneal.report.save_figure", lambda figure, _: labels.append(figure.axes[0].get_xlabel())
    )
    call(*WARM, "--plot", "plan.png")
    call("--preset", "keras_contrib_snapshot", "nb_epochs=9", "nb_snapshots=3", "--plot", "x.png")
    assert labels == ["step (optimizer updates)", "step (epochs)"]


class TestTheListOfPresets:
    def test_it_has_every_preset_with_every_argument_in_80_columns(self) -> None:
        text = text_of("--presets")
        assert max(map(len, text.splitlines())) <= 80
        rows = re.split(r"^(?=\w)", text.split("─\n")[1], flags=re.M)[1:]
        assert [row.split()[0] for row in rows] == presets.__all__
        for name, row in zip(presets.__all__, rows, strict=True):
            parameters = inspect.signature(getattr(presets, name)).parameters
            arguments = row.split()[-len(parameters) :]
            assert [word.partition("=")[0] for word in arguments] == list(parameters)
            required = [word for word in arguments if "=" not in word]
            empty = inspect.Parameter.empty
            assert required == [key for key, p in parameters.items() if p.default is empty]

    def test_it_has_the_first_line_of_the_docstrings_and_the_defaults(self) -> None:
        flat = " ".join(text_of("--presets").split())
        assert (
            "torch_one_cycle PyTorch's OneCycleLR with its cosine strategy and two phases "
            "max_lr total_steps pct_start=0.3 div_factor=25 final_div_factor=10000 "
        ) in flat
        assert "restart_weights=1 eta_min=none" in flat
        assert "warmup_prefix=false t_in_epochs=true" in flat

    def test_defaults_are_written_as_they_may_be_given(self) -> None:
        for name in presets.__all__:
            function = getattr(presets, name)
            hints = get_type_hints(function)
            for key, parameter in inspect.signature(function).parameters.items():
                if parameter.default is not parameter.empty:
                    _, read = module.KINDS[hints[key]]
                    value = read(module.written(parameter.default))
                    value = tuple(value) if isinstance(value, list) else value
                    assert value == parameter.default, (name, key)

    def test_it_comes_whatever_else_is_asked(self) -> None:
        assert text_of("--presets", "--preset", "nonsense") == text_of("--presets")


KNOWN = ", ".join(sorted(presets.__all__))
ERRORS: list[tuple[list[str], str]] = [
    (
        ["--preset", "torch_warm_restart"],
        f"Option --preset must name one of {KNOWN}. Received: 'torch_warm_restart'; "
        "did you mean torch_warm_restarts?",
    ),
    (["--preset", ""], f"Option --preset must name one of {KNOWN}. Received: ''"),
    (
        [*WARM, "T_mul=2"],
        "torch_warm_restarts: takes the arguments base_lr, T_0, T_mult, eta_min. "
        "Received: 'T_mul=2'; did you mean T_mult?",
    ),
    (
        [*WARM, "x=2"],
        "torch_warm_restarts: takes the arguments base_lr, T_0, T_mult, eta_min. Received: 'x=2'",
    ),
    (
        WARM[:3],
        "torch_warm_restarts: needs T_0, written key=value; "
        "it takes base_lr T_0 T_mult=1 eta_min=0",
    ),
    (
        WARM[:2],
        "torch_warm_restarts: needs base_lr, T_0, written key=value; "
        "it takes base_lr T_0 T_mult=1 eta_min=0",
    ),
    (
        [*WARM, "2"],
        "torch_warm_restarts: its arguments must be written key=value. Received: '2'",
    ),
    (
        [*WARM, "T_0=20"],
        "torch_warm_restarts: Argument `T_0` must be given once. Received: 'T_0=20' as well",
    ),
    (
        [*WARM[:3], "T_0=0"],
        "torch_warm_restarts: Argument `T_0` must be a positive integer (optimizer steps). "
        "Received: T_0=0",
    ),
    (
        [*WARM, "--steps", "0"],
        "Option --steps must be an integer from 1 to 2**63. Received: --steps=0",
    ),
    (
        [*WARM, "--plot", "plan.jpeg"],
        "A figure's file must end in one of .png, .svg, .pdf. Received: 'plan.jpeg'",
    ),
    (
        ["T_0=10", "--cycle-steps", "5"],
        "Arguments KEY=VALUE must come with --preset NAME. Received: 'T_0=10'",
    ),
    (
        ["--preset", "timm_cosine", "base_lr=0.1", "t_initial=10", "noise_range_t=3"],
        "timm_cosine: Argument `noise_range_t` must be None: a schedule is a function of the step "
        "alone, without noise. Received: noise_range_t='3'; leave the noise out",
    ),
    *(
        (
            ["--preset", "optax_sgdr", f"cosine_kwargs={text}"],
            'optax_sgdr: Argument `cosine_kwargs` must be JSON, as in [{"key": 1}, {"key": 2}]. '
            f"Received: cosine_kwargs={text!r}",
        )
        for text in ("", "[", "3", "{}", "null")
    ),
    (
        ["--preset", "optax_sgdr", "cosine_kwargs=" + "[" * 100_000],
        'optax_sgdr: Argument `cosine_kwargs` must be JSON, as in [{"key": 1}, {"key": 2}]. '
        f"Received: cosine_kwargs='{'[' * 76}...",
    ),
    (
        ["--preset", "optax_sgdr", "cosine_kwargs=[3]"],
        "optax_sgdr: in 'cosine_kwargs[0]': must be a dict. Received: 3",
    ),
    *(
        (
            ["--preset", name, f"{key}={text}"],
            f"{name}: Argument `{key}` must be {what}. Received: {key}={text!r}",
        )
        for name, key, what, texts in [
            ("torch_warm_restarts", "T_0", "an integer", ["", "x", "1.5", "1e3"]),
            ("torch_warm_restarts", "base_lr", "a number", ["", "x", "3/0", "1.5/2", "1" * 60]),
            ("sgdr", "T_mult", "a number, as in 10, 1.5 or 3/2", ["", "x", "3/0", "3/"]),
            ("hf_cosine_with_min_lr", "min_lr", "a number or none", ["", "x", "null"]),
            ("timm_cosine", "warmup_prefix", "true or false", ["", "1", "yes"]),
            (
                "mmengine_cosine_restart",
                "periods",
                "integers with commas between, as in 10,20,40",
                ["", "10,", "10;20", "1.5"],
            ),
            (
                "mmengine_cosine_restart",
                "restart_weights",
                "numbers with commas between, as in 1,0.5,0.25",
                ["", "1,", "[1]"],
            ),
        ]
        for text in texts
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    ERRORS,
    ids=lambda case: (" ".join(case) if isinstance(case, list) else "")[:60],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(*arguments) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--total-steps", "100"),
        ("--num-cycles", "5"),
        ("--cycle-steps", "10,20"),
        ("--cycle-mult", "2"),
        ("--max-lr", "0.1"),
        ("--min-lr", "0.0"),
        ("--cycle-decay", "0.5"),
        ("--warmup-steps", "5"),
        ("--warmup-lr", "0.01"),
        ("--restart-warmup-steps", "5"),
        ("--endpoint", "True"),
    ],
)
def test_an_option_of_cyclic_cosine_is_refused_even_with_its_default(
    option: str, value: str
) -> None:
    given = [option] if option == "--endpoint" else [option, value]
    assert error_of(*WARM, *given) == (
        f"Option {option} must not be given with --preset: a preset takes arguments of its own, "
        f"written key=value. Received: {option}={value}"
    )


def test_every_option_of_cyclic_cosine_is_tried_above() -> None:
    marks = test_an_option_of_cyclic_cosine_is_refused_even_with_its_default.pytestmark  # type: ignore[attr-defined]
    tried = [option.removeprefix("--").replace("-", "_") for option, _ in marks[0].args[1]]
    assert sorted(tried) == sorted(inspect.signature(CyclicCosine).parameters)


def test_every_kind_of_argument_can_be_read() -> None:
    for name in presets.__all__:
        hints = get_type_hints(getattr(presets, name))
        assert set(hints.values()) - {Schedule} <= set(module.KINDS), name


def test_json_is_alone_on_stdout_beside_a_plot(tmp_path: Path) -> None:
    result = call(*WARM, "--json", "--plot", str(tmp_path / "plan.svg"))
    assert json.loads(result.stdout)["preset"]["name"] == "torch_warm_restarts"
