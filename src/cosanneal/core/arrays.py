"""The rates of a range of steps as an array, whose namespace is handed in."""

from __future__ import annotations

import math
from typing import Any

from .curve import half_cosine
from .table import Segment

# So many rates are computed at a time: what that takes stays in a processor's cache.
_CHUNK = 2**13
# Integers up to here are floats, and the quotient of two of them is rounded but once.
_EXACT = 2**53


def fill(out: Any, segment: Segment, start: int, xp: Any) -> None:
    """Set `out` to the segment's rates from step `start` on: those of `Segment.rate`.

    To the last bit, if the namespace's sine of an array is math's of each number.

    Args:
        out: a writable array of float64.
        segment: the segment.
        start: the step of the array's first rate.
        xp: the array's namespace: numpy.
    """
    stop = start + len(out)
    # The steps between the ends of the clock, where the nearer end is not held.
    begin = min(max(math.floor(segment.origin) + 1, start), stop)
    end = min(max(math.ceil(segment.origin + segment.length), begin), stop)
    if segment.curve == "constant":
        begin = end = start
    out[: begin - start] = segment.first
    out[end - start :] = segment.last
    inner = out[begin - start : end - start]
    ticks = math.lcm(segment.origin.denominator, segment.length.denominator)
    length = int(segment.length * ticks)
    if segment.exponent != 1 or segment.k != 1 or length + _CHUNK * ticks > _EXACT:
        evaluate = segment.evaluator()
        for at in range(0, len(inner), _CHUNK):
            chunk = inner[at : at + _CHUNK]
            chunk[:] = [evaluate(begin + at + i) for i in range(len(chunk))]
        return
    rising = segment.first < segment.last
    low, high = (segment.first, segment.last) if rising else (segment.last, segment.first)
    pace = ticks if rising else -ticks
    passed = int((begin - segment.origin) * ticks)
    part = passed if rising else length - passed
    ramp = xp.arange(min(_CHUNK, len(inner)), dtype=xp.float64) * pace
    for at in range(0, len(inner), _CHUNK):
        chunk = inner[at : at + _CHUNK]
        share = (ramp[: len(chunk)] + (part + at * pace)) / length
        weight = half_cosine(share, xp.sin) if segment.curve == "cosine" else share
        # Rounding may have carried it above the peak.
        xp.minimum(low + (high - low) * weight, high, out=chunk)


def repeat(out: Any, period: int) -> None:
    """Set `out` to its first `period` values, again and again."""
    done = block = period
    while done < len(out):
        more = min(block, len(out) - done)
        out[done : done + more] = out[:more]
        done += more
        if block < _CHUNK:  # what is copied again and again should stay in the cache
            block = done
