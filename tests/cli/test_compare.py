"""`cosanneal plan --compare ...`: where presets differ."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from cosanneal import Schedule, presets
from cosanneal.cli.compare import ULPS, compare_presets
from cosanneal.cli.preset import choose_quoted_preset
from tests.shared.calling import Command, png_size

PLAN = Command("plan")
call, error_of, json_of, text_of = PLAN.call, PLAN.error_of, PLAN.json_of, PLAN.text_of

TORCH = "torch_warm_restarts base_lr=0.1 T_0=10"
KERAS = "keras_cosine_decay_restarts initial_learning_rate=0.1 first_decay_steps=10"
SGDR = "sgdr eta_max=0.1 T_0=10"
CONTRIB = "keras_contrib_snapshot nb_epochs=40 nb_snapshots=4"
TWO = ["--compare", TORCH, "--compare", KERAS, "--steps", "40"]
OPTAX = {"init_value": 0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 10}

torch = presets.torch_warm_restarts(0.1, 10)
keras = presets.keras_cosine_decay_restarts(0.1, 10)


def all_of(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--compare", text)]


def test_the_text_says_where_two_presets_differ() -> None:
    text = text_of(*TWO)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:3] == [
        f"1 {TORCH}",
        f"2 {KERAS}",
        "Compared at every step from 0 to 39. Rates within 16 ulp of each other count as",
    ]
    assert lines[3:10] == [
        "equal.",
        "",
        "2 against 1",
        "first difference    at step 11",
        "steps that differ   28 of 40",
        "largest difference  0.0855731 at step 39",
        "cycles' last steps  only of 1: 19, 39",
    ]
    assert [line.split() for line in lines[13:]] == [
        ["18", "0.00954915", "0.0654508", "+0.0559"],
        ["22", "0.0904508", "0.0345492", "-0.0559"],
        ["39", "0.00244717", "0.0880203", "+0.0856"],
    ]
    # With a prompt below it, it still fits into the smallest terminal.
    assert len(lines) <= 20


def test_json_says_the_same_in_full() -> None:
    document = json_of(*TWO)
    assert (document["steps"], document["steps_looked_at"]) == (40, 40)
    assert document["tolerance_ulp"] == ULPS == 16
    assert [one["name"] for one in document["presets"]] == [TORCH.split()[0], KERAS.split()[0]]
    assert [Schedule.from_dict(one["schedule"]) for one in document["presets"]] == [torch, keras]
    (difference,) = document["differences"]
    # By another way: the steps at which the decimals differ.
    differing = [s for s in range(40) if not math.isclose(torch(s), keras(s), rel_tol=1e-12)]
    largest = max(differing, key=lambda s: abs(torch(s) - keras(s)))
    assert difference == {
        "preset": 2,
        "against": 1,
        "first_step": differing[0],
        "differing_steps": len(differing),
        "largest": row(largest),
        "rates": [row(18), row(22), row(39)],
        "cycle_ends_of_first_only": [19, 39],
        "cycle_ends_of_other_only": [],
    }


def row(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "first": torch(step),
        "other": keras(step),
        "difference": keras(step) - torch(step),
    }


def test_each_is_compared_with_the_first_which_may_be_the_preset() -> None:
    document = json_of("--preset", *SGDR.split(), *all_of(KERAS, TORCH))
    assert [one["name"] for one in document["presets"]] == [
        "sgdr",
        "keras_cosine_decay_restarts",
        "torch_warm_restarts",
    ]
    keras_, torch_ = document["differences"]
    assert (keras_["preset"], keras_["against"], keras_["first_step"]) == (2, 1, 11)
    assert (torch_["preset"], torch_["against"], torch_["first_step"]) == (3, 1, None)


def test_what_does_not_differ_is_one_line() -> None:
    text = text_of(*all_of(SGDR, CONTRIB))
    assert text.splitlines()[-1] == "2 against 1: no difference."
    (difference,) = json_of(*all_of(SGDR, CONTRIB))["differences"]
    assert difference["differing_steps"] == 0
    assert difference["first_step"] is difference["largest"] is None
    assert difference["rates"] == difference["cycle_ends_of_first_only"] == []


def test_equal_rates_may_have_other_cycles() -> None:
    flat = [f"sgdr eta_max=0.1 eta_min=0.1 T_0={length}" for length in (10, 15)]
    lines = [line.rstrip() for line in text_of(*all_of(*flat), "--steps", "30").splitlines()]
    assert lines[-2:] == [
        "rates               equal",
        "cycles' last steps  only of 1: 9, 19; only of 2: 14",
    ]


def test_only_the_first_of_many_last_steps_are_written() -> None:
    text = text_of(*all_of("sgdr eta_max=0.1 T_0=10", "sgdr eta_max=0.1 T_0=1000"))
    assert "only of 1: 9, 19, 29, 39, 49 and 589 more" in " ".join(text.split())


def test_the_same_cycles_say_so() -> None:
    text = text_of(*all_of(SGDR, "sgdr eta_max=0.2 T_0=10"))
    assert re.search(r"cycles' last steps +the same", text)
    assert re.search(r"steps that differ +60 of 60", text)


@pytest.mark.parametrize(("ulps", "differs"), [(0, 0), (16, 0), (18, 60)])
def test_a_few_ulp_are_no_difference(ulps: int, differs: int) -> None:
    peak = 0.1
    for _ in range(ulps):
        peak = math.nextafter(peak, 1)
    # Constant rates: the peak itself, at every step.
    flat = "sgdr eta_max={0!r} eta_min={0!r} T_0=10"
    (difference,) = json_of(*all_of(flat.format(0.1), flat.format(peak)))["differences"]
    assert difference["differing_steps"] == differs


def test_zero_differs_from_the_smallest_number() -> None:
    flat = "sgdr eta_max={0} eta_min={0} T_0=10"
    (difference,) = json_of(*all_of(flat.format(0), flat.format(1e-300)))["differences"]
    assert difference["largest"] == {
        "step": 0,
        "first": 0.0,
        "other": 1e-300,
        "difference": 1e-300,
    }


def test_what_counts_epochs_says_so() -> None:
    flat = " ".join(text_of(*all_of(SGDR, CONTRIB)).split())
    assert f"2 {CONTRIB} A step is an EPOCH: the rate changes once in an epoch. Compared" in flat
    assert [one["step"] for one in json_of(*all_of(SGDR, CONTRIB))["presets"]] == [
        "optimizer updates",
        "epochs",
    ]


@pytest.mark.parametrize(
    ("texts", "steps"),
    [
        ([TORCH, KERAS], 630),  # both endless: as far as six cycles of each
        # One goes on beyond the other's end: as far again.
        ([TORCH, "hf_hard_restarts base_lr=1 num_warmup_steps=0 num_training_steps=99"], 198),
        ([TORCH, f"optax_cosine_decay init_value=1 decay_steps={2**62 + 1}"], 2**63),
        (
            [
                "optax_cosine_decay init_value=1 decay_steps=70",
                "optax_cosine_decay init_value=1 decay_steps=80",
            ],
            80,
        ),
    ],
)
def test_it_looks_beyond_the_end_of_the_longest_where_another_goes_on(
    texts: list[str], steps: int
) -> None:
    assert json_of(*all_of(*texts))["steps"] == steps


DECAY = "optax_cosine_decay init_value=0.1 decay_steps=10"
WAVE = "torch_cosine_annealing base_lr=0.1 T_max=10"


def test_one_that_goes_on_differs_from_one_that_ends() -> None:
    # They differ after the end only, where one holds its floor and the other rises.
    for texts in ([DECAY, WAVE], [WAVE, DECAY]):
        (difference,) = json_of(*all_of(*texts))["differences"]
        assert (difference["first_step"], difference["differing_steps"]) == (11, 9)
        assert difference["largest"]["step"] == 19


@pytest.mark.parametrize("steps", [["--steps", "10"], ["--steps", "11"]])
def test_no_difference_so_far_is_not_said_to_be_none(steps: list[str]) -> None:
    def last(*texts: str) -> str:
        return " ".join(text_of(*all_of(*texts), *steps).partition("equal.")[2].split())

    assert last(DECAY, WAVE) == (
        "2 against 1: no difference in these steps. 1 ends after step 9 and 2 goes on: --steps "
        "looks further."
    )
    assert last(WAVE, DECAY) == (
        "2 against 1: no difference in these steps. 2 ends after step 9 and 1 goes on: --steps "
        "looks further."
    )
    assert last(DECAY, DECAY) == last(WAVE, WAVE) == "2 against 1: no difference."


def test_words_are_quoted_as_in_a_shell() -> None:
    text = f"optax_sgdr cosine_kwargs='{json.dumps([OPTAX] * 2)}'"
    document = json_of(*all_of(SGDR, text))
    assert Schedule.from_dict(document["presets"][1]["schedule"]) == presets.optax_sgdr([OPTAX] * 2)


class TestLongComparisons:
    def test_every_step_is_looked_at_up_to_a_number(self) -> None:
        one = choose_quoted_preset(SGDR, option="--compare")
        assert compare_presets([one, one], 100_000).steps == range(100_000)
        assert len(compare_presets([one, one], 100_001).steps) < 100_000

    def test_beyond_it_the_boundaries_are_looked_at_on_either_side(self) -> None:
        texts = ["sgdr eta_max=0.1 T_0=1000 T_mult=2", "sgdr eta_max=0.1 T_0=1001 T_mult=2.1"]
        both = [choose_quoted_preset(text, option="--compare") for text in texts]
        comparison = compare_presets(both, 10**12)
        steps = set(comparison.steps)
        assert list(comparison.steps) == sorted(steps)
        assert {0, 10**12 - 1} <= steps
        for one in both:
            for end in one.schedule.cycle_ends(10**12):
                assert {end, end + 1, end + 2} <= steps
        # Evenly between, too.
        gaps = [b - a for a, b in zip(comparison.steps, comparison.steps[1:], strict=False)]
        assert max(gaps) <= 10**12 // 9_999 + 1
        (difference,) = comparison.differences
        assert difference.steps[0] == 1
        ends = both[0].schedule.cycle_ends(10**12)
        assert list(difference.first_ends) == ends

    def test_the_text_says_that_it_is_sampled(self) -> None:
        text = text_of(*all_of(TORCH, SGDR), "--steps", str(2**63))
        assert max(map(len, text.splitlines())) <= 80
        flat = " ".join(text.split())
        found = re.search(r"Sampled: compared at (\d+) of the steps from 0 to (\d+), evenly", flat)
        assert found is not None
        assert int(found[2]) == 2**63 - 1
        looked = int(found[1])
        assert 30_000 <= looked <= 50_000
        document = json_of(*all_of(TORCH, SGDR), "--steps", str(2**63))
        assert (document["steps"], document["steps_looked_at"]) == (2**63, looked)

    def test_the_largest_numbers_fit_80_columns(self) -> None:
        texts = [f"sgdr eta_max=1.2345678e-300 T_0={n}" for n in (2**61, 2**61 + 12345)]
        text = text_of(*all_of(*texts), "--steps", str(2**63))
        assert max(map(len, text.splitlines())) <= 80
        assert str(2**61) in text


@pytest.mark.parametrize(
    "arguments",
    [
        TWO,
        all_of(*[f"sgdr eta_max=0.{i} T_0=1{i}" for i in range(1, 10)]),
        all_of(SGDR, f"optax_sgdr cosine_kwargs='{json.dumps([OPTAX] * 3)}'"),
        all_of(CONTRIB, "timm_cosine base_lr=0.1 t_initial=20 cycle_limit=3"),
    ],
)
def test_piped_output_fits_80_columns_and_holds_no_escapes(arguments: list[str]) -> None:
    text = text_of(*arguments)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


class TestPlots:
    def test_both_are_drawn_into_a_file_of_sensible_size(self, tmp_path: Path) -> None:
        path = tmp_path / "both.png"
        result = call(*TWO, "--plot", str(path))
        assert (result.exit_code, result.stderr) == (0, f"Wrote {path}\n")
        width, height = png_size(path)
        assert 1000 <= width <= 3000
        assert 400 <= height <= 2000
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("texts", "unit"),
        [
            ([TORCH, KERAS], "optimizer updates"),
            ([CONTRIB, CONTRIB], "epochs"),
            ([TORCH, CONTRIB], "as each schedule counts"),
        ],
    )
    def test_the_lines_are_named_as_in_the_text(
        self, texts: list[str], unit: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures: list[Any] = []
        monkeypatch.setattr(
            "cosanneal.report.save_figure", lambda figure, _: figures.append(figure)
        )
        assert call(*all_of(*texts), "--steps", "30", "--plot", "x.png").exit_code == 0
        (axes,) = figures[0].axes
        assert [line.get_label() for line in axes.lines] == [
            f"{i}  {text}" for i, text in enumerate(texts, 1)
        ]
        assert axes.get_xlabel() == f"step ({unit})"
        assert {len(line.get_xdata()) for line in axes.lines} == {30}

    def test_long_names_are_cut_and_stay_apart(self) -> None:
        one = choose_quoted_preset("sgdr eta_max=0." + "1" * 30 + " T_0=10." + "0" * 30, option="")
        long = choose_quoted_preset(
            "mmengine_cosine_restart base_lr=1 eta_min=0 periods="
            + ",".join(["10"] * 50)
            + " restart_weights="
            + ",".join(["1"] * 50),
            option="",
        )
        labels = compare_presets([one, long, long], 10).labels()
        assert len(set(labels)) == 3
        assert max(map(len, labels)) == 96
        assert labels[0] == f"1  {one.words}"
        assert labels[2].startswith("3  mmengine_cosine_restart base_lr=1 ")
        assert labels[2].endswith("...")


KNOWN = ", ".join(sorted(presets.__all__))
ERRORS: list[tuple[list[str], str]] = [
    (
        all_of(TORCH),
        "Option --compare must be given at least twice, or together with --preset. "
        f"Received: {TORCH} alone",
    ),
    (
        all_of(TORCH, "kerras"),
        f"Option --compare must name one of {KNOWN}. Received: 'kerras'",
    ),
    (all_of(TORCH, ""), f"Option --compare must name one of {KNOWN}. Received: ''"),
    (
        all_of(TORCH, "sgdr 'eta_max=0.1"),
        'Option --compare must be quoted, as in "NAME key=value". '
        'Received: "sgdr \'eta_max=0.1": No closing quotation',
    ),
    (
        all_of(TORCH, "sgdr T_0=10"),
        "sgdr: needs eta_max, written key=value; it takes eta_max T_0 T_mult=1 eta_min=0",
    ),
    (
        all_of(TORCH, "sgdr eta_max=0.1 T_0=0"),
        "sgdr: Argument `T_0` must be a positive number (int, Fraction or float). Received: T_0=0",
    ),
    (
        [*TWO, "T_mult=2"],
        "Arguments KEY=VALUE must come with --preset NAME. Received: 'T_mult=2'",
    ),
    (
        [*TWO, "--max-lr", "0.5"],
        "Option --max-lr must not be given with --compare: a preset takes arguments of its own, "
        "written key=value. Received: --max-lr=0.5",
    ),
    (
        [*TWO[:-1], "0"],
        "Option --steps must be an integer from 1 to 2**63. Received: --steps=0",
    ),
    (
        [*TWO, "--plot", "plan.jpeg"],
        "A figure's file must end in one of .png, .svg, .pdf. Received: 'plan.jpeg'",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda case: str(case)[-60:])
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(*arguments) == message
    assert list(tmp_path.iterdir()) == []
