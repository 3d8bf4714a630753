"""Schedules as plain data for JSON, exactly, and back; and how any such record is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from .errors import CosannealError, ScheduleError, shown
from .rules import CycleRule, Level, Phase

FORMAT: Final = "cosanneal.schedule"
VERSION: Final = 1


def rules_to_dict(rules: tuple[CycleRule, ...]) -> dict[str, Any]:
    """The description that `rules_from_dict` reads."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "rules": [_rule_to_dict(rule) for rule in rules],
    }


def rules_from_dict(data: object) -> tuple[CycleRule, ...]:
    """The rules that a description stands for.

    Raises:
        ScheduleError: not such a description, one of an unknown version, or
            one with a bad field, whose path is named.
    """
    reader = Reader.of(
        data, FORMAT, VERSION, what="A schedule's description", source="Schedule.to_dict() gives it"
    )
    reader.only("format", "version", "rules")
    return tuple(_rule_from_dict(rule) for rule in reader.items("rules"))


def _rule_to_dict(rule: CycleRule) -> dict[str, Any]:
    return {
        "count": rule.count,
        "length": _exact_to_json(rule.length),
        "growth": _exact_to_json(rule.growth),
        "rounding": rule.rounding,
        "phases": [
            {
                "steps": None if phase.steps is None else _exact_to_json(phase.steps),
                "first": _level_to_dict(phase.first),
                "last": _level_to_dict(phase.last),
                "curve": phase.curve,
                "exponent": phase.exponent,
                "k": phase.k,
                "endpoint": phase.endpoint,
                "whole_cycle": phase.whole_cycle,
                "lead": _exact_to_json(phase.lead),
            }
            for phase in rule.phases
        ],
    }


def _level_to_dict(level: Level) -> dict[str, float]:
    return {"value": level.value, "decay": level.decay, "base": level.base}


def _rule_from_dict(rule: Reader) -> CycleRule:
    rule.only("count", "length", "growth", "rounding", "phases")
    return CycleRule(
        count=rule.count("count"),
        length=rule.exact("length"),
        growth=Fraction(rule.exact("growth")),
        rounding=rule.value("rounding"),
        phases=tuple(_phase_from_dict(phase) for phase in rule.items("phases")),
    )


def _phase_from_dict(phase: Reader) -> Phase:
    phase.only(
        "steps", "first", "last", "curve", "exponent", "k", "endpoint", "whole_cycle", "lead"
    )
    return Phase(
        steps=None if phase.value("steps") is None else phase.exact("steps"),
        first=_level_from_dict(phase.item("first")),
        last=_level_from_dict(phase.item("last")),
        curve=phase.value("curve"),
        exponent=phase.number("exponent"),
        k=phase.number("k"),
        endpoint=phase.flag("endpoint"),
        whole_cycle=phase.flag("whole_cycle"),
        lead=phase.exact("lead"),
    )


def _level_from_dict(level: Reader) -> Level:
    level.only("value", "decay", "base")
    return Level(level.number("value"), decay=level.number("decay"), base=level.number("base"))


def _exact_to_json(value: int | Fraction) -> int | str:
    """An int as it is; a fraction as 'p/q', in hexadecimal where decimal would be refused."""
    if value.denominator == 1:
        return int(value)
    # Python refuses decimal conversions of more than 4300 digits.
    write = str if max(value.numerator.bit_length(), value.denominator.bit_length()) < 1024 else hex
    return f"{write(value.numerator)}/{write(value.denominator)}"


class Reader:
    """Reads one dict of a description; every error names the path of its field.

    Args:
        data: the dict.
        path: where it stands in the whole description.
        error: what to raise.
    """

    def __init__(
        self, data: object, path: str = "", *, error: type[CosannealError] = ScheduleError
    ) -> None:
        if not isinstance(data, Mapping):
            raise error(f"in '{path}': must be a dict. Received: {shown(data)}")
        self._data = data
        self._path = path
        self._raise = error

    @classmethod
    def of(
        cls,
        data: object,
        format: str,  # noqa: A002 - as the field is called
        version: int,
        *,
        what: str,
        source: str,
        error: type[CosannealError] = ScheduleError,
    ) -> Reader:
        """Of a whole description, which must have this format and this version.

        Args:
            data: the dict.
            format: what its 'format' must be.
            version: what its 'version' must be.
            what: it is, to begin a sentence with.
            source: where it comes from, to go on after "as".
            error: what to raise.
        """
        if not isinstance(data, Mapping) or data.get("format") != format:
            raise error(
                f"{what} must be a dict whose 'format' is {format!r}, as {source}. "
                f"Received: {shown(data)}"
            )
        found = data.get("version")
        if found != version or isinstance(found, bool):
            raise error(
                f"{what} must have version {version}, the one this cosanneal reads. "
                f"Received: version={shown(found)}; a newer cosanneal may read it"
            )
        return cls(data, error=error)

    def error(self, name: str, what: str) -> CosannealError:
        """The error for a field that must be something else; its name may go on with an index."""
        value = shown(self._data.get(name.partition("[")[0]))
        return self._raise(f"in '{self.at(name)}': must be {what}. Received: {value}")

    def at(self, name: str) -> str:
        """The path of a field in the whole description."""
        return f"{self._path}.{name}" if self._path else name

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def only(self, *names: str, optional: Sequence[str] = ()) -> None:
        """Refuse fields other than these, and a lack of any that is not optional."""
        for name in names:
            if name not in self._data:
                raise self._raise(f"in '{self.at(name)}': the field is missing")
        for name in self._data:
            if name not in names and name not in optional:
                raise self._raise(f"in '{self.at(str(name))}': no such field is known")

    def value(self, name: str) -> Any:
        """A field as it is."""
        return self._data[name]

    def item(self, name: str) -> Reader:
        """A dict."""
        return Reader(self._data[name], self.at(name), error=self._raise)

    def list(self, name: str) -> Sequence[Any]:
        """A list of anything."""
        values = self.value(name)
        if not isinstance(values, list | tuple):
            raise self.error(name, "a list")
        return values

    def items(self, name: str) -> Sequence[Reader]:
        """A list of dicts."""
        return [
            Reader(value, f"{self.at(name)}[{i}]", error=self._raise)
            for i, value in enumerate(self.list(name))
        ]

    def flag(self, name: str) -> bool:
        """True or false."""
        if not isinstance(self.value(name), bool):
            raise self.error(name, "true or false")
        return bool(self.value(name))

    def text(self, name: str) -> str:
        """A string."""
        if not isinstance(self.value(name), str):
            raise self.error(name, "a string")
        return str(self.value(name))

    def number(self, name: str) -> float:
        """A number, as a float."""
        return self._number(name, self.value(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of numbers, as floats."""
        return tuple(self._number(f"{name}[{i}]", x) for i, x in enumerate(self.list(name)))

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self.error(name, "a number within the range of floats") from None

    def count(self, name: str) -> int | None:
        """An integer or null."""
        value = self.value(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.error(name, "an integer or null")
        return value

    def exact(self, name: str) -> int | Fraction:
        """An integer or a fraction."""
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            numerator, slash, denominator = value.partition("/")
            try:
                return Fraction(int(numerator, 0), int(denominator, 0)) if slash else int(value, 0)
            except (ValueError, ZeroDivisionError):
                pass
        raise self.error(name, "an integer or a fraction 'p/q'")


def first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two descriptions first differ: the path, the old value and the new; None if nowhere."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            at = f"{path}.{name}" if path else str(name)
            if name not in old or name not in new:
                return at, old.get(name, "nothing"), new.get(name, "nothing")
            if (found := first_difference(old[name], new[name], at)) is not None:
                return found
        return None
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        if len(old) != len(new):
            return f"the number of {path}", len(old), len(new)
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            if (found := first_difference(before, after, f"{path}[{i}]")) is not None:
                return found
        return None
    return None if old == new else (path, old, new)
