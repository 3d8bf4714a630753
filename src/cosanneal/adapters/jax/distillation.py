"""The loss of a model that is trained on what an ensemble predicts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import log_softmax
from jax.typing import ArrayLike

from ...ensemble.distillation import check_dtypes, check_numbers, check_shapes


def distillation_loss(
    logits: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
) -> jax.Array:
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
        >>> import jax, jax.numpy as jnp
        >>> from cosanneal.adapters.jax import distillation_loss
        >>> probabilities = jnp.array([[0.7, 0.2, 0.1]])  # ensemble.predict(x)
        >>> logits = jnp.zeros((1, 3))  # student_apply(params, x)
        >>> loss, gradient = jax.jit(jax.value_and_grad(distillation_loss))(logits, probabilities)
        >>> print(f"{loss:.4f}", [round(float(each), 4) for each in gradient[0]])
        0.2968 [-0.3667, 0.1333, 0.2333]
        >>> labels = jnp.array([0])
        >>> loss = distillation_loss(logits, probabilities, labels, temperature=2.0, alpha=0.9)
        >>> print(f"{loss:.4f}")
        0.4081
    """
    temperature, alpha = check_numbers(temperature, alpha)
    logits, probabilities = jnp.asarray(logits), jnp.asarray(probabilities)
    labels = None if labels is None else jnp.asarray(labels)
    check_shapes(logits.shape, probabilities.shape, None if labels is None else labels.shape)
    check_dtypes(
        str(logits.dtype),
        None if labels is None else str(labels.dtype),
        floats=bool(jnp.issubdtype(logits.dtype, jnp.floating)),
        integers=labels is not None and bool(jnp.issubdtype(labels.dtype, jnp.integer)),
    )
    # The largest logit becomes 0, so that none leaves the range over a small temperature. It
    # takes no part in the gradient, which does not depend on it.
    z = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    z = z - jax.lax.stop_gradient(z.max(axis=-1, keepdims=True))

    if labels is None:
        alpha = 1.0
    loss = jnp.zeros((), z.dtype)
    # A part that does not count is left out: 0 times an infinite one would be NaN.
    if alpha > 0:
        loss = loss + alpha * temperature**2 * _divergence(z, probabilities, temperature).mean()
    if labels is not None and alpha < 1:
        # Negative numbers would count from the end.
        index = jnp.where(labels < 0, z.shape[-1], labels)[..., None]
        chosen = jnp.take_along_axis(log_softmax(z), index, axis=-1, mode="fill")
        loss = loss - (1 - alpha) * chosen.mean()
    return loss.astype(logits.dtype)


def _divergence(z: jax.Array, probabilities: jax.Array, temperature: float) -> jax.Array:
    """KL(q_T || softmax(z / T)) of each sample."""
    q = jax.lax.stop_gradient(probabilities)
    # The logarithm in the probabilities' own dtype, which may hold smaller ones.
    log_q = jnp.log(q.astype(jnp.promote_types(q.dtype, jnp.float32))).astype(z.dtype)
    log_q = log_softmax(log_q / temperature)
    q = jnp.exp(log_q)
    log_p = log_softmax(z / temperature)
    # 0 log 0 = 0, and 0 is its gradient.
    some = q != 0
    return (q * (jnp.where(some, log_q, 0) - jnp.where(some, log_p, 0))).sum(axis=-1)
