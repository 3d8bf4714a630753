"""`cosanneal report`, called as a user would; and `evaluate --report`."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import fit, write_results
from cosanneal.snapshots import SnapshotStore
from tests.shared.calling import BLOCK, Command, run_python
from tests.shared.documents import bare, members_of, record_folder, whole
from tests.shared.recording import ArrayRecorder

call, error_of = Command().call, Command("report").error_of


def title_of(page: str) -> str:
    (title,) = re.findall("<h1>(.*)</h1>", Path(page).read_text(encoding="utf-8"))
    return str(title)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_becomes_a_page() -> None:
    record_folder(Path("run"))
    result = call("report", "run", "-o", "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout == "Wrote page.html, and 2 figures as PNG and SVG in page_files\n"
    assert title_of("page.html") == "Snapshots in run"
    assert (Path("page_files") / "training.png").is_file()


def test_a_document_becomes_a_page() -> None:
    document = bare(comparison=whole(2)["comparison"])
    write_results({**document, "demo": {"anything": 1}}, "results.json")
    result = call("report", "results.json", "--title", "Mine & others")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "Wrote report.html\n"
    assert title_of("report.html") == "Mine &amp; others"


def test_one_figure_is_written_as_one() -> None:
    write_results(bare(study=whole(2)["study"]), "results.json")
    result = call("report", "results.json")
    assert result.stdout == "Wrote report.html, and 1 figure as PNG and SVG in report_files\n"


def test_what_is_no_source_is_refused() -> None:
    assert error_of("missing") == (
        "Argument FOLDER|RESULTS.JSON must be a folder of snapshots or a results document. "
        "Received: missing, which does not exist"
    )
    Path("empty").mkdir()
    assert "must hold at least one snapshot" in error_of("empty")
    Path("text.json").write_text("text")
    assert "text.json could not be read: it is no JSON" in error_of("text.json")
    record_folder(Path("run"))
    assert "must end in .html" in error_of("run", "-o", "page.pdf")
    assert "could not be made ready for figures: No such file" in error_of(
        "run", "-o", "missing/page.html"
    )
    newest = SnapshotStore("run").list()[-1].path
    newest.write_bytes(b"short")
    assert f"{newest} could not be read" in error_of("run")
    assert not list(Path().glob("*.html"))


def test_several_sources_stand_side_by_side() -> None:
    record_folder(Path("run"))
    write_results(bare(comparison=whole(2)["comparison"]), "results.json")
    result = call("report", "run/", "results.json", "-o", "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "Wrote page.html, and 1 figure as PNG and SVG in page_files\n"
    assert title_of("page.html") == "2 runs side by side"
    page = Path("page.html").read_text(encoding="utf-8")
    assert "run and results.json" in page
    call("report", "run", "results.json", "--title", "Mine")
    assert title_of("report.html") == "Mine"
    assert "must name each source once" in error_of("run", "run/")
    assert "missing, which does not exist" in error_of("run", "missing")


def test_a_folder_at_a_url_becomes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSANNEAL_CACHE", str(tmp_path / "cache"))
    url = "memory://test-report/run"
    try:
        with ArrayRecorder(url, ca.CyclicCosine(0.1, total_steps=4, num_cycles=2)) as recorder:
            for i in range(4):
                recorder.step({"w": np.full(2, i)})
        result = call("report", url)
        assert result.exit_code == 0, result.stderr
        assert title_of("report.html") == f"Snapshots in {url}"
        record_folder(Path("run"))
        assert call("report", url, "run").exit_code == 0
        assert f"{url} and run" in Path("report.html").read_text(encoding="utf-8")
        assert "must hold at least one snapshot" in error_of("memory://test-report/none")
        message = (
            "the URL of a folder of snapshots. Received: memory://test-report/results.json, the"
        )
        assert message in error_of("memory://test-report/results.json")
    finally:
        fsspec.filesystem("memory").rm("/test-report", recursive=True)


def test_evaluate_writes_a_page_too() -> None:
    p, y = members_of(3, 2400)
    for part, at in (("val", slice(1200)), ("test", slice(1200, None))):
        Path(part).mkdir()
        np.save(f"{part}/y.npy", y[at])
        for i, member in enumerate(p):
            np.save(f"{part}/m{i}.npy", member[at])
    early = call("evaluate", "--predictions", "none", "--labels", "y", "--report", "page.pdf")
    assert early.exit_code == 2
    assert "must end in .html" in early.stderr
    options = ["--predictions", "test/m*.npy", "--labels", "test/y.npy"]
    options += ["--validation-predictions", "val/m*.npy", "--validation-labels", "val/y.npy"]
    result = call("evaluate", *options, "--report", "page.html", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "Wrote page.html, and 5 figures as PNG and SVG in page_files\n"
    assert title_of("page.html") == "3 members on 1,200 samples"
    document = json.loads(result.stdout)
    page = Path("page.html").read_text(encoding="utf-8")
    Path("found.json").write_text(result.stdout)
    again = call("report", "found.json", "-o", "again.html")
    assert again.exit_code == 0, again.stderr
    assert title_of("again.html") == title_of("page.html")
    again_page = Path("again.html").read_text(encoding="utf-8")
    assert again_page.replace("again_files", "page_files") == page
    Path("other.json").write_text(result.stdout)
    assert call("report", "found.json", "other.json").exit_code == 0
    both = Path("report.html").read_text(encoding="utf-8")
    assert "found.json and other.json have the least log-loss" in both
    Path("bad.json").write_text('{"members": 1, "samples": []}')
    assert "bad.json could not be read: " in error_of("bad.json")
    assert f"{document['chosen']['log_loss']:.4f}" in page
    assert all(f">{row['name']}<" in page for row in document["members"])


def choose_among_arrays(file: Path) -> None:
    names = [each.path.name for each in SnapshotStore("run").list()]
    fit(*members_of(4, 1500), names=names).save(file)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "of arrays": (
        choose_among_arrays,
        "must be of snapshots. Received: one of arrays; fit the ensem",
    ),
    "cut": (lambda file: file.write_text("{"), "ensemble.json could not be read: it is no JSON"),
    "a pipe": (os.mkfifo, "ensemble.json could not be read: it is no regular file"),
    "a device": (lambda file: file.symlink_to("/dev/zero"), "it is no regular file"),
    "a folder": (lambda file: file.mkdir(), "it is no regular file"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("kind", SPOILED)
def test_a_folder_whose_choice_cannot_be_taken_is_reported_without(kind: str) -> None:
    record_folder(Path("run"))
    spoil, message = SPOILED[kind]
    spoil(Path("run/ensemble.json"))
    result = call("report", "run", "-o", "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Note: The page is without the choice that was saved in the")
    assert message in result.stderr
    assert result.stdout == "Wrote page.html, and 2 figures as PNG and SVG in page_files\n"
    assert title_of("page.html") == "Snapshots in run"


def test_a_choice_without_candidates_is_left_out_too() -> None:
    record_folder(Path("run"))
    snapshots = SnapshotStore("run").list()
    names = [each.path.name for each in snapshots]
    digests = [each.metadata["digest"] for each in snapshots]
    data = fit(*members_of(4, 1500), names=names, digests=digests).to_dict()
    Path("run/ensemble.json").write_text(json.dumps(data | {"candidates": []}))
    result = call("report", "run")
    assert result.exit_code == 0, result.stderr
    assert "at least one candidate" in result.stderr
    Path("run/ensemble.json").write_text(json.dumps(data))
    assert call("report", "run").stderr == ""


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
@pytest.mark.parametrize(
    "arguments", [("report", "nowhere"), ("study", "nowhere.json", "--page", "page.html")]
)
def test_a_page_that_cannot_be_drawn_is_refused_before_anything_is_read(
    arguments: tuple[str, ...], name: str
) -> None:
    done = run_python(BLOCK.format(name=name), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"needs the package '{name}', which is not installed" in done.stderr
    assert "nowhere" not in done.stderr
    assert "[plot]" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("report", "nowhere", "--out"), ("study", "nowhere.json", "--page")]
)
def test_a_page_by_another_suffix_is_refused_before_anything_is_read(
    arguments: tuple[str, ...],
) -> None:
    message = "A report's file must end in .html. Received: 'page.pdf'"
    assert Command().error_of(*arguments, "page.pdf") == message
