"""`cosanneal inspect`, `verify` and `average`, called as a user would."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import safetensors.numpy

from cosanneal.snapshots import Snapshot, SnapshotStore
from tests.shared.calling import BLOCK, MAIN, Command, run_python
from tests.shared.files import write

COMMANDS = Command()
call, text_of, error_of = COMMANDS.call, COMMANDS.text_of, COMMANDS.error_of


def record(folder: Path | str, count: int = 5, **changes: Any) -> list[Snapshot]:
    store = SnapshotStore(folder)
    for cycle in range(count):
        arguments: dict[str, Any] = {
            "arrays": {"w": np.full(1000, cycle, np.float32), "n": np.array(cycle)},
            "metrics": {"loss": 1 / (cycle + 3), "epoch": cycle},
            "rate": 0.1 / 3,
            "framework": "torch",
            "versions": {"torch": "2.13.0"},
            **changes,
        }
        write(store, cycle=cycle, step=12_000 * (cycle + 1), **arguments)
    return store.list()


def damage(snapshot: Snapshot, place: int) -> None:
    content = bytearray(snapshot.path.read_bytes())
    content[place] ^= 1
    snapshot.path.write_bytes(content)


def rows_of(text: str) -> list[list[str]]:
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    return [line.split() for line in lines[rule - 1 :] if not line.startswith("──")]


def test_inspect_shows_a_row_for_each_snapshot(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TZ", "UTC")
    snapshots = record(tmp_path, 2)
    for snapshot in snapshots:
        os.utime(snapshot.path, (1_700_000_000, 1_700_000_000))
    text = text_of("inspect", tmp_path)
    sizes = [snapshot.path.stat().st_size / 1000 for snapshot in snapshots]
    assert text.splitlines()[0] == f"2 snapshots in {tmp_path}, {sum(sizes):.3g} kB"
    assert text.splitlines()[1] == "2 tensors of torch 2.13.0: float32 4 kB, int64 8 B"
    when = ["2023-11-14", "22:13"]
    assert rows_of(text) == [
        ["cycle", "step", "rate", "size", "written", "epoch", "loss"],
        ["0", "12000", "0.03333", f"{sizes[0]:.3g}", "kB", *when, "0", "0.3333"],
        ["1", "24000", "0.03333", f"{sizes[1]:.3g}", "kB", *when, "1", "0.25"],
    ]


def test_parts_are_shown_verified_and_averaged_as_parts(tmp_path: Path) -> None:
    rest = {"base": "0" * 32}
    record(tmp_path / "runs", 2, rest=rest)
    text = text_of("inspect", tmp_path / "runs")
    assert (
        text.splitlines()[1] == "2 of 3 tensors, a part, of torch 2.13.0: float32 4 kB, int64 8 B"
    )
    rows = json.loads(text_of("inspect", tmp_path / "runs", "--json"))["snapshots"]
    assert [row["left_out"] for row in rows] == [1, 1]
    assert text_of("verify", tmp_path / "runs").startswith("Whole: 2 of 2")
    out = tmp_path / "mean.safetensors"
    text_of("average", tmp_path / "runs", "-o", out)
    with safetensors.safe_open(out, framework="np") as file:
        assert json.loads(file.metadata()["rest"]) == rest
    write(
        SnapshotStore(tmp_path / "runs"),
        cycle=2,
        step=36_000,
        rest={"base": "1" * 32},
        arrays={"w": np.full(1000, 1, np.float32), "n": np.array(1)},
        framework="torch",
    )
    message = error_of("average", tmp_path / "runs", "-o", tmp_path / "other.safetensors")
    assert "leave out the same" in message
    assert "'base'" in message


def test_inspect_as_json_has_everything(tmp_path: Path) -> None:
    snapshots = record(
        tmp_path, 2, metrics={"loss": float("nan"), "per class": [0.5, float("inf")]}
    )
    found = json.loads(text_of("inspect", tmp_path, "--json"), parse_constant=pytest.fail)
    assert found["folders"] == [str(tmp_path)]
    assert [row["name"] for row in found["snapshots"]] == [s.path.name for s in snapshots]
    row = found["snapshots"][1]
    assert row.pop("written").endswith("+00:00")
    assert row == {
        "folder": str(tmp_path),
        "name": "cycle-0001-step-0000024000.safetensors",
        "cycle": 1,
        "step": 24_000,
        "bytes": snapshots[1].path.stat().st_size,
        "error": None,
        "framework": "torch",
        "versions": {"torch": "2.13.0"},
        "digest": snapshots[1].metadata["digest"],
        "rate": 0.1 / 3,
        "metrics": {"loss": None, "per class": [0.5, None]},
        "tensors": 2,
        "left_out": None,
        "dtypes": {"float32": 4000, "int64": 8},
        "nonfinite": None,
    }


LONG = {f"validation_accuracy_of_class_{i}": i / 7 for i in range(9)}


@pytest.mark.parametrize("metrics", [{}, {"loss": 0.5}, LONG, {"x" * 200: 1}, {"note": "é" * 99}])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_inspect_fits_the_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: dict[str, Any], columns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    record(Path("runs"), 12, metrics=metrics)
    text = text_of("inspect", "runs")
    assert len(rows_of(text)) >= 13
    # Metrics that do not fit are named, and never make a table wider or its rows taller.
    for name in metrics:
        assert name in text.replace("\n", "")
    table = text.partition("cycle ")[2].partition("--json")[0]
    assert len(table.splitlines()) == 14
    assert max(map(len, text.splitlines())) <= columns


def test_metrics_that_only_some_have_leave_a_gap(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    write(store, cycle=0, step=10, metrics={"loss": 0.5})
    write(store, cycle=1, step=20, metrics={"f1": 0.25})
    rows = rows_of(text_of("inspect", tmp_path))
    assert [row[5:] for row in rows] == [
        ["loss", "f1"],
        [*rows[1][5:7], "0.5"],
        [*rows[2][5:7], "0.25"],
    ]


def test_metrics_that_are_no_number_are_shown_as_they_are(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    values = [float("nan"), float("inf"), [0.5, float("-inf")], None]
    for cycle, value in enumerate(values):
        write(store, cycle=cycle, step=cycle + 1, metrics={"loss": value})
    shown = [row[7:] for row in rows_of(text_of("inspect", tmp_path))]
    assert shown == [[], ["nan"], ["inf"], ["[0.5,", "-inf]"], ["None"]]


def test_snapshots_of_different_tensors_are_told_apart(tmp_path: Path) -> None:
    record(tmp_path, 8)
    write(SnapshotStore(tmp_path), cycle=8, step=200_000, arrays={"w": np.zeros(3)})
    lines = [line.rstrip() for line in text_of("inspect", tmp_path).splitlines()]
    assert lines[1:3] == [
        "2 tensors of torch 2.13.0: float32 4 kB, int64 8 B (step 12000, 24000, 36000,",
        "48000, 60000 and 3 more)",
    ]
    assert lines[3].startswith("1 tensor of numpy ")
    assert lines[3].endswith(": float64 24 B (step 200000)")


def test_what_a_file_says_does_not_command_the_terminal(tmp_path: Path) -> None:
    record(tmp_path, 1, metrics={"a\x1b[31m": "\x1b]0;x\x07", "\n": 1}, framework="t\x1b[2J")
    result = call("inspect", tmp_path)
    assert "\x1b" not in result.stdout
    assert r"a\x1b[31m" in result.stdout


def test_inspect_names_what_it_cannot_read(tmp_path: Path) -> None:
    snapshots = record(tmp_path, 3)
    damage(snapshots[1], 60)
    result = call("inspect", tmp_path)
    assert result.exit_code == 1
    assert [row[2] for row in rows_of(result.stdout)] == ["rate", "0.03333", "damaged", "0.03333"]
    assert result.stderr.startswith(f"Error: Snapshot {snapshots[1].path} could not be read: ")
    assert result.stderr.count("\n") == 1
    result = call("inspect", tmp_path, "--json")
    assert result.exit_code == 1
    errors = [row["error"] for row in json.loads(result.stdout)["snapshots"]]
    assert errors[0] is errors[2] is None
    assert str(snapshots[1].path) in errors[1]


def test_a_folder_without_snapshots_says_so(tmp_path: Path) -> None:
    assert text_of("inspect", tmp_path) == f"0 snapshots in {tmp_path}, 0 B\n"
    assert json.loads(text_of("inspect", tmp_path, "--json"))["snapshots"] == []
    # Of none there is no mean, and nothing that could be called whole.
    refused = f"Folder {tmp_path} must hold at least one snapshot. Received: 0"
    assert error_of("average", tmp_path, "-o", tmp_path / "x") == refused
    assert error_of("verify", tmp_path) == refused
    assert error_of("verify", tmp_path, "--json") == refused
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cycle-0000-step-0000000001.safetensors").touch()
    assert error_of("verify", tmp_path) == f"{refused}; give a run in it, such as {tmp_path}/run"


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["average", "-o", "x.safetensors"]])
def test_what_is_no_folder_is_refused(tmp_path: Path, command: list[str]) -> None:
    message = "Argument FOLDER must be a folder, or the file of a snapshot. Received: nowhere, no"
    assert message in error_of(*command, "nowhere")
    assert "n could not be read: File name too long" in error_of(*command, "n" * 300)
    (tmp_path / "file").touch()
    assert "file, a file" in error_of(*command, tmp_path / "file")


def test_verify_reads_everything_and_names_what_is_wrong(tmp_path: Path) -> None:
    snapshots = record(tmp_path)
    assert text_of("verify", tmp_path) == f"Whole: 5 of 5 snapshots in {tmp_path}\n"
    damage(snapshots[1], -1)
    damage(snapshots[3], 60)
    # What only the data show, `inspect` does not see.
    assert call("inspect", tmp_path).stderr.count("\n") == 1
    result = call("verify", tmp_path)
    assert result.exit_code == 1
    assert result.stdout == f"Whole: 3 of 5 snapshots in {tmp_path}\n"
    first, second = result.stderr.splitlines()
    assert first.startswith(f"Error: Snapshot {snapshots[1].path} is damaged: its tensor 'w'")
    assert second.startswith(f"Error: Snapshot {snapshots[3].path} could not be read")
    result = call("verify", tmp_path, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    rows = json.loads(result.stdout)["snapshots"]
    assert [row["error"] is None for row in rows] == [True, False, True, False, True]


def diverged(folder: Path) -> None:
    """Three snapshots; the second is noted not to be finite, the third was written before that."""
    store = SnapshotStore(folder)
    for cycle, (value, noted) in enumerate([(1.0, None), (np.nan, "w[/x]"), (np.inf, None)]):
        arrays = {"n": np.array(cycle), "w[/x]": np.full(1000, value, np.float32)}
        write(store, cycle=cycle, step=100 * (cycle + 1), arrays=arrays, nonfinite=noted)


def test_inspect_marks_what_is_not_finite(tmp_path: Path) -> None:
    diverged(tmp_path)
    result = call("inspect", tmp_path)
    assert result.exit_code == 0
    assert rows_of(result.stdout)[0][-2:] == ["finite", "loss"]
    assert ["no" in row for row in rows_of(result.stdout)] == [False, False, True, False]
    assert result.stderr == (
        "Note: cycle-0001-step-0000000200.safetensors is not finite, first in its tensor 'w[/x]'; "
        "an ensemble or an average refuses it.\n"
    )
    rows = json.loads(text_of("inspect", tmp_path, "--json"))["snapshots"]
    assert [row["nonfinite"] for row in rows] == [None, "w[/x]", None]


def test_verify_says_what_is_not_finite_though_whole(tmp_path: Path) -> None:
    diverged(tmp_path)
    result = call("verify", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"Whole: 3 of 3 snapshots in {tmp_path}\n")
    second, third = result.stderr.splitlines()
    assert second.startswith("Note: cycle-0001-step-0000000200.safetensors is not finite")
    assert "in its tensor 'w[/x]'. It is whole, but an ensemble or an average refuses it" in third
    rows = json.loads(text_of("verify", tmp_path, "--json"))["snapshots"]
    assert [row["nonfinite"] for row in rows] == [None, "w[/x]", "w[/x]"]


def test_average_refuses_what_is_not_finite_and_leaves_it_out_when_told(tmp_path: Path) -> None:
    diverged(tmp_path / "runs")
    out = tmp_path / "mean.safetensors"
    refused = error_of("average", tmp_path / "runs", "-o", out)
    assert "cycle-0001-step-0000000200.safetensors with a NaN" in refused
    assert "in its tensor 'w[/x]'" in refused
    assert refused.endswith("leave it out by --without")
    assert not out.exists()
    last = ("--without", "cycle-0002-step-0000000300.safetensors")
    text = text_of("average", tmp_path / "runs", "-o", out, "--without", "1", *last)
    assert text.startswith("Averaged 1 snapshot (step 100)")
    assert (safetensors.numpy.load_file(out)["w[/x]"] == 1).all()
    assert "Option --without must name snapshots of" in error_of(
        "average", tmp_path / "runs", "-o", out, "--without", "7"
    )
    assert "beside those of --without. Received: 1" in error_of(
        "average", tmp_path / "runs", "-o", out, "--without", "1", *last, "--last", "2"
    )


def test_average_writes_the_mean_of_the_last(tmp_path: Path) -> None:
    record(tmp_path)
    out = tmp_path / "mean.safetensors"
    text = text_of("average", tmp_path, "--last", "3", "-o", out)
    assert text == (
        f"Averaged 3 snapshots (step 36000, 48000, 60000) into {out}\n"
        "Taken from the newest, for integers have no mean: n\n"
        "The loss of the mean was not measured: average_weights in Python does it\n"
    )
    found = safetensors.numpy.load_file(out)
    assert (found["w"] == 3).all()
    assert found["n"] == 4
    assert error_of("average", tmp_path, "-o", out) == (
        f"The file of an average must not be there yet. Received: {out}; choose another "
        "name, or replace it with --force"
    )
    text_of("average", tmp_path, "-o", out, "--force")
    assert (safetensors.numpy.load_file(out)["w"] == 2).all()
    # The average is no snapshot, though it lies beside them.
    assert len(SnapshotStore(tmp_path).list()) == 5


def test_average_as_json(tmp_path: Path) -> None:
    snapshots = record(tmp_path / "runs")
    out = tmp_path / "mean.safetensors"
    assert json.loads(text_of("average", tmp_path / "runs", "-o", out, "--last=2", "--json")) == {
        "out": str(out),
        "bytes": out.stat().st_size,
        "averaged": [snapshot.path.name for snapshot in snapshots[-2:]],
        "taken_from_newest_though_different": ["n"],
        "running_statistics_averaged": [],
    }


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("features.3.running_var", True),
        ("running_mean", True),
        ("batch_normalization/moving_mean", True),
        ("bn/moving_variance", True),
        ("batch_stats.BatchNorm_0.mean", True),
        ("features.3.weight", False),
        ("my_running_mean", False),
        ("running_mean.weight", False),
        ("moving_mean_head/kernel", False),
    ],
)
def test_average_says_that_running_statistics_are_not_the_means(
    tmp_path: Path, name: str, is_one: bool
) -> None:
    record(tmp_path / "runs", 2, arrays={"w": np.zeros(3), name: np.ones(2)})
    given = ["average", tmp_path / "runs", "-o", tmp_path / "mean.safetensors"]
    *_, last = text_of(*given).splitlines()
    assert last.startswith("The loss of the mean was not measured")
    assert (f"BatchNorm's running statistics were averaged ({name}, ...): " in last) == is_one
    found = json.loads(text_of(*given, "--force", "--json"))
    assert found["running_statistics_averaged"] == ([name] if is_one else [])


def test_average_refuses_what_it_cannot_average(tmp_path: Path) -> None:
    snapshots = record(tmp_path)
    out = tmp_path / "mean.safetensors"
    assert "the 9 snapshots of --last. Received: 5" in error_of(
        "average", tmp_path, "-o", out, "--last", "9"
    )
    write(SnapshotStore(tmp_path), cycle=5, step=99_000, arrays={"w": np.zeros(3)})
    assert "unlike the newest: its tensor 'w' is float32" in error_of(
        "average", tmp_path, "-o", out
    )
    store = SnapshotStore(tmp_path)
    store.delete(store.list()[-1])
    damage(snapshots[1], -1)
    assert "'w' does not match its digest" in error_of("average", tmp_path, "-o", out)
    assert not out.exists()


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    record(tmp_path)
    for command in (["verify"], ["average", "-o", str(tmp_path / "mean.safetensors")]):
        done = run_python(MAIN, *command, str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        shown = run_python(
            MAIN,
            *command,
            str(tmp_path),
            *(["--force"] if command[0] == "average" else []),
            FORCE_COLOR="1",
            TERM="xterm",
        )
        assert "verifying" in shown.stderr or "averaging" in shown.stderr
        assert "━" in shown.stderr
        assert "verifying" not in shown.stdout


@pytest.mark.parametrize("name", ["numpy", "xxhash"])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, name: str) -> None:
    done = run_python(BLOCK.format(name=name), "inspect", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: Reading snapshots needs the package '{name}', which is not installed. "
        "Install it with: python -m pip install 'cosanneal[cli]'\n"
    )


def test_no_framework_is_imported(tmp_path: Path) -> None:
    record(tmp_path)
    code = """
import sys
from cosanneal.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "jax", "matplotlib", "numpy") if name in sys.modules])
"""
    done = run_python(code, "verify", str(tmp_path))
    assert done.stdout.splitlines()[-1] == "['numpy']"


def test_inspect_looks_at_the_last_ones_alone(tmp_path: Path) -> None:
    snapshots = record(tmp_path, 5)
    damage(snapshots[0], 60)
    lines = text_of("inspect", tmp_path, "--last", 2).splitlines()
    assert lines[0].startswith(f"2 of 5 snapshots in {tmp_path}, ")
    assert [row[1] for row in rows_of("\n".join(lines[:-1]))] == ["step", "48000", "60000"]
    assert lines[-1] == "3 older ones are not in the table: --last 5 shows them"
    document = json.loads(text_of("inspect", tmp_path, "--last", 1, "--json"))
    assert [row["step"] for row in document["snapshots"]] == [60_000]
    assert call("inspect", tmp_path, "--last", 9).exit_code == 1
    assert call("inspect", tmp_path, "--last", 0).exit_code == 2


def test_inspect_of_many_is_short_in_a_terminal_and_whole_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = record(tmp_path, 130)[0]
    damage(first, 60)
    piped = call("inspect", tmp_path)
    assert len(rows_of(piped.stdout)) == 131
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    seen = call("inspect", tmp_path)
    assert len(seen.stdout.splitlines()) < 110
    assert "130 snapshots" in seen.stdout
    assert "30 older ones are not in the table: --last 130 shows them" in seen.stdout
    # All of them were looked at.
    assert seen.exit_code == 1
    assert first.path.name in seen.stderr.replace("\n", "")
    assert "12000 " in call("inspect", tmp_path, "--last", 130).stdout


def test_inspect_shows_several_folders_and_files(tmp_path: Path) -> None:
    for name in "ab":
        record(tmp_path / name, 3)
    one = record(tmp_path / "c", 2)[1]
    given = ["inspect", tmp_path / "a", tmp_path / "b", one.path]
    lines = text_of(*given, "--last", "2").splitlines()
    counts = ("2 of 3 snapshots", "2 of 3 snapshots", "1 snapshot")
    for line, name, count in zip([x for x in lines if "snapshot" in x], "abc", counts, strict=True):
        assert line.startswith(f"{count} in {tmp_path / name}, ")
    found = json.loads(text_of(*given, "--json"))
    assert found["folders"] == [str(tmp_path / name) for name in "abc"]
    assert [Path(row["folder"]).name for row in found["snapshots"]] == [*"aaabbbc"]
    assert found["snapshots"][-1]["name"] == one.path.name


def test_verify_takes_several_folders_and_names_what_is_damaged(tmp_path: Path) -> None:
    record(tmp_path / "a", 2)
    damage(record(tmp_path / "b", 2)[1], -1)
    result = call("verify", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 1
    assert f"Whole: 3 of 4 snapshots in {tmp_path / 'a'} and {tmp_path / 'b'}" in result.output
    result = call("verify", tmp_path / "a", tmp_path / "b", "--json")
    rows = json.loads(result.stdout)["snapshots"]
    assert [row["name"].split("/")[0] for row in rows] == [*"aabb"]
    assert [row["error"] is None for row in rows] == [True, True, True, False]


def test_average_takes_several_folders_and_leaves_one_out(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a", 3), record(tmp_path / "b", 2, arrays={"w": np.full(4, 9.0)})
    for each in a:
        each.path.unlink()
    a = record(tmp_path / "a", 3, arrays={"w": np.arange(4.0)})
    given = ["average", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "mean.safetensors"]
    left_out = f"b/{b[0].path.name}"
    found = json.loads(text_of(*given, "--last", "3", "--without", left_out, "--json"))
    expected = [f"a/{each.path.name}" for each in a[1:]] + [f"b/{b[1].path.name}"]
    assert found["averaged"] == expected
    mean = safetensors.numpy.load_file(tmp_path / "mean.safetensors")["w"]
    np.testing.assert_array_equal(mean, (2 * np.arange(4.0) + 9) / 3)
    assert "of which there is 2" in error_of(*given, "--force", "--without", "1")
    assert "must hold the 9 snapshots of --last" in error_of(*given, "--force", "--last", "9")


def test_several_folders_that_cannot_be_are_said(tmp_path: Path) -> None:
    record(tmp_path / "a", 1)
    (tmp_path / "empty").mkdir()
    for command in (["inspect"], ["verify"], ["average", "-o", tmp_path / "x.safetensors"]):
        for other, message in (
            ("a", "must name each snapshot once"),
            ("empty", "must name folders that hold snapshots"),
            ("none", "no such folder"),
        ):
            assert message in error_of(*command, tmp_path / "a", tmp_path / other)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder at a URL with five snapshots."""
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    record("memory://test-cli/run")
    yield "memory://test-cli/run"
    fsspec.filesystem("memory").rm("/test-cli", recursive=True)


def test_a_folder_at_a_url_is_inspected_as_a_local_one(url: str, tmp_path: Path) -> None:
    record(tmp_path / "run")
    there, here = (json.loads(text_of("inspect", str(each), "--json")) for each in (url, "run"))
    assert there["folders"] == [url]
    for row in (*there["snapshots"], *here["snapshots"]):
        del row["folder"]
        assert row.pop("written") is not None
    assert there["snapshots"] == here["snapshots"]
    shown = text_of("inspect", url)
    assert f"5 snapshots in {url}, " in shown
    one = f"{url}/cycle-0002-step-0000036000.safetensors"
    assert f"1 snapshot in {url}, " in text_of("inspect", one)
    assert "0 snapshots in memory://test-cli/none" in text_of("inspect", "memory://test-cli/none")


def test_a_folder_at_a_url_is_verified_and_averaged(url: str, tmp_path: Path) -> None:
    assert f"Whole: 5 of 5 snapshots in {url}" in text_of("verify", url)
    call("average", url, "--last", "3", "-o", "mean.safetensors")
    mean = safetensors.numpy.load_file(tmp_path / "mean.safetensors")
    assert (mean["w"] == 3).all()
    files, name = fsspec.filesystem("memory"), "cycle-0002-step-0000036000.safetensors"
    content = bytearray(files.cat_file(f"/test-cli/run/{name}"))
    content[-3] ^= 1
    files.pipe_file(f"/test-cli/run/{name}", bytes(content))
    shutil.rmtree(tmp_path / "cache")
    said = call("verify", url)
    assert said.exit_code == 1
    assert f"{url}/{name} is damaged" in said.output
    assert "must hold at least one snapshot" in error_of("verify", "memory://test-cli/none")
    assert "that fsspec reaches" in error_of("verify", "nowhere://test-cli/none")
