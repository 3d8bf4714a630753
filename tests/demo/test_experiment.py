"""The experiment, small, in torch: what it trains, chooses and measures."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from cosanneal import CyclicCosine
from cosanneal.demo import Backend, digits
from cosanneal.demo.document import document, summarize, summarize_study
from cosanneal.demo.experiment import Config, Outcome, count_updates, plan_runs, step_decay
from cosanneal.demo.torch_backend import build_model, train
from cosanneal.demo.training import Training
from cosanneal.snapshots import SnapshotStore
from tests.shared.backends import SMALL, STUDY, run


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
    for each in plan_runs(SMALL, updates):
        curve = results["curves"][each.name]
        assert curve["rate"] == [rate for schedule in each.schedules for rate in schedule.rates()]
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
        train(
            Training(
                split=split,
                order=rows,
                seed=seed,
                momentum=SMALL.momentum,
                weight_decay=SMALL.weight_decay,
                schedule=schedule,
                folder=alone,
                progress=lambda: None,
            )
        )
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
        loss = chosen["scores"]["log_loss"]
        assert loss == pytest.approx(seed["fitted"]["validation_nll"], rel=1e-6)
        assert all(loss <= each["scores"]["log_loss"] for each in others)
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
    again = run(Backend.TORCH, tmp_path).results
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
    found = run(Backend.TORCH, tmp_path, seeds=2, study=STUDY).results

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
