"""What the commands share: consoles that stay readable when piped, and the need for numpy.

Names, paths and whatever else a file says may hold anything: it goes to a
terminal through `outside`, and errors and notes go through it here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import MissingExtraError


def output_console() -> Console:
    """A console on stdout: the terminal's width, or 80 columns when piped."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    # Highlighting would colour numbers inside sentences.
    console = Console(stderr=stderr, highlight=False)
    if not console.width:  # COLUMNS=0, of a terminal that knows no size
        console.width = 80
    return console


def visible(text: str) -> str:
    """The text in which what commands a terminal, or cannot be written, is seen as an escape."""
    if text.isprintable():
        return text
    escaped = (each.encode("unicode_escape").decode("ascii") for each in text)
    return "".join(
        each if each.isprintable() else escape for each, escape in zip(text, escaped, strict=True)
    )


def outside(text: str, style: str = "") -> Text:
    """Text that may come from outside: no markup in it is read, and all of it is visible."""
    return Text(visible(text), style)


def print_findings(console: Console, findings: Iterable[Mapping[str, str]]) -> None:
    """Print what was found unasked, each finding as one item of a list; nothing of none."""
    rows = Table.grid(padding=(0, 1))
    for finding in findings:
        rows.add_row("-", outside(finding["text"]))
    if rows.row_count:
        console.print("Found:")
        console.print(rows)


def print_error(message: str) -> None:
    """Write `message` to stderr: wrapped at words in a terminal, otherwise on one line."""
    _print_to_stderr(Text.assemble(("Error: ", "bold red"), _visible_lines(message)))


def print_note(message: str) -> None:
    """Write `message` to stderr, where it does not mix with a command's output."""
    _print_to_stderr(Text(_visible_lines(message)))


def _visible_lines(message: str) -> str:
    # The library's own messages may have several.
    return "\n".join(map(visible, message.split("\n")))


def _print_to_stderr(text: Text) -> None:
    console = _console(stderr=True)
    console.print(text, soft_wrap=not console.is_terminal)


@contextlib.contextmanager
def needs_package(needed_by: str) -> Iterator[None]:
    """Name the extra that a missing package comes with."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "xxhash"):
            raise
        raise MissingExtraError.for_extra("cli", package=error.name, needed_by=needed_by) from error
