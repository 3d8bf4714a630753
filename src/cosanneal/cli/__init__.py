"""The command line: `cosanneal plan` and its siblings.

Importing this package needs the standard library only. The commands need
typer and rich, which come with `cosanneal[cli]`; they are imported when `main`
runs, so that a missing one can be named together with its remedy.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the console script."""
    try:
        from .app import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.stderr.write(
            f"The command line needs typer and rich ({error}). "
            "Install them with: python -m pip install 'cosanneal[cli]'\n"
        )
        sys.exit(1)
    app(prog_name="cosanneal")
