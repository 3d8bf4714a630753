"""What files, folders and fields are named does not command the terminal, and ends no command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.text import Text

from cosanneal.cli.console import outside
from cosanneal.ensemble import write_results
from tests.cli.test_snapshots import record, rows_of
from tests.shared.calling import MAIN, Command, run_python
from tests.shared.documents import bare, members_of, record_folder, whole

call, text_of, error_of = Command().call, Command().text_of, Command().error_of

HOSTILE = "a\x1b]0;x\x07\u202eb\u2066[/red][bold]\x9b2J"
SEEN = r"a\x1b]0;x\x07\u202eb\u2066[/red][bold]\x9b2J"


def test_text_from_outside_is_seen_as_it_is() -> None:
    assert outside(HOSTILE).plain == SEEN
    assert outside("acc[train] 名前 ünï").plain == "acc[train] 名前 ünï"
    assert outside("\udcff\ud800\n").plain == r"\udcff\ud800\n"
    assert isinstance(outside("x", "bold"), Text)


def test_names_of_metrics_are_no_markup(tmp_path: Path) -> None:
    record(tmp_path / "a", 1, metrics={"acc[train]": 0.5, "acc[val]": 0.25})
    rows = rows_of(text_of("inspect", tmp_path / "a"))
    assert [row[-2:] for row in rows] == [["acc[train]", "acc[val]"], ["0.5", "0.25"]]
    record(tmp_path / "b", 1, metrics={"a[/x]": 1, "[red]": "[b]c"})
    rows = rows_of(text_of("inspect", tmp_path / "b"))
    assert [row[-2:] for row in rows] == [["[red]", "a[/x]"], ["[b]c", "1"]]


def test_names_that_look_alike_are_all_told_of(tmp_path: Path) -> None:
    record(tmp_path, 1, metrics={"\x1b": 1, r"\x1b": 2})
    text = text_of("inspect", tmp_path)
    assert text.splitlines()[-1] == r"--json also has: \x1b"


@pytest.mark.parametrize("command", ["inspect", "verify", "average", "report"])
def test_a_folder_and_its_tensors_do_not_command_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(HOSTILE.replace("/", "|"))
    snapshots = record(folder, 2, arrays={HOSTILE: np.zeros(3), "n": np.array(1)})
    record(folder, 1, arrays={HOSTILE: np.zeros(3), "n": np.array(2)})
    out = folder / f"out.{'html' if command == 'report' else 'safetensors'}"
    result = call(command, folder, *(["--out", out] if command in ("average", "report") else []))
    assert result.exit_code == 0, result.stderr
    assert SEEN.replace("/", "|") in result.stdout
    content = bytearray(snapshots[1].path.read_bytes())
    content[-1] ^= 1  # a tensor's
    content[60] ^= command in ("inspect", "report")  # or the header's
    snapshots[1].path.write_bytes(content)
    broken = call(command, folder, *(["--out", out, "--force"] if command == "average" else []))
    assert broken.exit_code in (1, 2)
    assert SEEN.replace("/", "|") in broken.stderr
    for text in (result.stdout, broken.stdout, broken.stderr):
        assert not set("\x1b\x07\u202e\u2066\x9b") & set(text)


def test_members_and_fields_do_not_command_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    p, y = members_of(2, 300)
    np.save("y.npy", y)
    for i, member in enumerate(p):
        np.save(f"{i}{HOSTILE.replace('/', '|')}.npy", member)
    result = call("evaluate", "--predictions", "[01]*.npy", "--labels", "y.npy")
    assert result.exit_code == 0, result.stderr
    assert not set("\x1b\x07\u202e\u2066\x9b") & set(result.stdout)
    assert r"0a\x1b]0;x" in result.stdout.replace("\n", "")
    write_results(bare(comparison=whole(2)["comparison"]), "results.json")
    document = json.loads(Path("results.json").read_text())
    document["comparison"][HOSTILE] = 1
    Path("results.json").write_text(json.dumps(document))
    assert SEEN in error_of("report", "results.json")


@pytest.mark.skipif(sys.platform != "linux", reason="folders have Unicode names there")
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/run\xff"
    record_folder(Path(os.fsdecode(folder)))
    for command in ("inspect", "verify", "average", "report"):
        page = [] if command != "report" else ["--out", os.fsdecode(folder) + "/page.html"]
        mean = [] if command != "average" else ["--out", os.fsdecode(folder) + "/m.safetensors"]
        done = run_python(MAIN, command, os.fsdecode(folder), *page, *mean)
        assert done.returncode == 0, done.stderr
        assert r"run\udcff" in done.stdout
    missing = run_python(MAIN, "inspect", os.fsdecode(folder) + "/none")
    assert missing.returncode == 2
    assert missing.stderr.startswith("Error: Argument FOLDER must be a folder, or the file")


@pytest.mark.skipif(sys.platform != "linux", reason="folders have Unicode names there")
def test_what_the_output_has_no_character_for_is_an_escape(tmp_path: Path) -> None:
    folder = str(tmp_path / "漢é")
    record_folder(Path(folder))
    page, mean = f"{folder}/page.html", f"{folder}/mean.safetensors"
    for arguments in (["inspect"], ["verify"], ["average", "-o", mean], ["report", "-o", page]):
        done = run_python(MAIN, *arguments, folder, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert r"\u6f22\xe9" in done.stdout


def test_no_columns_at_all_are_80(tmp_path: Path) -> None:
    record_folder(tmp_path)
    asked = run_python(MAIN, "inspect", str(tmp_path), COLUMNS="80")
    assert len(asked.stdout) > 200
    assert run_python(MAIN, "inspect", str(tmp_path), COLUMNS="0").stdout == asked.stdout
    refused = run_python(MAIN, "inspect", str(tmp_path / "none"), COLUMNS="0")
    assert "no such folder" in refused.stderr
