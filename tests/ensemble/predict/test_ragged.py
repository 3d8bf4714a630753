"""Results of batches of other lengths: as a list, padded, or as rows of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cosanneal as ca
from cosanneal.ensemble.predict.ragged import as_label_rows, as_output_rows, counts_of_rows, laid


def concatenate(parts: Any) -> Any:
    return torch.cat(list(parts)) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)


def drawn(*shapes: tuple[int, ...], dtype: Any = np.float32) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(dtype) for shape in shapes]


def test_parts_of_one_shape_are_one_array() -> None:
    parts = drawn((4, 3), (2, 3))
    np.testing.assert_array_equal(laid(concatenate, parts, -1, "error"), np.concatenate(parts))
    assert laid(concatenate, parts, -1, "list") == parts
    padded, mask = laid(concatenate, parts, -1, "pad")
    np.testing.assert_array_equal(padded, np.concatenate(parts))
    assert mask.tolist() == [True] * 6


def test_parts_of_several_shapes_are_refused_where_nothing_was_said() -> None:
    message = (
        r"rows of shape \(7, 3\) for batch 1, after \(5, 3\); give ragged='list' for a list "
        r"with an array for each batch, or ragged='pad'"
    )
    with pytest.raises(ca.EnsembleError, match=message):
        laid(concatenate, drawn((4, 5, 3), (4, 7, 3)), -1, "error")
    with pytest.raises(ca.EnsembleError, match=r"`ragged` must be 'error', 'list' or 'pad'"):
        laid(concatenate, drawn((4, 3)), -1, "yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_padding_of_a_tensor(dtype: Any) -> None:
    parts = [torch.from_numpy(each).to(dtype) for each in drawn((2, 3, 4, 5), (1, 3, 6, 2))]
    padded, mask = laid(concatenate, parts, 1, "pad")
    assert (padded.dtype, tuple(padded.shape)) == (dtype, (3, 3, 6, 5))
    assert (mask.dtype, tuple(mask.shape)) == (torch.bool, (3, 6, 5))
    expected = torch.zeros(3, 3, 6, 5, dtype=dtype)
    for i, (part, row) in enumerate([(parts[0], 0), (parts[0], 1), (parts[1], 0)]):
        for c in range(3):
            for h in range(part.shape[2]):
                for w in range(part.shape[3]):
                    expected[i, c, h, w] = part[row, c, h, w]
                    assert mask[i, h, w]
    assert torch.equal(padded, expected)
    assert int(mask.sum()) == 2 * 4 * 5 + 6 * 2


def test_a_mask_of_outcomes_or_values_has_their_shape() -> None:
    padded, mask = laid(concatenate, drawn((2, 3), (1, 4)), None, "pad")
    assert padded.shape == mask.shape == (3, 4)
    assert mask.tolist() == [[True] * 3 + [False]] * 2 + [[True] * 4]


@pytest.mark.parametrize("ragged", ["pad", "rows"])
def test_what_cannot_be_padded_is_refused(ragged: str) -> None:
    parts = drawn((2, 3, 4), (2, 3, 5))
    with pytest.raises(ca.EnsembleError, match=r"one number of classes.*Received: 5.*after 4"):
        laid(concatenate, parts, -1, "pad") if ragged == "pad" else as_output_rows(parts, -1)
    with pytest.raises(ca.EnsembleError, match=r"one number of axes.*\(2, 3, 1\).*after \(2, 3\)"):
        laid(concatenate, drawn((2, 3), (2, 3, 1)), None, "pad")


@pytest.mark.parametrize("class_axis", [1, -1, -2, None])
def test_rows_are_in_the_order_of_their_labels(class_axis: int | None) -> None:
    """By a loop over every label."""
    parts = drawn((2, 3, 4, 3), (1, 3, 5, 3), dtype=np.float64)
    if class_axis == -2:
        parts = [np.moveaxis(each, 1, 2) for each in parts]
    rows = as_output_rows(parts, class_axis)
    labels: list[Any] = []
    samples: list[int] = []
    expected: list[Any] = []
    sample = 0
    for part in parts:
        axis = None if class_axis is None else class_axis % part.ndim
        shape = [size for i, size in enumerate(part.shape) if i != axis]
        labels.append(np.arange(np.prod(shape)).reshape(shape) + 100 * len(labels))
        for place in np.ndindex(*shape):
            index: list[Any] = list(place)
            if axis is not None:
                index.insert(axis, slice(None))
            expected.append(part[tuple(index)])
            samples.append(sample + place[0])
        sample += len(part)
    np.testing.assert_array_equal(rows, np.stack(expected))
    shapes = [part.shape for part in parts]
    found = as_label_rows(labels, shapes, class_axis)
    assert found.tolist() == [label for each in labels for label in each.reshape(-1)]
    counts = counts_of_rows(shapes, class_axis)
    assert np.repeat(np.arange(3), counts).tolist() == samples


def test_rows_of_one_hot_labels() -> None:
    shapes = [(2, 3, 4), (1, 3, 5)]
    labels = drawn(*shapes)
    found = as_label_rows(labels, shapes, 1)
    np.testing.assert_array_equal(found, as_output_rows(labels, 1))


def test_rows_stay_of_their_kind() -> None:
    parts = [torch.from_numpy(each).bfloat16() for each in drawn((2, 4, 3), (1, 5, 3))]
    rows = as_output_rows(parts, -1)
    assert (rows.dtype, tuple(rows.shape)) == (torch.bfloat16, (13, 3))
    assert torch.equal(rows, torch.cat([each.reshape(-1, 3) for each in parts]))


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ([np.zeros((2, 4)), np.zeros((1, 4))], r"\(1, 4\) for batch 1, of outputs \(1, 5, 3\)"),
        ([np.zeros(2), np.zeros(1)], r"\(2,\) for batch 0, of outputs \(2, 4, 3\)"),
        ([np.zeros((2, 4))], r"1 for 2 batches"),
        (np.zeros((3, 4)), r"an array"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, received: str) -> None:
    with pytest.raises(ca.EnsembleError, match=rf"list .* each batch.*Received: .*{received}"):
        as_label_rows(labels, [(2, 4, 3), (1, 5, 3)], -1)
