"""What is asked of an ensemble that goes to another process, of each framework."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

from cosanneal.ensemble.arrays import as_numpy


def check_pickled(ensemble: Any, x: Any, y: Any) -> bytes:
    """That it comes back the same, without what it held; as bytes."""
    ensemble.fit(x, y)
    expected = as_numpy(ensemble.predict(x, mode="resident"))
    assert ensemble.held
    sent = pickle.dumps(ensemble)
    for other in (pickle.loads(sent), copy.deepcopy(ensemble), copy.copy(ensemble)):  # noqa: S301
        assert other.held == 0
        assert other.choice == ensemble.choice
        assert [each.path for each in other.members] == [each.path for each in ensemble.members]
        np.testing.assert_array_equal(as_numpy(other.predict(x)), expected)
        assert repr(other) == repr(ensemble)
    assert ensemble.held
    return sent
