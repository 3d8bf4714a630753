"""Which part of the library may import which: the arrows run one way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cosanneal as ca

SOURCE = Path(ca.__file__).parent

# What each part may import, itself aside. "root" is cosanneal/__init__.py, the
# public names of core and presets.
ALLOWED: dict[str, set[str]] = {
    "root": {"core", "presets"},
    "core": set(),
    "presets": {"core"},
    "snapshots": {"root", "core"},
    "ensemble": {"root", "core", "snapshots"},
    "adapters": {"root", "core", "presets", "snapshots", "ensemble"},
    "report": {"root", "core", "snapshots", "ensemble"},
    "demo": {"root", "core", "snapshots", "ensemble", "adapters", "report"},
    "cli": {"root", "core", "presets", "snapshots", "ensemble", "adapters", "report", "demo"},
}

# The parts that know no framework.
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "jaxlib", "optax", "flax", "equinox"}
WITHOUT_FRAMEWORK = {"root", "core", "presets", "snapshots", "ensemble", "report"}
# An adapter knows its own.
OWN_FRAMEWORKS = {
    "torch": {"torch"},
    "keras": {"keras"},
    "jax": {"jax", "jaxlib", "optax"},
}


def _module(file: Path, source: Path) -> str:
    parts = (source.name, *file.relative_to(source).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _exists(module: str, source: Path) -> bool:
    place = source.parent.joinpath(*module.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def _imported(tree: ast.AST, package: str, source: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, by its absolute name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                # `from package import module` imports the module.
                inner = f"{base}.{alias.name}"
                ours = base.partition(".")[0] == source.name
                yield node.lineno, inner if ours and _exists(inner, source) else base
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            name = str(node.args[0].value)
            yield node.lineno, f"{package}{name}" if name.startswith(".") else name


def _part(module: str, source: Path) -> str:
    """The part of the library that a module of it belongs to."""
    name = module.split(".")[1] if "." in module else ""
    if name == "__main__":  # python -m cosanneal
        return "cli"
    return name if name and _exists(f"{source.name}.{name}", source) else "root"


def forbidden_arrows(source: Path) -> list[str]:
    """Every import, in any file of the package at `source`, that may not be."""
    found = []
    for file in sorted(source.rglob("*.py")):
        module = _module(file, source)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        part = _part(module, source)
        if part not in ALLOWED:
            found.append(f"{module}: no such part of the library is known")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        for line, target in _imported(tree, package, source):
            top = target.partition(".")[0]
            if top != source.name:
                foreign = part in ("root", "core", "presets")
                frameworks = FRAMEWORKS if part in WITHOUT_FRAMEWORK else set()
                if part == "adapters":
                    adapter = "".join(module.split(".")[2:3])
                    frameworks = FRAMEWORKS - OWN_FRAMEWORKS.get(adapter, set())
                if (foreign and top not in sys.stdlib_module_names) or top in frameworks:
                    found.append(f"{module}:{line} imports {target}")
                continue
            to = _part(target, source)
            allowed = to == part or to in ALLOWED[part]
            if part == to == "adapters":  # an adapter knows no other
                allowed = target.split(".")[:3] == module.split(".")[:3]
            if not allowed:
                found.append(f"{module}:{line} imports {target}")
    return found


def test_imports_run_one_way() -> None:
    assert forbidden_arrows(SOURCE) == []


def test_every_file_is_looked_at() -> None:
    modules = {_module(file, SOURCE) for file in SOURCE.rglob("*.py")}
    assert {"cosanneal", "cosanneal.core", "cosanneal.core.schedule"} <= modules
    tree = ast.parse((SOURCE / "core" / "schedule.py").read_text(encoding="utf-8"))
    seen = {target for _, target in _imported(tree, "cosanneal.core", SOURCE)}
    assert {"cosanneal.core.lookup", "cosanneal.core.errors", "math", "fractions"} <= seen


PARTS = ("core", "presets", "snapshots", "ensemble", "adapters", "report", "demo", "cli")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A library of empty parts, without a forbidden arrow."""
    source = tmp_path / "cosanneal"
    for part in PARTS:
        (source / part).mkdir(parents=True)
        (source / part / "__init__.py").touch()
        (source / part / "some.py").touch()
    for name in ("torch", "keras"):
        (source / "adapters" / f"{name}.py").touch()
    (source / "__init__.py").write_text("from .core.some import thing\n__version__ = '1'\n")
    assert forbidden_arrows(source) == []
    return source


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("presets/some.py", "from ..core.some import thing"),
        ("__init__.py", "from . import presets"),
        ("snapshots/some.py", "from ..core.some import thing"),
        ("snapshots/some.py", "from .. import __version__"),
        ("snapshots/some.py", "import numpy, safetensors.numpy"),
        ("snapshots/__init__.py", "from .some import thing"),
        ("ensemble/some.py", "from cosanneal.snapshots.some import thing"),
        ("ensemble/some.py", "from cosanneal import Schedule"),
        ("adapters/torch.py", "import torch\nfrom ..ensemble import some"),
        ("adapters/torch.py", "from . import torch"),
        ("adapters/jax.py", "import jax.numpy, optax\nfrom jax import lax"),
        ("report/some.py", "from ..ensemble.some import thing"),
        ("demo/some.py", "from ..adapters.torch import thing\nfrom ..report import some"),
        ("cli/some.py", "def f():\n    from ..demo import some\n    import torch"),
        ("core/some.py", "from . import errors\nimport math, collections.abc"),
    ],
)
def test_an_allowed_arrow_is_let_pass(tree: Path, file: str, code: str) -> None:
    (tree / file).write_text(code)
    assert forbidden_arrows(tree) == []


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [
        ("core/some.py", "import cosanneal.snapshots", "cosanneal.snapshots"),
        ("core/some.py", "from ..snapshots.some import thing", "cosanneal.snapshots.some"),
        ("core/some.py", "from .. import snapshots", "cosanneal.snapshots"),
        ("core/some.py", "from cosanneal import Schedule", "cosanneal"),
        ("core/some.py", "from ..presets import thing", "cosanneal.presets"),
        ("core/some.py", "import numpy as np", "numpy"),
        ("presets/some.py", "from cosanneal import Schedule", "cosanneal"),
        ("presets/torch.py", "import torch", "torch"),
        ("core/__init__.py", "from ..cli import some", "cosanneal.cli.some"),
        ("__init__.py", "from .snapshots import some", "cosanneal.snapshots.some"),
        ("__init__.py", "import numpy", "numpy"),
        ("snapshots/some.py", "from cosanneal.ensemble import thing", "cosanneal.ensemble"),
        ("snapshots/some.py", "def f():\n    from ..ensemble import x", "cosanneal.ensemble"),
        ("snapshots/some.py", "import torch.nn", "torch.nn"),
        ("ensemble/some.py", "from ..adapters.torch import x", "cosanneal.adapters.torch"),
        ("ensemble/some.py", "if 1:\n  try:\n    import jax\n  except E: pass", "jax"),
        (
            "ensemble/some.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..report import some",
            "cosanneal.report.some",
        ),
        ("adapters/torch.py", "from .keras import x", "cosanneal.adapters.keras"),
        ("adapters/torch.py", "from . import keras", "cosanneal.adapters.keras"),
        ("adapters/torch.py", "import cosanneal.adapters.keras", "cosanneal.adapters.keras"),
        ("adapters/__init__.py", "from .torch import x", "cosanneal.adapters.torch"),
        ("adapters/torch.py", "from ..report import some", "cosanneal.report.some"),
        ("adapters/jax.py", "from torch import Tensor", "torch"),
        ("adapters/jax.py", "def f():\n    import flax.linen", "flax.linen"),
        ("adapters/__init__.py", "import torch", "torch"),
        ("report/some.py", "from cosanneal.adapters import torch", "cosanneal.adapters.torch"),
        ("demo/some.py", "class A:\n    def f(s):\n        import cosanneal.cli", "cosanneal.cli"),
        (
            "core/some.py",
            "import importlib\nimportlib.import_module('cosanneal.cli')",
            "cosanneal.cli",
        ),
    ],
)
def test_a_forbidden_arrow_is_found(tree: Path, file: str, code: str, found: str) -> None:
    (tree / file).write_text(code)
    module = _module(tree / file, tree)
    arrows = forbidden_arrows(tree)
    assert [arrow.partition(":")[0] for arrow in arrows] == [module]
    assert arrows[0].endswith(f" imports {found}")


def test_a_part_that_nobody_knows_is_found(tree: Path) -> None:
    (tree / "extra").mkdir()
    (tree / "extra" / "__init__.py").touch()
    assert forbidden_arrows(tree) == ["cosanneal.extra: no such part of the library is known"]


def test_a_nested_package_is_walked(tree: Path) -> None:
    deep = tree / "adapters" / "jax" / "inner"
    deep.mkdir(parents=True)
    (deep / "some.py").write_text("from ... import torch\nfrom ....core import some\n")
    assert forbidden_arrows(tree) == [
        "cosanneal.adapters.jax.inner.some:1 imports cosanneal.adapters.torch"
    ]
