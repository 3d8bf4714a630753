"""JSON documents come in through one way: regular files of bounded size, depth and numbers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import cosanneal as ca
from cosanneal.core import documents
from cosanneal.core.documents import MAX_DEPTH, MAX_DIGITS, parse_document, read_document

BAD: dict[str, tuple[str, str]] = {
    "too deep": (
        '{"a": {"b": %s}}' % ("[" * MAX_DEPTH + "]" * MAX_DEPTH),
        r"in 'a\.b\[0\]\S+': must be nested at most 64 deep",
    ),
    "far too deep": ("[" * 100_000 + "]" * 100_000, r"nested too deep"),
    "a long integer": (
        f'{{"a": [1, {10**400}]}}',
        r"in 'a\[1\]': must be a finite number of at most 308 digits. Received: one of 401",
    ),
    "an integer that Python does not read": (
        '{"a": -1%s}' % ("0" * 5000),
        "in 'a': must be a finite number of at most 308 digits. Received: one of 5001",
    ),
    "NaN": ('{"a": {"b c": NaN}}', r"in 'a\.b c': must be a finite number. Received: NaN"),
    "an infinity": ("[-Infinity]", r"in '\[0\]': must be a finite number. Received: -Infinity"),
    "an overflow": ('{"a": 1e999}', "in 'a': must be a finite number. Received: inf"),
    "a name twice": ('{"a": {"b": 1, "b": 2}}', "it is no JSON .*the name 'b' stands twice"),
    "a cut": ('{"a": ', "it is no JSON"),
    "other bytes": ("\udcff", "it is no JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_no_document_may_hold_is_refused_by_file_and_field(tmp_path: Path, kind: str) -> None:
    text, message = BAD[kind]
    file = tmp_path / "document.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ca.EnsembleError, match=message) as caught:
        read_document(file, error=ca.EnsembleError)
    assert str(caught.value).startswith(f"{file} could not be read: ")
    assert len(str(caught.value)) < 500


def test_what_it_may_hold_comes_back() -> None:
    nested: Any = 7
    for _ in range(MAX_DEPTH):
        nested = [nested]
    document = {"n": nested[0], "i": 10**MAX_DIGITS - 1, "x": -1.5, "s": "NaN", "none": None}
    assert parse_document(json.dumps(document)) == document
    assert float(document["i"]) < float("inf")
    found = parse_document("[NaN, Infinity, 1e999]", finite=False)
    assert [str(each) for each in found] == ["nan", "inf", "inf"]
    with pytest.raises(ValueError, match=r"in 'metrics\.a\[0\]': must be nested at most 2 deep"):
        parse_document('{"a": [[1]]}', at="metrics", depth=2)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "piped").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "piped", "folder"):
        with pytest.raises(ca.EnsembleError, match=rf"{name} could not be read: it is no regular"):
            read_document(tmp_path / name, error=ca.EnsembleError)
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "link").symlink_to("file")
    assert read_document(tmp_path / "link", error=ca.EnsembleError) == [1]


def test_a_file_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    file = tmp_path / "document.json"
    file.write_text(" " * 9 + "1")
    assert read_document(file, error=ca.EnsembleError) == 1
    file.write_text(" " * 10 + "1")
    with pytest.raises(ca.EnsembleError, match=r"document\.json could not be read: it must have"):
        read_document(file, error=ca.EnsembleError)
