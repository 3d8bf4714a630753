"""Print what breaks the rules: `python -m tests.project.house SOURCE [CHECK ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import arrows, circles, layout, names, reaches, sizes

CHECKS = {
    "arrows": arrows.found,
    "circles": circles.found,
    "reaches": reaches.found,
    "sizes": sizes.found,
    "names": names.found,
    "layout": layout.found,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.project.house")
    parser.add_argument("source", type=Path, help="the package's folder: src/cosanneal")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of: {', '.join(CHECKS)}")
    given = parser.parse_args()
    if unknown := {*given.checks} - {*CHECKS}:
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    count = 0
    for name in given.checks or CHECKS:
        lines = CHECKS[name](given.source.resolve())
        print(f"{name}: {len(lines)}", *lines, sep="\n  ")  # noqa: T201
        count += len(lines)
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
