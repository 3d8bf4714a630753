"""The command line's commands, gathered.

Each command is a function in a module of its own and is registered here. A
module imports at its top only what every command needs; frameworks, numpy and
matplotlib are imported inside the function that uses them, so that `--help`
answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.errors import CosannealError
from ..core.version import __version__
from .console import print_error
from .demo import demo
from .evaluate import evaluate
from .plan import plan
from .report import report
from .snapshots import average, inspect, verify

BAD_INPUT = 2  # the exit code of usage errors, in typer as in most commands


class _Commands(TyperGroup):
    """A group whose commands may raise CosannealError: one line on stderr, no traceback."""

    # `Any`, since the class of a context depends on typer's version.
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CosannealError as error:
            print_error(str(error))
            raise typer.Exit(BAD_INPUT) from error


app = typer.Typer(
    name="cosanneal",
    help="Cyclic cosine annealing and snapshot ensembles: train one model, get M.",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # An unexpected error is a bug: the plain traceback is what a report of it needs.
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cosanneal {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass


app.command()(plan)
app.command()(demo)
app.command()(inspect)
app.command()(verify)
app.command()(average)
app.command()(evaluate)
app.command()(report)
