"""The console script in processes of its own: start-up, imports, missing extras."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cosanneal.cli.app import COMMANDS
from tests.shared.calling import BLOCK, MAIN, run_python


def test_no_command_shows_the_help() -> None:
    done = run_python(MAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run_python(MAIN, "--help").stdout
    assert done.stdout.startswith("Usage: cosanneal")


def test_the_help_lists_every_command_with_the_first_line_of_its_own_help() -> None:
    words = " ".join(run_python(MAIN, "--help").stdout.split())
    for name, module in COMMANDS.items():
        function = getattr(importlib.import_module(f"cosanneal.cli.{module}"), name)
        first = (inspect.getdoc(function) or "").partition("\n")[0]
        assert first
        assert f" {name} {first}" in words
        assert first in " ".join(run_python(MAIN, name, "--help").stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_no_flag_that_it_takes_a_value_and_breaks_no_line_twice(name: str) -> None:
    text = run_python(MAIN, name, "--help").stdout
    assert "bool>" not in text
    assert re.search(r"--help +Show this message and exit\.", text)
    about = text[: text.index("╭")].split("\n", 3)[3]
    for paragraph in re.split(r"\n *\n", about):
        first, *lines = [line.strip() for line in paragraph.strip().split("\n")]
        for line in lines:  # the next line's first word had no room
            ends = first.endswith(".")  # older releases of typer leave no line between paragraphs
            assert ends or len(f"{first} {line.split()[0]}") > 78
            first = line


def test_the_help_of_all_imports_no_command() -> None:
    code = """
import sys
from cosanneal.cli import main
try:
    main()
finally:
    sys.stderr.write(repr(sorted(name for name in sys.modules if "cosanneal.cli." in name)))
"""
    assert run_python(code, "--help").stderr == "['cosanneal.cli.app']"
    assert (
        "'cosanneal.cli.plan', 'cosanneal.cli.preset'" in run_python(code, "plan", "--help").stderr
    )


@pytest.mark.parametrize("arguments", [["plon"], ["plan", "--total-stops", "3"]])
def test_what_is_misspelt_is_said_with_what_was_meant(arguments: list[str]) -> None:
    done = run_python(MAIN, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "No such" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plan_is_printed_without_escapes_when_piped() -> None:
    done = run_python(MAIN, "plan", "--total-steps", "1000", "--num-cycles", "5")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_colours_are_used_where_forced_and_not_with_no_color() -> None:
    arguments = ("plan", "--total-steps", "1000", "--num-cycles", "5")
    forced = run_python(MAIN, *arguments, FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[36m█" in forced.stdout
    plain = run_python(MAIN, *arguments, FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b[36m" not in plain.stdout
    assert "█" in plain.stdout


def test_an_error_is_one_line_without_a_traceback() -> None:
    done = run_python(MAIN, "plan", "--total-steps", "3", "--num-cycles", "4")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: Option --num-cycles must leave every cycle at least one")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "--help"], ["evaluate", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from cosanneal.cli import main
try:
    main()
finally:
    heavy = ["torch", "numpy", "matplotlib", "keras", "tensorflow", "jax", "safetensors"]
    sys.stderr.write(repr([name for name in heavy + {["typer"]} if name in sys.modules]))
"""
    done = run_python(code, *arguments)
    assert done.returncode == 0, done.stderr
    # typer stands for a module that is imported: the look into sys.modules is not blind.
    assert done.stderr == "['typer']"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cycle-steps", "10"],
        ["--preset", "sgdr", "eta_max=0.1", "T_0=10"],
        # So many steps that they are sampled.
        ["--compare=sgdr eta_max=1 T_0=9", "--compare=sgdr eta_max=1 T_0=8", "--steps=1000000"],
    ],
    ids=["plan", "preset", "compare"],
)
def test_a_plan_without_a_plot_imports_nothing_heavy(arguments: list[str]) -> None:
    code = """
import sys
from cosanneal.cli import main
try:
    main()
finally:
    sys.stderr.write(repr([name for name in ("numpy", "matplotlib") if name in sys.modules]))
"""
    done = run_python(code, "plan", *arguments, "--json")
    assert json.loads(done.stdout)["steps"] > 0
    assert done.stderr == "[]"


def test_importing_the_package_needs_the_standard_library_only() -> None:
    code = """
import sys, cosanneal.cli
print([name for name in ("typer", "rich", "click") if name in sys.modules])
"""
    assert run_python(code).stdout == "[]\n"


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name: str) -> None:
    done = run_python(BLOCK.format(name=name), "--help")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"The command line needs typer and rich (No module named '{name}'). "
        "Install them with: python -m pip install 'cosanneal[cli]'\n"
    )


def test_another_import_error_is_not_masked() -> None:
    done = run_python(BLOCK.format(name="cosanneal.core.cyclic"), "plan", "--help")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'cosanneal.core.cyclic'" in done.stderr
    assert "pip install" not in done.stderr


def test_a_plot_without_matplotlib_names_its_extra() -> None:
    done = run_python(
        BLOCK.format(name="matplotlib"), "plan", "--cycle-steps", "5", "--plot", "plan.png"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "Error: Drawing a figure needs the package 'matplotlib', which is not installed. "
        "Install it with: python -m pip install 'cosanneal[plot]'\n"
    )


def test_a_broken_matplotlib_is_not_masked() -> None:
    done = run_python(
        BLOCK.format(name="matplotlib._path"), "plan", "--cycle-steps", "5", "--plot", "plan.png"
    )
    assert done.returncode == 1
    assert "No module named 'matplotlib._path'" in done.stderr
    assert "pip install" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
def test_a_closed_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-c", MAIN, "plan", "--total-steps", "99999"]
    with subprocess.Popen(
        [*command, "--num-cycles", "50000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout is None or process.stderr is None:
            pytest.fail("no pipes")
        assert process.stdout.readline() == "{\n"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux'")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "--cycle-steps=5"], ["plan", "--cycle-steps=5", "--json"]]
)
def test_output_that_has_no_room_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: The output could not be written: No space left on device\n"


def test_another_failure_of_the_system_is_not_masked() -> None:
    code = """
import errno, sys
from cosanneal.cli import app, main
def fail(*_):
    raise OSError(errno.ENOSPC, "full", "a file")
app._imported = fail
main()
"""
    done = run_python(code, "plan", "--help")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_evaluating_without_numpy_names_the_extra() -> None:
    done = run_python(
        BLOCK.format(name="numpy"), "evaluate", "--predictions", __file__, "--labels", __file__
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'numpy'" in done.stderr
    assert "python -m pip install 'cosanneal[cli]'" in done.stderr
