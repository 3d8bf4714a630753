"""What may be done to a model and its optimizer at a restart, beside raising the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...core.errors import ScheduleError, shown
from ...core.restarts import check_restart, check_shares, fresh_seed, python_seeded
from .state import is_shard, plain_name, unwrapped


def shrink_and_perturb(
    model: nn.Module,
    fresh: nn.Module | Callable[[], nn.Module],
    *,
    cycle: int | None = None,
    seed: int = 0,
    shrink: float = 0.8,
    perturb: float = 0.2,
) -> None:
    """Shrink a model's weights at a restart, and add a share of fresh ones, in place.

    `w = shrink * w + perturb * fresh`

    Call it when a cycle has ended and its snapshot was taken, so after `scheduler.step()`
    (or `recorder.step()`), and not after the last cycle: the example's `restarts` are the
    right moments. Called before `scheduler.step()`, the snapshot would be of the shrunk
    weights. Save a checkpoint after it, and a resumed run goes on bit for bit.

    All parameters that require gradients take part; tied ones once. Frozen parameters stay:
    they were not trained, and have no initialization to go back to. Buffers stay, too:
    running statistics follow the new weights by themselves within some tens of updates, and
    what is an integer (a count) has no half. The optimizer's state stays: see `reset_momentum`.

    Whether it pays, and how the shares were chosen, is on the page on restarts: it may gain where
    the budget is long, and loses where it is short.

    Args:
        model: the model.
        fresh: a function that builds a model of the same parameters, as the model's class.
            It is called with random numbers (torch's, numpy's, Python's) that come from `seed`
            and `cycle`; those of the run go on afterwards as if nothing had happened. In a
            run on several processes it gives the same weights in each. Or a second model,
            which has fresh weights.
        cycle: the number of the cycle that begins, of at least 1; needed with a function.
        seed: an integer of at least 0, of the run.
        shrink: the share of the old weights, from 0 to 1.
        perturb: the share of the fresh ones, from 0 to 1.

    Raises:
        ScheduleError: a share, a seed or a cycle that cannot be; a model whose parameters are
            others, or are the model's own; or parameters that lie on several processes.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training", 2020,
    arXiv:1910.08475, section 4.

    Example:
        >>> import tempfile, torch
        >>> import cosanneal as ca
        >>> from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
        >>> from cosanneal.adapters.torch import reset_momentum, shrink_and_perturb
        >>> build = lambda: torch.nn.Linear(2, 1)
        >>> model = build()
        >>> schedule = ca.CyclicCosine(max_lr=0.2, total_steps=6, num_cycles=2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        >>> scheduler = CyclicCosineLR(optimizer, schedule)
        >>> restarts = {cycle.start: cycle.index for cycle in schedule.cycles()[1:]}
        >>> with SnapshotRecorder(tempfile.mkdtemp(), model, scheduler):
        ...     for step in range(6):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(4, 2)).square().mean().backward()
        ...         optimizer.step()
        ...         scheduler.step()  # the snapshot is taken here
        ...         if step + 1 in restarts:
        ...             shrink_and_perturb(model, build, cycle=restarts[step + 1])
        ...             reset_momentum(optimizer)
        >>> restarts
        {3: 1}
    """
    shrink, perturb = check_shares(shrink, perturb)
    new = _fresh(fresh, cycle, seed)
    ours, theirs = _trained(model), _trained(new, every=True)
    for name, value in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != value.shape or other.is_meta:
            came = "none" if other is None else f"one of shape {tuple(other.shape)}"
            raise ScheduleError(
                "Argument `fresh` must have the model's parameters, with data, by their names. "
                f"Received: for {name!r} of shape {tuple(value.shape)} {came}"
                f"{', without data' if other is not None and other.is_meta else ''}"
            )
        if is_shard(value) or is_shard(other):
            raise ScheduleError(
                "The parameters must lie whole in this process. Received: a part of "
                f"{name!r}, whose rest others have (DTensor, ZeRO); shrink the model before it "
                "is sharded"
            )
    held = {id(each) for each in ours.values()}
    if any(id(theirs[name]) in held for name in ours):
        raise ScheduleError(
            "Argument `fresh` must be a model of its own, or a function that builds another each "
            "time. Received: one that has the model's own parameters"
        )
    with torch.no_grad():
        for name, value in ours.items():
            value.mul_(shrink).add_(theirs[name].to(value.device, value.dtype), alpha=perturb)


def reset_momentum(optimizer: Optimizer) -> None:
    """Forget what an optimizer remembers of earlier updates, as at a restart.

    Momentum, the second moments of Adam and its kin, and with them the count of updates by
    which those correct their bias: the next update is what a new optimizer's first one would
    be, at the rate that the scheduler sets. Rates and other settings stay, and so does the
    scheduler. Without it, the first updates of a cycle go on in the direction of the last.

    Args:
        optimizer: one of torch's, or one that makes what it remembers at its first update;
            also accelerate's wrapper of one.

    Raises:
        ScheduleError: no optimizer.

    Example:
        >>> import torch
        >>> from cosanneal.adapters.torch import reset_momentum
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
        >>> weight.grad = torch.tensor([0.5])
        >>> for _ in range(2):
        ...     optimizer.step()
        ...     reset_momentum(optimizer)
        >>> weight.item()  # and 0.275 with the momentum
        0.5
    """
    inner: Any = optimizer
    while not isinstance(inner, Optimizer) or type(inner).__name__ == "AcceleratedOptimizer":
        inner = getattr(inner, "optimizer", None)
        if inner is None:
            raise ScheduleError(
                "Argument `optimizer` must be a torch.optim.Optimizer. "
                f"Received: {shown(optimizer)}"
            )
    if isinstance(inner, torch.optim.Adagrad):  # the one of torch's that makes it when made
        for group in inner.param_groups:
            for weight in group["params"]:
                state = inner.state[weight]
                state["sum"].fill_(group["initial_accumulator_value"])
                state["step"].zero_()
        return
    inner.state.clear()


def _fresh(fresh: nn.Module | Callable[[], nn.Module], cycle: int | None, seed: int) -> nn.Module:
    """The model with the fresh weights."""
    if isinstance(fresh, nn.Module):
        return fresh
    if not callable(fresh):
        raise ScheduleError(
            "Argument `fresh` must be a torch.nn.Module, or a function that builds one. "
            f"Received: {shown(fresh)}"
        )
    with _seeded(fresh_seed(*check_restart(cycle, seed))):
        built = fresh()
    if not isinstance(built, nn.Module):
        raise ScheduleError(
            "Argument `fresh` must be a torch.nn.Module, or a function that builds one. "
            f"Received: a function that returns {shown(built)}"
        )
    return built


def _trained(model: nn.Module, *, every: bool = False) -> dict[str, Tensor]:
    """The parameters that are trained, tied ones once; or all, under each of their names."""
    return {
        plain_name(name): value
        for name, value in unwrapped(model).named_parameters(remove_duplicate=not every)
        if every or value.requires_grad
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed: torch's, numpy's and Python's; afterwards all are as before."""
    cuda = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if cuda else []
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices), python_seeded(seed):
            # Not torch.manual_seed, which would also seed devices that begin later.
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed_all(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
