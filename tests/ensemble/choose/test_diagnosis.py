"""What is found unasked: when each finding is said, and when it is not, beside plain formulas."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import (
    Choice,
    Finding,
    HeldOut,
    analyze,
    analyze_regression,
    apply_temperature,
    fit,
    fit_regression,
    fit_temperature,
    log_loss,
)
from cosanneal.ensemble.choose.diagnosis import (
    ALIKE,
    LEAST_SAMPLES,
    LEVEL,
    Evidence,
    evidence_of,
    findings_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on")

GOOD, BAD = 2.0, 12.0
Z = statistics.NormalDist().inv_cdf(1 - LEVEL)


def drawn(
    noise: tuple[float, ...], samples: int = 400, shared: float = 0.0, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members with so much noise each, and some that all share; and labels of three classes."""
    random = np.random.default_rng(seed)
    y = random.integers(3, size=samples)
    each = np.array(noise)[:, None, None]
    z = 2 * np.eye(3)[y] + shared * random.normal(size=(samples, 3))
    p = np.exp(z + each * random.normal(size=(len(noise), samples, 3)))
    return p / p.sum(-1, keepdims=True), y


def values(noise: tuple[float, ...], shared: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same of a regression."""
    random = np.random.default_rng(1)
    y = random.normal(size=400)
    away = np.array(noise)[:, None] * random.normal(size=(len(noise), 400))
    return y + shared * random.normal(size=400) + away, y


def names(found: Any) -> list[str]:
    return [each["name"] if isinstance(each, dict) else each.name for each in found]


@pytest.mark.parametrize("select", ["last", "greedy", "weights", "auto"])
def test_members_of_one_quality_give_no_finding(select: Any) -> None:
    p, y = drawn((GOOD,) * 4, 800)
    choice = fit(p[:, :400], y[:400], select=select)
    assert choice.findings == ()
    assert analyze(p[:, 400:], y[400:], choice=choice)["findings"] == []


def test_how_often_members_of_one_quality_give_a_finding_is_as_it_is_stated() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        alone = random.normal(size=(4, 200))
        lasts = [alone[4 - m :].mean(0) for m in range(1, 5)]
        chosen = min(lasts, key=np.mean), alone[-1]
        found += names(findings_of(scored(alone=[*alone], lasts=lasts, chosen=chosen)))
    # Three members are compared with the last one, and three means with that of all. Here the
    # mean's score is the members' mean, so that averaging gains nothing: as often as can be.
    most = 2000 * LEVEL + 3 * math.sqrt(2000 * LEVEL)
    assert 1 <= found.count("last-not-best") <= most
    assert 1 <= found.count("early-members-worse") <= most


def test_a_regression_of_one_quality_gives_no_finding() -> None:
    members, y = values((1.0,) * 4)
    assert fit_regression(members, y).findings == ()
    assert analyze_regression(members, y)["findings"] == []


def test_early_members_far_worse_are_said_to_be_with_what_they_cost() -> None:
    p, y = drawn((BAD, BAD, GOOD, GOOD, GOOD))
    (found,) = fit(p, y, temperature=False).findings
    assert found.name == "early-members-worse"
    loss = [-np.log(each[np.arange(len(y)), y]) for each in p]
    every = -np.log(p.mean(0)[np.arange(len(y)), y])
    late = -np.log(p[2:].mean(0)[np.arange(len(y)), y])
    cost = every - late
    reach = 1.959964 * cost.std(ddof=1) / math.sqrt(len(y))
    for number in (np.mean(loss[:2]), np.mean(loss[2:]), every.mean(), late.mean()):
        assert f"{number:.4g}" in found.text
    told = f"{cost.mean():.4g} (95 % interval {cost.mean() - reach:.4g} to "
    assert f"{told}{cost.mean() + reach:.4g})" in found.text
    assert "The first 2 of 5" in found.text
    assert "last=3" in found.text


@pytest.mark.parametrize("which", ["apart", "cost"])
def test_early_members_are_said_to_harm_where_both_errors_tell(which: str) -> None:
    noise = np.resize([1.0, -1.0], 100)
    error = noise.std(ddof=1) / 10
    for far, said in ((1.02 * Z, True), (0.98 * Z, False)):
        off = {"apart": 9.0, "cost": 9.0} | {which: far}
        late = np.full(100, 5.0)
        alone = [late + noise + off["apart"] * error, late]
        lasts = [late, late + noise + off["cost"] * error]
        found = names(findings_of(scored(alone=alone, lasts=lasts)))
        assert (found == ["early-members-worse"]) is said


@pytest.mark.parametrize(("low", "said"), [(-0.01, False), (0.01, True)])
def test_a_choice_is_worse_than_the_mean_where_all_of_its_interval_is(
    low: float, said: bool
) -> None:
    given: dict[str, Any] = {"interval": (low, 0.25), "judged": ("error", "error rate")}
    found = findings_of(scored(**given))
    assert (names(found) == ["worse-than-mean"]) is said
    if said:
        assert "error rate is higher than that of the plain mean" in found[0].text
        assert "by 1.00 % to 25.00 % (95 % interval)" in found[0].text


@pytest.mark.parametrize("early", [1, 3])
def test_as_many_members_are_called_early_as_do_harm(early: int) -> None:
    p, y = drawn((BAD,) * early + (GOOD,) * (4 - early))
    (found,) = [each for each in fit(p, y).findings if each.name == "early-members-worse"]
    assert f"last={4 - early}." in found.text


def test_early_members_that_are_worse_and_help_are_not_said() -> None:
    # Nearly three times the noise, of their own: their mean with the others is still better.
    p, y = drawn((3.0, 3.0, GOOD, GOOD), 4000)
    loss = -np.log(p[:, np.arange(len(y)), y])
    apart = loss[:2].mean(0) - loss[2:].mean(0)
    assert apart.mean() > 10 * apart.std() / math.sqrt(len(y))
    assert names(fit(p, y, metric="brier").findings) == []


def test_late_members_that_are_worse_are_not_said_to_be_early() -> None:
    p, y = drawn((GOOD, GOOD, BAD, BAD))
    assert names(fit(p, y, select="greedy").findings) == ["last-not-best"]


def test_members_that_share_their_errors_are_said_to_be_alike() -> None:
    p, y = drawn((0.05,) * 3, shared=GOOD)
    found = {each.name: each.text for each in fit(p, y).findings}
    truth = np.eye(3)[y]
    alone, together = ((p - truth) ** 2).sum(-1).mean(), ((p.mean(0) - truth) ** 2).sum(-1).mean()
    # The same by the spread of the members about their mean (Krogh & Vedelsby).
    ambiguity = ((p - p.mean(0)) ** 2).sum(-1).mean()
    assert alone - together == pytest.approx(ambiguity, rel=1e-9)
    assert f"takes {100 * ambiguity / alone:.2g} % off" in found["members-alike"]


@pytest.mark.parametrize(("share", "said"), [(0.8, True), (1.2, False)])
def test_members_are_alike_below_two_percent_of_their_score(share: float, said: bool) -> None:
    # Every sample's members are off by the same, so that nothing is left to the error.
    alone = np.full(100, 1.0) + np.linspace(-1e-3, 1e-3, 100)
    evidence = scored(convex=(alone, alone * (1 - share * ALIKE)))
    assert (names(findings_of(evidence)) == ["members-alike"]) is said


def test_what_one_standard_error_leaves_open_is_not_said_to_be_alike() -> None:
    random = np.random.default_rng(0)
    alone = np.ones(100)
    gain = 0.5 * ALIKE + random.normal(size=100) * 0.5 * ALIKE * 10 / Z * 1.3
    assert findings_of(scored(convex=(alone, alone - gain))) == ()


def test_members_of_a_regression_that_share_their_errors_are_alike() -> None:
    members, y = values((0.05,) * 3, shared=1.0)
    found = {each.name: each.text for each in fit_regression(members, y).findings}
    gain = 1 - ((members.mean(0) - y) ** 2).mean() / ((members - y) ** 2).mean()
    assert f"takes {100 * gain:.2g} % off their mean mean squared error" in found["members-alike"]


def test_a_last_member_worse_than_an_earlier_one_is_said_with_the_earlier_one() -> None:
    p, y = drawn((GOOD, 1.0, GOOD))
    (found,) = fit(p, y, names=["a", "b.safetensors", "c"], metric="error").findings
    errors = p.argmax(-1) != y
    assert found.name == "last-not-best"
    assert ", b, of" in found.text
    assert f"{100 * errors[2].mean():.2f} %" in found.text
    assert f"{100 * errors[1].mean():.2f} %" in found.text


@pytest.mark.parametrize("members", [2, 8])
def test_the_more_members_are_tried_the_further_the_last_one_must_be_behind(members: int) -> None:
    z = statistics.NormalDist().inv_cdf(1 - LEVEL / (members - 1))
    noise = np.resize([1.0, -1.0], 100)
    error = noise.std(ddof=1) / 10
    for far, said in ((1.02 * z, True), (0.98 * z, False)):
        alone = [np.ones(100)] * (members - 1) + [1 + noise + far * error]
        found = names(findings_of(scored(alone=alone)))
        assert ("last-not-best" in found) is said


@pytest.mark.parametrize("candidates", [2, 20])
def test_a_gain_below_the_luck_of_so_many_candidates_needs_more_samples(candidates: int) -> None:
    random, last = np.random.default_rng(0), np.ones(200)
    # The mean of the greatest of so many normal numbers is below the bound, by simulation.
    greatest = random.normal(size=(20000, candidates)).max(axis=1).mean()
    noise = np.resize([1.0, -1.0], 200)
    error = noise.std(ddof=1) / math.sqrt(200)
    luck = error * math.sqrt(2 * math.log(candidates))
    assert luck > error * greatest
    for gain, said in ((0.98 * luck, True), (1.02 * luck, False)):
        found = findings_of(scored(chosen=(last - gain + noise, last), candidates=candidates))
        assert (names(found) == ["few-samples"]) is said
        if said:
            assert "200 samples are too few" in found[0].text
            assert "on some 210" in found[0].text  # 200 / 0.98**2 is 208.2


def test_few_samples_are_said_to_be_too_few_and_nothing_else_is() -> None:
    p, y = drawn((BAD, BAD, GOOD, GOOD), LEAST_SAMPLES - 1)
    assert names(fit(p, y).findings) == ["few-samples"]
    assert analyze(p, y)["findings"] == []
    p, y = drawn((BAD, BAD, 0.5, 0.5), LEAST_SAMPLES)
    assert "early-members-worse" in names(analyze(p, y)["findings"])


def test_a_choice_worse_than_the_plain_mean_is_said_on_other_data() -> None:
    """Chosen where one member is good, reported where all are, so that the mean is better."""
    there, seen = drawn((BAD, BAD, GOOD), seed=1)
    p, y = drawn((GOOD, GOOD, GOOD))
    choice = fit(there, seen)
    found = analyze(p, y, choice=choice)
    text = {each["name"]: each["text"] for each in found["findings"]}["worse-than-mean"]
    best, mean = choice.apply(p), p.mean(0)
    at = np.arange(len(y)), y
    worse = np.log(mean[at]) - np.log(best[at])
    reach = 1.96 * worse.std(ddof=1) / math.sqrt(len(y))
    low, high = (float(part) for part in text.split("by ")[1].split(" (")[0].split(" to "))
    assert low == pytest.approx(worse.mean() - reach, rel=0.1)
    assert high == pytest.approx(worse.mean() + reach, rel=0.1)
    # What the choice's own data said stays too.
    assert "early-members-worse" in names(found["findings"])
    assert "worse-than-mean" not in names(choice.findings)


def test_a_regression_worse_than_the_plain_mean_is_said_on_other_data() -> None:
    there, seen = values((9.0, 9.0, 1.0))
    members, y = values((1.0, 1.0, 1.0))
    choice = fit_regression(there, seen)
    assert "early-members-worse" in names(choice.findings)
    assert "worse-than-mean" in names(analyze_regression(members, y, choice=choice)["findings"])
    assert "worse-than-mean" not in names(
        analyze_regression(there, seen, choice=choice)["findings"]
    )


def test_weights_count_in_what_is_found() -> None:
    p, y = drawn((BAD, GOOD))
    p = np.concatenate([p, p[::-1]], axis=1)
    y = np.concatenate([y, y])
    weights = np.repeat([1.0, 1e-6], 400)
    assert "early-members-worse" in names(fit(p, y, sample_weight=weights).findings)
    assert "last-not-best" in names(fit(p, y, sample_weight=weights[::-1]).findings)
    assert not {"early-members-worse", "last-not-best"} & {*names(fit(p, y).findings)}


def test_a_metric_that_is_no_mean_is_judged_by_log_loss() -> None:
    p, y = drawn((BAD, BAD, GOOD, GOOD))
    for metric in ("balanced_error", lambda p, y: float((p.argmax(-1) != y).mean())):
        (found,) = fit(p, y, metric=metric).findings
        assert found.name == "early-members-worse"
        assert "log-loss" in found.text


def test_a_temperature_of_some_labels_scores_as_that_of_all() -> None:
    p, y = drawn((GOOD, 3.0), 9000)
    worse, same = drawn((6.0, 6.0), 9000)
    assert (same == y).all()
    p[:, y == 0] = worse[:, y == 0]
    order = np.argsort(y, kind="stable")  # so that labels in a row are of one class
    found = evidence_of(
        *(HeldOut(p[:, order], y[order]), ["0", "1"], "log_loss"), data="x", temperature=True
    )
    for rows, member in zip([*found.alone, found.lasts[1]], [*p, p.mean(0)], strict=True):
        least = log_loss(apply_temperature(member, fit_temperature(member, y)), y)
        # One parameter of n labels costs 1 / (2 n) elsewhere, on average; that chi-squared's tail.
        assert least - 1e-12 <= rows.mean() < least + 4 / (2 * 2048)
        assert log_loss(member, y) > least + 5e-3


def test_findings_stay_in_the_record(tmp_path: Path) -> None:
    choice = fit(*drawn((BAD, BAD, GOOD, GOOD)))
    assert choice.findings
    choice.save(tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == choice
    record = choice.to_dict()
    del record["findings"]  # as it was written before there were any
    assert Choice.from_dict(record).findings == ()


@pytest.mark.parametrize(
    ("findings", "where"),
    [
        ("none", "in 'findings'"),
        ([{"name": "few-samples"}], r"in 'findings\[0\].text'"),
        ([{"name": "other", "text": "x"}], r"in 'findings\[0\].name'.*'other'"),
        ([{"name": "few-samples", "text": 3}], r"in 'findings\[0\].text'"),
    ],
)
def test_a_record_with_other_findings_is_refused(findings: Any, where: str) -> None:
    record = fit(*drawn((GOOD, GOOD))).to_dict() | {"findings": findings}
    with pytest.raises(EnsembleError, match=where):
        Choice.from_dict(record)


def test_a_finding_reads_as_its_text() -> None:
    assert str(Finding(name="few-samples", text="Few.")) == "Few."


def scored(**given: Any) -> Evidence:
    """Evidence in which nothing is to be found but what is given."""
    alone = given.pop("alone", [np.ones(100)] * 2)
    samples = len(given["chosen"][0]) if "chosen" in given else len(alone[0])
    even = np.ones(samples)
    given = {"convex": (even, even / 2), "lasts": [even] * len(alone)} | given
    return Evidence(
        names=[str(i) for i in range(len(alone))],
        data="sample",
        metric="log_loss",
        title="log-loss",
        alone=alone if samples == len(alone[0]) else [even] * 2,
        convex_title="Brier score",
        **given,
    )


def drawn_classes(
    samples: int, seed: int, sure: float, signal: float = 4.0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two members that share most of their errors, at a scale of their logits."""
    random = np.random.default_rng(seed)
    y = random.integers(5, size=samples)
    noise = random.normal(size=(samples, 5)) + 0.1 * random.normal(size=(2, samples, 5))
    p = np.exp(sure * (signal * np.eye(5)[y] + noise))
    return p / p.sum(-1, keepdims=True), y


def test_labels_that_do_not_belong_to_the_samples_are_asked_about_first() -> None:
    said = {"order": 0, "numbers": 0, "right": 0, "hard": 0}
    for seed in range(30):
        p, y = drawn_classes(300, seed, 3.0)
        spare = np.concatenate([p * (1 - 1e-6), np.full((2, 300, 1), 1e-6)], -1)
        hard = drawn_classes(300, seed, 0.3, 0.3)
        for name, members, labels in (
            ("order", p, np.roll(y, 1)),
            ("numbers", spare, y + 1),
            ("right", p, y),
            ("hard", *hard),
        ):
            found = fit(members, labels)
            doubtful = "labels-doubtful" in [each.name for each in found.findings]
            said[name] += doubtful
            if doubtful:
                assert len(found.findings) == 1
                loss = found.candidates[-1].scores["log_loss"]
                assert f"the choice has a log-loss of {loss:.4g}" in found.findings[0].text
                assert "belong together?" in found.findings[0].text
    assert said["order"] >= 24
    assert said["numbers"] == 30
    assert said["right"] == said["hard"] == 0
    p, y = drawn_classes(300, 0, 3.0)
    given: Any = {"names": ["a", "b"]}
    (finding,) = analyze(p, np.roll(y, 1), **given)["findings"]
    shares = np.bincount(y) / 300
    assert f"every time has {-(shares * np.log(shares)).sum():.4g}" in finding["text"]
    soft = np.eye(5)[np.roll(y, 1)] * 0.9 + 0.02
    assert analyze(p, soft, **given)["findings"][0]["name"] == "labels-doubtful"
    assert "plain mean of all members has a log-loss" in finding["text"]
