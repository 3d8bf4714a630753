"""The demonstration in Keras: what its model and its training function do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cosanneal.cli.app import app
from cosanneal.demo import Backend
from cosanneal.demo.experiment import Config, plan_runs, run_experiment, training_function
from cosanneal.demo.keras_backend import build_model
from cosanneal.snapshots import SnapshotStore

SMALL = Config(epochs=3, batch_size=50, num_cycles=3)


def run(out: Path) -> dict[str, Any]:
    return run_experiment(
        training_function(Backend.KERAS),
        backend="keras",
        seeds=1,
        out=out,
        config=SMALL,
        progress=lambda _seed, _title: lambda: None,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("demo"))


def test_the_weights_come_from_the_seed_alone() -> None:
    one, two, other = (build_model(seed, 0.0).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(left, right) for left, right in zip(one, two, strict=True))
    assert any(not np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_curves_are_those_of_the_runs(results: dict[str, Any]) -> None:
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


def test_the_results_agree_with_each_other_and_repeat(
    results: dict[str, Any], tmp_path: Path
) -> None:
    (seed,) = results["seeds"]
    assert [score["members"] for score in seed["ensemble"]] == [1, 2, 3]
    # The last snapshot alone is the model as the cyclic run left it.
    assert seed["ensemble"][0]["test_error"] == seed["cyclic"]["test_error"]
    assert seed["ensemble"][0]["test_nll"] == pytest.approx(seed["cyclic"]["test_nll"], rel=1e-5)
    assert seed["cyclic"]["test_error"] < 0.7  # 0.9 by guessing
    again = run(tmp_path)
    assert again["seeds"] == results["seeds"]
    assert again["curves"] == results["curves"]


def test_the_command_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)
    given = ["demo", "--backend", "keras", "--seeds", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["config"]["backend"] == "keras"
    assert f"{100 * written['summary'][-1]['test_error']['mean']:.2f}" in result.stdout
    assert SnapshotStore(tmp_path / "snapshots" / "seed-0").verify() == 3
