"""What a public name's docstring lacks, by the source alone.

Each has a docstring. It names every argument under `Args`, or says whose they are ("Args and errors
as for `mse`"; "this and what follows: see `Options`"). Where the code of a function, or of a class'
`__init__`, raises an error itself, it has `Raises`, or says whose. A function has an example that
runs, or says where it is ("Example: see `x`"); so has a class with an `__init__` of its own. No
example have: errors, protocols, options (TypedDict), and records (dataclasses), which are what a
function returns, whose example shows them.

A public method of a class has a docstring too, which names every argument, in a sentence or under
`Args`, but for what a framework calls (`on_...`); and says what the method raises itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.shared.examples import SOURCE

_ELSEWHERE = r"(Args|[Aa]rguments)\b[^.]*\b(as|see)\b|this and what follows: see"
_NO_CALLS = {"Protocol", "TypedDict", "LabelOptions", "Exception", "CosannealError"}


def lacking(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """What is wrong with a function or a class, in words."""
    doc = ast.get_docstring(node)
    if not doc:
        return ["has no docstring"]
    made = node if isinstance(node, ast.FunctionDef) else _init(node)
    found = []
    missing = [name for name in _arguments(node, made) if not _named(name, doc)]
    if missing and not re.search(_ELSEWHERE, doc):
        found.append(f"does not name {', '.join(missing)}")
    if made is not None and _raises(made) and not re.search(r"^Raises:|errors", doc, re.MULTILINE):
        found.append("does not say what it raises")
    if (isinstance(node, ast.FunctionDef) or _is_called(node, made)) and not re.search(
        r"^ *>>> |^Example: see ", doc, re.MULTILINE
    ):
        found.append("has no example")
    return found


def lacking_in_methods(node: ast.ClassDef) -> list[str]:
    """What is wrong with a class' public methods, in words."""
    found = []
    for each in node.body:
        if not isinstance(each, ast.FunctionDef) or each.name.startswith("_"):
            continue
        if any("overload" in ast.unparse(decorator) for decorator in each.decorator_list):
            continue
        doc = ast.get_docstring(each)
        if not doc:
            found.append(f"{each.name} has no docstring")
            continue
        missing = [a for a in _arguments(each, each) if not re.search(rf"\b{a}\b", doc)]
        called = each.name.startswith("on_") or re.search(_ELSEWHERE, doc)
        if missing and not called:
            found.append(f"{each.name} does not name {', '.join(missing)}")
        if _raises(each) and not re.search(r"^Raises:|errors", doc, re.MULTILINE):
            found.append(f"{each.name} does not say what it raises")
    return found


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    inits = (each for each in node.body if isinstance(each, ast.FunctionDef))
    return next((each for each in inits if each.name == "__init__"), None)


def _is_called(node: ast.ClassDef, made: ast.FunctionDef | None) -> bool:
    bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
    return made is not None and not bases & _NO_CALLS


def _arguments(node: ast.FunctionDef | ast.ClassDef, made: ast.FunctionDef | None) -> Iterator[str]:
    if made is not None:
        given = made.args
        for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
            if each.arg not in ("self", "cls"):
                yield each.arg
    elif isinstance(node, ast.ClassDef) and any(
        "dataclass" in ast.unparse(each) for each in node.decorator_list
    ):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
                yield ast.unparse(field.target)


def _named(name: str, doc: str) -> bool:
    return re.search(rf"^ +{re.escape(name)}: \S", doc, re.MULTILINE) is not None


def _raises(made: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Raise) and each.exc is not None for each in ast.walk(made))


def definition(name: str) -> ast.FunctionDef | ast.ClassDef:
    """The function or class that a package's public name stands for, in the file it is from."""
    package, _, last = name.rpartition(".")
    home = SOURCE.joinpath(*package.split("."))
    file = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    if home.is_dir():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and any(last == each.name for each in node.names):
                file = home.joinpath(*(node.module or "").split(".")).with_suffix(".py")
    return _definition(file, last)


def _definition(file: Path, name: str) -> ast.FunctionDef | ast.ClassDef:
    (found,) = [
        node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
    ]
    return found
