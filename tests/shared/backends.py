"""What the demonstration must do in every framework; their own folders' tests call these."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cosanneal.cli.app import app
from cosanneal.demo import Backend
from cosanneal.demo.experiment import Config, Outcome, plan_runs, run_experiment, training_function
from cosanneal.snapshots import SnapshotStore

SMALL = Config(epochs=6, batch_size=50, num_cycles=3)
STUDY = (1, 3, 2)


def run(
    backend: Backend,
    out: Path,
    config: Config = SMALL,
    *,
    seeds: int = 1,
    study: Sequence[int] = (),
) -> Outcome:
    return run_experiment(
        training_function(backend),
        backend=backend.value,
        seeds=seeds,
        out=out,
        config=config,
        progress=lambda _seed, _title: lambda: None,
        study=study,
    )


def check_weights(weights: Callable[[int], list[Any]]) -> None:
    """They come from the seed alone."""
    one, two, other = (weights(seed) for seed in (0, 0, 1))
    assert all(np.array_equal(left, right) for left, right in zip(one, two, strict=True))
    assert any(not np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def check_curves(outcome: Outcome) -> None:
    """They are those of the runs."""
    results = outcome.results
    updates = results["config"]["updates"]
    for each in plan_runs(SMALL, updates):
        curve = results["curves"][each.name]
        rates = [rate for schedule in each.schedules for rate in schedule.rates()]
        assert curve["rate"] == pytest.approx(rates, rel=1e-6)
        assert len(curve["loss"]) == updates
        # Also that of the last of several models.
        assert curve["loss"][-1] < curve["loss"][0]


def check_scores(outcome: Outcome, again: Outcome) -> None:
    """They are those of the snapshots, and repeat."""
    (seed,) = outcome.results["seeds"]
    assert [score["members"] for score in seed["ensemble"]] == [1, 2, 3]
    assert seed["ensemble"][0]["test_error"] < 0.7  # 0.9 by guessing
    first = outcome.first
    members, y = first.members.test, first.split.test.y
    assert members.shape == (3, len(y), 10)
    np.testing.assert_allclose(members.sum(-1), 1, atol=1e-5)
    last = members[1:].astype(np.float64).mean(0)
    assert seed["ensemble"][1]["test_error"] == np.mean(last.argmax(-1) != y)
    assert seed["ensemble"][1]["test_nll"] == pytest.approx(
        -np.log(last[np.arange(len(y)), y]).mean(), rel=1e-5
    )
    # The ensemble itself predicts as the choice says of its members' predictions.
    np.testing.assert_allclose(first.chosen.test, first.choice.apply(list(members)), atol=1e-6)
    assert again.results == outcome.results


def check_command(backend: Backend, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes and prints."""
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)
    given = ["demo", "--backend", backend.value, "--seeds", "1", "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "results.json").read_text())
    assert written["demo"]["config"]["backend"] == backend.value
    for row in written["comparison"]["rows"]:
        line = next(line for line in result.stdout.splitlines() if row["model"] in line)
        assert f"{100 * row['test_error']['mean']:.2f}" in line
    # From one member's weights to the other's: the ends are the members themselves.
    paths = written["interpolations"]
    assert [len(path["losses"]) for path in paths] == [11, 11]
    assert paths[0]["losses"][-1] == pytest.approx(paths[1]["losses"][0], rel=1e-5)
    last = written["demo"]["seeds"][0]["ensemble"][0]["validation_nll"]
    assert paths[1]["losses"][-1] == pytest.approx(last, rel=1e-5)
    assert SnapshotStore(out / "snapshots" / "seed-0" / "cyclic").verify() == 3
