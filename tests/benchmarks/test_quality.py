"""The bench of ordinary tasks, on a toy task; and the arithmetic of its tables by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cosanneal as ca  # noqa: E402
from benchmarks.quality import cache, peaks, scoring, table, training  # noqa: E402
from benchmarks.quality.data import Data, DataError, checked, mlbench  # noqa: E402
from benchmarks.quality.tasks import (  # noqa: E402
    BEFORE,
    COLUMNS,
    MEANS,
    PLAIN,
    RESTARTS,
    TASKS,
    VIEWS,
    Task,
    Watch,
    schedule_of,
)
from benchmarks.quality.watching import Watcher  # noqa: E402

TOY = Task(
    name="toy", half="tuning", hidden=(4,), peaks=(0.1, 0.3), steps=40, factor=2, batch=8, seeds=2
)


def toy(regression: bool = False) -> Data:
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    y = x @ [1.0, -2.0, 0.5] + random.normal(size=80)
    return Data(
        x=x, y=y if regression else (y > 0).astype(np.int64), classes=0 if regression else 2
    )


def trained(folder: Path, regression: bool = False) -> dict[str, Any]:
    for schedule in (*PLAIN, "cyclic5-fifth"):
        training.run(TOY, "short", schedule, folder, lambda: toy(regression))
    return scoring.score_task(TOY, "short", folder, scoring.selects())


@pytest.mark.parametrize("regression", [False, True])
def test_a_toy_task_is_trained_and_scored(tmp_path: Path, regression: bool) -> None:
    found = trained(tmp_path, regression)
    methods = found["methods"]
    for schedule in ("cyclic3", "cyclic5", "doubling4", "cyclic5-fifth"):
        assert {f"{schedule}/{name}" for name in ("mean", "last", "fit last")} <= set(methods)
    (name, *_) = methods["cosine/last"]
    assert name == ("rmse" if regression else "log_loss")
    assert methods["cosine/last"][name]["to_cosine"]["ratio"] == 1
    # A mean of members computed here, beside that of the library.
    arrays = cache.read(cache.place(tmp_path, "toy", "short", "cyclic3", None))
    assert arrays is not None
    mean, truth = arrays["test"][:, 0].astype(float).mean(axis=0), arrays["test_labels"][0]
    if regression:
        expected = math.sqrt(sum((mean - truth) ** 2) / len(truth))
    else:
        expected = -sum(math.log(p[k]) for p, k in zip(mean, truth, strict=True)) / len(truth)
    assert methods["cyclic3/mean"][name]["seeds"][0] == pytest.approx(expected, rel=1e-9)


def test_what_is_there_is_not_trained_again_and_what_is_damaged_is(tmp_path: Path) -> None:
    made = training.run(TOY, "short", "cyclic3", tmp_path, toy)
    assert [path.name for path in made] == ["peak-0.1.npz", "peak-0.3.npz", "report.npz"]
    assert training.run(TOY, "short", "cyclic3", tmp_path, toy) == []
    whole = made[2].read_bytes()
    made[2].write_bytes(whole[:-100])
    assert training.run(TOY, "short", "cyclic3", tmp_path, toy) == [made[2]]
    again = cache.read(made[2])
    assert again is not None
    made[0].write_bytes(whole)  # the predictions of another recipe
    assert training.run(TOY, "short", "cyclic3", tmp_path, toy) == [made[0]]


def test_runs_side_by_side_are_those_of_each_alone() -> None:
    both, _ = training.train(TOY, toy(), "short", "cyclic3", 0.1, [0, 1])
    alone, _ = training.train(TOY, toy(), "short", "cyclic3", 0.1, [1])
    np.testing.assert_allclose(both[1][0][:, 1], alone[1][0][:, 0], rtol=1e-4)
    assert not np.allclose(both[1][0][:, 0], alone[1][0][:, 0], rtol=1e-2)


@pytest.mark.parametrize("name", RESTARTS)
def test_a_restart_changes_the_members_after_the_first(name: str) -> None:
    def members(schedule: str) -> Any:
        found, _ = training.train(TOY, toy(), "short", schedule, 0.1, [0, 1])
        return found[1][0]

    plain, changed = members(RESTARTS[name].base), members(name)
    np.testing.assert_array_equal(plain[0], changed[0])
    for before, after in zip(plain[1:], changed[1:], strict=True):
        assert np.abs(before - after).max() > 1e-3


def test_fresh_weights_of_runs_side_by_side_are_those_of_each_alone() -> None:
    both, _ = training.train(TOY, toy(), "short", "cyclic5-half-reset", 0.1, [0, 1])
    alone, _ = training.train(TOY, toy(), "short", "cyclic5-half-reset", 0.1, [1])
    np.testing.assert_allclose(both[1][0][:, 1], alone[1][0][:, 0], rtol=1e-4)


@pytest.mark.parametrize("regression", [False, True])
def test_a_run_that_keeps_more_is_the_plain_one_bit_for_bit(regression: bool) -> None:
    def members(schedule: str) -> Any:
        return training.train(TOY, toy(regression), "short", schedule, 0.1, [0, 1])[0][1][0]

    plain, watched, noisy = (
        members(name) for name in ("cyclic5", "cyclic5-watched", "cyclic5-noise-1")
    )
    assert len(watched) == 5 * len(COLUMNS)
    np.testing.assert_array_equal(scoring.members_of(VIEWS["cyclic5-again"], watched), plain)
    assert np.abs(scoring.members_of(VIEWS["cyclic5-noise-1"], noisy) - plain).max() > 1e-4
    near = scoring.members_of(VIEWS["cyclic5-near3"], watched)
    assert len(near) == 15
    np.testing.assert_array_equal(near[2::3], plain)


def test_what_a_cycle_keeps_and_its_noise_by_hand() -> None:
    """One weight that is set to the number of updates, over two cycles of 20 and 40."""
    model = torch.nn.Linear(1, 1, bias=False)
    schedule = ca.CyclicCosine(0.5, cycle_steps=[20, 40])
    watcher = Watcher(Watch(base="cyclic5"), model, schedule, 10, [0])
    for updates in range(1, 61):
        torch.nn.init.constant_(model.weight, updates)
        watcher.after_update(updates)
    found = [float(each) for (each,) in watcher.members()]
    first = dict(zip(COLUMNS, found, strict=False))
    assert [first[f"before {share:g}"] for share in BEFORE] == [16, 18, 19, 19]
    assert first["end"] == 20
    assert [first[f"mean {share:g}"] for share in MEANS] == [16.5, 18.5, 19.5]
    assert dict(zip(COLUMNS, found[len(COLUMNS) :], strict=True))["before 0.2"] == 52
    assert model.weight.item() == 60
    noisy = Watcher(Watch(base="cyclic5", noise=0.1), model, schedule, 10, [7])
    drawn = torch.Generator().manual_seed(7500)
    for updates in range(1, 61):
        torch.nn.init.constant_(model.weight, 0)
        noisy.after_update(updates)
        expected = 0.0
        if updates in {17, 18, 19, 20, *range(53, 61)}:
            scale = math.sqrt(2 * schedule.rate(updates - 1) * 0.1 / 10)
            expected = scale * torch.randn(1, generator=drawn).item()
        assert model.weight.item() == pytest.approx(expected)


def test_scores_are_kept_where_there_are_no_predictions(tmp_path: Path) -> None:
    whole = trained(tmp_path / "all")
    training.run(TOY, "short", "cyclic5-reset", tmp_path / "new", toy)
    found = scoring.score_task(TOY, "short", tmp_path / "new", scoring.selects(), whole)
    old = {name: each for name, each in found["methods"].items() if "reset" not in name}
    assert old == whole["methods"]
    assert found["peaks"] == whole["peaks"] | {"cyclic5-reset": found["peaks"]["cyclic5-reset"]}
    ours = found["methods"]["cyclic5-reset/fit last"]["log_loss"]
    cosine = whole["methods"]["cosine/last"]["log_loss"]
    expected = sum(ours["seeds"]) / sum(cosine["seeds"])
    assert ours["to_cosine"]["ratio"] == pytest.approx(expected)
    with pytest.raises(cache.CacheError):
        scoring.score_task(TOY, "short", tmp_path / "new", scoring.selects())


def test_the_parts_of_a_split_share_no_sample_and_no_group() -> None:
    data = toy()
    parts = training.split(data, TOY, 0)
    assert sorted(np.concatenate(parts)) == list(range(80))
    assert [len(part) for part in parts] == [40, 20, 20]
    groups = np.arange(80) // 10
    parts = training.split(Data(x=data.x, y=data.y, classes=2, groups=groups), TOY, 0)
    of_each = [set(groups[part]) for part in parts]
    assert sum(len(each) for each in of_each) == len(set.union(*of_each)) == 8


def test_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        cache.CacheError, match=r"report\.npz must hold .*benchmarks\.quality train"
    ):
        scoring.score_task(TOY, "short", tmp_path, ["last"])


def test_another_file_than_the_measured_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"must have the SHA-256 .* Received: .*; install it"):
        checked(b"other", "0" * 64, "The text", "install it")
    monkeypatch.setenv("MLBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"Vowel\.rda.*apt-get download r-cran-mlbench"):
        mlbench("Vowel", "Class")


def test_ratios_and_their_jackknife_by_hand() -> None:
    found = scoring.ratio([1.0, 2.0, 6.0], [2.0, 2.0, 4.0])
    assert found is not None
    assert found["ratio"] == 9 / 8
    # Without each seed in turn: 8/6, 7/6, 3/4; their mean is 13/12.
    spread = sum((each - 13 / 12) ** 2 for each in (8 / 6, 7 / 6, 3 / 4))
    assert found["error"] == pytest.approx(math.sqrt(2 / 3 * spread))
    assert scoring.ratio([1.0, 1.0], [0.0, 0.0]) is None
    assert scoring.ratio([1.0, 1.0], [0.0, 2.0]) is None


def test_tasks_are_summed_up_by_hand() -> None:
    ratios = [
        {"ratio": 0.5, "error": 0.1},
        {"ratio": 2.0, "error": 0.6},
        {"ratio": 1.3, "error": 0.1},
    ]
    found = scoring.totals(ratios)
    assert found["mean"] == pytest.approx((0.5 * 2.0 * 1.3) ** (1 / 3))
    assert (found["worst"], found["won"], found["lost"]) == (2.0, 1, 1)


def test_the_page_has_the_tables_of_the_results(tmp_path: Path) -> None:
    scored = trained(tmp_path)
    found = {"toy": {"half": "tuning", "budgets": {"short": scored}}}
    summary = {
        beside: {
            half: {"short": scoring.summary(found, half, "short", beside)}
            for half in ("tuning", "reported")
        }
        for beside in scoring.BESIDE
    }
    results = {
        "machine": {"cores": "2"},
        "missing": [],
        "tasks": found,
        "summary": summary,
    }
    page = table.with_tables(f"before\n{table.START}\nold\n{table.END}\nafter", results)
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "\nold\n" not in page
    score = scored["methods"]["cyclic3/mean"]["log_loss"]["to_cosine"]
    assert f"{score['ratio']:.3f} ± {score['error']:.3f}" in page
    assert "tasks only" not in page
    assert "### Beside the plain schedule, predicted with in the same way: the tuning half" in page
    assert "### cyclic5-fifth, task by task: the tuning half" in page
    assert "cyclic5-reset" not in page  # which was not tried
    summary["to_cosine"]["tuning"]["short"]["cyclic3/mean"]["loss"]["tasks"] = 0
    assert "0 tasks only" in table.tables(results)
    with pytest.raises(ValueError, match="a page without them"):
        table.with_tables("no place", results)


def test_every_task_has_its_half_and_every_schedule_its_members() -> None:
    halves = [task.half for task in TASKS.values()]
    assert halves.count("tuning") == halves.count("reported") == 6
    assert not {"letter", "satellite", "boston", "friedman", "mnist"} & set(TASKS)
    ends = [cycle.stop for cycle in schedule_of("doubling4", 150, 0.1).cycles()]
    assert ends == [10, 30, 70, 150]
    assert schedule_of("separate", 150, 0.1).total_steps == 30


def test_distances_of_suggested_peaks_are_in_decades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", TOY)
    found = {
        "tasks": {
            "toy": {
                "half": "tuning",
                "chosen": {"short": {"cosine": 0.1}, "long": {"cosine": 0.001}},
                "suggested": {"suggest_max_lr": {"100": [0.1, 10.0]}},
            }
        }
    }
    assert peaks.distances(found, "suggest_max_lr", "tuning") == pytest.approx([1.0, 3.0])
    middle = math.log10(math.sqrt(0.1 * 0.3))
    assert peaks.distances(found, "middle", "tuning") == pytest.approx([middle + 1, middle + 3])
    assert peaks.distances(found, "middle", "reported") == []
