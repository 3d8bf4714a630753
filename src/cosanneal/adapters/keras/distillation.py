"""The loss of a model that is trained on what an ensemble predicts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...ensemble.distillation import check_dtypes, check_numbers, check_shapes


def distillation_loss(
    logits: Any,
    probabilities: Any,
    labels: Any = None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
) -> Any:
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
            A number that is no class makes the loss NaN.
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
        >>> import keras, numpy as np
        >>> from cosanneal.adapters.keras import distillation_loss
        >>> probabilities = np.array([[0.7, 0.2, 0.1]], "float32")  # ensemble.predict(x)
        >>> logits = np.zeros((1, 3), "float32")  # student(x)
        >>> print(f"{float(distillation_loss(logits, probabilities)):.4f}")
        0.2968
        >>> labels = np.array([0])
        >>> loss = distillation_loss(logits, probabilities, labels, temperature=2.0, alpha=0.9)
        >>> print(f"{float(loss):.4f}")
        0.4081

        With `fit`, the probabilities are the targets:

        >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> student.compile("sgd", lambda q, z: distillation_loss(z, q, temperature=2.0))
        >>> history = student.fit(np.ones((1, 4), "float32"), probabilities, verbose=0)
    """
    temperature, alpha = check_numbers(temperature, alpha)
    logits, probabilities = ops.convert_to_tensor(logits), ops.convert_to_tensor(probabilities)
    labels = None if labels is None else ops.convert_to_tensor(labels)
    check_shapes(
        tuple(logits.shape),
        tuple(probabilities.shape),
        None if labels is None else tuple(labels.shape),
    )
    dtype, kind = (
        "" if each is None else keras.backend.standardize_dtype(each.dtype)
        for each in (logits, labels)
    )
    check_dtypes(
        dtype,
        None if labels is None else kind,
        floats="float" in dtype,
        integers="int" in kind,
    )
    # The largest logit becomes 0, so that none leaves the range over a small temperature. It
    # takes no part in the gradient, which does not depend on it.
    z = ops.cast(logits, "float64" if dtype == "float64" else "float32")
    z = z - ops.stop_gradient(ops.max(z, axis=-1, keepdims=True))

    if labels is None:
        alpha = 1.0
    loss = ops.zeros((), dtype=z.dtype)
    # A part that does not count is left out: 0 times an infinite one would be NaN.
    if alpha > 0:
        divergence = _mean(_divergence(z, probabilities, temperature))
        loss = loss + alpha * temperature**2 * divergence
    if labels is not None and alpha < 1:
        loss = loss + (1 - alpha) * _mean(_cross_entropy(z, labels))
    return ops.cast(loss, dtype)


def _divergence(z: Any, probabilities: Any, temperature: float) -> Any:
    """KL(q_T || softmax(z / T)) of each sample."""
    q = ops.stop_gradient(probabilities)
    # The logarithm in the probabilities' own dtype, which may hold smaller ones.
    own = keras.backend.standardize_dtype(q.dtype)
    log_q = ops.cast(ops.log(ops.cast(q, "float64" if own == "float64" else "float32")), z.dtype)
    log_q = ops.log_softmax(log_q / temperature, axis=-1)
    q = ops.exp(log_q)
    log_p = ops.log_softmax(z / temperature, axis=-1)
    # 0 log 0 = 0, and 0 is its gradient.
    some, none = q != 0, ops.zeros_like(q)
    return ops.sum(q * (ops.where(some, log_q, none) - ops.where(some, log_p, none)), axis=-1)


def _cross_entropy(z: Any, labels: Any) -> Any:
    """That of each sample; NaN where the label is no class, which backends read in their ways."""
    classes = z.shape[-1]
    known = ops.logical_and(labels >= 0, labels < classes)
    index = ops.expand_dims(ops.where(known, labels, ops.zeros_like(labels)), -1)
    chosen = ops.squeeze(ops.take_along_axis(ops.log_softmax(z, axis=-1), index, axis=-1), -1)
    return ops.where(known, -chosen, ops.full_like(chosen, float("nan")))


def _mean(x: Any) -> Any:
    """As `ops.mean`, which on PyTorch takes float64 through float32."""
    return ops.sum(x) / ops.sum(ops.ones_like(x))
