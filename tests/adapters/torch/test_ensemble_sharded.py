"""Ensembles of models in shards, in several processes that torch.distributed brings together."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.shared.processes import outputs


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of two processes finds, by rank."""
    work = tmp_path_factory.mktemp("sharded")
    outputs(["-m", "tests.shared.sharded_run", str(work)], 2)
    return [json.loads((work / f"found-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("how", ["ddp", "fsdp2", "root"])
def test_all_processes_find_what_one_finds_with_whole_weights(found: Any, how: str) -> None:
    """Predictions, classes, the choice and the scores, bit for bit."""
    for each in found:
        assert each[how] == found[0]["alone"]


def test_tensor_parallelism_adds_in_another_order_and_gives_all_the_same(found: Any) -> None:
    """Two sums of four products in place of one of eight: to 4 ulp of float32."""
    first, second = (each["tensor"] for each in found)
    assert first == second
    assert found[0]["auto"] == first[0]  # by no measured time, which differs from one to another
    whole = np.array(found[0]["alone"][0])
    np.testing.assert_allclose(np.array(first[0]), whole, rtol=0, atol=4 * 2.0**-24)
    assert first[3] == found[0]["alone"][3]  # the classes


def test_processes_of_fsdp2_may_each_have_a_share_of_the_rows(found: Any) -> None:
    for each in found:
        assert each["dealt"] == found[0]["dealt alone"]
        assert each["sure"] == found[0]["sure alone"]  # though one would need fewer members


def test_the_rest_of_members_that_are_a_part_is_the_models_own(found: Any) -> None:
    for each in found:
        assert each["part"] == found[0]["part alone"]
        assert each["both"] == found[0]["both alone"]  # also while it has another member's


def test_the_model_is_what_it_was_also_after_an_error(found: Any) -> None:
    """Shards, buffers (one that a forward replaces, and no state has) and modes."""
    for each in found:
        assert each["kept"] == [True] * 6
        assert each["failed"] == "OSError: this layer fails"
        assert each["normed"] == each["normed again"] == found[0]["normed alone"]


def test_a_run_goes_on_as_if_nothing_was_predicted_amid_it(found: Any) -> None:
    for each in found:
        without, with_predictions = each["trained"]
        assert with_predictions == without


SAME = r"Every process must be given the same samples .*another batch in the process of rank 1"
FEWER = r"as many batches .*rank 0 has a batch, that of rank 1 has no more"
DAMAGED = r"Snapshot .*cycle-0002-.* is damaged: its tensor"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows", SAME),
        ("rows of tensor", SAME),
        (
            "dealt",
            r"`x` must give every process the same samples .* a share of them, and '0\.bias'",
        ),
        ("fewer", FEWER),
        ("fewer resident", FEWER),
        ("damaged", DAMAGED),
        ("damaged resident", DAMAGED),
        ("stacked", r"must not be sharded for mode='stacked'.*give mode='resident'"),
        ("average", r"must not be sharded for average_weights.*average_snapshots"),
        ("one", r"must not be sharded for average_weights.*average_snapshots"),
        ("module", r"must not be sharded for as_module"),
        ("keep", r"`keep` must be left out where the model is sharded"),
        ("members", r"find the same snapshots .*Received: \['cycle-0002-\S*'\] in one, and \["),
        ("folder", r"none must hold at least one snapshot"),
        ("keeping", r"keep nothing that it makes of its weights.*Received: 'the model'"),
        ("hooked", r"under their names\. Received: 'w' in the state, which no module holds"),
        ("built", r"must build a model that is not sharded.*give the model itself"),
    ],
)
def test_what_cannot_be_is_said_in_every_process(found: Any, name: str, message: str) -> None:
    for each in found:
        assert re.search(f"^(Ensemble|Snapshot)Error: .*{message}", each["wrong"][name])


@pytest.mark.parametrize("name", ["reading", "reading resident", "reading to fit"])
def test_an_error_of_one_process_is_raised_in_all(found: Any, name: str) -> None:
    first, second = (each["wrong"][name] for each in found)
    assert second == "OSError: the disk is gone"
    assert first == "EnsembleError: The process of rank 1 failed: OSError: the disk is gone"


def test_one_process_alone_may_have_a_model_in_shards(found: Any) -> None:
    """As a script for many has it, where it is tried on one."""
    assert found[0]["of one"] == [found[0]["alone"][0], [True]]


def test_all_goes_on_after_an_error(found: Any) -> None:
    for each in found:
        assert each["again"] == [found[0]["tensor"][0], found[0]["alone"][0]]
