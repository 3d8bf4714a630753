"""What the harness makes of the times it is given."""

from __future__ import annotations

import pytest

from benchmarks import harness


def test_ratios_are_those_of_the_rounds_beside_the_best_peer() -> None:
    # The machine was three times as slow in the second round.
    figure = harness.Figure(
        name="step",
        unit="µs",
        ours=[2.0, 6.0, 2.5],
        peers={"slow": [9.0, 27.0, 9.0], "quick": [4.0, 12.0, 4.0]},
        limit=[1.0, 3.0, 1.0],
        goal=2.0,
    )
    summary = figure.summary()
    assert summary["best_peer"] == "quick"
    assert summary["ratio_to_peer"] == pytest.approx([0.5, 0.5, 0.5625])
    assert summary["ratio_to_limit"] == pytest.approx([2.0, 2.0, 2.25])
    assert summary["met"] is True


@pytest.mark.parametrize(("ours", "met"), [(14.0, True), (16.0, False)])
def test_a_limit_may_be_a_number(ours: float, met: bool) -> None:
    figure = harness.Figure(name="import", unit="ms", ours=[ours], limit=15.0, goal=1.0)
    assert figure.summary()["met"] is met
    assert figure.summary()["limit"] == 15.0


def test_all_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []

    def ours() -> None:
        calls.append("ours")

    def peer() -> float:
        calls.append("peer")
        return float(len(calls))

    clock = iter(range(100))
    times = harness.in_turn(
        {"ours": ours, "peer": peer}, repeats=2, per=0.5, clock=lambda: float(next(clock))
    )
    assert calls == ["ours", "peer"] * 3
    assert times == {"ours": [2.0, 2.0], "peer": [4.0, 6.0]}


def test_the_table_fits_80_columns_and_says_what_was_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figure = harness.Figure(
        name="x" * 33, unit="µs", ours=[123456.0], peers={"a": [98765.0]}, limit=[12345.0], goal=1.5
    )
    assert harness.show([figure.summary()]) is False
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "1.25" in lines[1]
    assert "10.00" in lines[1]
    assert lines[2] == "  above the goal: 1.5 x the limit"
