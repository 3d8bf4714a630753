"""The command line, called as a user would, and what it prints."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cosanneal.cli.app import app


class Command:
    """A command by its name, or the whole command line, called in this process."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def call(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, [*self._names, *map(str, arguments)])

    def text_of(self, *arguments: object) -> str:
        result = self.call(*arguments)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return result.stdout

    def json_of(self, *arguments: object) -> dict[str, Any]:
        document = json.loads(self.text_of(*arguments, "--json"))
        assert isinstance(document, dict)
        return document

    def error_of(self, *arguments: object) -> str:
        """The one line on stderr, without the word before it."""
        result = self.call(*arguments)
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


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Colours as if nobody had asked for or against them.
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**inherited, "PYTHONIOENCODING": "utf-8", "COLUMNS": "80", **environment},
        check=False,
        timeout=60,
    )


MAIN = "import sys; from cosanneal.cli import main; main()"

# A finder that says of one top-level package, or of one module, that it is not there.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
from cosanneal.cli import main
main()
"""
