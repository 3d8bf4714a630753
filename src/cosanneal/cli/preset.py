"""A peer's schedule by its name and words `key=value`, as in `--preset NAME key=value ...`.

The presets, their arguments and what is said of them come from the functions
in `presets`: their names, signatures and docstrings.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, Final, get_type_hints

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import presets
from ..core.documents import parse_document
from ..core.errors import ScheduleError, shown
from ..core.schedule import Schedule

PRESETS: Final[Mapping[str, Callable[..., Schedule]]] = {
    name: getattr(presets, name) for name in presets.__all__
}

# No number that means anything takes more characters to write.
_LONGEST_NUMBER = 40

_UPDATES, _EPOCHS = "optimizer updates", "epochs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A preset with its arguments.

    Args:
        name: the name of its function.
        arguments: the arguments that were given, by their names.
        words: the preset and its arguments as they were written.
        schedule: what the function made of them.
        unit: what a step of the schedule is.
        note: a sentence about the unit where it is, or may be, the epoch.
    """

    name: str
    arguments: Mapping[str, object]
    words: str
    schedule: Schedule
    unit: str
    note: str | None

    def heading(self) -> Text:
        """What the preset is, in a line, and the note on a second if there is one."""
        about = f": {_first_line(PRESETS[self.name])}"
        return Text.assemble((self.name, "bold"), about, f"\n{self.note}" if self.note else "")

    def to_dict(self) -> dict[str, Any]:
        """The preset as plain data for JSON, an exact fraction as text."""
        arguments = {
            key: str(value) if isinstance(value, Fraction) else value
            for key, value in self.arguments.items()
        }
        return {"name": self.name, "arguments": arguments, "step": self.unit}


def choose_preset(name: str, words: Sequence[str], *, option: str = "--preset") -> Preset:
    """The preset called `name` with the arguments that `words` give, each as `key=value`.

    Raises:
        ScheduleError: no such preset or argument, one that is missing, given
            twice or badly written, or a schedule that cannot be.
    """
    if name not in PRESETS:
        raise ScheduleError(
            f"Option {option} must name one of {', '.join(sorted(PRESETS))}. "
            f"Received: {shown(name)}{_did_you_mean(name, PRESETS)}"
        )
    function = PRESETS[name]
    parameters, hints = inspect.signature(function).parameters, get_type_hints(function)
    arguments: dict[str, object] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ScheduleError(
                f"{name}: its arguments must be written key=value. Received: {shown(word)}"
            )
        if key not in parameters:
            raise ScheduleError(
                f"{name}: takes the arguments {', '.join(parameters)}. "
                f"Received: {shown(word)}{_did_you_mean(key, parameters)}"
            )
        if key in arguments:
            raise ScheduleError(
                f"{name}: Argument `{key}` must be given once. Received: {shown(word)} as well"
            )
        what, read = KINDS[hints[key]]
        try:
            arguments[key] = read(text)
        except (ValueError, ArithmeticError, RecursionError):
            raise ScheduleError(
                f"{name}: Argument `{key}` must be {what}. Received: {key}={shown(text)}"
            ) from None
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        raise ScheduleError(
            f"{name}: needs {', '.join(missing)}, written key=value; "
            f"it takes {_signature(function)}"
        )
    try:
        schedule = function(**arguments)
    except ScheduleError as error:
        raise ScheduleError(f"{name}: {error}") from error
    unit, note = _unit(function, arguments)
    return Preset(
        name=name,
        arguments=arguments,
        words=" ".join([name, *words]),
        schedule=schedule,
        unit=unit,
        note=note,
    )


def choose_quoted_preset(text: str, *, option: str) -> Preset:
    """The preset that one quoted text names, with its arguments: "NAME key=value ...".

    Raises:
        ScheduleError: as in `choose_preset`, or a quote that is not closed.
    """
    try:
        name, *words = shlex.split(text) or [""]
    except ValueError as error:
        raise ScheduleError(
            f'Option {option} must be quoted, as in "NAME key=value". '
            f"Received: {shown(text)}: {error}"
        ) from None
    return choose_preset(name, words, option=option)


def show_presets(console: Console) -> None:
    """Print the table of all presets: what each is, and its arguments."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("preset", overflow="fold")
    table.add_column("what it is; its arguments, with their defaults", overflow="fold")
    for name, function in PRESETS.items():
        about = Text.assemble(_first_line(function), "\n", (_signature(function), "dim"))
        table.add_row(Text(name, "bold"), about)
    console.print(table)


def parse_number(text: str) -> int | float | Fraction:
    """The number that is written as an integer, a decimal or a fraction: 2, 1.5 or 3/2.

    Raises:
        ValueError: no number, or one that is too long to mean anything.
        ZeroDivisionError: a fraction of 0.
    """
    number, slash, divisor = text.partition("/")
    if len(text) > _LONGEST_NUMBER:
        raise ValueError
    if slash:
        return Fraction(int(number), int(divisor))
    return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)


def _parse_float(text: str) -> float:
    return float(parse_number(text))


def _parse_flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _or_none(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: None if text.lower() == "none" else parse(text)


def _several(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: [parse(part) for part in text.split(",")]


def _parse_objects(text: str) -> list[object]:
    objects = parse_document(text)
    if not isinstance(objects, list):
        raise ValueError
    return objects


# What a value must be and how it is read, by the annotation of its parameter.
KINDS: Final[Mapping[Any, tuple[str, Callable[[str], object]]]] = {
    int: ("an integer", int),
    float: ("a number", _parse_float),
    float | Fraction: ("a number, as in 10, 1.5 or 3/2", parse_number),
    float | None: ("a number or none", _or_none(_parse_float)),
    bool: ("true or false", _parse_flag),
    object: ("none", _or_none(str)),
    Sequence[int]: ("integers with commas between, as in 10,20,40", _several(int)),
    Sequence[float]: ("numbers with commas between, as in 1,0.5,0.25", _several(_parse_float)),
    Iterable[Mapping[str, float]]: ('JSON, as in [{"key": 1}, {"key": 2}]', _parse_objects),
}


def _signature(function: Callable[..., Schedule]) -> str:
    """The parameters as they would be written, with the defaults of those that have one."""
    return " ".join(
        name if parameter.default is parameter.empty else f"{name}={written(parameter.default)}"
        for name, parameter in inspect.signature(function).parameters.items()
    )


def written(value: object) -> str:
    """A default as it may be given."""
    if isinstance(value, tuple):
        return ",".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _first_line(function: Callable[..., Schedule]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0].removesuffix(".")


def _unit(
    function: Callable[..., Schedule], arguments: Mapping[str, object]
) -> tuple[str, str | None]:
    """What a step is, as the docstring has it, and a sentence about it unless it is an update."""
    doc = " ".join((inspect.getdoc(function) or "").split())
    if said := re.search(r"A step is an EPOCH\b[^.]*\.", doc):
        return _EPOCHS, said[0]
    signature = inspect.signature(function)
    bound = signature.bind(**arguments)
    bound.apply_defaults()
    if bound.arguments.get("batches_per_epoch") == 1:
        return _EPOCHS, "A step is an epoch here: batches_per_epoch is 1."
    # An argument whose length is counted in one unit or in the other.
    names = "|".join(signature.parameters)
    for key, about in re.findall(rf"\b({names}): (.*?\.)(?= (?:{names}): | Raises: )", doc):
        if re.search(r"\bepochs\b", about) and re.search(r"\b(updates|optimizer steps)\b", about):
            return f"{_EPOCHS} or {_UPDATES}", f"{key}: {about}"
    return _UPDATES, None


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    matches = get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
