"""The errors cosanneal raises, and the argument checks that raise them.

Every message says which argument, what it must be and what came
("Received: ..."), and where there is one, what to do.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from numbers import Rational, Real

# Step counters are 64-bit integers in every framework.
MAX_STEPS = 2**63

# The digits of the exact power at which a finite run of growing cycles ends.
MAX_POWER_BITS = 2**18


class CosannealError(Exception):
    """Base class of every error cosanneal raises on purpose."""


class ScheduleError(CosannealError, ValueError):
    """A schedule, a step or a rate that cannot be."""


class SnapshotError(CosannealError):
    """A snapshot that cannot be written, read or trusted."""


class EnsembleError(CosannealError, ValueError):
    """An ensemble, or predictions, that cannot be."""


class StudyError(CosannealError, ValueError):
    """A study, or one of its runs, that cannot be."""


class MissingExtraError(CosannealError, ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""

    @classmethod
    def for_extra(cls, extra: str, *, package: str, needed_by: str) -> MissingExtraError:
        """The error for a `package` of `cosanneal[extra]`, and what is `needed_by` it."""
        return cls(
            f"{needed_by} needs the package {package!r}, which is not installed. "
            f"Install it with: python -m pip install 'cosanneal[{extra}]'",
            name=package,
        )


def plural(count: int, noun: str, spec: str = "") -> str:
    """So many of a thing in words: "1 step", "2 steps"; "1,200 steps" with the format "," ."""
    return f"{count:{spec}} {noun}{'' if count == 1 else 's'}"


def human_size(size: float) -> str:
    """So many bytes, in words: "8 B", "4.12 kB"; of thousands, to three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def shown(value: object) -> str:
    """A value as it came, for a message: shortened, and never an error of its own."""
    try:
        text = str(value) if isinstance(value, Fraction) else repr(value)
    except ValueError:
        # Python refuses to write an integer of more than some thousand digits.
        size = f" of {value.bit_length()} bits" if isinstance(value, int) else ""
        return f"a {type(value).__name__}{size}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_steps(name: str, value: object, *, minimum: int = 0) -> int:
    """`value` as an int of at least `minimum`; numpy's and torch's integers count as such."""
    what = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    try:
        # bool is an int to Python; where a number of steps goes it is a slip.
        steps = None if _is_bool(value) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        steps = None
    if steps is None or not minimum <= steps <= MAX_STEPS:
        if steps is not None and steps > MAX_STEPS:
            what = "at most 2**63"
        raise ScheduleError(
            f"Argument `{name}` must be {what} (optimizer steps). Received: {name}={shown(value)}"
        )
    return steps


def check_rate(name: str, value: object) -> float:
    """`value` as a finite float of at least 0."""
    rate = _real(value)
    if rate is None or not math.isfinite(rate) or rate < 0:
        raise ScheduleError(
            f"Argument `{name}` must be a finite number of at least 0. "
            f"Received: {name}={shown(value)}"
        )
    return rate


def check_decay(name: str, value: object) -> float:
    """`value` as a float in (0, 1]."""
    decay = _real(value)
    if decay is None or not 0 < decay <= 1:
        raise ScheduleError(
            f"Argument `{name}` must be a number in (0, 1]. Received: {name}={shown(value)}"
        )
    return decay


def check_factor(name: str, value: object) -> Fraction:
    """`value` as an exact positive rational; a float means the decimal it is written as.

    `1.1` is the factor 11/10, not the nearest binary fraction
    2476979795053773/2**51 that the float really holds.
    """
    factor: Fraction | None = None
    if isinstance(value, Rational) and not _is_bool(value):
        factor = Fraction(int(value.numerator), int(value.denominator))
    else:
        real = _real(value)
        if real is not None and math.isfinite(real):
            factor = Fraction(repr(real))
    if factor is None or factor <= 0:
        raise ScheduleError(
            f"Argument `{name}` must be a positive number (int, Fraction or float). "
            f"Received: {name}={shown(value)}"
        )
    return factor


def check_growth(where: str, growth: Fraction, count: int | None) -> Fraction:
    """`growth`, which must be a factor by which so many cycles may grow.

    Nearer to 1, or of longer terms, its powers would take more digits than a
    lookup carries, and more time than a lookup may. The end of a finite run of
    cycles is an exact power, which bounds their number.
    """
    long = max(growth.numerator, growth.denominator).bit_length() > 64
    if growth != 1 and (long or abs(growth - 1) < Fraction(1, 10**6)):
        raise ScheduleError(
            f"{where} must be 1, or at least 1e-6 away from it and a fraction of 64-bit "
            f"integers. Received: {shown(growth)}"
        )
    bits = growth.denominator.bit_length()
    if growth.denominator != 1 and count is not None and count * bits > MAX_POWER_BITS:
        raise ScheduleError(
            f"{where} must be 1 for so many cycles, or they at most {MAX_POWER_BITS // bits}. "
            f"Received: {shown(growth)} for {shown(count)} cycles; for cycles without end, give no "
            "number of cycles"
        )
    return growth


def check_flag(name: str, value: object) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise ScheduleError(
            f"Argument `{name}` must be True or False. Received: {name}={shown(value)}"
        )
    return value


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")


def _real(value: object) -> float | None:
    if not isinstance(value, Real) or _is_bool(value):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
