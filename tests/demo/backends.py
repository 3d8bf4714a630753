"""What the demonstration must do in every framework; their own folders' tests call these."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cosanneal.cli.app import app
from cosanneal.demo import Backend
from cosanneal.demo.experiment import Config, plan_runs, run_experiment, training_function
from cosanneal.snapshots import SnapshotStore

SMALL = Config(epochs=3, batch_size=50, num_cycles=3)


def run(backend: Backend, out: Path, config: Config = SMALL) -> dict[str, Any]:
    return run_experiment(
        training_function(backend),
        backend=backend.value,
        seeds=1,
        out=out,
        config=config,
        progress=lambda _seed, _title: lambda: None,
    )


def check_weights(weights: Callable[[int], list[Any]]) -> None:
    """They come from the seed alone."""
    one, two, other = (weights(seed) for seed in (0, 0, 1))
    assert all(np.array_equal(left, right) for left, right in zip(one, two, strict=True))
    assert any(not np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def check_curves(results: dict[str, Any]) -> None:
    """They are those of the runs."""
    updates = results["config"]["updates"]
    single = results["curves"]["single"]["rate"]
    high = SMALL.max_lr["single"]
    half, three_quarters = updates // 2, updates * 3 // 4
    assert single[:half] == pytest.approx([high] * half)
    assert single[half:three_quarters] == pytest.approx([high / 10] * (three_quarters - half))
    assert single[three_quarters:] == pytest.approx([high / 100] * (updates - three_quarters))
    for each in plan_runs(SMALL, updates)[1:]:
        assert each.schedule is not None
        rates = results["curves"][each.name]["rate"]
        assert rates == pytest.approx(each.schedule.rates(), rel=1e-6)
    for curve in results["curves"].values():
        assert len(curve["loss"]) == updates
        assert curve["loss"][-1] < curve["loss"][0]


def check_scores(results: dict[str, Any], again: dict[str, Any]) -> None:
    """They agree with each other and repeat."""
    (seed,) = results["seeds"]
    assert [score["members"] for score in seed["ensemble"]] == [1, 2, 3]
    # The last snapshot alone is the model as the cyclic run left it.
    assert seed["ensemble"][0]["test_error"] == seed["cyclic"]["test_error"]
    assert seed["ensemble"][0]["test_nll"] == pytest.approx(seed["cyclic"]["test_nll"], rel=1e-5)
    assert seed["cyclic"]["test_error"] < 0.7  # 0.9 by guessing
    assert again["seeds"] == results["seeds"]
    assert again["curves"] == results["curves"]


def check_command(backend: Backend, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes and prints."""
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)
    given = ["demo", "--backend", backend.value, "--seeds", "1", "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "results.json").read_text())
    assert written["config"]["backend"] == backend.value
    assert f"{100 * written['summary'][-1]['test_error']['mean']:.2f}" in result.stdout
    assert SnapshotStore(out / "snapshots" / "seed-0").verify() == 3
