"""Schedulers of ours, in what others run them by."""

from __future__ import annotations

from collections.abc import Iterator

from .scheduler import CyclicCosineLR


def schedulers_within(scheduler: object) -> Iterator[CyclicCosineLR]:
    """A scheduler that is ours, or those within accelerate's wrapper, SequentialLR and such."""
    if isinstance(scheduler, CyclicCosineLR):
        yield scheduler
        return
    if hasattr(scheduler, "scheduler"):
        yield from schedulers_within(scheduler.scheduler)
    for each in getattr(scheduler, "_schedulers", ()):
        yield from schedulers_within(each)
