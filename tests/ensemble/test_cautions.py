"""What a user is warned of: data that a choice had, and members that are one member."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import SnapshotEnsemble
from tests.ensemble.test_members import record
from tests.ensemble.test_model import LinearModel

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on")

KNOWN = "The 300 samples to judge on seem to be those that the ensemble was chosen on"


def drawn(seed: int) -> tuple[Any, Any]:
    """300 samples for `LinearModel`, with labels at random."""
    random = np.random.default_rng(seed)
    return random.normal(size=(300, 4)).astype(np.float32), random.integers(3, size=300)


def quiet(function: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments, **options)


@pytest.mark.parametrize("temperature", [True, False])
def test_data_that_the_choice_had_are_told_from_others(tmp_path: Path, temperature: bool) -> None:
    record(tmp_path)
    (x, y), other = drawn(1), drawn(2)
    made = SnapshotEnsemble(LinearModel(), tmp_path)
    made.fit(x, y, temperature=temperature)
    with pytest.warns(UserWarning, match=KNOWN):
        made.evaluate(x, y)
    quiet(made.evaluate, *other)
    quiet(made.evaluate, x[:299], y[:299])
    flipped = y.copy()
    flipped[0] = (flipped[0] + 1) % 3
    quiet(made.evaluate, x, flipped)
    made.save()
    again = SnapshotEnsemble(LinearModel(), tmp_path)
    again.load()
    with pytest.warns(UserWarning, match="other data, which neither training nor fit had"):
        again.evaluate(x, y, batch_size=7)
    quiet(SnapshotEnsemble(LinearModel(), tmp_path).evaluate, x, y)


def test_a_regression_that_the_choice_had_is_told_too(tmp_path: Path) -> None:
    record(tmp_path)
    x, _ = drawn(1)
    target = np.random.default_rng(3).normal(size=(300, 3))
    made = SnapshotEnsemble(LinearModel(), tmp_path, outputs="values")
    made.fit(x, target)
    with pytest.warns(UserWarning, match=KNOWN):
        made.evaluate(x, target)
    quiet(made.evaluate, x, target + 1e-3)


def test_the_disagreement_of_one_member_is_said_to_say_nothing_once(tmp_path: Path) -> None:
    record(tmp_path)
    x, y = drawn(1)
    made = SnapshotEnsemble(LinearModel(), tmp_path)
    quiet(made.predict_with_uncertainty, x)
    made.fit(x, y)
    assert made.choice is not None
    for used in (1, 2):
        weights = (0.0,) * (4 - used) + (1 / used,) * used
        made.choice = replace(made.choice, weights=weights)
        if used == 1:
            with pytest.warns(UserWarning, match="One of 4 members was chosen, and one member"):
                found = made.predict_with_uncertainty(x)
            assert not found.mutual_information.any()
            assert "one snapshot: nothing is averaged" in str(made.choice)
        found = quiet(made.predict_with_uncertainty, x)
        assert found.mutual_information.any() == (used > 1)
    assert "one snapshot" not in str(made.choice)
