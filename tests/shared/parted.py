"""A run on several processes, here threads, of which each writes blocks of numpy's arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from cosanneal.snapshots.capture import EachStep, Parts, Piece
from cosanneal.snapshots.options import Metrics, RecorderOptions
from cosanneal.snapshots.ranks import ALONE, Ranks
from cosanneal.snapshots.recorder import Recorder
from tests.shared.ranks import together
from tests.shared.recording import EVERY_STEP, ArrayCapture

# Of each tensor, where each axis is cut.
Cuts = Mapping[str, Sequence[Sequence[int]]]


def grid(shape: Sequence[int], cuts: Sequence[Sequence[int]]) -> list[tuple[slice, ...]]:
    """The blocks that cuts on each axis make of an array."""
    axes = []
    for size, own in zip(shape, cuts, strict=True):
        ends = [0, *sorted(own), size]
        axes.append([slice(a, b) for a, b in itertools.pairwise(ends)])
    return [*itertools.product(*axes)]


class PartedCapture(ArrayCapture):
    """Gives the blocks of each tensor out in turn, to the parts of all processes."""

    def __init__(self, rank: int, size: int, cuts: Cuts, each: int = 1) -> None:
        self.rank, self.size, self.cuts, self.each = rank, size, cuts, each

    def parts(self) -> Parts:
        assert self.weights is not None
        number = self.size * self.each
        own = range(self.rank * self.each, (self.rank + 1) * self.each)
        pieces: dict[int, dict[str, Piece]] = {part: {} for part in own}
        turn = 0
        for name, value in self.weights.items():
            array = np.asarray(value)
            blocks = grid(array.shape, self.cuts.get(name, [()] * array.ndim))
            assert len(blocks) <= number
            for block in blocks:
                if turn % number in pieces:
                    start = tuple(each.start for each in block)
                    pieces[turn % number][name] = Piece(array[block], start)
                turn += 1
        layout = self.layout()
        assert layout is not None
        return Parts(number, layout, pieces)


class PartedRecorder(Recorder):
    def __init__(
        self,
        folder: Any,
        capture: PartedCapture,
        ranks: Ranks = ALONE,
        schedule: Any = EVERY_STEP,
        **options: Unpack[RecorderOptions],
    ) -> None:
        self.capture = capture
        options["sharded"] = True
        super().__init__(folder, schedule, capture, EachStep(), ranks=ranks, **options)

    def step(self, weights: Any, metrics: Metrics = None) -> bool:
        self.capture.weights = weights
        return self.look(metrics)


def recorded(
    folder: Path,
    steps: Sequence[Mapping[str, Any]],
    cuts: Cuts,
    *,
    size: int = 3,
    each: int = 1,
    look: Callable[[PartedRecorder, int], None] = lambda *_: None,
    **options: Any,
) -> list[Any]:
    """Record weights, step by step, in several threads; what each raises."""

    def run(ranks: Ranks, rank: int) -> None:
        capture = PartedCapture(rank, size, cuts, each)
        with PartedRecorder(folder, capture, ranks, **options) as recorder:
            for weights in steps:
                recorder.step(weights)
                look(recorder, rank)

    return together(run, size)
