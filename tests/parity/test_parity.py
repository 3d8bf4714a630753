"""The same schedules, snapshots and predictions in every framework."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import network
from .plans import SCHEDULES, exact_rate, finite, restarts, steps_of
from .worker import FRAMEWORKS, environment

ULPS = 8
# Rows of the table that the session prints: where, precision, comparisons,
# worst ulp, and its step and schedule.
TABLE: list[tuple[str, str, int, float, int, str]] = []

WITH_SNAPSHOTS = [name for name in FRAMEWORKS if name != "core"]


def compute(framework: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tests.parity.worker", framework]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        subprocess.run([*command, str(out)], env=environment(framework), check=True)
        result: dict[str, Any] = json.loads(out.read_text())
    return result


@functools.cache
def computing() -> dict[str, Future[dict[str, Any]]]:
    """Each framework computes in a process of its own, two of them at a time."""
    pool = ThreadPoolExecutor(2)
    return {framework: pool.submit(compute, framework) for framework in FRAMEWORKS}


def found(framework: str) -> dict[str, Any]:
    """What a framework computed."""
    return computing()[framework].result()


@functools.cache
def exact(name: str, step: int) -> Decimal:
    return exact_rate(SCHEDULES[name], step)


def test_torch_is_the_core_bit_for_bit() -> None:
    core, torch = (found(name)["rates"][""] for name in ("core", "torch"))
    assert core["dtype"] == torch["dtype"] == "float64"
    assert core["rates"] == torch["rates"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_rates_are_within_8_ulp_of_the_exact_ones_at_every_step(framework: str) -> None:
    for mode, result in found(framework)["rates"].items():
        dtype = np.dtype(result["dtype"])
        assert dtype == (np.float64 if result["limit"] == 2**62 else np.float32)
        worst, where, count = Decimal(-1), (0, ""), 0
        for name, rates in result["rates"].items():
            steps = steps_of(name, result["limit"])
            for step, rate in zip(steps, rates, strict=True):
                true = exact(name, step)
                # An ulp of the exact value in this precision.
                ulp = Decimal(float(np.spacing(dtype.type(abs(true)))))
                off = abs(Decimal(rate) - true) / ulp
                count += 1
                if not off <= worst:
                    worst, where = off, (step, name)
        assert set(result["rates"]) == set(SCHEDULES)
        TABLE.append((f"{framework} {mode}".strip(), dtype.name, count, float(worst), *where))
        assert worst <= ULPS, (mode, float(worst), where)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_restart_is_exactly_the_peak(framework: str) -> None:
    count = 0
    for mode, result in found(framework)["rates"].items():
        number = np.dtype(result["dtype"]).type
        for name, rates in result["rates"].items():
            steps = steps_of(name, result["limit"])
            rate_of = dict(zip(steps, rates, strict=True))
            for step, peak in restarts(SCHEDULES[name], steps):
                assert rate_of[step] == float(number(peak)), (mode, name, step)
                count += 1
    assert count > 500


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_rate_is_zero_where_the_exact_one_is_not(framework: str) -> None:
    for result in found(framework)["rates"].values():
        for name, rates in result["rates"].items():
            steps = steps_of(name, result["limit"])
            zero = [step for step, rate in zip(steps, rates, strict=True) if rate == 0]
            assert all(exact(name, step) == 0 for step in zero), name


@pytest.mark.parametrize("framework", WITH_SNAPSHOTS)
def test_recorders_see_the_same_cycle_ends(framework: str) -> None:
    assert len(finite()) >= 15
    assert found(framework)["ends"] == found("core")["ends"]


@pytest.mark.parametrize("framework", WITH_SNAPSHOTS)
def test_the_same_weights_predict_the_same(framework: str) -> None:
    result = found(framework)
    expected = network.expected()
    # The members differ by far more than they may be off.
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(result["members"], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result["pooled"], expected.mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("framework", WITH_SNAPSHOTS)
def test_what_is_shipped_predicts_the_same(framework: str) -> None:
    """As one torch module, Keras model or JAX function: with all members, and with those chosen."""
    result = found(framework)
    shipped = {each: np.array(numbers) for each, numbers in result["shipped"].items()}
    expected = network.expected()
    np.testing.assert_allclose(shipped.pop("all"), expected.mean(axis=0), rtol=0, atol=1e-6)
    assert [*shipped] == ["last", "greedy", "weights"]
    for select, ours in shipped.items():
        weights, temperature, predicted = result[select]
        np.testing.assert_allclose(ours, predicted, rtol=0, atol=1e-6)
        powers = np.tensordot(weights, expected, 1) ** (1 / temperature)
        exact = powers / powers.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("framework", WITH_SNAPSHOTS)
def test_the_same_weights_are_as_sure(framework: str) -> None:
    result = found(framework)["uncertainty"]
    p = network.expected()
    mean = p.mean(axis=0)
    entropies = -(p * np.log(p)).sum(axis=-1)
    entropy = -(mean * np.log(mean)).sum(axis=-1)
    votes = np.eye(network.CLASSES)[p.argmax(axis=-1)].mean(axis=0)
    expected = {
        "probabilities": mean,
        "entropy": entropy,
        "expected_entropy": entropies.mean(axis=0),
        "mutual_information": entropy - entropies.mean(axis=0),
        "variation_ratio": 1 - votes.max(axis=-1),
    }
    assert result.keys() == expected.keys()
    assert expected["mutual_information"].max() > 0.1
    for name, theirs in expected.items():
        np.testing.assert_allclose(result[name], theirs, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("variant", network.CONFORMAL, ids=str)
def test_every_framework_finds_the_same_sets(variant: dict[str, Any]) -> None:
    (threshold, sets), *others = (found(each)["sets"][str(variant)] for each in WITH_SNAPSHOTS)
    for other, same in others:
        assert other == pytest.approx(threshold, abs=1e-6)
        assert same == sets
    assert 1 < np.sum(sets) / len(sets) < network.CLASSES


@pytest.mark.parametrize("select", ["last", "greedy", "weights"])
def test_every_pair_of_frameworks_predicts_and_selects_the_same(select: str) -> None:
    for one, other in itertools.combinations(WITH_SNAPSHOTS, 2):
        left, right = found(one), found(other)
        for key in ("members", "pooled"):
            np.testing.assert_allclose(left[key], right[key], rtol=0, atol=1e-6)
        (weights, temperature, fitted), others = left[select], right[select]
        chosen = [weight > 0 for weight in weights]
        assert chosen == [weight > 0 for weight in others[0]]
        if select != "weights":
            assert weights == others[0]  # which are counts, and no numbers that were searched for
        np.testing.assert_allclose(weights, others[0], rtol=0, atol=1e-5)
        assert temperature == pytest.approx(others[1], rel=1e-5)
        np.testing.assert_allclose(fitted, others[2], rtol=0, atol=1e-5)
    # Something is chosen: not all of the members, and not alike.
    assert len({*found("torch")[select][0]}) > 1


@pytest.mark.parametrize("framework", WITH_SNAPSHOTS[1:])
def test_the_demonstration_is_the_same_training(framework: str) -> None:
    """Its model, its weight decay and its optimizer, written three times, do the same."""
    torch = found("torch")["losses"]
    np.testing.assert_allclose(found(framework)["losses"], torch, rtol=1e-4)
    assert torch[-1] < torch[0] / 2
