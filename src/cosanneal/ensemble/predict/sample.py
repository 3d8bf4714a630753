"""A sample of training data: enough for statistics, and the same in every pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..arrays import check_count
from ..structure import map_leaves
from .batches import Batches, Whole, rows_of

# Of how many samples statistics are those of all, closely enough. As many have a part in a
# running mean of training: of momentum 0.1, 2 / 0.1 - 1 batches, which of 128 are 2432.
SAMPLES: Final = 2048


@dataclass(frozen=True, slots=True)
class Sample:
    """Batches of samples that are drawn at random from training data, or all of them.

    Of arrays, samples are drawn without replacement, whatever the arrays' order. Of a loader,
    which gives them in an order of its own, whole batches are: it is read through once, each
    batch gets a random number, and those of the least numbers are kept that have so many
    samples together. So where its batches differ, as of data that are sorted, all have the
    same chance. They are kept in memory, and no further pass is made.

    All are taken where there are no more; where `samples` is None; where batches do not say
    how many samples they have, as graphs do not; and where one is predicted by what came before.

    Args:
        batches: what is iterated.
        samples: how many samples they have; None where nothing counted them.
        seed: by which they were drawn; None where all were taken.
    """

    batches: Iterable[Any]
    samples: int | None
    seed: int | None

    @classmethod
    def of(cls, batches: Batches, samples: int | None, seed: int) -> Sample:
        """The sample of some training data.

        Args:
            batches: of the training data.
            samples: how many at least; None for all.
            seed: of the draw.
        """
        total = batches.samples
        if samples is None or batches.are_linked or (total is not None and total <= samples):
            return cls(batches, total, None)
        random = np.random.default_rng(seed)
        if total is not None:
            drawn = batches.at(random.choice(total, samples, replace=False))
            return cls(batches, total, None) if drawn is None else cls(drawn, samples, seed)
        return cls._of_loader(batches, samples, seed, random)

    @classmethod
    def _of_loader(
        cls, batches: Batches, samples: int, seed: int, random: np.random.Generator
    ) -> Sample:
        """Whole batches of a loader, by one pass over it."""
        # Of each that is kept: its random number, its place, its size and itself.
        kept: list[tuple[float, int, int, Any]] = []
        held, left_out = 0, False
        for place, batch in enumerate(batches):
            size = count_samples(batch)
            if size is None:
                return cls(batches, None, None)
            kept.append((random.random(), place, size, batch))
            held += size
            while held - (last := max(kept, key=lambda each: each[:2]))[2] >= samples:
                kept.remove(last)
                held, left_out = held - last[2], True
        kept.sort(key=lambda each: each[1])
        return cls([each[3] for each in kept], held, seed if left_out else None)

    def __iter__(self) -> Iterator[Any]:
        """One pass; each gives arrays of its own, for a model may write to its input."""
        if self.seed is None and isinstance(self.batches, Batches):
            yield from self.batches
            return
        for batch in self.batches:
            yield map_leaves(_own, batch)


def check_samples(samples: object) -> int | None:
    """`samples` as a count, or None for all.

    Raises:
        EnsembleError: neither.
    """
    return None if samples is None else check_count("samples", samples, minimum=2)


def count_samples(batch: Any) -> int | None:
    """How many samples a batch has, also one as a loader gave it; None where it does not say."""
    if isinstance(batch, Whole):
        batch = batch.given
    if isinstance(batch, Mapping):
        batch = dict(batch)
    elif isinstance(batch, tuple | list):
        batch = tuple(batch)
    elif hasattr(batch, "shape"):
        batch = (batch,)
    return rows_of(batch)


def _own(leaf: Any) -> Any:
    """A copy of an array that can be written to; anything else as it is."""
    for name in ("clone", "copy"):
        if hasattr(leaf, "shape") and hasattr(leaf, name):
            return getattr(leaf, name)()
    return leaf
