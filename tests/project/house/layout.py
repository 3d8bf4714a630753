"""Tests lie as src/ does: tests/core/test_lookup.py tests src/cosanneal/core/lookup.py.

A test's name may go on: test_lookup_growth.py is about core/lookup.py as well. test_init.py and
test_main.py are about `__init__.py` and `__main__.py`. What tests share stands in tests/shared.
"""

from __future__ import annotations

from pathlib import Path

# Folders that test no single file: why.
APART = {
    "arrays": "the core beside numpy, which the session of tests/core has not installed",
    "benchmarks": "tests the folder beside src/",
    "browser": "one page as a whole, in a browser",
    "clusters": "what is trained and predicted with on many machines: one file for each library",
    "gpu": "what a framework does on a device: one file for each session",
    "kills": "what kills training runs of all frameworks, and the runs that it kills",
    "parity": "all frameworks beside each other",
    "peers": "presets beside the libraries that they stand for, one file for each of those",
    "project": "the project itself: its sessions and the rules of the house",
    "readme": "what the README shows",
    "shared": "what tests have in common, and no test",
}
NO_TESTS = ("__init__.py", "conftest.py")


def found(source: Path, tests: Path | None = None, apart: dict[str, str] = APART) -> list[str]:
    """Test files that name no file of the package, helpers among tests, tests among helpers."""
    tests = tests or source.parents[1] / "tests"
    lines = [f"tests/{name} is no folder" for name in apart if not (tests / name).is_dir()]
    for path in sorted(tests.rglob("*.py")):
        place = path.relative_to(tests)
        shown = f"tests/{place.as_posix()}"
        is_test = path.name.startswith("test_")
        if place.parts[0] == "shared" and is_test:
            lines.append(f"{shown} is a test")
        if path.name in NO_TESTS or place.parts[0] in apart:
            continue
        if not is_test:
            lines.append(f"{shown} is no test; what tests share stands in tests/shared")
        elif not _names_one_of(path.stem.removeprefix("test_"), source / place.parent):
            folder = "/".join((source.parent.name, source.name, *place.parent.parts))
            lines.append(f"{shown} names no file of {folder}")
    return lines


def _names_one_of(name: str, folder: Path) -> bool:
    stems = [path.stem.strip("_") for path in folder.glob("*.py")]
    return any(f"{name}_".startswith(f"{stem}_") for stem in stems)
