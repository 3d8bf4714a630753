"""Damaged and hostile files: refused with a SnapshotError, or read as they were written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import socket
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from xxhash import xxh3_128

import cosanneal as ca
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import digest_of, encode_header
from tests.shared.files import ARRAYS, METADATA, SCHEDULE, write

NAME = "cycle-0003-step-0000012000.safetensors"

# What is claimed of 1000 bytes may cost so much, and no more, to look at.
MOST_MEMORY_PER_BYTE, MEMORY_AT_REST = 64, 1 << 19


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """A snapshot's bytes. The file itself stands in the folder and is to be changed."""
    return write(SnapshotStore(tmp_path)).path.read_bytes()


def parts_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def signed(header: dict[str, Any], data: bytes) -> bytes:
    """A file of that header and data, with the digest that belongs to it."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "digest"}
    header = {**header, "__metadata__": metadata}
    header["__metadata__"]["digest"] = digest_of(header)
    return encode_header(header) + data


def equal(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in wanted.items()
    )


def lazily(snapshot: Snapshot) -> dict[str, NDArray[Any]]:
    with snapshot.open() as tensors:
        return {name: tensors[name] for name in tensors}


def by_chunks(snapshot: Snapshot) -> dict[str, NDArray[Any]]:
    with snapshot.open() as tensors:
        return {
            name: np.frombuffer(b"".join(tensors.chunks(name, 8)), dtype).reshape(shape)
            for name, (shape, dtype) in tensors.layout.items()
        }


LAYOUT = {name: (array.shape, array.dtype.name) for name, array in ARRAYS.items()}

# Each way to read a snapshot, and what shows that it gave the truth.
READERS: dict[str, tuple[Callable[[Snapshot], Any], Callable[[Any], bool]]] = {
    "metadata": (lambda s: s.metadata, lambda found: bool(found["rate"] == 0.1 / 3)),
    "schedule": (lambda s: s.schedule, lambda found: bool(found == SCHEDULE)),
    "layout": (lambda s: s.layout(), lambda found: bool(found == LAYOUT)),
    "load": (lambda s: s.load(), lambda found: equal(found, ARRAYS)),
    "lazily": (lazily, lambda found: equal(found, ARRAYS)),
    "chunks": (by_chunks, lambda found: equal(found, ARRAYS)),
    "verify": (lambda s: s.verify(), lambda _: True),
    # Unverified data may be anything, of the right kind.
    "unverified": (
        lambda s: s.load(verify=False),
        lambda found: {k: (v.shape, v.dtype.name) for k, v in found.items()} == LAYOUT,
    ),
}


# After the file was opened once, what was read of its header is at hand.
IN_SHORT = ("lazily", "metadata", "schedule")


def look(store: SnapshotStore, *, in_short: bool = False) -> set[str]:
    """Read the one snapshot of a store in every way; which of them gave the truth.

    Every other one was refused with a SnapshotError.

    Args:
        in_short: only until the first is refused, and not each way by itself.
    """
    true = set()
    (snapshot,) = store.list()
    for name in IN_SHORT if in_short else READERS:
        read, is_true = READERS[name]
        if not in_short:
            (snapshot,) = store.list()
        try:
            found = read(snapshot)
        except ca.SnapshotError as error:
            refusal = str(error)
        else:
            assert is_true(found), name
            true.add(name)
            continue
        assert NAME in refusal
        if in_short:
            break
    return true


class Folder:
    """A folder with one snapshot, whose file is replaced by what is to be looked at."""

    def __init__(self, folder: Path) -> None:
        self.store = SnapshotStore(folder)
        self.path = folder / NAME

    def put(self, content: bytes) -> SnapshotStore:
        # In place: some file systems write at once what was emptied first.
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(content)
            file.truncate()
        return self.store


def test_a_whole_file_is_read_in_every_way(tmp_path: Path, whole: bytes) -> None:
    assert look(Folder(tmp_path).put(whole)) == set(READERS)


def test_every_change_of_a_byte_is_noticed(tmp_path: Path, whole: bytes) -> None:
    folder = Folder(tmp_path)
    start = len(whole) - len(parts_of(whole)[1])
    harmless = set()
    for place in range(len(whole)):
        values = {whole[place] ^ 1, whole[place] ^ 0x80, 0, 0x20}
        for number, value in enumerate(sorted(values - {whole[place]})):
            changed = bytearray(whole)
            changed[place] = value
            true = look(folder.put(bytes(changed)), in_short=number > 0)
            if place >= start:
                # The header is as it was, and says where the data are.
                sound = {"metadata", "schedule", "layout", "unverified"} if number == 0 else set()
                assert true == sound, place
            elif true:
                assert true == set(READERS if number == 0 else IN_SHORT)
                harmless.add(place)
    # Only the white space around the header's JSON may change: to other white space.
    assert all(whole[place : place + 1].isspace() for place in harmless)


def test_every_truncation_and_all_that_is_appended_is_noticed(tmp_path: Path, whole: bytes) -> None:
    folder = Folder(tmp_path)
    for length in range(len(whole)):
        assert look(folder.put(whole[:length])) == set(), length
    for more in (b"\0", b" ", b"{}", whole):
        assert look(folder.put(whole + more)) == set()


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        # Half of them where a mutation reaches furthest: in the header.
        limit = len(data) if chance.random() < 0.5 else min(1200, len(data))
        place = chance.randrange(limit + 1)
        size = chance.choice((1, 1, 2, 4, 8, 30))
        some = chance.randbytes(size)
        other = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0:
                data[place : place + size] = some
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = some
            case 3:
                data[place:place] = data[other : other + size]
            case 4:
                data[place : place + size] = data[other : other + size]
            case 5:
                data[place : place + size] = bytes(size)
            case 6:
                one, two = data[place : place + size], data[other : other + size]
                data[place : place + size], data[other : other + size] = two, one
            case _:
                data[:8] = struct.pack("<Q", chance.choice(NUMBERS) % 2**64)
    return bytes(data)


NUMBERS = (0, 1, 2, 7, 8, 100, 255, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, -1, 10**40)


def some_value(chance: random.Random) -> Any:
    return chance.choice(
        (
            chance.choice(NUMBERS),
            chance.choice((True, False, None, 1.0, 1e308, float("nan"), float("inf"), 0.5)),
            chance.choice(
                ("", "F32", "F64", "U8", "I64", "BOOL", "F4", "../../x", "\0", "1", "x" * 99)
            ),
            chance.choice(([], {}, [[]], [0, 1], [1, 0], [0, 0], {"dtype": "F32"}, [2**62] * 9)),
            [chance.choice(NUMBERS) for _ in range(chance.randrange(5))],
            chance.choice(("0x1p3", "1/0", "1e400", "9" * 5000, "-0", "NaN", " 3 ", "1_0")),
        )
    )


def mutate(value: Any, chance: random.Random) -> Any:
    """The value with one change somewhere in it; JSON within a string is changed as such."""
    if isinstance(value, str) and value[:1] in ("{", "[") and chance.random() < 0.9:
        return json.dumps(mutate(json.loads(value), chance))
    if not isinstance(value, dict | list) or not value or chance.random() < 0.08:
        return some_value(chance)
    if isinstance(value, dict):
        changed: Any = dict(value)
        key = chance.choice(list(changed))
        kind = chance.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[str(some_value(chance))[:300]] = changed.pop(key)
        elif kind < 0.3:
            changed[str(some_value(chance))[:300]] = changed[key]
        else:
            changed[key] = mutate(changed[key], chance)
        return changed
    changed = list(value)
    place = chance.randrange(len(changed))
    changed[place] = mutate(changed[place], chance)
    return changed


def mutated_header(content: bytes, chance: random.Random) -> tuple[bytes, bool]:
    """A file whose header was changed as JSON, and whether it was given the digest that fits."""
    header, data = parts_of(content)
    for _ in range(chance.choice((1, 1, 2))):
        header = mutate(header, chance)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict) and chance.random() < 0.8:
        return signed(header, data), True
    return encode_header(header) + data, False


def look_at_forged(folder: Folder) -> bool:
    """Read a file that is in keeping with itself; whether it was accepted.

    If so, it says nothing else to the reader of safetensors.
    """
    (snapshot,) = folder.store.list()
    try:
        found = lazily(snapshot)
        _ = snapshot.schedule
        assert equal(snapshot.load(), found)
    except ca.SnapshotError as error:
        refusal = str(error)
    else:
        assert equal(found, safetensors.numpy.load_file(folder.path))
        return True
    assert NAME in refusal
    return False


@pytest.mark.parametrize("part", range(4))
def test_no_mutation_does_harm(tmp_path: Path, whole: bytes, part: int) -> None:
    chance = random.Random(part)
    folder = Folder(tmp_path)
    look(folder.put(whole))
    counts = dict.fromkeys(("refused", "true", "forged", "accepted"), 0)
    for number in range(25_000):
        forged = False
        if chance.random() < 0.5:
            content = mutated_bytes(whole, chance)
        else:
            content, forged = mutated_header(whole, chance)
        folder.put(content)
        # Memory is measured where that does not take too long.
        measured = number % 20 == 0
        if measured:
            tracemalloc.start()
        if forged:
            counts["forged"] += 1
            counts["accepted"] += look_at_forged(folder)
        else:
            counts["true" if look(folder.store, in_short=number % 10 > 0) else "refused"] += 1
        if measured:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert most < MOST_MEMORY_PER_BYTE * len(content) + MEMORY_AT_REST
    # The mutations reach all that they should.
    assert counts["refused"] + counts["true"] + counts["forged"] == 25_000
    assert counts["refused"] > 10_000
    assert counts["forged"] > 5_000
    assert counts["accepted"] > 200


def entry(dtype: Any = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    def listed(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {"dtype": dtype, "shape": listed(shape), "data_offsets": listed(offsets)}


def forge(tensors: dict[str, Any], data: bytes = b"1234", **metadata: Any) -> bytes:
    """A file in keeping with itself, whatever it says."""
    digests = {name: xxh3_128(data).hexdigest() for name in tensors}
    everything = {**METADATA, "digests": json.dumps(digests), **metadata}
    return signed({"__metadata__": everything, **tensors}, data)


HUGE = 2**62

FORGED = {
    "a shape of more": forge({"a": entry(shape=(5,))}),
    "a shape of less": forge({"a": entry(shape=(3,))}),
    "a huge shape": forge({"a": entry(shape=(HUGE,))}),
    "a shape whose product wraps around": forge({"a": entry(shape=(2**32, 2**32, 4))}),
    "an empty shape beyond all arrays": forge({"a": entry(shape=(0, HUGE, HUGE))}, b""),
    "a negative shape": forge({"a": entry(shape=(-4,))}),
    "two negative axes": forge({"a": entry(shape=(-2, -2))}),
    "true as a shape": forge({"a": entry(shape=(True, 4))}),
    "a float as a shape": forge({"a": entry(shape=(4.0,))}),
    "an integer of 4000 digits": forge({"a": entry(shape=(10**4000,))}),
    "null as a shape": forge({"a": entry(shape=(None,))}),
    "no list as a shape": forge({"a": entry(shape=4)}),
    "an object as a shape": forge({"a": entry(shape={"4": 4})}),
    "a thousand axes": forge({"a": entry(shape=(1,) * 999 + (4,))}),
    "offsets out of the file": forge({"a": entry(offsets=(4, 8))}),
    "huge offsets": forge({"a": entry(offsets=(HUGE, HUGE + 4))}),
    "offsets from end to begin": forge({"a": entry(offsets=(4, 0))}),
    "negative offsets": forge({"a": entry(offsets=(-4, 0))}),
    "three offsets": forge({"a": entry(offsets=(0, 4, 4))}),
    "offsets as floats": forge({"a": entry(offsets=(0.0, 4.0))}),
    "two tensors of the same bytes": forge({"a": entry(), "b": entry()}),
    "tensors that overlap": forge(
        {"a": entry(), "b": entry(shape=(2,), offsets=(2, 4))},
    ),
    "a gap": forge(
        {"a": entry(shape=(1,), offsets=(0, 1)), "b": entry(shape=(1,), offsets=(3, 4))},
    ),
    "bytes of no tensor": forge({"a": entry(shape=(2,), offsets=(0, 2))}),
    "an unknown dtype": forge({"a": entry(dtype="F99")}),
    "a dtype below a byte": forge({"a": entry(dtype="F4", shape=(8,))}),
    "no text as a dtype": forge({"a": entry(dtype=["U8"])}),
    "one field more": forge({"a": {**entry(), "more": 1}}),
    "a field too few": forge({"a": {"dtype": "U8", "shape": [4]}}),
    "no object as a tensor": forge({"a": [0, 4]}),
    "a tensor's wrong digest": forge({"a": entry()}, digests=json.dumps({"a": "0" * 64})),
    "a digest of another tensor": forge({"a": entry()}, digests=json.dumps({"b": "0" * 64})),
    "no tensor's digest": forge({"a": entry()}, digests="{}"),
    "no digests": forge({"a": entry()}, digests="null"),
    "digests that are no JSON": forge({"a": entry()}, digests="{"),
    "digests that are numbers": forge({"a": entry()}, digests='{"a": 7}'),
    "digests given twice": forge({"a": entry()}, digests='{"a": "0", "a": "1"}'),
    "another cycle": forge({"a": entry()}, cycle="4"),
    "another step": forge({"a": entry()}, step="12001"),
    "a step that is no number": forge({"a": entry()}, step="many"),
    "a step of 5000 digits": forge({"a": entry()}, step="9" * 5000),
    "metrics that are a list": forge({"a": entry()}, metrics="[1]"),
    "metrics that are deep": forge({"a": entry()}, metrics="[" * 100_000),
    "versions that are a number": forge({"a": entry()}, versions="7"),
    "a rate that is no number": forge({"a": entry()}, rate="fast"),
    "a schedule that is a list": forge({"a": entry()}, schedule="[]"),
    "a schedule that is deep": forge({"a": entry()}, schedule='{"a":' * 100_000),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_cannot_be_is_refused_though_its_digest_fits(tmp_path: Path, what: str) -> None:
    folder = Folder(tmp_path)
    folder.put(FORGED[what])
    (snapshot,) = folder.store.list()
    tracemalloc.start()
    for read in (snapshot.verify, snapshot.load, lambda: lazily(snapshot), folder.store.verify):
        with pytest.raises(ca.SnapshotError, match=NAME) as caught:
            read()
        # What to do is said, and the message is no longer than a screen.
        assert "elete it" in str(caught.value)
        assert len(str(caught.value)) < 1000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < MOST_MEMORY_PER_BYTE * len(FORGED[what]) + MEMORY_AT_REST


def test_the_forger_is_not_refused_for_another_reason(tmp_path: Path) -> None:
    """The same file without the fault is read."""
    folder = Folder(tmp_path)
    for name in ("a", "../../etc/passwd", "/dev/null", "C:\\x", "a\0b"):
        folder.put(forge({name: entry()}))
        (snapshot,) = folder.store.list()
        assert snapshot.load()[name].tolist() == [49, 50, 51, 52]
        assert snapshot.schedule == SCHEDULE


def prefixed(header: bytes, data: bytes = b"1234") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 0),
        *(struct.pack("<Q", claimed) + b"{}" for claimed in (3, 10**6, 10**8, 2**40, 2**64 - 1)),
        *(
            prefixed(header)
            for header in (
                b"",
                b"{",
                b"[]",
                b"7",
                b" {}",
                b"{}",
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b"\xff\xfe",
                b"\xef\xbb\xbf{}",
                "{}".encode("utf-16"),
                b'{"\xff": 1}',
                b'{"__metadata__": {"cosanneal": "1", "cosanneal": "1"}}',
                b'{"__metadata__": {"cosanneal": "1", "x": "\\ud800"}}',
                b'{"__metadata__": {"cosanneal": 1}}',
                b'{"__metadata__": {"cosanneal": "1", "x": null}}',
                b'{"__metadata__": ["cosanneal"]}',
                b'{"__metadata__": {"cosanneal": "1"}, "a": NaN}',
                b'{"__metadata__": {"cosanneal": "1"}, "a": -Infinity}',
                b'{"__metadata__": {"cosanneal": "1"}, "a": ' + b"9" * 5000 + b"}",
                b'{"__metadata__": {"cosanneal": "1", "digest": "xxh3_128:0"}}',
                b'{"__metadata__": {"cosanneal": "2"}}',
                b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}',
            )
        ),
    ],
)
def test_what_is_no_header_is_refused(tmp_path: Path, content: bytes) -> None:
    assert look(Folder(tmp_path).put(content)) == set()


@pytest.mark.parametrize("dense", [b"[],", b"{},", b'"ab",', b"1e9,", b"[[[]]],"])
def test_a_dense_header_costs_no_more_than_its_size_allows(tmp_path: Path, dense: bytes) -> None:
    header = b'{"__metadata__": {"cosanneal": "1"}, "a": [' + dense * 100_000 + b"0]}"
    folder = Folder(tmp_path)
    folder.put(prefixed(header))
    (snapshot,) = folder.store.list()
    tracemalloc.start()
    with pytest.raises(ca.SnapshotError):
        snapshot.load()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < MOST_MEMORY_PER_BYTE * len(header)


def hostile_schedules() -> dict[str, Any]:
    good = SCHEDULE.to_dict()
    rule, phase = good["rules"][0], good["rules"][0]["phases"][0]

    def with_rule(**changes: Any) -> dict[str, Any]:
        return {**good, "rules": [{**rule, **changes}]}

    def with_phase(**changes: Any) -> dict[str, Any]:
        return with_rule(phases=[{**phase, **changes}])

    return {
        "nothing": {},
        "another format": {**good, "format": "x"},
        "a newer version": {**good, "version": 2},
        "true as a version": {**good, "version": True},
        "no rules": {**good, "rules": []},
        "a rule that is a number": {**good, "rules": [7]},
        "one field more": {**good, "more": 1},
        "a negative length": with_rule(length=-1),
        "a fraction by zero": with_rule(length="1/0"),
        "a growth of long terms": with_rule(growth="1/" + "7" * 4000),
        "a rounding of another type": with_rule(rounding=["floor"]),
        "an unknown rounding": with_rule(rounding="up"),
        "more cycles than there are": with_rule(count=-5),
        "no phases": with_rule(phases=[]),
        "a curve that is a list": with_phase(curve=["cosine"]),
        "an unknown curve": with_phase(curve="square"),
        "an exponent that is text": with_phase(exponent="2"),
        "an infinite rate": with_phase(first={"value": 1e999, "decay": 1.0, "base": 0.0}),
        "a level that is a number": with_phase(first=0.1),
        "steps beyond the cycle": with_phase(steps=10**30),
    }


@pytest.mark.parametrize("what", hostile_schedules())
def test_a_hostile_schedule_is_refused(tmp_path: Path, what: str) -> None:
    folder = Folder(tmp_path)
    folder.put(forge({"a": entry()}, schedule=json.dumps(hostile_schedules()[what])))
    (snapshot,) = folder.store.list()
    with pytest.raises(ca.SnapshotError, match=rf"{NAME} holds no readable schedule"):
        _ = snapshot.schedule
    assert list(snapshot.load()) == ["a"]


def unix_socket(path: Path) -> None:
    # The path of a socket may be no longer than some hundred bytes.
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


STRANGERS: dict[str, Callable[[Path, Path], None]] = {
    "a folder": lambda path, _: path.mkdir(),
    "a symbolic link": lambda path, other: path.symlink_to(other),
    "a link to nowhere": lambda path, _: path.symlink_to("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: unix_socket(path),
}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_file_is_neither_listed_nor_opened(tmp_path: Path, kind: str) -> None:
    elsewhere = write(SnapshotStore(tmp_path / "elsewhere"))
    store = SnapshotStore(tmp_path / "store")
    mine = write(store)
    (snapshot,) = store.list()
    # It takes the place of a snapshot that was listed before.
    mine.path.unlink()
    STRANGERS[kind](mine.path, elsewhere.path)
    assert store.list() == []
    assert store.verify() == 0
    for read, _ in READERS.values():
        # A pipe would be waited for without end, if it were opened like a file.
        with pytest.raises(ca.SnapshotError, match=rf"{NAME} could not be read: it is "):
            read(snapshot)
    assert elsewhere.load().keys() == ARRAYS.keys()


def test_a_name_that_disagrees_with_the_content_is_refused(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    snapshot.path.rename(tmp_path / "cycle-0004-step-0000016000.safetensors")
    (renamed,) = SnapshotStore(tmp_path).list()
    for read, _ in READERS.values():
        with pytest.raises(ca.SnapshotError, match=rf"must bear the name .* {NAME}\. .*give it"):
            read(renamed)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    snapshot = write(SnapshotStore(tmp_path), arrays={"big": np.ones(1 << 18)})
    with snapshot.open() as tensors:
        os.truncate(snapshot.path, snapshot.path.stat().st_size - (1 << 20))
        for read in (lambda: tensors["big"], tensors.load, tensors.verify):
            with pytest.raises(ca.SnapshotError, match=r"'big' does not match its digest"):
                read()


def test_an_error_of_the_disk_is_reported_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    with snapshot.open() as tensors:

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(tensors._file, "read", fail, raising=False)
        for at_once in (fail, None):  # None where the system reads nothing at a place
            monkeypatch.setattr("cosanneal.snapshots.reader._PREAD", at_once)
            for read in (tensors.load, tensors.verify):
                with pytest.raises(ca.SnapshotError, match=rf"{NAME} could .*: Input/output error"):
                    read()


def test_what_reads_at_no_place_by_itself_is_read_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write(SnapshotStore(tmp_path), arrays={f"big{i}": np.ones(1 << 20) for i in "abc"})
    monkeypatch.setattr("cosanneal.snapshots.reader._PREAD", None)
    snapshot.verify()
    assert all((each == 1).all() for each in snapshot.load().values())


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("metrics", '{"a": %s}' % ("[" * 600 + "]" * 600), r"in 'metrics\.a\S*': must be nested"),
        (
            "metrics",
            f'{{"a": {10**400}}}',
            r"in 'metrics\.a': must be a finite number of at most 308",
        ),
        ("metrics", "[]", r"in 'metrics': .* is no JSON object"),
        ("metrics", "{", r"in 'metrics': it is no JSON"),
        ("versions", f'{{"torch": {10**400}}}', r"in 'versions\.torch': must be"),
        ("schedule", '{"rules": %s}' % ("[" * 600 + "]" * 600), r"in 'schedule\.rules\S*': must"),
        ("framework", None, r"no 'framework'"),
        ("nonfinite", "no such", r"in 'nonfinite': 'no such' is no tensor's name"),
        ("schedule_step", "-5", r"in 'schedule_step': -5 is no count of updates"),
        ("schedule_step", "9" * 400, r"in 'schedule_step': 9{77}\.\.\. is no count of updates"),
    ],
)
def test_metadata_that_cannot_be_is_named_by_its_field(
    tmp_path: Path, whole: bytes, field: str, text: str | None, message: str
) -> None:
    header, data = parts_of(whole)
    if text is None:
        del header["__metadata__"][field]
    else:
        header["__metadata__"][field] = text
    (snapshot,) = SnapshotStore(tmp_path).list()
    snapshot.path.write_bytes(signed(header, data))
    with pytest.raises(ca.SnapshotError, match=rf"{NAME} could not be read: .*{message}") as caught:
        _ = snapshot.metadata
    assert len(str(caught.value)) < 600


def test_metrics_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    nested: Any = 1
    for _ in range(600):
        nested = [nested]
    for value, message in ((nested, "must be nested at most 32"), (10**400, "at most 308 digits")):
        with pytest.raises(ca.SnapshotError, match=rf"`metrics`.*in 'metrics\.a\S*': .*{message}"):
            write(SnapshotStore(tmp_path), metrics={"a": value})
    with pytest.raises(ca.SnapshotError, match=r"`metrics` must be a dict of numbers"):
        write(SnapshotStore(tmp_path), metrics={"a": 10**5000})
    assert SnapshotStore(tmp_path).list() == []
