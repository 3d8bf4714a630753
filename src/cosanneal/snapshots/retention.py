"""Which snapshots of a run are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ..core.errors import SnapshotError, shown
from .store import Snapshot

Mode: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Keeps the last snapshots, the best ones by a metric, or both; by default all.

    Args:
        keep_last: keep so many of the newest.
        keep_best: keep so many of the best by `metric`. Of equal ones the newer
            is better, and one that is NaN is the worst.
        metric: the name of the metric.
        mode: whether the metric's "min" or "max" is best.

    Raises:
        SnapshotError: an argument that cannot be.
    """

    keep_last: int | None = None
    keep_best: int | None = None
    metric: str | None = None
    mode: Mode = "min"

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_best"):
            count = getattr(self, name)
            if count is not None:
                check_count(name, count)
        if (self.keep_best is None) != (self.metric is None):
            raise SnapshotError(
                "Arguments `keep_best` and `metric` go together: how many to keep, and the name "
                f"of the metric that says which. Received: keep_best={shown(self.keep_best)}, "
                f"metric={shown(self.metric)}"
            )
        if self.mode not in get_args(Mode):
            raise SnapshotError(
                f"Argument `mode` must be 'min' or 'max'. Received: mode={shown(self.mode)}"
            )

    @property
    def keeps_all(self) -> bool:
        """Whether no snapshot is ever deleted."""
        return self.keep_last is None and self.keep_best is None

    def check(self, metrics: Mapping[str, Any], of: str) -> None:
        """Refuse metrics without the one that decides.

        Args:
            metrics: the metrics of a snapshot.
            of: whose they are, for the message.
        """
        if self.metric is None:
            return
        value = metrics.get(self.metric)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SnapshotError(
                f"{of} must hold a number named {self.metric!r}, by which "
                f"keep_best={self.keep_best} chooses. Received: {shown(dict(metrics))}"
            )

    def excess(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """Those not to be kept of a folder's snapshots, which come oldest first.

        A snapshot that is kept among these is kept among any part of them that
        holds it. So a run that was killed and resumed, and takes again those
        beyond the resumed step, ends with the snapshots of one that was not.
        """
        if self.keeps_all:
            return []
        kept: set[Snapshot] = set()
        if self.keep_last is not None:
            kept.update(snapshots[-self.keep_last :])
        if self.keep_best is not None:
            kept.update(sorted(snapshots, key=self._rank)[: self.keep_best])
        return [snapshot for snapshot in snapshots if snapshot not in kept]

    def _rank(self, snapshot: Snapshot) -> tuple[bool, float, int]:
        metrics = snapshot.metadata["metrics"]
        self.check(metrics, f"The metrics of snapshot {snapshot.path}")
        value = float(metrics[self.metric])
        lost = math.isnan(value)
        return lost, 0.0 if lost else value if self.mode == "min" else -value, -snapshot.step


def check_count(name: str, value: object) -> None:
    """Refuse what is no positive number of snapshots."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SnapshotError(
            f"Argument `{name}` must be a positive integer (snapshots). "
            f"Received: {name}={shown(value)}"
        )
