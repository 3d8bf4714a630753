"""The numbers that `cosanneal plan` is given as text, and its errors in terms of its options."""

from __future__ import annotations

import inspect
import re
from fractions import Fraction

from ..core.cyclic import CyclicCosine
from ..core.errors import ScheduleError
from ..core.recommend import recommend
from .preset import parse_number

# What --recommend decides, and what takes the schedule's place.
_OWN, _ASKED = (inspect.signature(each).parameters for each in (CyclicCosine, recommend))
CHOSEN = {*_OWN, "preset", "compare"} - {*_ASKED}
_ARGUMENT = "|".join({**_OWN, **_ASKED})


def parse_lengths(text: str) -> int | list[int]:
    """The value of --cycle-steps."""
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        raise ScheduleError(
            "Option --cycle-steps must be a whole number or several, as in 10,20,40. "
            f"Received: {_short(text)}"
        ) from None
    return lengths if "," in text else lengths[0]


def parse_peaks(text: str) -> float | list[float]:
    """The value of --max-lr."""
    try:
        peaks = [float(part) for part in text.split(",")]
    except ValueError:
        raise ScheduleError(
            "Option --max-lr must be a number or several, as in 0.2,0.1,0.1. "
            f"Received: {_short(text)}"
        ) from None
    return peaks if "," in text else peaks[0]


def parse_peak(text: str) -> float:
    """The value of --max-lr, which must be one number."""
    peak = parse_peaks(text)
    if isinstance(peak, list):
        raise ScheduleError(
            "Option --max-lr must be one number with --recommend, which chooses how many cycles "
            f"there are. Received: {_short(text)}"
        )
    return peak


def parse_factor(text: str) -> int | float | Fraction:
    """The value of --cycle-mult."""
    try:
        return parse_number(text)
    except (ValueError, ZeroDivisionError):
        raise ScheduleError(
            "Option --cycle-mult must be a positive number, as in 2, 1.5 or 3/2. "
            f"Received: {_short(text)}"
        ) from None


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")


def in_options(message: str) -> str:
    """An error's text with the arguments named as the options that set them."""

    def option(match: re.Match[str]) -> str:
        return "--" + match[1].replace("_", "-")

    message = message.replace("Argument `", "Option `").replace("arguments `", "options `")
    message = re.sub(rf"\(with ({_ARGUMENT})\)", lambda match: f"(with {option(match)})", message)
    message = re.sub(rf"\b({_ARGUMENT})=None\b", lambda match: f"no {option(match)}", message)
    message = re.sub(rf"`({_ARGUMENT})(\[\d+\])?`", lambda m: option(m) + (m[2] or ""), message)
    return re.sub(rf"\b({_ARGUMENT})(?=(?:\[\d+\])?=)", option, message)
