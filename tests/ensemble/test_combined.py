"""What a prediction boils down to, on arrays alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cosanneal.core.errors import EnsembleError
from cosanneal.ensemble import apply_temperature, pool
from cosanneal.ensemble.combined import Combination, Combined
from cosanneal.ensemble.predict.form import Form
from cosanneal.ensemble.predict.pooling import Pooling

WEIGHTS = (0.5, 0.2, 0.3)


class Arrays:
    """numpy's, each operation of which is counted."""

    def __init__(self) -> None:
        self.widened = 0

    def is_array(self, thing: object) -> bool:
        return isinstance(thing, np.ndarray)

    def widen(self, array: Any) -> Any:
        self.widened += 1
        return array.astype(np.float64)

    def narrow(self, wide: Any, like: Any) -> Any:
        return wide.astype(like.dtype)


def outputs(*shape: int) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(4)
    return [generator.normal(size=shape).astype(np.float32) for _ in WEIGHTS]


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
@pytest.mark.parametrize("axis", [1, None])
@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
def test_arrays_are_pooled_as_pool_does_and_have_their_temperature(
    pooling: Pooling, axis: int | None, temperature: float
) -> None:
    if temperature != 1 and pooling != "probabilities":
        temperature = 1.0  # such a pooling has no choice
    members, arrays = outputs(5, 3, 2), Arrays()
    combined = Combined(
        weights=WEIGHTS,
        outputs="logits",
        class_axis=axis,
        pooling=pooling,
        temperature=temperature,
    )
    found = combined.of(members, arrays.widen, arrays.narrow)
    wide = [each.astype(np.float64) for each in members]
    wanted = pool(wide, weights=WEIGHTS, pooling=pooling, inputs="logits", class_axis=axis)
    if temperature != 1:
        wanted = apply_temperature(wanted, temperature, class_axis=axis)
    assert found.dtype == np.float32
    assert arrays.widened == 3
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_pairs_are_mixed_in_the_form_of_the_first() -> None:
    means, variances = outputs(5, 2), [abs(each) for each in outputs(5, 2)]
    pairs = [{"mean": m, "variance": v} for m, v in zip(means, variances, strict=True)]
    arrays = Arrays()
    combined = Combined(weights=WEIGHTS, outputs="gaussian", class_axis=None, variance_scale=3.0)
    found = combined.of(pairs, arrays.widen, arrays.narrow)
    m, v, w = np.array(means, "f8"), np.array(variances, "f8"), np.array(WEIGHTS)[:, None, None]
    mean = (w * m).sum(0)
    # The law of total variance, by the difference of large squares.
    variance = 3 * ((w * (v + m**2)).sum(0) - mean**2)
    assert [*found] == ["mean", "variance"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["variance"], variance, rtol=1e-6, atol=1e-6)


def test_several_outputs_are_combined_each_by_itself() -> None:
    form = Form.of({"a": ["values", None], "b": "logits"})
    value = Combined(weights=(1.0, 3.0), outputs="values", class_axis=None)
    logits = Combined(weights=(1.0, 3.0), outputs="logits")
    combination = Combination((value, logits), form, tuple(map(tuple, form.paths)))
    members = [
        {"a": (np.full(2, float(i)), "text"), "b": np.eye(2) * i, "more": 0} for i in range(2)
    ]
    arrays = Arrays()
    picked = [combination.pick(each, arrays.is_array) for each in members]
    found = combination.combine(picked, arrays)
    assert [*found] == ["a", "b"]
    np.testing.assert_array_equal(found["a"][0], [0.75, 0.75])
    assert found["a"][1] is None
    sure = 0.25 / 2 + 0.75 / (1 + np.exp(-1))
    np.testing.assert_allclose(found["b"], [[sure, 1 - sure], [1 - sure, sure]])
    stacked = [np.stack(each) for each in zip(*picked, strict=True)]
    for one, other in zip(combination.unstacked(stacked), picked, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_outputs_that_nobody_has_seen_are_refused() -> None:
    taken: Any = SimpleNamespace(leaves=[SimpleNamespace(known=False)])
    with pytest.raises(EnsembleError, match=r"what the model's outputs are\. Received: one that"):
        Combination.of(taken, {}, lambda _: None)
