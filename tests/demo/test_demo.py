"""The demonstration, small: what it trains, what it writes, what it prints."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cosanneal.cli.app import app
from cosanneal.demo import Backend, digits
from cosanneal.demo.experiment import (
    Config,
    compare,
    count_updates,
    plan_runs,
    run_experiment,
)
from cosanneal.demo.torch_backend import build_model, train
from cosanneal.snapshots import SnapshotStore

SMALL = Config(epochs=3, batch_size=50, num_cycles=3)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("demo")
    return run_experiment(
        train,
        backend="torch",
        seeds=2,
        out=out,
        config=SMALL,
        progress=lambda _seed, _title: lambda: None,
    )


def test_the_parts_share_no_scan_and_change_with_the_seed() -> None:
    split, other = digits.split_digits(0), digits.split_digits(1)
    parts = [split.train, split.validation, split.test]
    assert sum(map(len, parts)) == 1797
    assert (len(split.train), len(split.validation)) == (digits.TRAIN, digits.VALIDATION)
    # Scans that are equal to the last pixel are rare in the data; indices would not show.
    seen = [{scan.tobytes() for scan in part.x} for part in parts]
    total = len(set.union(*seen))
    assert sum(map(len, seen)) == total
    assert not np.array_equal(split.train.x, other.train.x)
    assert split.train.x.shape[1:] == (8, 8)
    assert 0 <= split.train.x.min() < split.train.x.max() <= 1


def test_every_epoch_sees_every_scan_once_in_a_new_order() -> None:
    order = digits.batch_order(3, samples=60, batch_size=20, updates=8)
    assert order.shape == (8, 20)
    first, second = order[:3].ravel(), order[3:6].ravel()
    assert sorted(first) == sorted(second) == list(range(60))
    assert not np.array_equal(first, second)
    assert not np.array_equal(order, digits.batch_order(4, samples=60, batch_size=20, updates=8))


def test_the_three_runs_have_the_same_budget() -> None:
    updates = count_updates(Config(), digits.TRAIN)
    runs = {run.name: run for run in plan_runs(Config(), updates)}
    cosine, cyclic = runs["cosine"].schedule, runs["cyclic"].schedule
    assert runs["single"].schedule is None
    assert cosine is not None
    assert cyclic is not None
    assert cosine.total_steps == cyclic.total_steps == updates
    assert (cosine.num_cycles, cyclic.num_cycles) == (1, 5)


def test_the_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = build_model(0).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two = build_model(0).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["5.weight"], build_model(1).state_dict()["5.weight"])


def test_the_curves_are_those_of_the_runs(results: dict[str, Any]) -> None:
    updates = results["config"]["updates"]
    single = results["curves"]["single"]["rate"]
    high = SMALL.max_lr["single"]
    half, three_quarters = updates // 2, updates * 3 // 4
    assert single[: half - 1] == [high] * (half - 1)
    assert single[half] == pytest.approx(high / 10)
    assert single[three_quarters] == pytest.approx(high / 100)
    for run in plan_runs(SMALL, updates)[1:]:
        assert run.schedule is not None
        assert results["curves"][run.name]["rate"] == run.schedule.rates()
    assert all(len(curve["loss"]) == updates for curve in results["curves"].values())
    for curve in results["curves"].values():
        assert curve["loss"][-1] < curve["loss"][0]


def test_the_results_agree_with_each_other(results: dict[str, Any]) -> None:
    assert [seed["seed"] for seed in results["seeds"]] == [0, 1]
    for seed in results["seeds"]:
        assert [score["members"] for score in seed["ensemble"]] == [1, 2, 3]
        # The last snapshot alone is the model as the cyclic run left it.
        alone, final = seed["ensemble"][0], seed["cyclic"]
        assert alone["test_error"] == final["test_error"]
        assert alone["test_nll"] == pytest.approx(final["test_nll"], rel=1e-5)
    assert results["seeds"][0] != results["seeds"][1]
    assert len(results["summary"]) == 2 + 3
    for row in results["summary"]:
        scores = [
            (seed[row["key"]] if isinstance(row["key"], str) else seed["ensemble"][row["key"] - 1])
            for seed in results["seeds"]
        ]
        errors = [score["test_error"] for score in scores]
        assert row["test_error"]["mean"] == pytest.approx(sum(errors) / 2)
        assert row["test_error"]["std"] == pytest.approx(statistics.stdev(errors))
    json.dumps(results, allow_nan=False)


def test_a_run_repeats_itself_bit_for_bit(results: dict[str, Any], tmp_path: Path) -> None:
    again = run_experiment(
        train,
        backend="torch",
        seeds=1,
        out=tmp_path,
        config=SMALL,
        progress=lambda _seed, _title: lambda: None,
    )
    assert again["curves"] == results["curves"]
    assert again["seeds"] == results["seeds"][:1]


def scored(error: float, nll: float) -> dict[str, float]:
    return {"test_error": error, "test_nll": nll}


def test_the_words_follow_the_numbers() -> None:
    seed = {
        "single": scored(0.04, 0.2),
        "cosine": scored(0.02, 0.1),
        "ensemble": [scored(0.03, 0.1), scored(0.03, 0.1)],
    }
    models: list[tuple[str, str | int, dict[str, float]]] = [
        ("Single", "single", scored(0.04, 0.2)),
        ("One cosine", "cosine", scored(0.02, 0.1)),
        ("Alone", 1, scored(0.03, 0.1)),
        ("The ensemble", 2, scored(0.03, 0.1)),
    ]
    rows = [
        {
            "model": name,
            "short": name,
            "key": key,
            **{score: {"mean": value, "std": None} for score, value in scores.items()},
        }
        for name, key, scores in models
    ]
    wins, loses, ties = compare({"summary": rows, "seeds": [seed]})
    assert "wins over Single: 25 % less error and 50 % less log-loss" in wins
    assert "lower on 1 and higher on 0 of 1 seed" in wins
    assert "LOSES to One cosine: 50 % more error and the same log-loss" in loses
    assert "ties with Alone: the same error and the same log-loss" in ties


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)


@pytest.mark.usefixtures("small")
def test_the_command_writes_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo"
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    for text in ("Single", "One cosine cycle", "last snapshot alone", "Ensemble of the last 3"):
        assert text in result.stdout
    written = json.loads((out / "results.json").read_text())
    for row in written["summary"]:
        line = next(line for line in result.stdout.splitlines() if row["model"] in line)
        assert f"{100 * row['test_error']['mean']:.2f}" in line
        assert f"{row['test_nll']['mean']:.4f}" in line
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [
        "figure.png",
        "results.json",
        "snapshots",
    ]
    assert SnapshotStore(out / "snapshots" / "seed-0").verify() == 3
    # Again into the same folder: it starts over.
    again = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert again.exit_code == 0
    assert json.loads((out / "results.json").read_text()) == written


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "must be a folder that can be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_each_backend_has_its_module_and_others_are_refused() -> None:
    for backend in Backend:
        assert find_spec(f"cosanneal.demo.{backend.value}_backend") is not None
    result = CliRunner().invoke(app, ["demo", "--backend", "theano"])
    assert result.exit_code == 2
    for text in ("--backend", "theano", *(backend.value for backend in Backend)):
        assert text in result.stderr


BLOCK = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
from cosanneal.cli import main
sys.argv = ["cosanneal", "demo", "--backend", {backend!r}]
main()
"""


@pytest.mark.parametrize(
    ("backend", "missing", "command"),
    [
        ("torch", "torch", "cosanneal[torch]"),
        ("jax", "jax", "cosanneal[jax]"),
        ("jax", "optax", "cosanneal[jax]"),
        ("keras", "keras", "cosanneal[tf]"),
        ("torch", "sklearn", "cosanneal[demo]"),
        ("torch", "matplotlib", "[plot]"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(
    tmp_path: Path, backend: str, missing: str, command: str
) -> None:
    if backend == "jax" and missing != "jax" and find_spec("jax") is None:
        missing = "jax"  # where nothing of it is installed, that is what is missed
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(missing=missing, backend=backend)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == 2
    assert "python -m pip install 'cosanneal" in done.stderr
    assert command in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
