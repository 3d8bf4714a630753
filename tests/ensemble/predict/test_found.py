"""What outputs are: told, found by the first of them, or refused with the readings named."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.ensemble.predict.found import FoundOutputs
from cosanneal.ensemble.predict.outputs import OutputSpec, Reading

RANDOM = np.random.default_rng(0)


def softmax(logits: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def logits(*shape: int) -> NDArray[Any]:
    return 3 * RANDOM.normal(size=shape)


def unit(*shape: int) -> NDArray[Any]:
    return RANDOM.random(shape)


def as_torch(array: NDArray[Any], dtype: str) -> Any:
    return torch.as_tensor(array).to(getattr(torch, dtype))


def as_numpy(array: NDArray[Any], dtype: str) -> Any:
    return array.astype(getattr(ml_dtypes, dtype, dtype))


KINDS: dict[str, Callable[[NDArray[Any], str], Any]] = {
    "numpy": as_numpy,
    "torch": as_torch,
}


def found(
    output: Any, outputs: Any = "auto", class_axis: Any = "auto", said: Reading | None = None
) -> tuple[str, int | None]:
    finder = FoundOutputs(outputs, class_axis, "probabilities", said)
    finder.look(output, ["a member"])
    return finder.spec.outputs, finder.spec.class_axis


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_what_is_certain_is_found(kind: str, dtype: str) -> None:
    def make(array: NDArray[Any]) -> Any:
        return KINDS[kind](array, dtype)

    for count in (2, 10, 1000):
        assert found(make(softmax(logits(40, count)))) == ("probabilities", -1)
        assert found(make(logits(40, count))) == ("logits", -1)
        assert found(make(np.log(softmax(logits(40, count))))) == ("logits", -1)
    assert found(make(softmax(logits(6, 3, 8, 9), 1))) == ("probabilities", 1)
    assert found(make(softmax(logits(6, 8, 9, 3)))) == ("probabilities", -1)
    assert found(make(softmax(logits(6, 8, 9, 3), 2))) == ("probabilities", 2)
    assert found(make(np.eye(3)[[0, 2, 1, 1]])) == ("probabilities", -1)
    # Their sums are 1 by construction in many a precision, also of many classes.
    assert found(make(softmax(0.1 * logits(8, 5000)))) == ("probabilities", -1)


def test_probabilities_of_the_frameworks_own_softmax_are_found() -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        for count in (2, 10, 1000):
            z = logits(64, count)
            assert found(as_torch(z, dtype).softmax(-1)) == ("probabilities", -1)


READINGS = {
    "probabilities": 'outputs="probabilities", class_axis=None',
    "logit": 'outputs="logits", class_axis=None',
    "last": 'outputs="logits", class_axis=-1',
    "first": 'outputs="logits", class_axis=1',
    "values": 'outputs="values"',
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("array", "readings"),
    [
        (logits(40), ["logit", "values"]),
        (logits(40, 1), ["logit", "values"]),
        (unit(40, 1), ["probabilities", "logit", "values"]),
        (np.ones(40), ["probabilities", "logit", "values"]),
        (unit(40, 5), ["probabilities", "last", "values"]),
        (logits(6, 3, 8, 9), ["first", "last", "values"]),
        (logits(6, 8, 3), ["first", "last", "values"]),
        (unit(6, 3, 8, 9), ["probabilities", "first", "last", "values"]),
    ],
)
def test_what_is_open_is_refused_with_its_readings(
    kind: str, array: NDArray[Any], readings: list[str]
) -> None:
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    for _ in range(2):  # it stays open
        with pytest.raises(ca.EnsembleError) as caught:
            finder.look(KINDS[kind](array, "float32"), ["a member"])
        text = str(caught.value)
        assert f"an output of shape {array.shape} with numbers from" in text
        assert [name for name in READINGS if READINGS[name] in text] == sorted(
            readings, key=list(READINGS).index
        )
        assert text.count("outputs=") == len(readings)


@pytest.mark.parametrize(
    ("array", "given", "expected"),
    [
        (unit(40, 5), {"class_axis": -1}, ("logits", -1)),
        (softmax(logits(40, 5)), {"class_axis": -1}, ("probabilities", -1)),
        (logits(6, 3, 8, 9), {"class_axis": 1}, ("logits", 1)),
        (softmax(logits(6, 3, 8, 9), 1), {"class_axis": 1}, ("probabilities", 1)),
        (logits(40, 5), {"class_axis": None}, ("logits", None)),
        (logits(40, 1), {"class_axis": None}, ("logits", None)),
        (unit(40, 5), {"class_axis": None}, None),
        (logits(40, 5), {"outputs": "logits"}, ("logits", -1)),
        (unit(40, 5), {"outputs": "logits"}, ("logits", -1)),
        (logits(40, 1), {"outputs": "logits"}, ("logits", None)),
        (logits(40), {"outputs": "logits"}, ("logits", None)),
        (logits(6, 3, 8), {"outputs": "logits"}, None),
        (softmax(logits(6, 3, 8), 1), {"outputs": "probabilities"}, ("probabilities", 1)),
        (unit(40, 5), {"outputs": "probabilities"}, ("probabilities", None)),
        (unit(40, 1), {"outputs": "probabilities"}, ("probabilities", None)),
        (np.full((6, 2, 2), 0.5), {"outputs": "probabilities"}, None),
        (logits(40, 5), {"outputs": "values"}, ("values", None)),
        (logits(40, 5) + 1j, {}, ("values", None)),
    ],
)
def test_the_other_is_found_where_one_is_given(
    array: NDArray[Any], given: dict[str, Any], expected: tuple[str, int | None] | None
) -> None:
    if expected is None:
        with pytest.raises(ca.EnsembleError, match="could be several things"):
            found(array, **given)
    else:
        assert found(array, **given) == expected


def test_sums_that_may_be_chance_are_none() -> None:
    one = softmax(logits(1, 3))
    assert found(as_numpy(one, "float32")) == ("probabilities", -1)
    # A logit of half precision has a hundredth of a chance to be in a sum of 1.
    for rows in (one, np.repeat(one, 40, axis=0)):
        with pytest.raises(ca.EnsembleError, match=r'outputs="probabilities", class_axis=-1.*, or'):
            found(as_torch(rows, "bfloat16"))


def test_the_model_is_believed_where_nothing_is_given() -> None:
    said = Reading("probabilities", -1)
    one = softmax(logits(1, 2))
    assert found(as_torch(one, "bfloat16"), said=said) == said
    assert found(logits(40, 1), said=Reading("values", None)) == ("values", None)
    assert found(logits(40, 1), said=Reading("logits", None)) == ("logits", None)
    assert found(logits(40, 4), said=Reading("logits", -1), class_axis=None) == ("logits", None)
    assert found(logits(9, 4, 2), said=Reading("logits", -1), class_axis=1) == ("logits", 1)
    assert found(logits(40, 4), said=Reading("values", None), class_axis=-1) == ("logits", -1)
    assert found(logits(40, 4), "values", said=said) == ("values", None)
    with pytest.raises(
        ca.EnsembleError, match=r"lie in \[0, 1\] and sum to 1.*since the model say"
    ):
        found(logits(40, 4), said=said)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_that_are_none_are_refused(kind: str) -> None:
    for array, axis, wrong in (
        (logits(40, 5), -1, r"\[0, 1\] and sum to 1 along axis -1"),
        (unit(40, 5), -1, r"sum to 1 along axis -1"),
        (softmax(logits(40, 5, 6), 1), -1, r"sum to 1 along axis -1"),
        (1.1 * unit(40, 5) + 0.1, None, r"must lie in \[0, 1\]\. Received: .* to 1\.1"),
    ):
        with pytest.raises(ca.EnsembleError, match=wrong):
            found(KINDS[kind](array, "float32"), "probabilities", axis)
    # Later batches too.
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    finder.look(KINDS[kind](softmax(logits(40, 5)), "float32"), ["a member"])
    with pytest.raises(ca.EnsembleError, match="as the first output was"):
        finder.look(KINDS[kind](logits(40, 5), "float32"), ["a member"])


def test_logits_that_are_probabilities_are_said_once() -> None:
    finder = FoundOutputs("logits", -1, "probabilities", None)
    finder.look(logits(40, 5), ["a member"])
    with pytest.warns(UserWarning, match=r"sum to 1 along axis -1 already.*outputs=\"probabilit"):
        finder.look(softmax(logits(40, 5)), ["a member"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finder.look(softmax(logits(40, 5)), ["a member"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", ["auto", "logits", "probabilities", "values"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_names_the_member(
    kind: str, outputs: str, value: float
) -> None:
    array = logits(40, 5)
    array[3, 2] = value
    given: Any = outputs
    finder = FoundOutputs(given, -1 if given != "values" else None, "probabilities", None)
    with pytest.raises(ca.EnsembleError, match=r"finite\. Received: NaN or infinity from the one"):
        finder.look(KINDS[kind](array, "float32"), ["the one"])


def test_of_stacked_outputs_each_member_is_looked_at() -> None:
    stacked = np.stack([logits(40, 5), logits(40, 5)])
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    finder.look(stacked, ["first", "second"], stacked=True)
    assert finder.spec == OutputSpec("logits", -1, "probabilities")
    stacked[1, 0, 0] = np.nan
    with pytest.raises(ca.EnsembleError, match="from second"):
        finder.look(stacked, ["first", "second"], stacked=True)


def test_what_has_no_samples_settles_nothing() -> None:
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    finder.look(np.ones((0, 3)), ["a member"])
    assert finder.spec.pooling == "probabilities"
    finder.look(logits(40, 3), ["a member"])
    assert finder.spec == OutputSpec("logits", -1, "probabilities")


def test_minus_infinity_is_a_logit() -> None:
    array = logits(40, 5)
    array[:, 1] = -np.inf
    assert found(array) == ("logits", -1)


def test_values_are_expected_for_a_variance() -> None:
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    finder.expect_values()
    finder.look(logits(40, 1), ["a member"])
    assert finder.spec == OutputSpec("values", None, "probabilities")
    for outputs, said in (("logits", None), ("auto", Reading("logits", -1))):
        known = FoundOutputs(outputs, "auto", "probabilities", said)  # type: ignore[arg-type]
        with pytest.raises(ca.EnsembleError, match=r"'gaussian' for a variance.*'logits', s"):
            known.expect_values()


def test_the_class_axis_of_a_choice_is_taken_over() -> None:
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    finder.expect_class_axis(1, "The choice")
    finder.look(logits(6, 3, 8, 9), ["a member"])
    assert finder.spec == OutputSpec("logits", 1, "probabilities")
    with pytest.raises(ca.EnsembleError, match=r"The choice must be with class_axis=1\. Received"):
        finder.expect_class_axis(-1, "The choice")
    flat = FoundOutputs("auto", "auto", "probabilities", None)
    flat.look(logits(40, 3), ["a member"])
    flat.expect_class_axis(1, "The choice")  # of two axes, the last one
    with pytest.raises(ca.EnsembleError, match="class_axis=None"):
        flat.expect_class_axis(None, "The choice")


def test_threads_find_one_and_the_same() -> None:
    finder = FoundOutputs("auto", "auto", "probabilities", None)
    arrays = [logits(40, 5), softmax(logits(40, 5))] * 8
    refused: list[ca.EnsembleError] = []

    def look(array: NDArray[Any]) -> None:
        try:
            finder.look(array, ["a member"])
        except ca.EnsembleError as error:
            refused.append(error)

    threads = [threading.Thread(target=look, args=(array,)) for array in arrays]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(refused) == (8 if finder.spec.outputs == "probabilities" else 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "outputs"), [((9,), "logits"), ((9, 4), "auto")])
def test_numbers_of_classes_are_no_logits(kind: str, shape: tuple[int, ...], outputs: str) -> None:
    classes = KINDS[kind](RANDOM.integers(0, 5, size=shape), "int64")
    with pytest.raises(ca.EnsembleError, match=r"floating dtype.*int64.*before the argmax$"):
        found(classes, outputs)
    assert found(classes, "values") == ("values", None)
    one_hot = KINDS[kind](np.eye(4)[RANDOM.integers(0, 4, size=9)], "int64")
    assert found(one_hot, "probabilities", -1) == ("probabilities", -1)
