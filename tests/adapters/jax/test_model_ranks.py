"""Ensembles whose members and input lie over several processes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.shared.jax_shared_run import data, member
from tests.shared.processes import outputs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    work = tmp_path_factory.mktemp("shared")
    outputs(["-m", "tests.shared.jax_shared_run", str(work)], 2)
    return [json.loads((work / f"results-{rank}.json").read_text()) for rank in range(2)]


def softmax_by_numpy(seed: int) -> Any:
    x, _ = data()
    params = member(seed)
    exponentials = np.exp(x @ params["w"] + params["b"])
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_every_process_has_all_rows_in_order(results: list[dict[str, Any]]) -> None:
    members = [softmax_by_numpy(seed) for seed in range(3)]
    wanted = np.mean(members, axis=0)
    for found in results:
        assert len(found["predicted"]) == 7
        for way, prediction in found["predicted"].items():
            np.testing.assert_allclose(prediction, wanted, rtol=1e-5, err_msg=way)
        np.testing.assert_allclose(found["members"], members, rtol=1e-5)
        assert found["classes"] == wanted.argmax(-1).tolist()


def test_every_process_chooses_and_judges_alike(results: list[dict[str, Any]]) -> None:
    first, second = results
    assert first["fitted"] == second["fitted"]
    assert first["evaluated"] == second["evaluated"]
    _, y = data()
    wanted = np.mean([softmax_by_numpy(seed) for seed in range(3)], axis=0)
    assert first["evaluated"]["samples"] == len(y)
    error = (wanted.argmax(-1) != y).mean()
    assert first["evaluated"]["ensembles"][-1]["error"] == pytest.approx(error, abs=1e-9)


def test_members_lie_as_like_does(results: list[dict[str, Any]]) -> None:
    assert [found["loaded"] for found in results] == [[True] * 3] * 2


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("stacked", "members lie over several processes. Received: mode='stacked'; give mode="),
        ("labels", "must be whole in this process. Received: an array of shape (16,) in parts"),
        ("average", "must lie in this process alone. Received: 'b', which lies over several"),
    ],
)
def test_what_takes_one_process_is_refused(
    results: list[dict[str, Any]], what: str, text: str
) -> None:
    for found in results:
        assert text in found["refused"][what]
