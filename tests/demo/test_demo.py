"""The demonstration, small: what it trains, what it writes, what it prints."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from cosanneal import CyclicCosine
from cosanneal.cli.app import app
from cosanneal.demo import Backend, digits
from cosanneal.demo.document import compare, document, summarize, summarize_study
from cosanneal.demo.experiment import (
    Config,
    Outcome,
    count_updates,
    plan_runs,
    run_experiment,
    step_decay,
)
from cosanneal.demo.torch_backend import build_model, train
from cosanneal.ensemble.results import check_results
from cosanneal.snapshots import SnapshotStore

SMALL = Config(epochs=6, batch_size=50, num_cycles=3)


STUDY = (1, 3, 2)


def experiment(out: Path, seeds: int = 1, study: Sequence[int] = ()) -> Outcome:
    return run_experiment(
        train,
        backend="torch",
        seeds=seeds,
        out=out,
        config=SMALL,
        progress=lambda _seed, _title: lambda: None,
        study=study,
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return experiment(tmp_path_factory.mktemp("demo"), seeds=2, study=STUDY)


@pytest.fixture
def results(outcome: Outcome) -> dict[str, Any]:
    return outcome.results


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


@pytest.mark.parametrize("cycles", [1, 2, 3, 5, 7, 20])
def test_all_runs_have_the_same_budget(cycles: int) -> None:
    config = Config(num_cycles=cycles)
    updates = count_updates(config, digits.TRAIN)
    runs = {run.name: run.schedules for run in plan_runs(config, updates)}
    assert all(
        sum(schedule.total_steps or 0 for schedule in schedules) == updates
        for schedules in runs.values()
    )
    assert [len(runs[name]) for name in ("single", "cosine", "cyclic")] == [1, 1, 1]
    # The paper's other ensembles have as many members, each with as many updates.
    lengths = [cycle.length for cycle in runs["cyclic"][0].cycles()]
    assert [schedule.total_steps for schedule in runs["short"]] == lengths
    assert len(lengths) == cycles
    assert runs["single"][0].cycle_ends() == runs["cyclic"][0].cycle_ends()
    assert all(schedule.num_cycles == 1 for name in ("cosine", "short") for schedule in runs[name])


@pytest.mark.parametrize(("updates", "cycles"), [(100, 5), (101, 3), (8, 8), (40, 1), (7, 2)])
def test_the_standard_schedule_is_torchs_multi_step(updates: int, cycles: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    milestones = [updates // 2, updates * 3 // 4]
    peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    rates = []
    for _ in range(updates):
        rates += peer.get_last_lr()
        optimizer.step()
        peer.step()
    schedule = step_decay(0.3, updates, cycles)
    assert schedule.rates() == pytest.approx(rates, rel=1e-12)
    cut = CyclicCosine(0.3, total_steps=updates, num_cycles=cycles)
    assert schedule.cycle_ends() == cut.cycle_ends()


def test_the_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = build_model(0).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two = build_model(0).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["0.weight"], build_model(1).state_dict()["0.weight"])


def test_the_curves_are_those_of_the_runs(results: dict[str, Any]) -> None:
    updates = results["config"]["updates"]
    for run in plan_runs(SMALL, updates):
        curve = results["curves"][run.name]
        assert curve["rate"] == [rate for each in run.schedules for rate in each.rates()]
        assert len(curve["loss"]) == updates
        assert curve["loss"][-1] < curve["loss"][0]
    assert results["curves"]["cyclic"]["cycle_ends"] == [5, 11, 17]


def test_each_short_run_starts_afresh(outcome: Outcome, tmp_path: Path) -> None:
    folder = outcome.first.folder.parent
    split, order = outcome.first.split, digits.batch_order(0, digits.TRAIN, 50, 18)
    schedule = CyclicCosine(SMALL.max_lr["short"], total_steps=6, num_cycles=1)
    found = []
    for i in range(3):
        # The same updates, alone: nothing of the runs before it is left.
        alone = tmp_path / str(i)
        rows = order[6 * i : 6 * i + 6]
        seed = 10_000 * i
        given: Any = {"seed": seed, "config": SMALL, "schedule": schedule, "folder": alone}
        train(split, rows, progress=lambda: None, **given)
        (snapshot,) = SnapshotStore(folder / f"short-{i}").list()
        (expected,) = SnapshotStore(alone).list()
        weights = snapshot.load()
        assert all(np.array_equal(weights[n], x) for n, x in expected.load().items())
        found.append(weights["0.weight"])
    assert not any(np.array_equal(*pair) for pair in itertools.combinations(found, 2))


def test_the_results_agree_with_each_other(results: dict[str, Any]) -> None:
    assert [seed["seed"] for seed in results["seeds"]] == [0, 1]
    for seed in results["seeds"]:
        assert [score["members"] for score in seed["ensemble"]] == [1, 2, 3]
        assert seed["cosine_calibrated"]["test_error"] == seed["cosine"]["test_error"]
        assert seed["cosine_calibrated"]["validation_nll"] <= seed["cosine"]["validation_nll"]
        assert seed["averaged"]["members"] in (2, 3)
        # The choice is the best of those that validation saw, by its own record.
        *others, chosen = seed["choice"]["candidates"]
        assert chosen["log_loss"] == pytest.approx(seed["fitted"]["validation_nll"], rel=1e-6)
        assert all(chosen["log_loss"] <= each["log_loss"] for each in others)
        paired = seed["paired"]["test_error"]
        difference = seed["fitted"]["test_error"] - seed["ensemble"][0]["test_error"]
        assert paired["difference"] == pytest.approx(difference)
        assert paired["interval"][0] <= paired["difference"] <= paired["interval"][1]
    assert results["seeds"][0] != results["seeds"][1]
    summary = summarize(results)
    assert len(summary) == 6 + 2 + 2
    for row in summary:
        scores = [
            (seed[row["key"]] if isinstance(row["key"], str) else seed["ensemble"][row["key"] - 1])
            for seed in results["seeds"]
        ]
        errors = [score["test_error"] for score in scores]
        assert row["test_error"]["mean"] == pytest.approx(sum(errors) / 2)
        assert row["test_error"]["std"] == pytest.approx(statistics.stdev(errors))


def test_the_baselines_are_the_papers(outcome: Outcome, results: dict[str, Any]) -> None:
    """By another way: the models rebuilt from their files, their softmax averaged by hand."""
    split, folder = outcome.first.split, outcome.first.folder.parent
    x = torch.from_numpy(split.test.x)[:, None]

    def predicted(*files: Path) -> list[Any]:
        found = []
        for file in files:
            model = build_model(0)
            model.load_state_dict(safetensors.torch.load_file(file))
            model.eval()
            with torch.no_grad():
                found.append(model(x).double().softmax(1).numpy())
        return found

    def error(members: list[Any]) -> float:
        return float(np.mean(np.mean(members, 0).argmax(1) != split.test.y))

    single = predicted(*sorted((folder / "single").glob("*.safetensors")))
    short = predicted(*(next((folder / f"short-{i}").glob("*.safetensors")) for i in range(3)))
    cosine = predicted(*(folder / "cosine").glob("*.safetensors"))
    assert [len(each) for each in (single, short, cosine)] == [3, 3, 1]
    row = results["seeds"][0]
    assert row["single"]["test_error"] == error(single[-1:])
    assert row["nocycle"]["test_error"] == error(single)
    assert row["short"]["test_error"] == error(short)
    assert row["cosine"]["test_error"] == error(cosine)


def rebuilt(states: Sequence[dict[str, torch.Tensor]], x: torch.Tensor) -> torch.nn.Module:
    """A model of the states' mean, with the statistics that hooks see BatchNorm be given."""
    model = build_model(0)
    model.load_state_dict(
        {name: sum(state[name].double() for state in states) / len(states) for name in states[0]}
    )
    model.eval()
    # Layer by layer, each with the statistics of the layers before it already set.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            seen: list[torch.Tensor] = []
            hook = module.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(*given))
            with torch.no_grad():
                model(x)
            hook.remove()
            values = seen[0].transpose(0, 1).flatten(1)
            module.running_mean, module.running_var = values.mean(1), values.var(1)
    return model


def states_of(outcome: Outcome) -> list[dict[str, torch.Tensor]]:
    files = sorted(outcome.first.folder.glob("*.safetensors"))
    return [safetensors.torch.load_file(file) for file in files]


def test_averaged_weights_have_the_statistics_of_the_training_scans(outcome: Outcome) -> None:
    """By another way: a pass over the scans in which hooks see what BatchNorm is given."""
    last, averaged = outcome.first.averaged
    split = outcome.first.split
    model = rebuilt(states_of(outcome)[-last:], torch.from_numpy(split.train.x)[:, None])
    with torch.no_grad():
        expected = model(torch.from_numpy(split.test.x)[:, None]).softmax(1).numpy()
    np.testing.assert_allclose(averaged.test, expected, atol=2e-3)


def test_the_paths_have_the_statistics_of_the_training_scans(outcome: Outcome) -> None:
    split, states = outcome.first.split, states_of(outcome)
    x, y = torch.from_numpy(split.validation.x)[:, None], torch.from_numpy(split.validation.y)
    paths = document(outcome)["interpolations"]
    assert len(paths) == len(states) - 1
    for pair, path in zip(itertools.pairwise(states), paths, strict=True):
        assert list(path["shares"]) == [i / 10 for i in range(11)]
        model = rebuilt(pair, torch.from_numpy(split.train.x)[:, None])
        with torch.no_grad():
            half = torch.nn.functional.cross_entropy(model(x), y).item()
        assert path["losses"][5] == pytest.approx(half, rel=2e-3)
        assert path["statistics"] is True


def test_the_study_cuts_the_budget(results: dict[str, Any]) -> None:
    for rows, seed in zip(results["study"], results["seeds"], strict=True):
        assert [row["cycles"] for row in rows] == [1, 2, 3]
        for row in rows:
            assert 1 <= row["members"] <= row["cycles"]
            # By validation the best m is no worse than 1 or all of them.
            ends = [row[name]["validation_nll"] for name in ("last", "all")]
            assert row["best"]["validation_nll"] <= min(ends)
        # The cyclic run itself is one of them.
        for name, members in (("last", 1), ("all", 3)):
            assert {"members": members, **rows[2][name]} == seed["ensemble"][members - 1]
        assert rows[0]["last"] == rows[0]["all"] == rows[0]["best"]
    study = summarize_study(results)
    assert study["updates"] == 18
    assert study["seeds"] == 2
    for i, row in enumerate(study["rows"]):
        values = [rows[i]["best"]["test_nll"] for rows in results["study"]]
        assert row["best"]["test_nll"]["mean"] == pytest.approx(sum(values) / 2)
        assert row["best"]["test_nll"]["std"] == pytest.approx(statistics.stdev(values))


def test_a_run_repeats_itself_bit_for_bit(results: dict[str, Any], tmp_path: Path) -> None:
    again = experiment(tmp_path).results
    assert again["curves"] == results["curves"]
    assert again["seeds"] == results["seeds"][:1]


def test_nothing_is_chosen_on_the_test_scans(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With poisoned test labels and scans, every choice is the same, to the last digit."""

    def poisoned(seed: int) -> digits.Split:
        split = digits.split_digits(seed)
        test = digits.Part(1 - split.test.x[::-1], (split.test.y + 1 + seed) % 10)
        return replace(split, test=test)

    monkeypatch.setattr("cosanneal.demo.experiment.split_digits", poisoned)
    found = experiment(tmp_path, seeds=2, study=STUDY).results

    def chosen(results: dict[str, Any]) -> Any:
        """All that is not a score on the test scans."""

        def without(value: Any) -> Any:
            if isinstance(value, dict):
                items = value.items()
                return {name: without(v) for name, v in items if not name.startswith("test_")}
            return [without(each) for each in value] if isinstance(value, list) else value

        return without(results)

    assert chosen(found) == chosen(results)
    for seed, other in zip(found["seeds"], results["seeds"], strict=True):
        assert seed["choice"] == other["choice"]
        assert seed["averaged"]["members"] == other["averaged"]["members"]
        assert seed["fitted"]["test_error"] != other["fitted"]["test_error"]


def test_the_document_holds_what_a_report_draws(outcome: Outcome) -> None:
    found = document(outcome)
    run = found["run"]
    assert len(run["rate"]) == len(run["loss"]) == outcome.results["config"]["updates"]
    assert run["cycle_ends"] == [5, 11, 17]
    assert [path["first"] for path in found["interpolations"]] == [*outcome.first.choice.members][
        :2
    ]
    for path in found["interpolations"]:
        assert path["shares"][0] == 0
        assert path["shares"][-1] == 1
        assert path["barrier"] >= 0
    first = outcome.results["seeds"][0]
    assert found["average"]["error"] == first["averaged"]["test_error"]
    for score in (found["average"], found["average"]["ensemble"]):
        assert {"error", "log_loss", "brier", "ece"} <= score.keys()
    assert found["average"]["members"] == [
        *outcome.first.choice.members[-first["averaged"]["members"] :]
    ]
    # The mean of two lies half way, so its own rise is that of the path there, or of all of them.
    average, last = found["average"], first["averaged"]["members"]
    y, members = outcome.first.split.validation.y, outcome.first.members.validation[-last:]
    alone = statistics.fmean(float(-np.log(p[np.arange(len(y)), y]).mean()) for p in members)
    rises = [(first["averaged"]["validation_nll"] - alone, alone / 10)]
    for path in found["interpolations"][-(last - 1) :]:
        rises.append((path["barrier"], (path["losses"][0] + path["losses"][-1]) / 20))
    barrier, allowed = max(rises, key=lambda each: each[0] - each[1])
    assert average["barrier"] == pytest.approx(barrier, rel=1e-4)
    assert average["allowed"] == pytest.approx(allowed, rel=1e-4)
    assert average["picked_on"] == len(y)
    rows = found["comparison"]["rows"]
    assert found["comparison"]["seeds"] == 2
    assert rows[2]["model"] == "One cosine cycle"
    both = [seed["averaged"]["members"] for seed in outcome.results["seeds"]]
    told = f"{both[0]} with every seed" if both[0] == both[1] else f"{both[0]} and {both[1]}, seed"
    assert f"Averaged weights: m = {told}" in found["comparison"]["note"]
    assert [row["cycles"] for row in found["study"]["rows"]] == [1, 2, 3]
    assert found["demo"]["seeds"] == outcome.results["seeds"]
    chosen = found["analysis"]["chosen"]
    assert chosen["error"] == pytest.approx(first["fitted"]["test_error"])
    assert chosen["log_loss"] == pytest.approx(first["fitted"]["test_nll"], rel=1e-5)
    assert check_results(json.loads(json.dumps(found, allow_nan=False))) is not None


def scored(error: float, nll: float) -> dict[str, float]:
    return {"test_error": error, "test_nll": nll}


def test_the_words_follow_the_numbers() -> None:
    interval = {
        "test_error": {"interval": (0.001, 0.02)},
        "test_nll": {"interval": (-0.1, 0.1)},
    }
    seed: dict[str, Any] = {
        "single": scored(0.04, 0.2),
        "cosine": scored(0.02, 0.1),
        "short": scored(0.03, 0.1),
        "ensemble": [scored(0.03, 0.1)],
        "fitted": scored(0.03, 0.1),
        "paired": interval,
    }
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "short": name,
            "key": key,
            **{score: {"mean": value, "std": None} for score, value in scores.items()},
        }
        for name, key, scores in (
            ("Single", "single", seed["single"]),
            ("One cosine", "cosine", seed["cosine"]),
            ("Short", "short", seed["short"]),
            ("Alone", 1, seed["short"]),
            ("Fitted", "fitted", seed["fitted"]),
        )
    ]
    wins, loses, _, ties, paired = compare({"seeds": [seed]}, rows)
    assert wins == "The fitted ensemble wins over Single: 25 % less error and 50 % less log-loss."
    assert (
        loses == "The fitted ensemble LOSES to One cosine: 50 % more error and the same log-loss."
    )
    assert "ties with Alone: the same error and the same log-loss" in ties
    assert "more errors on 1 and more log-loss on 0 of 1 seed" in paired
    worse = {**seed, "fitted": scored(0.05, 0.3)}
    wins, *_ = compare({"seeds": [seed, worse, seed]}, rows)
    assert wins.endswith("log-loss; its error is lower on 2 and higher on 1 of 3 seeds.")


@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        ((0.102, 0.97), "is neither better nor worse than Other: 2 % more error and 3 % less log"),
        ((0.098, 1.03), "is neither better nor worse than Other: 2 % less error and 3 % more log"),
        ((0.098, 0.97), "wins over Other: 2 % less error and 3 % less log-loss"),
        ((0.102, 1.03), "LOSES to Other: 2 % more error and 3 % more log-loss"),
        ((0.1, 1.03), "LOSES to Other: the same error and 3 % more log-loss"),
        ((0.1, 0.97), "wins over Other: the same error and 3 % less log-loss"),
        # The verdict goes with its words.
        ((0.098, 1.001), "wins over Other: 2 % less error and about the same log-loss"),
        ((0.0999, 1.001), "ties with Other: about the same error and about the same log-loss"),
    ],
)
def test_a_verdict_is_of_both_scores(fitted: tuple[float, float], said: str) -> None:
    other = scored(0.1, 1.0)
    seed: dict[str, Any] = {
        **dict.fromkeys(("single", "cosine", "short"), other),
        "ensemble": [other],
        "fitted": scored(*fitted),
        "paired": {name: {"interval": (0, 0)} for name in other},
    }
    rows = [
        {
            "short": "Other",
            "key": key,
            **{name: {"mean": value, "std": None} for name, value in scores.items()},
        }
        for key in ("single", "cosine", "short", 1, "fitted")
        for scores in [seed["fitted"] if key == "fitted" else other]
    ]
    first, *_ = compare({"seeds": [seed]}, rows)
    assert said in first


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.Config", lambda: SMALL)


@pytest.mark.usefixtures("small")
def test_the_command_writes_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo"
    result = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    written = json.loads((out / "results.json").read_text())
    rows = written["comparison"]["rows"]
    for text in (
        "Single (",
        "NoCycle",
        "One cosine cycle",
        "SingleCycle",
        "last snapshot",
        "fitted",
    ):
        assert any(text in row["model"] for row in rows)
    for row in rows:
        line = next(line for line in result.stdout.splitlines() if row["model"] in line)
        assert f"{100 * row['test_error']['mean']:.2f}" in line
        assert f"{row['test_nll']['mean']:.4f}" in line
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [
        "figure.png",
        "results.json",
        "snapshots",
    ]
    assert SnapshotStore(out / "snapshots" / "seed-0" / "cyclic").verify() == 3
    assert "study" not in written
    # Again into the same folder: it starts over.
    again = CliRunner().invoke(app, ["demo", "--seeds", "1", "--out", str(out)])
    assert again.exit_code == 0
    assert json.loads((out / "results.json").read_text()) == written


@pytest.mark.usefixtures("small")
def test_the_study_is_drawn_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosanneal.demo.experiment.STUDY_CYCLES", STUDY)
    given = ["demo", "--seeds", "2", "--study", "budget", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "2 seeds x 6 runs of 18 updates" in result.stdout
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    study = json.loads((tmp_path / "results.json").read_text())["study"]
    assert [row["cycles"] for row in study["rows"]] == [1, 2, 3]
    for row in study["rows"]:
        for way in ("last", "all", "best"):
            assert f"{100 * row[way]['test_error']['mean']:.2f} ±" in result.stdout
            assert f"{row[way]['test_nll']['mean']:.4f} ±" in result.stdout
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


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
