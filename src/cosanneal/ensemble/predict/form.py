"""Structures of dicts, tuples and lists: their leaves, and the same structure with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...core.errors import EnsembleError, shown

# Where a leaf is: the keys and places on the way to it.
Path: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A structure of leaves, or one leaf alone.

    Args:
        template: the structure.
        paths: where the leaves are; those that are None are left out.
        leaves: what stands there.
    """

    template: Any
    paths: list[Path]
    leaves: list[Any]

    @classmethod
    def of(cls, template: Any) -> Form:
        """The form of what a user gave as `outputs`.

        Raises:
            EnsembleError: a structure without leaves.
        """
        found = [each for each in _leaves(template) if each[1] is not None]
        if not found:
            raise EnsembleError(
                "Argument `outputs` must say of one output at least what it is: None leaves one "
                f"out. Received: {shown(template)}"
            )
        return cls(template, [path for path, _ in found], [leaf for _, leaf in found])

    @property
    def several(self) -> bool:
        """Whether it is a structure, and no leaf alone."""
        return is_structure(self.template)

    @property
    def names(self) -> list[str]:
        """What the leaves are called: the keys on the way to each, with dots between them."""
        return [".".join(map(str, path)) for path in self.paths]

    def fill(self, leaves: Iterable[Any]) -> Any:
        """The structure with other leaves, in the order of `paths`.

        Where None stood in a dict, the key is left out; in a tuple or a list, None
        stays, so that the others have their places.
        """
        return _filled(self.template, iter(leaves))


def is_structure(given: object) -> bool:
    """Whether something is a dict, a tuple or a list."""
    return isinstance(given, Mapping | tuple | list)


def spread(name: str, given: Any, form: Form, default: Any) -> list[Any]:
    """An argument's value for each leaf of a form: one for all, or a structure that says each.

    Args:
        name: of the argument, for the message.
        given: its value; a structure may leave leaves out.
        form: the form.
        default: for what is left out.

    Raises:
        EnsembleError: a structure with a leaf that the form does not have.
    """
    if not is_structure(given):
        return [given] * len(form.paths)
    found = dict(_leaves(given))
    known = {path for path, _ in _leaves(form.template)}
    for path in found:
        if path not in known:
            raise EnsembleError(
                f"Argument `{name}` must be one value, or a structure with leaves of that of "
                f"`outputs`, {', '.join(map(repr, form.names))}. "
                f"Received: {'.'.join(map(str, path))!r}"
            )
    return [found.get(path, default) for path in form.paths]


def _leaves(template: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if not is_structure(template):
        yield path, template
        return
    for key, each in template.items() if isinstance(template, Mapping) else enumerate(template):
        yield from _leaves(each, (*path, key))


def _filled(template: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(template, Mapping):
        return {
            key: _filled(each, leaves)
            for key, each in template.items()
            if any(leaf is not None for _, leaf in _leaves(each))
        }
    if isinstance(template, tuple | list):
        items = [_filled(each, leaves) for each in template]
        kind: Any = type(template)
        return kind(*items) if hasattr(kind, "_fields") else kind(items)
    return None if template is None else next(leaves)
