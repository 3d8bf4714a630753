"""The files of a package, parsed but not imported, and what each of them imports."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import resolve_name
from pathlib import Path

IMPORTERS = ("importlib.import_module", "import_module", "__import__")


@dataclass(frozen=True)
class File:
    """One file: `cosanneal.core.curve` is a file's module, `cosanneal.core` its package."""

    path: Path
    module: str
    package: str
    text: str
    tree: ast.Module = field(repr=False)


@dataclass(frozen=True)
class Import:
    """A module that a file imports, and the name that it takes from there, if it takes one."""

    line: int
    module: str
    name: str = ""


def read(source: Path) -> dict[str, File]:
    """Every file of the package in the folder `source`, by its module."""
    files = {}
    for path in sorted(source.rglob("*.py")):
        parts = (source.name, *path.relative_to(source).with_suffix("").parts)
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        text = path.read_text(encoding="utf-8")
        files[module] = File(path, module, package, text, ast.parse(text, str(path)))
    return files


def imports(file: File, files: dict[str, File]) -> Iterator[Import]:
    """All that a file imports, wherever in it: in functions and for the types alone as well.

    An import of a computed name is one of every file that it could be; `Import.module` is ""
    where that cannot be told.
    """
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), file.package)
            for alias in node.names:
                # `from package import module` imports the module.
                inner = f"{base}.{alias.name}"
                known = any(module == inner or module.startswith(f"{inner}.") for module in files)
                yield Import(node.lineno, inner) if known else Import(node.lineno, base, alias.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS:
            for module in _computed(node, file, files):
                yield Import(node.lineno, module)


def _computed(call: ast.Call, file: File, files: dict[str, File]) -> list[str]:
    """The modules that a call of `import_module` may import."""
    name = call.args[0] if call.args else None
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    modules = []
    for texts in itertools.product(*(_texts(part, file.tree) for part in parts)):
        written = "".join(texts)
        if written.startswith("*"):
            return [""]
        written = resolve_name(written, file.package)
        pattern = re.compile(re.escape(written).replace(r"\*", r"[^.]+"))
        matching = [each for each in files if pattern.fullmatch(each) and each != file.module]
        modules += matching if "*" in written and matching else [written]
    return [*dict.fromkeys(modules)]


def _texts(part: ast.expr | None, tree: ast.Module) -> list[str]:
    """What a part of a computed name may be: "*" stands for anything but a dot.

    `NAMES[key]` is one of the values of a dict that the file writes out as `NAMES = {...}`.
    """
    if isinstance(part, ast.Constant):
        return [str(part.value)]
    looked_up = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(looked_up, ast.Subscript):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                values = [ast.literal_eval(each) for each in node.value.values if _is_text(each)]
                named = ast.unparse(looked_up.value) in map(ast.unparse, node.targets)
                if named and len(values) == len(node.value.values):
                    return values
    return ["*"]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
