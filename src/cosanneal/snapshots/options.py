"""What every recorder takes by keyword, and what of it can be checked early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict

from ..core.errors import SnapshotError, shown
from ..core.keywords import check_options
from .job import OnDurable
from .notices import OnError
from .part import Which
from .retention import Mode, Retention, check_count

Metrics: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None


class RecorderOptions(TypedDict, total=False):
    """What every recorder takes by keyword.

    Args:
        resume_from: the number of updates the run had done when it was
            interrupted. Snapshots up to there are kept, later ones replaced (the
            run will make them again); 0 starts over. What is replaced stays
            until the run's next snapshot is durable, and goes then at once.
        overwrite: replace in that way also the snapshots of another schedule or
            model, which are refused otherwise. Without `resume_from`, start over.
            (One that was `extended` is not another: up to there its cycles are the same.)
        background: False writes, and raises errors, within the call that takes it.
        max_pending: so many snapshots are in flight at most, each with held
            memory for one copy of the weights. The next one waits.
        on_durable: a function of a Snapshot, called when its file is there (of a folder at a
            URL, in the store): after the rename and the folder's sync, before anything is
            removed for it, and counted as `durable` by then. In the thread that writes, oldest
            first, one call at a time; the next snapshot waits, and so do `wait` and `close`. So
            it must not step, wait for or close the recorder. An error in it comes as
            that of a write does; the file stays, and nothing is removed until a
            later call went well. Of several processes, in that of rank 0 alone; not for
            the files that a resumed run finds. A mirror at a second place is
            `on_durable=lambda s: shutil.copy(s.path, "/backup")`.
        on_error: what a snapshot that cannot be written does: "raise" a
            SnapshotError at the next call, or "warn" there. Tensors or metrics
            that cannot be recorded are always raised, where they came.
        keep_last: keep only so many of the newest snapshots.
        keep_best: keep only so many of the best by `metric`, and with
            `keep_last` those too. Others are deleted once the newer one is
            durable. A run killed and resumed ends with those of one that was
            not; until it is past that step, there may be fewer.
        metric: the name of the metric for `keep_best`, which every snapshot's
            metrics must then hold.
        mode: whether the metric's "min" or "max" is best.
        metrics: a function that returns the user's own numbers for a snapshot, as a
            dict; called at a cycle's end, unless that call brings some.
        install_sigterm: when SIGTERM comes, write what was taken, then go on to
            the handler that was there (by default, the process ends of it).
        which: which of the model's tensors are recorded: "all"; "trainable"; or
            a function of a tensor's name that says so, such as
            `lambda name: "lora_" in name`. What is left out is not copied, and
            must stay as it is: a snapshot keeps a digest of each such tensor, and
            an ensemble takes it from the model. It is read once, at the first
            snapshot (about a second for 8 GB), and looked at with each later one.
        sharded: each process writes the parts of the weights that it holds, and nothing is
            gathered: for a model larger than one host. All must reach the same folder.
            Rank 0 names the snapshot when all of its parts are there.
    """

    resume_from: int | None
    overwrite: bool
    background: bool
    max_pending: int
    on_durable: OnDurable | None
    on_error: OnError
    keep_last: int | None
    keep_best: int | None
    metric: str | None
    mode: Mode
    metrics: Callable[[], Mapping[str, Any]] | None
    install_sigterm: bool
    which: Which
    sharded: bool


def checked_options(name: str, options: RecorderOptions) -> Retention:
    """What options say of the snapshots that are kept; all that can be known early is checked."""
    # An adapter's, that has a `Recorder`, is called as those that are one.
    public = "SnapshotRecorder" if name == "Recorder" else name
    check_options(public, options, RecorderOptions.__annotations__)
    retention = Retention(
        keep_last=options.get("keep_last"),
        keep_best=options.get("keep_best"),
        metric=options.get("metric"),
        mode=options.get("mode", "min"),
    )
    check_count("max_pending", options.get("max_pending", 1))
    metrics = options.get("metrics")
    if metrics is not None and not callable(metrics):
        raise SnapshotError(
            "Argument `metrics` must be a function that returns a dict, since it is called "
            f"at each cycle's end. Received: {shown(metrics)}"
        )
    on_durable = options.get("on_durable")
    if on_durable is not None and not callable(on_durable):
        raise SnapshotError(
            "Argument `on_durable` must be a function of a Snapshot, since it is called when its "
            f"file is there. Received: {shown(on_durable)}"
        )
    return retention
