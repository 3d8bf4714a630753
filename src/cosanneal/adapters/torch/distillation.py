"""The loss of a model that is trained on what an ensemble predicts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ...ensemble.distillation import check_dtypes, check_numbers, check_shapes


def distillation_loss(
    logits: Tensor,
    probabilities: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
) -> Tensor:
    """The loss of a model that is trained on what an ensemble predicts.

    `alpha * T**2 * KL(q_T || softmax(logits / T)) + (1 - alpha) * cross-entropy(logits, labels)`

    `q` are the ensemble's probabilities, `T` is the temperature, and
    `q_T = q**(1/T) / sum(q**(1/T))`. It is the mean over the samples; the
    cross-entropy is taken at the temperature 1. Without labels it is
    `T**2 * KL` alone, and `alpha` has no part in it. Its gradient is by the
    logits only: the probabilities are constants.

    Classes with the probability 0 add nothing. Logits may be of any size, and
    -inf where the probability is 0. It is computed in float32, or in float64
    where the logits are. The value (not its gradient) is a small difference times
    `T**2`: at `T = 100` float32 leaves some 1e-3 of it open.

    Args:
        logits: the student's, of shape (..., classes), before any softmax.
        probabilities: what `SnapshotEnsemble.predict` gives for the same batch,
            of the same shape.
        labels: the numbers of the classes, integers of shape (...); or None.
            A number that is no class is torch's own error.
        temperature: from 0.001 to 1000, a number; above 1, the classes that
            the ensemble holds for unlikely count for more.
        alpha: the ensemble's part where there are labels, from 0 to 1.

    Returns:
        The loss, a scalar in the logits' dtype.

    Raises:
        EnsembleError: shapes that do not fit, logits that are integers, labels that
            are not, or a temperature or an alpha that cannot be.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
    Network", 2015, arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> from cosanneal.adapters.torch import distillation_loss
        >>> probabilities = torch.tensor([[0.7, 0.2, 0.1]])  # ensemble.predict(x)
        >>> logits = torch.zeros(1, 3, requires_grad=True)  # student(x)
        >>> loss = distillation_loss(logits, probabilities)
        >>> loss.backward()
        >>> print(f"{loss.item():.4f}", logits.grad)
        0.2968 tensor([[-0.3667,  0.1333,  0.2333]])
        >>> labels = torch.tensor([0])
        >>> loss = distillation_loss(logits, probabilities, labels, temperature=2.0, alpha=0.9)
        >>> print(f"{loss.item():.4f}")
        0.4081
    """
    temperature, alpha = check_numbers(temperature, alpha)
    check_shapes(logits.shape, probabilities.shape, None if labels is None else labels.shape)
    check_dtypes(
        str(logits.dtype),
        None if labels is None else str(labels.dtype),
        floats=logits.is_floating_point(),
        integers=labels is not None and labels.dtype in _INTEGERS,
    )
    wide = torch.promote_types(logits.dtype, torch.float32)
    # The largest logit becomes 0, so that none leaves the range over a small temperature. It
    # takes no part in the gradient, which does not depend on it.
    z = logits.to(wide)
    z = z - z.detach().amax(dim=-1, keepdim=True)

    if labels is None:
        alpha = 1.0
    loss = z.new_zeros(())
    # A part that does not count is left out: 0 times an infinite one would be NaN.
    if alpha > 0:
        loss = loss + alpha * temperature**2 * _divergence(z, probabilities, temperature).mean()
    if labels is not None and alpha < 1:
        chosen = log_softmax(z, dim=-1).gather(-1, labels.long().unsqueeze(-1))
        loss = loss - (1 - alpha) * chosen.mean()
    return loss.to(logits.dtype)


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _divergence(z: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """KL(q_T || softmax(z / T)) of each sample."""
    q = probabilities.detach()
    # The logarithm in the probabilities' own dtype, which may hold smaller ones.
    log_q = q.to(torch.promote_types(q.dtype, torch.float32)).log().to(z.dtype)
    log_q = log_softmax(log_q / temperature, dim=-1)
    q = log_q.exp()
    log_p = log_softmax(z / temperature, dim=-1)
    # 0 log 0 = 0, and 0 is its gradient.
    some = q != 0
    return (q * (log_q.where(some, 0.0) - log_p.where(some, 0.0))).sum(dim=-1)
