"""What may be done to params and to an optimizer's state at a restart, beside raising the rate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...core.errors import ScheduleError
from ...core.restarts import check_shares


def shrink_and_perturb(
    params: Any, fresh: Any, *, shrink: float = 0.8, perturb: float = 0.2
) -> Any:
    """Params that are shrunk at a restart, and have a share of fresh ones added.

    `w = shrink * w + perturb * fresh`

    A pure function, also within jit. Call it when a cycle has ended and its snapshot was
    taken, so after `recorder.step(params)`, and not after the last cycle: the example's
    `restarts` are the right moments. Called before it, the snapshot would be of the shrunk
    params. Draw the fresh ones from a key and the cycle's number, as the example does, and save
    a checkpoint after it: a resumed run then goes on bit for bit.

    Leaves of a floating or complex dtype take part; keys, integers and booleans stay. Give
    the params alone, and no running statistics (as Flax's `batch_stats`): these follow the
    new weights by themselves. Leave out params that are not trained, too. The optimizer's
    state stays: see `reset_momentum`.

    Whether it pays, and how the shares were chosen, is on the page on restarts: it may gain where
    the budget is long, and loses where it is short.

    Args:
        params: the pytree of the params.
        fresh: a pytree of the same structure and shapes, newly initialized.
        shrink: the share of the old params, from 0 to 1.
        perturb: the share of the fresh ones, from 0 to 1.

    Returns:
        The new params, each in the dtype it had.

    Raises:
        ScheduleError: a share that cannot be, or pytrees that do not fit.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training", 2020,
    arXiv:1910.08475, section 4.

    Example:
        >>> import tempfile
        >>> import jax, jax.numpy as jnp, optax
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.jax import SnapshotRecorder, cyclic_cosine_schedule
        >>> from cosanneal.adapters.jax import reset_momentum, shrink_and_perturb
        >>> init = lambda key: {"w": jax.random.normal(key, (2,))}
        >>> key = jax.random.key(0)
        >>> params = init(key)
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> tx = optax.sgd(cyclic_cosine_schedule(schedule), momentum=0.9)
        >>> opt_state = tx.init(params)
        >>> restarts = {cycle.start: cycle.index for cycle in schedule.cycles()[1:]}
        >>> with SnapshotRecorder(tempfile.mkdtemp(), schedule) as recorder:
        ...     for step in range(6):
        ...         slopes = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        ...         updates, opt_state = tx.update(slopes, opt_state, params)
        ...         params = optax.apply_updates(params, updates)
        ...         taken = recorder.step(params)  # the snapshot is taken here
        ...         if step + 1 in restarts:
        ...             fresh = init(jax.random.fold_in(key, restarts[step + 1]))
        ...             params = shrink_and_perturb(params, fresh)
        ...             opt_state = reset_momentum(tx, opt_state, params)
        >>> restarts
        {3: 1}
    """
    shrink, perturb = check_shares(shrink, perturb)
    ours, structure = jax.tree_util.tree_flatten_with_path(params)
    theirs, other = jax.tree_util.tree_flatten(fresh)
    if structure != other:
        raise ScheduleError(
            "Argument `fresh` must be a pytree of the params' structure. "
            f"Received: {other}, for {structure}"
        )
    mixed = []
    for (path, old), new in zip(ours, theirs, strict=True):
        if jnp.shape(old) != jnp.shape(new):
            raise ScheduleError(
                "Argument `fresh` must have the params' shapes. Received: for "
                f"params{jax.tree_util.keystr(path)} of shape {jnp.shape(old)} one of shape "
                f"{jnp.shape(new)}"
            )
        dtype = old.dtype if hasattr(old, "dtype") else jnp.asarray(old).dtype
        if jnp.issubdtype(dtype, jnp.inexact):
            old = (shrink * jnp.asarray(old) + perturb * jnp.asarray(new)).astype(dtype)
        mixed.append(old)
    return jax.tree_util.tree_unflatten(structure, mixed)


def reset_momentum(tx: optax.GradientTransformation, opt_state: Any, params: Any) -> Any:
    """A state in which an optimizer has forgotten earlier updates, as at a restart.

    Each part of the state that holds something of the params' kind (momentum, the moments of
    Adam and its kin) is as `tx.init(params)` makes it, with the count by which it corrects its
    bias. All else stays: the counts of schedules above all, so that the rate goes on where it
    was; injected hyperparameters, and random keys. Without it, the first updates of a cycle go on
    in the direction of the last.

    A pure function, also within jit.

    Args:
        tx: the optimizer.
        opt_state: its state.
        params: the params, whose shapes count.

    Returns:
        The new state.

    Raises:
        ScheduleError: a state that is not this optimizer's.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from cosanneal.adapters.jax import reset_momentum
        >>> tx = optax.sgd(lambda step: 0.5, momentum=0.9)
        >>> params = {"w": jnp.ones(1)}
        >>> opt_state = tx.init(params)
        >>> _, opt_state = tx.update({"w": jnp.full(1, 0.5)}, opt_state)
        >>> opt_state = reset_momentum(tx, opt_state, params)
        >>> print(opt_state[0].trace["w"], opt_state[1].count)
        [0.] 1
    """
    new = tx.init(params)
    if jax.tree_util.tree_structure(new) != jax.tree_util.tree_structure(opt_state):
        raise ScheduleError(
            "Argument `opt_state` must be a state of the optimizer `tx`, for these params. "
            f"Received: {jax.tree_util.tree_structure(opt_state)}, for "
            f"{jax.tree_util.tree_structure(new)}"
        )
    # Where the state holds what has the params' structure.
    moments = optax.tree_utils.tree_map_params(
        tx, lambda _: True, new, transform_non_params=lambda _: False
    )
    return _forgotten(opt_state, new, moments, jax.tree_util.tree_structure(params))


def _forgotten(old: Any, new: Any, moments: Any, params: Any) -> Any:
    """The old state, but for its nodes that hold moments themselves, which are new.

    Args:
        old: the state, or a part of it.
        new: the same of a new optimizer.
        moments: the same, with True where there is something of the params' kind.
        params: their structure.
    """
    if isinstance(old, optax.MultiStepsState):
        # Its gradients are of an update that is still to be done, and its counts of the run.
        states = old.inner_opt_state, new.inner_opt_state, moments.inner_opt_state
        return old._replace(inner_opt_state=_forgotten(*states, params))
    children, structure = _children(old)
    if structure is None:
        return new if moments else old
    marks = _children(moments)[0]
    if type(old) not in (tuple, list, dict) and any(_is_moment(each, params) for each in marks):
        return new
    parts = zip(children, _children(new)[0], marks, strict=True)
    return jax.tree_util.tree_unflatten(
        structure, [_forgotten(a, b, marks, params) for a, b, marks in parts]
    )


def _children(node: Any) -> tuple[list[Any], Any]:
    """What lies one level below a node, and its structure; None where it is a leaf."""
    children, structure = jax.tree_util.tree_flatten(node, is_leaf=lambda each: each is not node)
    is_leaf = len(children) == 1 and children[0] is node
    return children, None if is_leaf else structure


def _is_moment(marks: Any, params: Any) -> bool:
    """Whether a field has the params' structure, where optax masks none, and is of their kind."""
    found = jax.tree_util.tree_leaves(marks)
    if not found or not all(found):
        return False
    try:
        parts = params.flatten_up_to(marks)
    except ValueError:
        return False
    return all(each is True or isinstance(each, optax.MaskedNode) for each in parts)
