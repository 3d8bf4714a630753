"""The command line's commands, gathered.

Each command is a function in a module of its own, which is named in `COMMANDS`
and imported when the command is called: `--help` answers at once, with the help
that it reads from the modules' text. There, frameworks, numpy and matplotlib
are imported inside the function that uses them.
"""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import rich  # noqa: F401 - the commands need it; where it is missing, that is to be said at once
import typer
from typer.core import TyperCommand, TyperGroup

from ..core.errors import CosannealError
from ..core.version import __version__

BAD_INPUT = 2  # the exit code of usage errors, in typer as in most commands

# The commands, and the modules that have their functions, which are named alike.
COMMANDS = {
    "plan": "plan",
    "demo": "demo",
    "inspect": "snapshots",
    "verify": "snapshots",
    "average": "snapshots",
    "evaluate": "evaluate",
    "export": "export",
    "report": "report",
    "study": "study",
}

# An unexpected error is a bug: the plain traceback is what a report of it needs.
_SETTINGS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False}


class _Commands(TyperGroup):
    """A group whose commands may raise CosannealError: one line on stderr, no traceback.

    It lists its commands without importing them, and in plain text: what would
    draw the list takes longer to import than all else.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # In their places, until one is called.
        self.commands.update({name: TyperCommand(name=name) for name in COMMANDS})

    # `Any`, since the class of a context depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # typer's `no_args_is_help` counts on rich to draw the help.
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _imported(name) if name in COMMANDS else command, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in COMMANDS])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CosannealError as error:
            from .console import print_error

            print_error(str(error))
            raise typer.Exit(BAD_INPUT) from error


def _summary(name: str) -> str:
    """The first line of a command's docstring, from the text of its module."""
    source = Path(__file__).with_name(f"{COMMANDS[name]}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    (function,) = (function for function in functions if function.name == name)
    return (ast.get_docstring(function) or "").partition("\n")[0]


class _Command(TyperCommand):
    """A command whose help says of no flag that it takes a value, which typer's own does."""

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for each in params:
            if getattr(each, "is_flag", False):
                each.metavar = ""
        return params


def _imported(name: str) -> Any:
    """The command itself."""
    alone = typer.Typer(**_SETTINGS)
    module = import_module(f".{COMMANDS[name]}", __package__)
    function = getattr(module, name)
    alone.command(
        name,
        cls=_Command,
        # typer keeps the docstring's lines, and breaks them again at the terminal's width.
        help=re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(function.__doc__ or "")),
        context_settings=getattr(module, "CONTEXT", None),
    )(function)
    return typer.main.get_command(alone)


app: typer.Typer = typer.Typer(
    name="cosanneal",
    help="Cyclic cosine annealing and snapshot ensembles: train one model, get M.",
    cls=_Commands,
    **_SETTINGS,
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
