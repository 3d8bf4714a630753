"""Fitting an ensemble on arrays, and its record."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble import (
    Choice,
    HeldOut,
    apply_temperature,
    brier_score,
    compare_scores,
    error_rate,
    fit,
    fit_temperature,
    log_loss,
    pool,
    sample_scores,
    select_greedy,
    select_last,
    select_weights,
)
from cosanneal.ensemble.choose.record import Select
from cosanneal.ensemble.choose.selection import last_weights
from cosanneal.ensemble.score.metrics import METRICS, Metric


def drawn(
    samples: int = 1200, members: int = 4, classes: int = 3, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members that get better, over-confident, and labels."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    noise = np.linspace(6, 2, members)[:, None, None]
    z = 3 * np.eye(classes)[y] + noise * random.normal(size=(members, samples, classes))
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True), y


SEARCHES: dict[str, Callable[[HeldOut, Metric], Any]] = {
    "last": select_last,
    "greedy": select_greedy,
    "weights": lambda held_out, _: select_weights(held_out),
}


@pytest.mark.parametrize(
    ("select", "metric"),
    [
        ("weights", "log_loss"),
        *((select, metric) for select in ("last", "greedy") for metric in METRICS),
    ],
)
def test_the_choice_is_what_the_search_and_the_temperature_found(
    select: Select, metric: Metric
) -> None:
    p, y = drawn()
    choice = fit(p, y, select=select, metric=metric)
    found = SEARCHES[select](HeldOut(p, y), metric)
    if select == "last":  # with the temperature of each in mind: see the test of that
        count = sum(weight > 0 for weight in choice.weights)
        assert choice.weights == last_weights(4, count)
        others = choice.candidates[4:-1]
        assert [each.name.split(",")[0] for each in others] == [
            f"last {m}" for m in range(1, 5) if m != count
        ]
        best = choice.candidates[-1].scores[metric]
        assert all(best <= each.scores[metric] for each in others)
    else:
        assert choice.weights == found.weights
    assert choice.gap == found.gap
    mean = pool(p, weights=choice.weights)
    assert choice.temperature == pytest.approx(fit_temperature(mean, y), rel=1e-9)
    expected = apply_temperature(mean, choice.temperature)
    np.testing.assert_allclose(choice.apply(p), expected, rtol=1e-12)
    assert choice.members == ("0", "1", "2", "3")
    assert (choice.select, choice.metric, choice.samples) == (select, metric, 1200)
    last = choice.candidates[-1]
    assert last.scores["log_loss"] == pytest.approx(log_loss(expected, y), rel=1e-12)
    assert last.scores["brier"] == pytest.approx(brier_score(expected, y), rel=1e-12)
    assert last.scores["error"] == error_rate(expected, y)
    for m, candidate in enumerate(choice.candidates[:4], start=1):
        assert candidate.name == f"last {m}"
        assert candidate.scores["log_loss"] == pytest.approx(log_loss(p[-m:].mean(0), y), rel=1e-12)
    both = [sample_scores(metric, each, y) for each in (expected, p.mean(0))]
    assert choice.interval == pytest.approx(compare_scores(*both).interval, rel=1e-9)


def test_a_choice_without_a_temperature_leaves_the_mean() -> None:
    p, y = drawn()
    choice = fit(p, y, temperature=False)
    assert choice.temperature == 1.0
    assert [each.name for each in choice.candidates] == [f"last {m}" for m in range(1, 5)]
    np.testing.assert_allclose(choice.apply(p), pool(p, weights=choice.weights), rtol=1e-15)


def test_the_fitted_ensemble_is_better_on_data_that_it_did_not_see() -> None:
    p, y = drawn(samples=4000)
    choice = fit(p[:, :2000], y[:2000], select="weights")
    test = p[:, 2000:]
    found = log_loss(choice.apply(test), y[2000:])
    assert found < 0.95 * min(log_loss(test.mean(0), y[2000:]), log_loss(test[-1], y[2000:]))


def test_test_labels_have_no_part_in_the_choice() -> None:
    p, y = drawn(samples=2400)
    split = {"validation": (p[:, :1200], y[:1200]), "test": (p[:, 1200:], y[1200:])}

    def report(split: dict[str, Any], select: Select) -> tuple[dict[str, Any], float]:
        choice = fit(*split["validation"], select=select)
        return choice.to_dict(), error_rate(choice.apply(split["test"][0]), split["test"][1])

    poisoned = {**split, "test": (split["test"][0], (split["test"][1] + 1) % 3)}
    for select in get_args(Select):
        clean, dirty = report(split, select), report(poisoned, select)
        assert clean[0] == dirty[0]
        assert clean[1] < 0.35 < dirty[1]


def test_members_may_be_of_any_framework_dense_and_outcomes() -> None:
    p, y = drawn()
    expected = fit(p, y)
    tensors = [torch.tensor(member) for member in p]
    choice = fit(tensors, torch.tensor(y))
    assert choice == expected
    applied = choice.apply(iter(tensors))
    assert isinstance(applied, torch.Tensor)
    np.testing.assert_allclose(applied.numpy(), expected.apply(p), rtol=1e-14)

    dense = np.moveaxis(p.reshape(4, 1200, 1, 3), -1, 2)
    choice = fit(dense, y[:, None], class_axis=1)
    assert choice.weights == expected.weights
    assert choice.temperature == pytest.approx(expected.temperature, rel=1e-12)
    np.testing.assert_allclose(choice.apply(dense)[:, :, 0], expected.apply(p), rtol=1e-12)

    outcomes, truth = p[..., 0], (y == 0).astype(int)
    two = np.stack([1 - outcomes, outcomes], -1)
    choice = fit(outcomes, truth, class_axis=None)
    by_class = fit(two, truth)
    assert choice.weights == by_class.weights
    np.testing.assert_allclose(choice.apply(outcomes), by_class.apply(two)[..., 1], rtol=1e-9)


def test_few_samples_give_a_warning_with_an_interval() -> None:
    p, y = drawn(samples=60)
    message = r"chosen on 60 validation samples, fewer than 1000: its log-loss .* from [-+]\S+ to "
    with pytest.warns(UserWarning, match=message):
        few = fit(p, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = fit(*drawn(samples=1000))
    width = [each.interval[1] - each.interval[0] for each in (few, many)]
    assert width[0] > 2 * width[1]


def test_a_choice_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    p, y = drawn()
    for select in get_args(Select):
        for digests in (None, ["a", "b", "c", "d"]):
            choice = fit(p, y, select=select, digests=digests, names=["w", "x", "y", "ü"], seed=3)
            choice.save(tmp_path / "choice.json")
            read = Choice.load(tmp_path / "choice.json")
            assert read == choice
            np.testing.assert_array_equal(read.apply(p), choice.apply(p))
    assert [path.name for path in tmp_path.iterdir()] == ["choice.json"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.seed = 4  # type: ignore[misc]


def described() -> dict[str, Any]:
    return json.loads(json.dumps(fit(*drawn(), select="weights", digests="abcd").to_dict()))  # type: ignore[no-any-return]


SPOILS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d.update(format="x"), r"whose 'format' is 'cosanneal.ensemble'"),
    (lambda d: d.update(version=2), r"must have version 1.*version=2; a newer cosanneal"),
    (lambda d: d.update(version=True), r"version=True"),
    (lambda d: d.pop("seed"), r"in 'seed': the field is missing"),
    (lambda d: d.update(extra=1), r"in 'extra': no such field is known"),
    (lambda d: d.update(members=3), r"in 'members': must be a list. Received: 3"),
    (lambda d: d["members"].__setitem__(1, 5), r"in 'members\[1\]': must be a dict"),
    (lambda d: d["members"][2].update(weight="1"), r"in 'members\[2\].weight': must be a number"),
    (lambda d: d["members"][2].update(weight=-0.1), r"in 'members\[2\].weight': .*between 0 and 1"),
    (lambda d: d["members"][2].update(weight=math.nan), r"in 'members\[2\].weight'"),
    (lambda d: d["members"][0].update(weight=0.9), r"in 'members': .*weights sum to 1"),
    (lambda d: d.update(members=[]), r"in 'members': .*weights sum to 1"),
    (
        lambda d: d["members"][1].update(name=d["members"][0]["name"]),
        r"in 'members': .*each snapshot once",
    ),
    (lambda d: d["members"][0].update(name=1), r"in 'members\[0\].name': must be a string"),
    (lambda d: d["members"][3].update(digest=None), r"in 'members\[3\].digest': must be a string"),
    (lambda d: d["members"][3].pop("digest"), r"in 'members\[3\].digest': the field is missing"),
    (lambda d: d.update(temperature=0), r"in 'temperature': must be a finite"),
    (lambda d: d.update(temperature=math.inf), r"in 'temperature': must be a finite"),
    (lambda d: d.update(temperature=True), r"in 'temperature': must be a number"),
    (lambda d: d.update(class_axis=1.5), r"in 'class_axis': must be an integer or null"),
    (
        lambda d: d.update(select="best"),
        r"in 'select': must be one of 'auto', 'last', 'greedy', 'weights'",
    ),
    (lambda d: d.update(metric=None), r"in 'metric': must be a string"),
    (lambda d: d.update(metric="auc"), r"in 'metric': must be the name of a metric, such as 'log_"),
    (
        lambda d: d["candidates"][1]["scores"].update(brier=math.inf),
        r"in 'candidates\[1\].scores.brier': must be a finite number",
    ),
    (
        lambda d: d["candidates"][1].update(scores=[1.0]),
        r"in 'candidates\[1\].scores': must be a dict",
    ),
    (
        lambda d: d["candidates"][1]["scores"].update(brier="1"),
        r"in 'candidates\[1\].scores.brier': must be a number",
    ),
    (
        lambda d: d["candidates"][2]["scores"].pop("log_loss"),
        r"in 'candidates\[2\].scores': must be a dict that has 'log_loss'",
    ),
    (
        lambda d: d["candidates"][2].update(brier=1.0),
        r"in 'candidates\[2\].brier': no such field is known",
    ),
    (lambda d: d["candidates"][0].pop("name"), r"in 'candidates\[0\].name': the field is missing"),
    (lambda d: d.update(samples=0), r"in 'samples': must be an integer of at least 1"),
    (lambda d: d.update(seed=None), r"in 'seed': must be an integer of at least 0"),
    (lambda d: d.update(interval=[1.0]), r"in 'interval': must be two finite numbers"),
    (lambda d: d.update(interval=[1.0, 0.0]), r"in 'interval': must be two finite numbers"),
    (lambda d: d.update(interval=[0, "x"]), r"in 'interval\[1\]': must be a number"),
    (lambda d: d.update(gap=-1), r"in 'gap': must be null or a finite number of at least 0"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILS)
def test_a_bad_field_is_refused_by_its_path(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    data = described()
    assert Choice.from_dict(copy.deepcopy(data)).to_dict() == data
    spoil(data)
    with pytest.raises(ca.EnsembleError, match=message):
        Choice.from_dict(data)
    file = tmp_path / "choice.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ca.EnsembleError, match=message) as caught:
        Choice.load(file)
    assert str(file) in str(caught.value)


def test_files_that_hold_no_choice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ca.EnsembleError, match=r"none.json could not be read.*fit the ensemble"):
        Choice.load(tmp_path / "none.json")
    file = tmp_path / "choice.json"
    for content in (b"", b"{", b"[" * 100_000, b"\xff", b"3"):
        file.write_bytes(content)
        with pytest.raises(ca.EnsembleError, match=r"choice.json"):
            Choice.load(file)
    with pytest.raises(ca.EnsembleError, match=r"could not be written"):
        fit(*drawn()).save(tmp_path / "missing" / "choice.json")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: fit(p, y, select="best"), r"`select` must be 'auto', 'last', 'gr"),  # type: ignore[arg-type]
        (lambda p, y: fit(p, y, metric="auc"), r"`metric` must be one of"),
        (
            lambda p, y: fit(p, y, select="weights", metric="error"),
            r"`metric` must be 'log_loss'",
        ),
        (lambda p, y: fit(p, y, names=["a"]), r"`names` must have a name for each of 4.*: 1"),
        (lambda p, y: fit(p, y[:-1]), r"\(1200, 3\) and \(1199,\)"),
        (lambda p, y: fit(p, y).apply(p[:2]), r"of the 4 members .* Received: 2"),
        (lambda p, y: fit(p, y).apply([*p, p[0]]), r"Received: 5"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ca.EnsembleError, match=message):
        call(*drawn())


def test_the_last_members_are_chosen_as_they_are_after_the_temperature() -> None:
    # Each member knows more than the one before, and all of them together, whose
    # mean is far from sure, more than the last.
    random = np.random.default_rng(0)
    labels = random.integers(5, size=3000)
    members = []
    for strength in (1.0, 1.4, 1.8, 2.2):
        logits = random.normal(size=(3000, 5))
        logits[np.arange(3000), labels] += strength
        powers = np.exp(logits)
        members.append(powers / powers.sum(axis=1, keepdims=True))
    assert select_last(HeldOut(members, labels)).weights == (0, 0, 0, 1)
    choice = fit(members, labels, select="last")
    assert choice.weights == (0.25, 0.25, 0.25, 0.25)
    assert choice.temperature < 0.5
    scores = {each.name.split(",")[0]: each for each in choice.candidates[4:]}
    assert min(scores, key=lambda name: scores[name].scores["log_loss"]) == "last 4"
    # An oracle: the best temperature of each by a grid, in one dense look.
    for m, name in enumerate(("last 1", "last 2", "last 3", "last 4"), start=1):
        mean = np.mean(members[-m:], axis=0)
        grid = np.linspace(0.1, 1.2, 4001)[:, None]
        logs = np.log(mean)[:, None] / grid
        losses = np.log(np.exp(logs).sum(-1)) - logs[np.arange(3000), :, labels]
        assert scores[name].scores["log_loss"] == pytest.approx(losses.mean(0).min(), abs=1e-5)
    assert fit(members, labels, select="last", temperature=False).weights == (0, 0, 0, 1)


def test_a_choice_has_a_class_axis_that_an_array_can_have(tmp_path: Path) -> None:
    file = tmp_path / "choice.json"
    for axis in (2**31, -(2**31), 64, -65, 10**400):
        file.write_text(json.dumps(described() | {"class_axis": axis}))
        with pytest.raises(ca.EnsembleError, match=r"choice\.json.* in 'class_axis': must be"):
            Choice.load(file)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_a_choice_is_read_from_a_regular_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json"):
        with pytest.raises(ca.EnsembleError, match=rf"{name} could not be read: it is no regular"):
            Choice.load(tmp_path / name)


def test_labels_of_one_sample_are_one_sample_for_the_interval() -> None:
    """By resampling whole samples in a loop, with their sums and their numbers of labels."""
    random = np.random.default_rng(5)
    counts = np.concatenate([random.integers(1, 4, 150), random.integers(20, 40, 50)])
    labels = np.repeat(random.integers(2, size=200), counts)  # alike within a sample
    hard = np.repeat(random.normal(size=(2, 200)), counts, axis=1)
    p = 1 / (1 + np.exp(-(2 * (2 * labels - 1) + hard + 0.1 * random.normal(size=hard.shape))))
    members = np.stack([1 - p, p], axis=-1)
    with pytest.warns(UserWarning, match="200 validation samples"):
        choice = fit(members, labels, counts=counts, select="weights", temperature=False)
    assert choice.samples == 200
    pooled = np.tensordot(choice.weights, members, 1)
    rows = [-np.log(each[np.arange(len(labels)), labels]) for each in (pooled, members.mean(0))]
    ends = np.cumsum(counts)
    sums = np.array(
        [(rows[0] - rows[1])[e - n : e].sum() for e, n in zip(ends, counts, strict=True)]
    )
    taken = random.integers(200, size=(4000, 200))
    low, high = np.quantile(sums[taken].sum(1) / counts[taken].sum(1), [0.025, 0.975])
    assert choice.interval == pytest.approx((low, high), abs=0.15 * (high - low))
    # By labels, as if each were a sample, it would be far narrower.
    alone = fit(members, labels, select="weights", temperature=False).interval
    assert alone[1] - alone[0] < 0.5 * (high - low)
    for wrong in (counts[:-1], counts - 2, counts / 2, [counts]):
        with pytest.raises(ca.EnsembleError, match="`counts` must"):
            fit(members, labels, counts=wrong)


def test_samples_of_as_many_labels_are_those_of_an_axis() -> None:
    p, y = drawn(samples=4800, members=3)
    rows = fit(p, y, counts=np.full(1200, 4))
    axis = fit(p.reshape(3, 1200, 4, 3), y.reshape(1200, 4))
    assert (rows.weights, rows.temperature) == (axis.weights, axis.temperature)
    assert rows.interval == pytest.approx(axis.interval, rel=1e-9)
    assert rows.samples == axis.samples == 1200
