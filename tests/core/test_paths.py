"""A path that a user gave, and what it means."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core.paths import lasting_path, local_path, url_of


def test_a_relative_path_is_of_the_folder_in_which_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = lasting_path("runs/digits")
    monkeypatch.chdir("/")
    assert given == tmp_path / "runs/digits"
    assert lasting_path(Path("runs")) == Path("/runs")
    assert local_path("runs/digits") == Path("runs/digits")


def test_links_and_steps_up_stay_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `link/..` is depends on the link: text alone would make another folder of it."""
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    monkeypatch.chdir(tmp_path)
    assert lasting_path("link") == tmp_path / "link"
    lasting_path("link/../run").mkdir()
    assert (tmp_path / "far/run").is_dir()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~") == tmp_path
    assert local_path("~/runs") == local_path(Path("~/runs")) == tmp_path / "runs"
    with pytest.raises(ca.CosannealError, match=r"'~nobody-of-this-name/runs' leads nowhere"):
        local_path("~nobody-of-this-name/runs")


@pytest.mark.parametrize(
    "url",
    [
        *("s3://bucket/run", "gs://bucket", "file:///home/run", "memory://run", "hf://a/b"),
        *("abfs+x://y", "simplecache::s3://bucket", "HTTPS://host/run"),
    ],
)
def test_a_url_is_no_local_path(url: str) -> None:
    with pytest.raises(ca.SnapshotError, match=r"a URL, which is taken for folders of snapshots"):
        local_path(url, error=ca.SnapshotError)
    assert url_of(url) == url_of(f"{url}/") == url


@pytest.mark.parametrize("url", [Path("s3://bucket/run"), PureWindowsPath("s3://bucket")])
def test_a_path_of_a_url_is_refused_for_it_has_lost_a_slash(url: Any) -> None:
    with pytest.raises(ca.SnapshotError, match=r"a URL, which is taken .* as a str; give a local"):
        local_path(url, error=ca.SnapshotError)
    assert url_of(url) is None


@pytest.mark.parametrize("path", ["runs", "C:/runs", "s3:/b", "a:b//c", "", None, 3, b"s3://b/c"])
def test_what_is_no_url(path: Any) -> None:
    assert url_of(path) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "",
            r"name a file or a folder\. Received: '', an empty string; the current folder is '\.'",
        ),
        ("a\0b", r"Received: 'a\\x00b', a character that no path has"),
        ("a\ud800", r"Received: 'a\\ud800', a character that no path has"),
        (b"runs", r"Received: bytes, b'runs'; make a str of it with os\.fsdecode"),
        (None, r"must be a str or a pathlib\.Path\. Received: None"),
        (7, r"must be a str or a pathlib\.Path\. Received: 7"),
    ],
)
def test_what_is_no_path_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ca.CosannealError, match=message):
        local_path(given)


def test_names_with_colons_are_no_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr:0.1", "run 12:30/a", "./s3:/x", "a:b:c"):
        assert lasting_path(name) == Path(os.path.join(tmp_path, name))  # noqa: PTH118


def test_a_current_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(
        ca.CosannealError,
        match=r"leads nowhere, for the current folder is gone: No such",
    ):
        lasting_path("runs")
