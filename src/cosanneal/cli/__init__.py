"""The command line: `cosanneal plan` and its siblings.

Importing this package needs the standard library only. The commands need
typer and rich, which come with `cosanneal[cli]`; they are imported when `main`
runs, so that a missing one can be named together with its remedy.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

# What a write to stdout fails with where it cannot go on.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


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
    # What an encoding has no character for is seen as an escape, as on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="cosanneal")
    except OSError as error:
        # Of a file that is written by its name, `filename` tells.
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        with contextlib.suppress(OSError):  # which may be full as well
            sys.stderr.write(f"Error: The output could not be written: {error.strerror}\n")
        # What is left in the buffer would fail anew when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
