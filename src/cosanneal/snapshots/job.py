"""What the background does with a copy of the weights: a durable file, and then room for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import safetensors

from ..core.errors import SnapshotError
from ..core.schedule import Cycle, Schedule
from ..core.version import __version__
from .assembly import Share
from .capture import HostBuffers, Standing
from .file import TensorBytes
from .finite import first_nonfinite
from .notices import Notices
from .part import RestDigests
from .pieces import Index
from .resume import Run
from .statistics import Statistics
from .store import Snapshot
from .tenancy import Onlooker, Tenancy

# What is called with a snapshot when its file is there.
OnDurable: TypeAlias = Callable[[Snapshot], object]


def written(
    tenancy: Tenancy | Onlooker,
    tensors: Mapping[str, TensorBytes],
    rest: RestDigests | None,
    *,
    cycle: Cycle,
    at: Standing,
    schedule: Schedule,
    of: tuple[str, str],
    metrics: Mapping[str, Any],
    nonfinite: str | None,
    parts: Index | None = None,
) -> Snapshot:
    """Write a snapshot of weights of a framework, `of` which name and version."""
    return tenancy.confirmed().write(
        tensors,
        cycle=cycle.index,
        step=at.updates,
        schedule_step=at.position,
        rate=schedule.rate(max(at.position - 1, 0)) if at.rate is None else at.rate,
        schedule=schedule,
        framework=of[0],
        versions={
            "cosanneal": __version__,
            "safetensors": safetensors.__version__,
            of[0]: of[1],
        },
        metrics=metrics,
        nonfinite=nonfinite,
        rest=rest,
        parts=parts,
    )


def made_here(
    tensors: Mapping[str, TensorBytes], make: Callable[..., Snapshot]
) -> tuple[Snapshot, str | None]:
    """Make the snapshot of weights that this process has whole; and their tensor with a NaN."""
    lost = first_nonfinite(tensors)
    return make(nonfinite=lost), lost


def write_share(share: Share, buffers: HostBuffers, statistics: Statistics) -> None:
    """Make this process' parts of a snapshot durable, of which rank 0 makes it whole."""
    began = time.perf_counter()
    try:
        share.arrive(buffers)
        share.write()
    except BaseException:
        statistics.failed += 1
        raise
    finally:
        statistics.writing_seconds += time.perf_counter() - began
    statistics.data_bytes += sum(tensor.data.nbytes for tensor in share.tensors.values())
    statistics.durable += 1


def write(
    buffers: HostBuffers,
    tensors: Mapping[str, TensorBytes],
    make: Callable[[], tuple[Snapshot, str | None]],
    run: Run,
    statistics: Statistics,
    notices: Notices,
    on_durable: OnDurable | None = None,
) -> None:
    """Make the copied weights durable, say so, then remove what need not be kept any more."""
    began = time.perf_counter()
    try:
        buffers.arrive()
        snapshot, lost = make()
        if lost is not None:
            notices.warn(
                f"The weights at update {snapshot.step} are not finite: tensor {lost!r} holds NaN "
                f"or an infinity, and so does {snapshot.path}. The run has diverged: resume from "
                "an earlier snapshot with a lower rate; an ensemble refuses this one, and leaves "
                "it out by members=",
                once="nonfinite",
            )
    except BaseException:
        statistics.failed += 1
        raise
    finally:
        statistics.writing_seconds += time.perf_counter() - began
    same = run.unchanged_since(snapshot)
    if same is not None:
        notices.note(
            f"The weights at update {snapshot.step} are those at update {same}, to the last bit: "
            "none was trained in between. Give the recorder the weights that the optimizer trains",
            once="unchanged",
        )
    statistics.data_bytes += sum(tensor.data.nbytes for tensor in tensors.values())
    statistics.durable += 1
    if on_durable is not None:
        # Before anything is removed, which may be this very snapshot. Where the call fails, as a
        # mirror's may, what is here is kept; the next one that goes well makes up for it.
        try:
            on_durable(snapshot)
        except (Exception, SystemExit) as error:  # or the thread would end, and its waiter not
            raise SnapshotError(
                "Function `on_durable` must take a snapshot that is there. Received: "
                f"{type(error).__name__}: {error}, from its call with {snapshot.path}, which is "
                "durable and stays; mend the function, or call it again with that snapshot"
            ) from error
    run.written(snapshot)
