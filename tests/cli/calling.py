"""`cosanneal plan`, called as a user would, and what it prints."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cosanneal.cli.app import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def text_of(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def json_of(*arguments: str) -> dict[str, Any]:
    document = json.loads(text_of(*arguments, "--json"))
    assert isinstance(document, dict)
    return document


def error_of(*arguments: str) -> str:
    """The one line on stderr, without the word before it."""
    result = call(*arguments)
    assert result.exit_code == 2, result.stdout
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ").removesuffix("\n")


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height
