"""A choice as a person reads it: a few lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ...core.errors import plural
from ..score.measures import title_of
from ..score.regression import REGRESSION_TITLES
from .diagnosis import shown_score

# What a terminal shows in one line.
_WIDTH: Final = 80

# So many members are listed, and of more those of the greatest weights.
_LISTED: Final = 12


def told(choice: Mapping[str, Any]) -> str:
    """The choice in lines of up to 80 characters: what, by what, its scores, and its findings.

    Args:
        choice: what `Choice.to_dict` gives.

    Example:
        >>> import numpy as np
        >>> from cosanneal.ensemble import fit
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(2, size=2000)
        >>> sure = np.where(random.random((2, 2000)) < 0.8, 0.9, 0.2)  # of the label
        >>> print(fit(np.where(y == 1, sure, 1 - sure), y, class_axis=None, temperature=False))
        Chosen: 2 of 2 members (select="last"), by log-loss on 2,000 validation samples
          0  0.500
          1  0.500
          log-loss 0.3276, Brier score 0.1972, error rate 4.15 %
          the same log-loss as the plain mean of all
    """
    return "\n".join(_lines(choice))


def _lines(choice: Mapping[str, Any]) -> Iterator[str]:
    classes = choice["outputs"] == "probabilities"
    titles = title_of if classes else lambda name: REGRESSION_TITLES.get(name, name)
    used = [each for each in choice["members"] if each["weight"]]
    yield from _wrapped(
        f"Chosen: {len(used)} of {plural(len(choice['members']), 'member')} "
        f'(select="{choice["select"]}"), by {titles(choice["metric"])} on '
        f"{plural(choice['samples'], 'validation sample', ',')}",
        "",
    )
    least = sorted((each["weight"] for each in used), reverse=True)[:_LISTED][-1]
    listed = [each for each in used if each["weight"] >= least][:_LISTED]
    names = [each["name"].removesuffix(".safetensors") for each in listed]
    for name, each in zip(names, listed, strict=True):
        yield f"  {name:{max(map(len, names))}}  {each['weight']:.3f}"
    if len(used) > len(listed):
        yield f"  and {len(used) - len(listed)} more"
    if len(used) == 1:
        yield "  one snapshot: nothing is averaged"
    yield from _fitted(choice)
    scores = choice["candidates"][-1]["scores"] if choice["candidates"] else {}
    yield from _wrapped(
        ", ".join(f"{titles(name)} {shown_score(name, each)}" for name, each in scores.items())
    )
    for other, interval in _others(choice, "temperature" if classes else "variance"):
        yield from _wrapped(
            _beside(other, interval, choice["metric"], str(titles(choice["metric"])))
        )
    if "reason" in choice:
        yield from _wrapped(f"why: {choice['reason']}")
    if choice["findings"]:
        yield "Found:"
        for finding in choice["findings"]:
            yield from _wrapped(finding["text"], "- ", "  ")


def _others(choice: Mapping[str, Any], fitted: str) -> Iterator[tuple[str, Sequence[float]]]:
    """What the choice is beside, and the interval of the difference."""
    if "last_alone" in choice:
        yield f"the last snapshot alone with its own {fitted}", choice["last_alone"]["interval"]
    yield "the plain mean of all", choice["interval"]
    if "baseline" in choice:
        yield "the baseline", choice["baseline"]["interval"]


def _beside(other: str, interval: Sequence[float], metric: str, title: str) -> str:
    """Whether the choice is better, and by how much."""
    if not any(interval):
        return f"the same {title} as {other}"
    low, high = interval
    stands = "better than" if high < 0 else "worse than" if low > 0 else "not told apart from"
    between = " to ".join(shown_score(metric, end, "+") for end in interval)
    return f"{stands} {other}: {between} {title} (95 % interval)"


def _fitted(choice: Mapping[str, Any]) -> Iterator[str]:
    """What was fitted beside the weights."""
    noise, scale = choice["noise"], f"{choice['variance_scale']:.3g}"
    if choice["temperature"] != 1:
        yield f"  temperature {choice['temperature']:.4g}"
    if noise is not None:
        each = ", ".join(f"{variance:.4g}" for variance in noise[:_LISTED])
        more = ", ..." if len(noise) > _LISTED else ""
        yield from _wrapped(f"variance: {scale} times that between the members, and {each}{more}")
    elif choice["variance_scale"] != 1:
        yield f"  variance: {scale} times the members'"


def _wrapped(text: str, first: str = "  ", further: str = "    ") -> list[str]:
    """The text in lines; a long word, such as a name, stays whole."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )
