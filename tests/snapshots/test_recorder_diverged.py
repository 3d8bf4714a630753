"""A run that diverged: its weights are recorded, noted and warned of."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.shared.recording import EVERY_STEP, ArrayRecorder, filled

MESSAGE = r"weights at update 2 are not finite: tensor 'w' holds NaN or an infinity.*members="


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("background", [True, False])
def test_weights_that_are_not_finite_are_noted_and_said_once(
    tmp_path: Path, value: float, background: bool
) -> None:
    weights = filled(1)
    weights["w"][3] = value
    with ArrayRecorder(tmp_path, EVERY_STEP, background=background) as recorder:
        recorder.step(filled(1))
        with pytest.warns(UserWarning, match=MESSAGE):
            step_and_wait(recorder, weights)
        recorder.step(filled(2))
        recorder.step(weights)  # which says nothing more
    found = [each.metadata["nonfinite"] for each in recorder.store.list()]
    assert found == [None, "w", None, "w"]
    assert recorder.store.verify() == 4  # what is there is what was taken
    assert recorder.statistics.durable == 4


def test_where_warnings_are_errors_the_snapshot_is_there_nevertheless(tmp_path: Path) -> None:
    recorder = ArrayRecorder(tmp_path, EVERY_STEP)
    recorder.step(filled(1))
    recorder.step(filled(np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=MESSAGE):
            recorder.close()
    assert [each.step for each in recorder.store.list()] == [1, 2]


def step_and_wait(recorder: ArrayRecorder, weights: dict[str, np.ndarray]) -> None:
    recorder.step(weights)
    recorder.wait()
