"""What a benchmark is written with: its figures, the clock, and the peers that may be missing.

Ours, the peers and the limit take turns: a machine that slows down slows all of
them, and the ratios stay. A ratio is the median of those of all rounds, with
its quartiles.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results.json"
_LINE = "{:<33} {:>9} {:>9} {:>9} {:>7} {:>7}"


class Skipped(Exception):  # noqa: N818 - it is no error
    """What `measure` raises where it cannot measure, with the reason."""


def need_cuda() -> None:
    """Skip the benchmark where torch finds no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        raise Skipped("no CUDA device was found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: what ours and the others took, round by round.

    Args:
        name: what was measured, in at most 33 characters.
        unit: of all numbers.
        ours: one number for each round.
        peers: the same for each peer, by its name.
        limit: the same for what cannot be beaten, or a number that must hold.
        goal: ours must be at most `goal` times `beside`.
        beside: "limit", or "peer" for the best of them.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    limit: Sequence[float] | float | None = None
    goal: float | None = None
    beside: Literal["limit", "peer"] = "limit"

    def summary(self) -> dict[str, Any]:
        """Medians, ratios and whether the goal was met, as plain data."""
        peers = {name: statistics.median(times) for name, times in self.peers.items()}
        best = min(peers, key=lambda name: peers[name], default=None)
        limits: Sequence[float] = ()
        if self.limit is not None:
            limits = (
                self.limit if isinstance(self.limit, Sequence) else [self.limit] * len(self.ours)
            )
        ratios = {
            "peer": _ratio(self.ours, self.peers[best]) if best else None,
            "limit": _ratio(self.ours, limits) if limits else None,
        }
        ratio = ratios[self.beside]
        return {
            "figure": self.name,
            "unit": self.unit,
            "ours": statistics.median(self.ours),
            "peers": peers,
            "best_peer": best,
            "limit": statistics.median(limits) if limits else None,
            "ratio_to_peer": ratios["peer"],
            "ratio_to_limit": ratios["limit"],
            "goal": self.goal,
            "beside": self.beside,
            "met": None if self.goal is None or ratio is None else ratio[1] <= self.goal,
        }


def _ratio(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile of the rounds' ratios."""
    ratios = [our / other for our, other in zip(ours, others, strict=True)]
    return statistics.quantiles(ratios, n=4, method="inclusive") if ratios[1:] else ratios * 3


def in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    per: float = 1.0,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, list[float]]:
    """What each took, round by round; the first round is not counted.

    Args:
        runs: what is to be timed. One that returns a float has timed itself.
        repeats: the rounds that are counted.
        per: the seconds of the others are divided by this.
        clock: by default this thread's own time, in which other processes have no part.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            own = run()
            took = (clock() - start) / per
            if repeat:
                times[name].append(own if isinstance(own, float) else took)
    return times


def with_peak(run: Callable[[], T]) -> tuple[T, int]:
    """What it returns, and by how many bytes the resident memory rose at its peak (on Linux)."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    result = run()
    return result, _resident("VmHWM") - before


def _resident(field: str) -> int:
    """The resident memory of this process in bytes: VmRSS now, or VmHWM at its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if field in each)
    return int(line.split()[1]) * 1024


@functools.cache
def optional(name: str) -> Any:
    """The module of a peer; None where it is not installed, which is said once."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        say_left_out(name, lacking(error))
        return None


def say_left_out(peer: str, package: str) -> None:
    """Say that a peer is not measured: on stderr, since the runner reads the rest."""
    print(f"{peer} is left out: {package} is not installed", file=sys.stderr)


def lacking(error: ModuleNotFoundError) -> str:
    """The package that is not installed. One that is, but is broken, remains an error."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "benchmarks", "cosanneal") or find_spec(package):
        raise error
    return package


def show(summaries: Iterable[Mapping[str, Any]]) -> bool:
    """Print the table; whether every goal was met."""
    print(_LINE.format("figure", "ours", "best peer", "limit", "o/peer", "o/limit"))
    met = True
    for summary in summaries:
        peer = summary["peers"].get(summary["best_peer"])
        print(
            _LINE.format(
                summary["figure"],
                *(_number(value, summary["unit"]) for value in (summary["ours"], peer)),
                _number(summary["limit"], summary["unit"]),
                *(_times(summary[f"ratio_to_{other}"]) for other in ("peer", "limit")),
            )
        )
        if summary["met"] is False:
            met = False
            print(f"  above the goal: {summary['goal']:g} x the {summary['beside']}")
    return met


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}" if value < 999 else f"{value:,.0f} {unit}"


def _times(ratio: Sequence[float] | None) -> str:
    return "" if ratio is None else f"{ratio[1]:.2f}"


def alone(figures: Iterable[Figure]) -> int:
    """Run one benchmark and print its table; 1 where a goal was missed."""
    try:
        summaries = [figure.summary() for figure in figures]
    except Skipped as reason:
        print(f"skipped: {reason}")
        return 0
    return 0 if show(summaries) else 1
