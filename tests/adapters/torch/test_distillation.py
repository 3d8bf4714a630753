"""The loss of a distillation in torch: its value, its gradient, its edges, and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cosanneal.adapters.torch import distillation_loss
from cosanneal.core.errors import EnsembleError
from tests.shared.distilled import case, exact, refused, slopes

F64 = torch.float64


def given(**kind: Any) -> tuple[Tensor, Tensor, Tensor]:
    logits, q, labels = case(**kind)
    return torch.tensor(logits), torch.tensor(q), torch.tensor(labels)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 7), (1, 2)])
def test_it_is_the_one_of_float64(temperature: float, alpha: float, shape: tuple[int, ...]) -> None:
    logits, q, labels = given(shape=shape)
    options = {"temperature": temperature, "alpha": alpha}
    expected = exact(logits, q, labels, **options)
    found = distillation_loss(logits, q, labels, **options)
    assert found.dtype == F64
    assert found.item() == pytest.approx(expected, rel=1e-12)
    narrow = distillation_loss(logits.float(), q.float(), labels.int(), **options)
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(expected, rel=1e-5, abs=1e-6 * temperature**2)


def test_without_labels_it_is_the_divergence_alone() -> None:
    logits, q, _ = given()
    expected = exact(logits, q, None, temperature=3.0)
    for alpha in (0.0, 0.5):
        found = distillation_loss(logits, q, temperature=3.0, alpha=alpha).item()
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_differences_and_by_the_logits_alone() -> None:
    logits, q, labels = given(zeros=True)
    logits.requires_grad_(), q.requires_grad_()
    options = {"temperature": 2.5, "alpha": 0.7}
    distillation_loss(logits, q, labels, **options).backward()
    assert q.grad is None
    assert logits.grad is not None
    expected = slopes(logits.detach(), q.detach(), labels, **options)
    np.testing.assert_allclose(logits.grad, expected, rtol=0, atol=1e-8)
    assert np.abs(expected).max() > 0.01


def test_a_class_without_probability_adds_nothing() -> None:
    logits, q, labels = given(zeros=True)
    assert (q == 0).any()
    found = distillation_loss(logits, q, labels, temperature=2.0).item()
    assert found == pytest.approx(exact(logits, q, labels, temperature=2.0), rel=1e-12)
    # Nor does a class that the student leaves out by -inf.
    logits, q = (
        torch.tensor([[0.0, 1.0, -torch.inf]], requires_grad=True),
        torch.tensor([[0.5, 0.5, 0]]),
    )
    loss = distillation_loss(logits, q)
    torch.testing.assert_close(loss, distillation_loss(logits[:, :2], q[:, :2]))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_huge_logits_overflow_nothing(dtype: torch.dtype, temperature: float) -> None:
    big = torch.finfo(dtype).max
    logits = torch.tensor([[big, -big, -big]], dtype=dtype, requires_grad=True)
    q = torch.tensor([[1.0, 0.0, 0.0]])
    loss = distillation_loss(logits, q, torch.tensor([0]), temperature=temperature)
    loss.backward()
    assert loss.dtype == dtype
    assert logits.grad is not None
    assert loss == 0  # the student says the same as the ensemble
    assert logits.grad.isfinite().all()


def test_probabilities_smaller_than_float32_count_at_a_temperature() -> None:
    logits, q = torch.tensor([[0.0, -1.0]]), torch.tensor([[1.0, 1e-60]], dtype=F64)
    found = distillation_loss(logits, q, temperature=30.0).item()
    assert found == pytest.approx(exact(logits.double(), q, None, temperature=30.0), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_compiled_and_mapped_it_is_the_same() -> None:
    logits, q, labels = given()
    expected = distillation_loss(logits, q, labels, temperature=2.0)
    compiled = torch.compile(distillation_loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, q, labels, temperature=2.0), expected)
    each = torch.func.vmap(lambda *row: distillation_loss(*row, temperature=2.0))
    torch.testing.assert_close(each(logits, q, labels).mean(), expected)


@pytest.mark.parametrize(("name", "message"), refused())
def test_what_cannot_be_is_refused(name: str, message: str) -> None:
    arrays, options = refused()[name, message]
    with pytest.raises(EnsembleError, match=message):
        distillation_loss(*(torch.tensor(each) for each in arrays), **options)


def test_a_label_that_is_no_class_is_torchs_own_error() -> None:
    logits, q, labels = given()
    for wrong in (-100, -1, 7):
        labels[0] = wrong
        with pytest.raises(RuntimeError, match="out of bounds"):
            distillation_loss(logits, q, labels)


def test_an_infinite_part_that_does_not_count_is_left_out() -> None:
    logits, q = torch.tensor([[0.0, 1.0, -torch.inf]]), torch.full((1, 3), 1 / 3)
    labels = torch.tensor([1])
    assert torch.isposinf(distillation_loss(logits, q, labels))
    found = float(distillation_loss(logits, q, labels, alpha=0.0))
    assert found == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
