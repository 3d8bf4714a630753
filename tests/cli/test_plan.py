"""`cosanneal plan`, through the app as a user would call it."""

from __future__ import annotations

import inspect
import json
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosanneal import CyclicCosine, Schedule
from cosanneal.cli.app import app
from cosanneal.cli.plan import plan
from tests.shared.calling import Command, png_size

PLAN = Command("plan")
call, json_of, text_of = PLAN.call, PLAN.json_of, PLAN.text_of

FIVE = ["--total-steps", "1000", "--num-cycles", "5"]
ENDLESS = ["--cycle-steps", "10", "--cycle-mult", "2"]


def rows_of(text: str) -> list[list[str]]:
    """The table's rows of cycles, as words."""
    lines = text.split("\n\n")[0].splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    return [line.split() for line in lines[rule + 1 :]]


def curve_of(text: str) -> list[str]:
    """The rows of the curve, without their labels and the axis."""
    return [line.partition("┤" if "┤" in line else "│")[2] for line in text.splitlines()[-11:-3]]


def test_the_table_lists_every_cycle() -> None:
    assert rows_of(
        text_of(*FIVE, "--max-lr", "0.2", "--min-lr", "0.01", "--cycle-decay", ".5")
    ) == [
        ["0", "0", "199", "200", "200", "0.2", "0.01"],
        ["1", "200", "399", "400", "200", "0.1", "0.01"],
        ["2", "400", "599", "600", "200", "0.05", "0.01"],
        ["3", "600", "799", "800", "200", "0.025", "0.01"],
        ["4", "800", "999", "1000", "200", "0.0125", "0.01"],
    ]


def test_the_summary_says_how_much_there_is() -> None:
    assert text_of(*FIVE).startswith("5 cycles in 1000 steps, peak 0.1, floor 0\n")
    assert text_of("--total-steps", "1", "--num-cycles", "1").startswith("1 cycle in 1 step, ")
    assert text_of(*FIVE, "--steps", "300").startswith(
        "5 cycles in 1000 steps, peak 0.1, floor 0; shown up to step 299 (--steps)\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        FIVE,
        ENDLESS,
        ["--total-steps", "1", "--num-cycles", "1"],
        ["--total-steps", "10000", "--num-cycles", "10000", "--cycle-decay", "0.99999"],
        ["--cycle-steps", str(2**62), "--steps", str(2**63), "--min-lr", "1.2345678e-5"],
        ["--cycle-steps", "1", "--steps", str(2**62)],
        ["--cycle-steps", "5", "--cycle-mult", "1e19", "--steps", "6"],
        [*FIVE, "--warmup-steps", "7", "--restart-warmup-steps", "50", "--steps", "5000"],
        [*FIVE, "--max-lr", "1.2345678e-300"],
        [*FIVE, "--max-lr", "0.1", "--min-lr", "0.1"],
        [*FIVE, "--max-lr", "0"],
    ],
    ids=" ".join,
)
def test_piped_output_fits_80_columns_and_holds_no_escapes(arguments: list[str]) -> None:
    text = text_of(*arguments)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


@pytest.mark.parametrize("columns", [30, 60, 132, 250])
def test_other_widths_are_kept_as_well(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = text_of(*FIVE)
    assert max(map(len, text.splitlines())) == min(columns, 100)


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        ("65", "cycle   first step   last step   snapshot   length   peak   floor"),
        ("64", "cycle first step last step snapshot length peak floor"),
        ("53", "cycle first step last step snapshot length peak floor"),
        ("52", "cycle first step snapshot length peak floor"),
        ("42", "cycle first step snapshot peak floor"),
        ("35", "cycle first step snapshot peak"),
        ("20", "cycle snapshot"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_that_are_whole(
    columns: str, headings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = text_of(*FIVE)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[lines.index("─" * len(headings)) - 1] == headings
    rows = rows_of(text)
    assert [row[0] for row in rows] == [*"01234"]
    assert {len(row) for row in rows} == {len(headings.replace(" step", "").split())}
    assert "1000" in rows[-1]


def test_a_wide_terminal_shows_the_largest_steps_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = text_of("--cycle-steps", str(2**62), "--steps", str(2**63))
    assert rows_of(text)[-1][1:4] == [str(2**62), str(2**63 - 1), str(2**63)]


def test_the_curve_falls_from_peak_to_floor_in_every_cycle() -> None:
    text = text_of(*FIVE)
    levels = [sum(" ▁▂▃▄▅▆▇█".index(cell) for cell in column) for column in columns_of(text)]
    assert len(levels) == 75
    assert [i for i, level in enumerate(levels) if level == 64] == [0, 15, 30, 45, 60]
    for start in range(0, 75, 15):
        cycle = levels[start : start + 15]
        assert cycle == sorted(cycle, reverse=True)
        assert cycle[7] == pytest.approx(32, abs=5)
    # The last column of a cycle stands close to the floor, and still shows.
    assert set(levels[14::15]) <= {1, 2}


def columns_of(text: str) -> list[tuple[str, ...]]:
    rows = curve_of(text)
    width = max(map(len, rows))
    return list(zip(*(row.ljust(width) for row in rows), strict=True))


def test_the_curve_is_labelled_at_its_four_ends() -> None:
    lines = text_of(*FIVE, "--min-lr", "0.025").splitlines()
    assert lines[-11].startswith("  0.1 ┤")
    assert lines[-4].startswith("0.025 ┤")
    assert lines[-1].split() == ["step", "0", "999"]
    assert lines[-1].endswith("999")


def test_a_snapshot_is_marked_under_the_step_after_which_it_is_taken() -> None:
    marks = text_of(*FIVE).splitlines()[-2]
    assert [i - 5 for i, mark in enumerate(marks) if mark == "▲"] == [14, 29, 44, 59, 74]


def test_a_restart_of_a_single_step_still_shows_its_peak() -> None:
    # Some 666 steps share the last column, and only the last of them is high.
    text = text_of("--cycle-steps", "49999,1")
    filled = [sum(cell != " " for cell in column) for column in columns_of(text)]
    assert filled[-2:] == [1, 8]


def test_a_peak_within_a_warmup_still_shows() -> None:
    # With one step to anneal, which uses the floor, no boundary stands at the peak.
    text = text_of(
        *("--total-steps", "15", "--num-cycles", "5", "--endpoint"),
        *("--warmup-steps", "2", "--restart-warmup-steps", "2"),
    )
    filled = [sum(cell != " " for cell in column) for column in columns_of(text)]
    assert len(filled) >= 70
    assert {1, 8} == {*filled}
    assert text.splitlines()[-11].startswith("0.05 ┤")
    assert text.splitlines()[-4].startswith("   0 ┤")


def test_endless_cycles_show_the_first_six() -> None:
    text = text_of(*ENDLESS)
    assert text.startswith("Cycles without end, peak 0.1, floor 0; shown up to step 629 (--steps)")
    assert [row[1] for row in rows_of(text)] == ["0", "10", "30", "70", "150", "310"]


def test_endless_cycles_are_followed_as_far_as_asked() -> None:
    assert [row[1] for row in rows_of(text_of(*ENDLESS, "--steps", "71"))] == [
        "0",
        "10",
        "30",
        "70",
    ]
    assert [row[1] for row in rows_of(text_of(*ENDLESS, "--steps", "70"))] == ["0", "10", "30"]


def test_cycles_that_outgrow_every_run_are_left_out() -> None:
    assert rows_of(text_of("--cycle-steps", "5", "--cycle-mult", "1e19")) == [
        ["0", "0", "4", "5", "5", "0.1", "0"]
    ]
    # Where asked for, a cycle beyond all bounds is still one short row.
    assert rows_of(text_of("--cycle-steps", "5", "--cycle-mult", "1e19", "--steps", "6"))[1] == [
        "1",
        "5",
        "5.000e+19",
        "5.000e+19",
        "5.000e+19",
        "0.1",
        "0",
    ]


def test_many_cycles_are_shortened_and_say_so() -> None:
    text = text_of("--total-steps", "100000", "--num-cycles", "10000")
    rows = rows_of(text)
    assert [row[0] for row in rows[:9]] == ["0", "1", "2", "3", "4", "5", "…", "9998", "9999"]
    assert rows[6][1:3] == ["9992", "more"]
    assert rows[8][:5] == ["9999", "99990", "99999", "100000", "10"]
    assert "--json lists all cycles." in text
    assert "rate in the first 10 cycles" in text
    assert text.splitlines()[-1].split() == ["step", "0", "99"]


def test_ten_cycles_are_listed_in_full_and_eleven_are_not() -> None:
    ten, eleven = (text_of("--total-steps", "99", "--num-cycles", n) for n in ("10", "11"))
    assert len(rows_of(ten)) == 10
    assert "--json" not in ten
    assert [row[0] for row in rows_of(eleven)[:9]] == [*"012345", "…", "9", "10"]


def test_a_plan_too_long_for_json_does_not_promise_it() -> None:
    assert "--json" not in text_of("--cycle-steps", "1", "--steps", str(2**62))


def test_huge_steps_are_written_exactly() -> None:
    text = text_of("--cycle-steps", str(2**62), "--steps", str(2**63))
    assert rows_of(text)[-1][1:4] == [str(2**62), str(2**63), str(2**62)]


def test_a_terminal_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = CliRunner(charset="ascii").invoke(app, ["plan", *FIVE])
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "rate, ^ snapshot" in result.stdout
    assert "0.1 +#" in result.stdout


FACTORS: list[tuple[str, float | Fraction]] = [
    ("2", 2),
    ("1.5", 1.5),
    ("3/2", Fraction(3, 2)),
    ("1/3", Fraction(1, 3)),
]

CASES: list[tuple[list[str], Schedule]] = [
    (FIVE, CyclicCosine(0.1, total_steps=1000, num_cycles=5)),
    (["--total-steps", "1", "--num-cycles", "1"], CyclicCosine(0.1, total_steps=1, num_cycles=1)),
    (
        ["--total-steps", "10000", "--num-cycles", "10000"],
        CyclicCosine(0.1, total_steps=10000, num_cycles=10000),
    ),
    (["--cycle-steps", "10,20,40"], CyclicCosine(0.1, cycle_steps=[10, 20, 40])),
    (["--cycle-steps", "7", "--num-cycles", "3"], CyclicCosine(0.1, cycle_steps=7, num_cycles=3)),
    *(
        (
            ["--total-steps", "1000", "--num-cycles", "4", "--cycle-mult", text],
            CyclicCosine(0.1, total_steps=1000, num_cycles=4, cycle_mult=mult),
        )
        for text, mult in FACTORS
    ),
    (
        [
            *["--max-lr", "0.3", "--total-steps", "500", "--num-cycles", "3", "--min-lr", "1e-4"],
            *["--cycle-mult", "1.1", "--cycle-decay", "0.8", "--warmup-steps", "20"],
            *["--warmup-lr", "0.001", "--restart-warmup-steps", "5", "--endpoint"],
        ],
        CyclicCosine(
            0.3,
            total_steps=500,
            num_cycles=3,
            min_lr=1e-4,
            cycle_mult=1.1,
            cycle_decay=0.8,
            warmup_steps=20,
            warmup_lr=0.001,
            restart_warmup_steps=5,
            endpoint=True,
        ),
    ),
]


@pytest.mark.parametrize(("arguments", "schedule"), CASES, ids=lambda case: str(case)[:60])
def test_json_is_the_schedule_that_the_arguments_mean(
    arguments: list[str], schedule: Schedule
) -> None:
    document = json_of(*arguments)
    assert Schedule.from_dict(document["schedule"]) == schedule
    assert document["schedule"] == schedule.to_dict()
    assert document["total_steps"] == document["steps"] == schedule.total_steps
    assert document["num_cycles"] == schedule.num_cycles == len(document["cycles"])
    assert document["cycle_ends"] == schedule.cycle_ends()
    for said, cycle in zip(document["cycles"], schedule.cycles(), strict=True):
        assert said == {
            "index": cycle.index,
            "start": cycle.start,
            "stop": cycle.stop,
            "length": cycle.length,
            "last_step": cycle.last_step,
            "max_lr": cycle.max_lr,
            "min_lr": cycle.min_lr,
        }


@pytest.mark.parametrize("steps", [1, 10, 11, 29, 30, 5000])
def test_json_of_endless_cycles_ends_where_asked(steps: int) -> None:
    schedule = CyclicCosine(0.1, cycle_steps=10, cycle_mult=2)
    document = json_of(*ENDLESS, "--steps", str(steps))
    assert document["total_steps"] is None
    assert document["num_cycles"] is None
    assert document["steps"] == steps
    assert document["cycles"][-1]["index"] == schedule.cycle_at(steps - 1).index
    assert document["cycle_ends"] == schedule.cycle_ends(steps)


def test_json_keeps_huge_numbers_exact() -> None:
    document = json_of("--cycle-steps", str(2**62), "--steps", str(2**63))
    assert document["steps"] == 2**63
    assert document["cycle_ends"] == [2**62 - 1, 2**63 - 1]


@pytest.mark.parametrize("arguments", [FIVE, ENDLESS], ids=["finite", "endless"])
def test_a_plot_is_a_png_of_sensible_size(arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    result = call(*arguments, "--plot", str(path))
    assert result.exit_code == 0
    assert result.stderr == f"Wrote {path}\n"
    width, height = png_size(path)
    assert 1000 <= width <= 3000
    assert 400 <= height <= 2000
    assert list(tmp_path.iterdir()) == [path]


def test_with_a_plot_the_json_is_still_alone_on_stdout(tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    result = call(*FIVE, "--json", "--plot", str(path))
    assert json.loads(result.stdout)["steps"] == 1000
    assert b"<svg" in path.read_bytes()


ERRORS: list[tuple[list[str], str]] = [
    (
        [],
        "Give exactly one of the options --total-steps (with --num-cycles) and --cycle-steps. "
        "Received: no --total-steps, no --cycle-steps",
    ),
    (
        ["--total-steps", "5"],
        "Option --num-cycles must be given with --total-steps: into how many cycles the budget is "
        "cut. Received: no --num-cycles",
    ),
    (
        ["--total-steps", "5", "--cycle-steps", "3"],
        "Give exactly one of the options --total-steps (with --num-cycles) and --cycle-steps. "
        "Received: --total-steps=5, --cycle-steps=3",
    ),
    (
        ["--total-steps", "5", "--num-cycles", "9"],
        "Option --num-cycles must leave every cycle at least one step. Received: --num-cycles=9, "
        "--total-steps=5, --cycle-mult=1; give more steps or fewer cycles",
    ),
    (
        ["--cycle-steps", "10,0,3"],
        "Option --cycle-steps[1] must be a positive integer (optimizer steps). "
        "Received: --cycle-steps[1]=0",
    ),
    (
        [*FIVE, "--min-lr", "0.5"],
        "Option --min-lr must not exceed the peak of any cycle. Received: --min-lr=0.5, and cycle "
        "0 would peak at 0.1 (--max-lr=0.1, --cycle-decay=1.0)",
    ),
    (
        [*FIVE, "--max-lr", "nan"],
        "Option --max-lr must be a finite number of at least 0. Received: --max-lr=nan",
    ),
    (
        [*FIVE, "--steps", "0"],
        "Option --steps must be an integer from 1 to 2**63. Received: --steps=0",
    ),
    (
        ["--cycle-steps", "1", "--steps", "100001", "--json"],
        "Option --json lists at most 100000 cycles. Received: a plan of 100001; "
        "give a smaller --steps",
    ),
    *(
        (
            ["--cycle-steps", text],
            "Option --cycle-steps must be a whole number or several, as in 10,20,40. "
            f"Received: {text!r}",
        )
        for text in ("", "x", "1,x", "10,", "1.5")
    ),
    *(
        (
            [*FIVE, "--max-lr", text],
            f"Option --max-lr must be a number or several, as in 0.2,0.1,0.1. Received: {text!r}",
        )
        for text in ("", "x", "0.1,x", "0.1,")
    ),
    (
        ["--total-steps", "9", "--max-lr", "0.1,-1"],
        "Option --max-lr[1] must be a finite number of at least 0. Received: --max-lr[1]=-1.0",
    ),
    (
        [*FIVE, "--max-lr", "0.1,0.2"],
        "Option --num-cycles must be the length of the list --max-lr, or be left out. "
        "Received: --num-cycles=5, and 2 peaks",
    ),
    *(
        (
            [*FIVE, "--cycle-mult", text],
            "Option --cycle-mult must be a positive number, as in 2, 1.5 or 3/2. "
            f"Received: {text!r}",
        )
        for text in ("", "x", "3/0", "1.5/2", "3/")
    ),
    (
        # Never computed: an exact number of this many digits would take for ever.
        [*FIVE, "--cycle-mult", "1" + "0" * 5000],
        "Option --cycle-mult must be a positive number, as in 2, 1.5 or 3/2. "
        f"Received: '1{'0' * 56}...'",
    ),
    (
        [*FIVE, "--plot", "plan.jpeg"],
        "A figure's file must end in one of .png, .svg, .pdf. Received: 'plan.jpeg'",
    ),
    (
        [*FIVE, "--plot", "missing/plan.png"],
        f"{Path('missing/plan.png')} could not be written: No such file or directory",
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
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {message}\n"
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([*FIVE, "--num-cycles", "x"], "--num-cycles"),
        ([*FIVE, "--no-such"], "--no-such"),
        ([*FIVE, "extra"], "extra"),
    ],
)
def test_usage_errors_are_typers_own(arguments: list[str], part: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_every_argument_of_the_schedule_has_its_option() -> None:
    arguments = inspect.signature(CyclicCosine).parameters
    options = inspect.signature(plan).parameters
    assert set(arguments) <= set(options)
    for name, argument in arguments.items():
        if argument.default is not inspect.Parameter.empty and name != "cycle_mult":
            assert options[name].default == argument.default, name


def test_a_peak_for_each_cycle() -> None:
    found = json_of("--total-steps", "100", "--max-lr", "0.2,0.1,0.3")
    assert [cycle["max_lr"] for cycle in found["cycles"]] == [0.2, 0.1, 0.3]


def test_recommended_cycles_come_with_the_reason() -> None:
    text = text_of("--recommend", "--total-steps", "1500", "--best-step", "300", "--max-lr", "0.2")
    assert text.startswith("Four doubling cycles: one cosine was best after 300 of 1500 updates")
    assert [row[4:6] for row in rows_of(text.partition("\n\n")[2])] == [
        [length, "0.2"] for length in ("100", "200", "400", "800")
    ]
    document = json_of("--recommend", "--total-steps", "1500", "--best-step", "1500")
    assert document["recommendation"]["pays"] is False
    assert "One cosine" in document["recommendation"]["reason"]
    assert len(document["cycles"]) == 1
    assert "recommendation" not in json_of(*FIVE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recommend"], "Option --total-steps must come with --recommend"),
        ([*FIVE, "--recommend"], "Option --num-cycles must not be given with --recommend"),
        (
            ["--recommend", "--total-steps", "100", "--max-lr", "0.2,0.1"],
            "Option --max-lr must be one number with --recommend",
        ),
        ([*FIVE, "--best-step", "3"], "Option --best-step must come with --recommend"),
        (
            ["--recommend", "--total-steps", "9", "--best-step", "10"],
            "Option --best-step must be at most --total-steps",
        ),
        (
            ["--recommend", "--preset", "torch_warm_restarts", "base_lr=1", "T_0=10"],
            "Option --preset must not be given with --recommend",
        ),
    ],
)
def test_recommending_with_what_it_chooses_is_refused(arguments: list[str], message: str) -> None:
    outcome = call(*arguments)
    assert outcome.exit_code != 0
    assert message in " ".join(outcome.stderr.split())
