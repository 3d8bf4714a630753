"""Files that import each other, on however long a way.

A package's `__init__.py` that takes names from its own files is no circle; a file of it that
takes a name from the package closes one.
"""

from __future__ import annotations

from pathlib import Path

from .source import imports, read

Arrows = dict[str, dict[str, int]]


def found(source: Path) -> list[str]:
    """The shortest circle through each file that is in one, each circle once."""
    files = read(source)
    arrows: Arrows = {
        module: {each.module: each.line for each in imports(file, files) if each.module in files}
        for module, file in files.items()
    }
    circles: dict[frozenset[str], list[str]] = {}
    for module in arrows:
        if way := _way_back(module, arrows):
            first = way.index(min(way))
            circles.setdefault(frozenset(way), [*way[first:], *way[:first]])
    return [_written(way, arrows) for way in circles.values()]


def _way_back(start: str, arrows: Arrows) -> list[str]:
    """The files on the shortest way from `start` to itself, if there is one; breadth first."""
    ways = [[start]]
    seen = set()
    for way in ways:
        for target in arrows[way[-1]]:
            if target == start:
                return way
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def _written(way: list[str], arrows: Arrows) -> str:
    nexts = [*way[1:], way[0]]
    steps = [f"{each}:{arrows[each][to]}" for each, to in zip(way, nexts, strict=True)]
    return " -> ".join([*steps, way[0]])
