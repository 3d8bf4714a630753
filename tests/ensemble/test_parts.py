"""Members that are parts of the weights, of which the model has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import SnapshotEnsemble
from tests.ensemble.test_model import LinearModel, data, drawn
from tests.shared.modes import MODES
from tests.shared.recording import EVERY_STEP, ArrayRecorder


def record(folder: Path, rest: dict[str, Any], steps: int = 3, **options: Any) -> None:
    """Biases that change, of weights that stay."""
    options = {"which": lambda name: name == "b", **options}
    with ArrayRecorder(folder, EVERY_STEP, **options) as recorder:
        for seed in range(recorder.updates + 1, steps + 1):
            recorder.step({"w": rest["w"], "b": drawn(seed)["b"]})


def test_the_rest_is_the_models(tmp_path: Path) -> None:
    record(tmp_path / "parts", drawn(0))
    record(tmp_path / "whole", drawn(0), which="all")
    x, y = data()
    parts, whole = (SnapshotEnsemble(LinearModel(), tmp_path / each) for each in ("parts", "whole"))
    for mode in MODES:
        np.testing.assert_array_equal(parts.predict(x, mode=mode), whole.predict(x, mode=mode))
    for ours, theirs in zip(parts.member_predictions(x), whole.member_predictions(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for soup in ("uniform", "greedy"):
        found, expected = (
            each.average_weights(x, y, soup=soup, barrier=1) for each in (parts, whole)
        )
        assert found.scores == expected.scores
        for name in ("w", "b"):
            np.testing.assert_array_equal(found.weights[name], expected.weights[name])


def test_another_rest_is_refused_by_name(tmp_path: Path) -> None:
    record(tmp_path, drawn(9))
    with pytest.raises(
        ca.EnsembleError,
        match=r"Snapshot .*cycle-0000-\S+ is a part.* a model with another tensor 'w'; give a",
    ):
        SnapshotEnsemble(LinearModel(), tmp_path).predict(data()[0])


def test_no_part_of_another_model_is_taken(tmp_path: Path) -> None:
    record(tmp_path, drawn(0))

    class Another(LinearModel):
        def layout(self) -> dict[str, Any]:
            return {"kernel": ((4, 3), "float32"), "b": ((3,), "float32")}

    with pytest.raises(ca.EnsembleError, match=r"tensor 'w', which it leaves out as a part, is no"):
        SnapshotEnsemble(Another(), tmp_path).predict(data()[0])
