"""How long a file, a class and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from .source import File, read

LINES_OF_A_FILE = 550
LINES_OF_A_CLASS = 300  # besides docstrings, its own and its methods'
METHODS_OF_A_CLASS = 25
LINES_OF_A_FUNCTION = 90  # besides its docstring

# What must be longer: why. "cosanneal.core.curve" is a file, "cosanneal.core.curve:f" or ":A.f" is
# in one. CONTRIBUTING.md says the same.
EXCEPTIONS: dict[str, str] = {}


def found(source: Path, exceptions: dict[str, str] = EXCEPTIONS) -> list[str]:
    """Everything that is too long, and the exceptions that are not needed."""
    lines, used = [], set()
    for file in read(source).values():
        for name, fault in _too_long(file):
            used.add(name)
            if name not in exceptions:
                lines.append(f"{name} has {fault}")
    unused = [name for name in exceptions if name not in used]
    return [*lines, *(f"{name} is no longer too long" for name in unused)]


def _too_long(file: File) -> Iterator[tuple[str, str]]:
    count = len(file.text.splitlines())
    if count > LINES_OF_A_FILE:
        yield file.module, f"{count} lines; a file may have {LINES_OF_A_FILE}"
    yield from _too_long_within(file.tree, f"{file.module}:")


def _too_long_within(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _too_long_within(child, prefix)
            continue
        name = f"{prefix}{child.name}"
        count = _count(child)
        if isinstance(child, ast.ClassDef):
            count -= sum(map(_docstring, [child, *_methods(child)]))
            if count > LINES_OF_A_CLASS:
                yield name, f"{count} lines; a class may have {LINES_OF_A_CLASS}"
            # A property's setter and an overload are no more methods.
            methods = {each.name for each in _methods(child)}
            if len(methods) > METHODS_OF_A_CLASS:
                yield name, f"{len(methods)} methods; a class may have {METHODS_OF_A_CLASS}"
        elif (count := count - _docstring(child)) > LINES_OF_A_FUNCTION:
            yield name, f"{count} lines; a function may have {LINES_OF_A_FUNCTION}"
        yield from _too_long_within(child, f"{name}.")


def _count(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return _count(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0


def _methods(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a class, also those under an `if`, but none within another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif not isinstance(child, ast.ClassDef):
            yield from _methods(child)
