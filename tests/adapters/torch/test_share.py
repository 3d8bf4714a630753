"""Ensembles in several processes, each of which has a share of the data."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.shared.processes import outputs

KINDS = ("dealt", "shuffled", "batches", "prepared", "uneven", "labels")


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of several processes finds, by rank."""
    size, work = request.param, tmp_path_factory.mktemp("share")
    outputs(["-m", "tests.shared.shared_run", str(work)], size)
    return [json.loads((work / f"found-{rank}.json").read_text()) for rank in range(size)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_find_what_one_finds_that_has_all_data(found: Any, kind: str) -> None:
    """Predictions in the dataset's order, fits, scores and the mean of weights, bit for bit."""
    for each in found:
        assert each[kind] == found[0]["alone"]
    assert len(found[0]["alone"][0]) == 11


def test_a_regression_is_fitted_once_for_all(found: Any) -> None:
    for each in found:
        assert each["regression"] == found[0]["regression alone"]


def test_labels_may_be_texts(found: Any) -> None:
    for each in found:
        assert each["texts"] == found[0]["alone"][5]


def test_rows_may_be_empty_or_of_half_precision(found: Any) -> None:
    for each in found:
        assert each["empty"] == [11, 0]
        assert each["bytes"] == 11 * 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drop_last", r"must deal every sample .*Received: (9|10) of 11 samples; .* drop_last"),
        ("shuffled", r"must not shuffle.*RandomSampler; make it with shuffle=False"),
        ("lengths", r"one dataset.*Received: datasets of \[11, 12(, 13)?\] samples"),
        ("ragged", r"Argument `ragged` must be left out .*share of the samples"),
        ("keep", r"Argument `keep` must be left out .*share of the samples"),
        ("train_data", r"`train_data` must give every process the same samples.*distributed sam"),
        ("labels", r"must have shapes.*\(11, 2\) and \(3,\)"),
        ("shapes", r"one shape but .*row of shape \(3,\) of rank 1, after .*shape \(2,\)"),
        ("counts", r"a row for each .*Received: \d rows for \d samples of rank 1"),
        ("kinds", r"numbers or texts.*Received: labels of datetime64\[s\] of rank 0"),
    ],
)
def test_what_cannot_be_is_said_in_every_process(found: Any, name: str, message: str) -> None:
    for each in found:
        assert re.search(f"^EnsembleError: .*{message}", each["wrong"][name]), each["wrong"][name]


@pytest.mark.parametrize("name", ["reading", "reading to fit"])
def test_an_error_of_one_process_is_raised_in_all(found: Any, name: str) -> None:
    first, second, *_ = (each["wrong"][name] for each in found)
    assert second == "OSError: the disk is gone"
    assert first == "EnsembleError: The process of rank 1 failed: OSError: the disk is gone"
