"""Tensors joined from the parts of a snapshot, beside numpy's; and parts that are not right."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble.weights.files import average_snapshots
from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.assembly import Share
from cosanneal.snapshots.capture import HostBuffers, Parts, Piece
from cosanneal.snapshots.export import write_snapshot
from cosanneal.snapshots.file import TensorBytes
from cosanneal.snapshots.joined import JoinedReader
from cosanneal.snapshots.names import part_name, snapshot_name
from cosanneal.snapshots.pieces import Index
from tests.shared.files import every_dtype
from tests.shared.recording import EVERY_STEP

TOKEN = "0a1b2c3d"  # noqa: S105 - in names of files


def tiling(shape: tuple[int, ...], draws: np.random.Generator, depth: int) -> list[Any]:
    """Blocks of an array, cut again and again wherever it falls: not a grid."""
    blocks = [tuple(slice(0, size) for size in shape)]
    for _ in range(depth):
        found: list[Any] = []
        for block in blocks:
            wide = [i for i, each in enumerate(block) if each.stop - each.start > 1]
            if not wide or draws.random() < 0.2:
                found.append(block)
                continue
            axis = int(draws.choice(wide))
            cut = int(draws.integers(block[axis].start + 1, block[axis].stop))
            for half in (slice(block[axis].start, cut), slice(cut, block[axis].stop)):
                found.append((*block[:axis], half, *block[axis + 1 :]))
        blocks = found
    return blocks


def write(
    folder: Path, tensors: dict[str, Any], blocks: dict[str, Any], step: int = 1, token: str = TOKEN
) -> Snapshot:
    """A snapshot whose tensors lie in such blocks, one in each part."""
    number = max(1, *map(len, blocks.values()))
    pieces: dict[int, dict[str, Piece]] = {part: {} for part in range(number)}
    for name, own in blocks.items():
        for part, block in enumerate(own):
            # From the last on, so that no part has all that come first.
            start = tuple(each.start for each in block)
            pieces[number - 1 - part][name] = Piece(tensors[name][block], start)
    layout = {name: (each.shape, each.dtype.name) for name, each in tensors.items()}
    path = folder / snapshot_name(0, step)
    share = Share(path, token, Parts(number, layout, pieces), HostBuffers())
    share.write()
    index, lost = share.gather(threading.Event())
    return SnapshotStore(folder).write(
        {},
        cycle=0,
        step=step,
        rate=0.1,
        schedule=EVERY_STEP,
        framework="numpy",
        versions={},
        nonfinite=lost,
        parts=index,
    )


@pytest.mark.parametrize("seed", range(6))
def test_what_is_joined_is_what_was_cut(tmp_path: Path, seed: int) -> None:
    draws = np.random.default_rng(seed)
    shapes = [(), (1,), (97,), (23, 19), (5, 301), (301, 5), (7, 11, 13), (3, 4, 5, 6), (0, 3)]
    kinds = ["f8", "f4", "f2", "i8", "u1", "c8", "?"]
    tensors, blocks = {}, {}
    for shape in shapes:
        name = f"{shape}"
        bits = draws.integers(0, 2, 8 * int(np.prod(shape)), np.uint8)
        dtype = np.dtype(kinds[int(draws.integers(len(kinds)))])
        tensors[name] = np.resize(bits, int(np.prod(shape)) * dtype.itemsize).view(dtype)
        tensors[name] = tensors[name].reshape(shape)
        blocks[name] = tiling(shape, draws, seed) if shape != (0, 3) else []
    snapshot = write(tmp_path, tensors, blocks)
    assert snapshot.layout() == {
        name: (each.shape, each.dtype.name) for name, each in tensors.items()
    }
    with snapshot.open() as reader:
        assert isinstance(reader, JoinedReader)
        assert (len(reader), [*reader]) == (len(tensors), [*tensors])
        assert "other" not in reader
        for name, expected in tensors.items():
            data, found = expected.tobytes(), reader[name]
            assert (found.shape, found.dtype, found.tobytes()) == (
                expected.shape,
                expected.dtype,
                data,
            )
            assert not found.flags.writeable
            for size in (1, 7, 64, 1000, 1 << 20):
                chunks = [*reader.chunks(name, size)]
                assert b"".join(chunks) == data
                assert all(len(each) == size for each in chunks[:-1])
                assert all(0 < len(each) <= size for each in chunks)
        read: list[int] = []
        reader.verify(read.append)
        assert sum(read) == sum(each.nbytes for each in tensors.values())
    for name, loaded in snapshot.load().items():
        assert loaded.flags.writeable
        assert loaded.tobytes() == tensors[name].tobytes()
    assert snapshot.first_nonfinite() == snapshot.metadata["nonfinite"]
    exported = tmp_path / "whole.safetensors"
    with exported.open("xb") as file:
        write_snapshot(file, snapshot, {})
    from safetensors.numpy import load_file

    for name, value in load_file(exported).items():
        assert value.tobytes() == tensors[name].tobytes()


def test_a_mean_of_snapshots_cut_otherwise_is_that_of_whole_ones(tmp_path: Path) -> None:
    draws, members = np.random.default_rng(0), []
    values = [draws.standard_normal((600, 700)) for _ in range(3)]
    for step, value in enumerate(values, 1):
        blocks = tiling(value.shape, draws, 2 * step)
        members.append(write(tmp_path, {"w": value}, {"w": blocks}, step, f"{step:08x}"))
    average_snapshots(members, tmp_path / "mean.safetensors")
    from safetensors.numpy import load_file

    expected = np.mean([each.astype(np.longdouble) for each in values], axis=0)
    found = load_file(tmp_path / "mean.safetensors")["w"]
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-15, atol=1e-16)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    w = np.arange(48.0).reshape(6, 8)
    columns = [(slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 8))]
    return write(tmp_path, {"w": w, "b": w[0]}, {"w": columns, "b": [(slice(0, 8),)]})


def part(snapshot: Snapshot, number: int, token: str = TOKEN) -> Path:
    return snapshot.path.with_name(part_name(snapshot.path.name, number, 2, token))


def fails(snapshot: Snapshot, message: str) -> None:
    for use in (lambda: snapshot.open().close(), snapshot.verify, snapshot.load):
        with pytest.raises(ca.SnapshotError, match=message):
            use()
    assert snapshot.layout()["w"] == ((6, 8), "float64")  # of which the index tells


def test_a_missing_part_is_named(snapshot: Snapshot) -> None:
    part(snapshot, 1).unlink()
    name = re.escape(str(part(snapshot, 1)))
    fails(snapshot, rf"{name} could not be read: No such.*a part of {snapshot.path.name}")
    assert snapshot.size > 0
    with pytest.raises(ca.SnapshotError, match="1 of 1 snapshots"):
        SnapshotStore(snapshot.path.parent).verify()


def test_a_part_in_anothers_place_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    whole = tmp_path / "other"
    whole.mkdir()
    tensors = {name: value + 1 for name, value in snapshot.load().items()}
    columns = [(slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 8))]
    other = write(whole, tensors, {"w": columns, "b": [(slice(0, 8),)]})
    first, second = part(snapshot, 0), part(snapshot, 1)
    kept = first.read_bytes(), second.read_bytes()
    for replacement in (second, part(other, 0)):
        shutil.copy(replacement, first)
        fails(snapshot, f"{re.escape(str(first))} could not be read: it is not the part with")
        first.write_bytes(kept[0])
    first.write_bytes(kept[1])
    second.write_bytes(kept[0])
    fails(snapshot, "it is not the part with which")


def test_a_link_in_place_of_a_part_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    first = part(snapshot, 0)
    shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    fails(snapshot, "could not be read")


def bytes_of(path: Path) -> Iterator[tuple[int, bytes]]:
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 0x11
        yield place, bytes(changed)


def test_a_part_damaged_at_any_byte_is_noticed(snapshot: Snapshot) -> None:
    for number in range(2):
        path = part(snapshot, number)
        whole = path.read_bytes()
        for place, changed in bytes_of(path):
            path.write_bytes(changed)
            with pytest.raises(ca.SnapshotError, match=re.escape(path.name)):
                snapshot.verify()
            if place > len(whole) - 24:  # of "w", the last tensor's data
                with snapshot.open() as reader, pytest.raises(ca.SnapshotError, match="damaged"):
                    reader["w"]
                with snapshot.open() as reader, pytest.raises(ca.SnapshotError, match="damaged"):
                    [*reader.chunks("w", 8)]
                with snapshot.open(verify=False) as reader:
                    assert reader["w"].shape == (6, 8)
        for length in range(0, len(whole), 50):
            path.write_bytes(whole[:length])
            with pytest.raises(ca.SnapshotError, match=re.escape(path.name)):
                snapshot.verify()
        path.write_bytes(whole)
    snapshot.verify()


def test_an_index_damaged_at_any_byte_is_noticed(snapshot: Snapshot) -> None:
    for _, changed in bytes_of(snapshot.path):
        snapshot.path.write_bytes(changed)
        with pytest.raises(ca.SnapshotError, match=re.escape(snapshot.path.name)):
            Snapshot.at(snapshot.path).verify()


def index(**changes: Any) -> str:
    text = Index(TOKEN, {"w": ((6, 8), "float64")}, ("x", "y")).to_text()
    for name, value in changes.items():
        text = re.sub(rf'"{name}":("\w+"|\[[^\]]*\]|\{{.*\}}\}})', f'"{name}":{value}', text)
    return text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        index(**{"token": '"../../../x"'}),
        index(**{"token": "7"}),
        index(digests="[]"),
        index(digests="[1]"),
        index(tensors="[]"),
        index(tensors='{"w":{"dtype":"F64","shape":[-1]}}'),
        index(tensors='{"w":{"dtype":"F64","shape":[true]}}'),
        index(tensors='{"w":{"dtype":"F65","shape":[1]}}'),
        index(tensors='{"w":{"dtype":"F64","shape":[4294967296,4294967296]}}'),
        index(tensors='{"w":{"dtype":"F64"}}'),
    ],
)
def test_an_index_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"parts|at most|JSON|Expecting|document"):
        Index.from_text(text)
    assert Index.from_text(index()).token == TOKEN


@pytest.mark.parametrize(
    "blocks",
    [
        [(slice(0, 6), slice(0, 4)), (slice(0, 6), slice(3, 7))],  # of the right size in all
        [(slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 7))],
        [(slice(0, 6), slice(0, 8)), (slice(0, 1), slice(0, 1))],
        [(slice(0, 6), slice(0, 8)), (slice(0, 6), slice(0, 8))],
        [(slice(0, 3), slice(0, 8)), (slice(2, 5), slice(0, 8))],
        [(slice(0, 3), slice(0, 8))],
        [],
    ],
    ids=str,
)
def test_pieces_that_overlap_or_leave_gaps_are_refused(tmp_path: Path, blocks: Any) -> None:
    with pytest.raises(ca.SnapshotError, match=r"'w', of shape .6, 8., overlap or leave gaps"):
        write(tmp_path, {"w": np.zeros((6, 8))}, {"w": blocks})


def test_pieces_that_do_not_belong_there_are_refused(tmp_path: Path) -> None:
    w = np.zeros((6, 8))
    layout = {"w": ((6, 8), "float64")}
    path = tmp_path / snapshot_name(0, 1)
    for name, data, start, message in (
        ("v", w, (0, 0), "its tensor 'v' is none of the snapshot's"),
        ("w", w.astype("f4"), (0, 0), "'w' is of float32, not float64"),
        ("w", w, (1, 0), r"does not lie in one of shape \(6, 8\)"),
        ("w", w, (0,), r"begins at \[0\]"),
        ("w", w.reshape(48), (0,), "does not lie in one of shape"),
    ):
        share = Share(path, TOKEN, Parts(1, layout, {0: {name: Piece(data, start)}}), HostBuffers())
        share.write()
        with pytest.raises(ca.SnapshotError, match=message):
            share.gather(threading.Event())


def test_every_dtype_is_joined_in_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    tensors = {
        name: np.resize(np.frombuffer(array.tobytes(), np.uint8), (6, 4 * array.dtype.itemsize))
        for name, array in every_dtype().items()
        if hasattr(torch, array.dtype.name) and array.size
    }
    kinds = {name: every_dtype()[name].dtype.name for name in tensors}
    share_of = {0: (slice(0, 6), slice(0, 1)), 1: (slice(0, 2), slice(1, 4))}
    share_of[2] = (slice(2, 6), slice(1, 4))
    pieces: dict[int, dict[str, Piece]] = {part: {} for part in share_of}
    layout = {name: ((6, 4), kind) for name, kind in kinds.items()}
    for name, value in tensors.items():
        elements = value.view(f"V{value.shape[1] // 4}")
        for number, place in share_of.items():
            start = tuple(each.start for each in place)
            pieces[number][name] = Piece(raw_block(elements[place], kinds[name]), start)
    path = tmp_path / snapshot_name(0, 1)
    share = Share(path, TOKEN, Parts(3, layout, pieces), Passed())
    share.write()
    found, lost = share.gather(threading.Event())
    snapshot = SnapshotStore(tmp_path).write(
        {},
        cycle=0,
        step=1,
        rate=0.1,
        schedule=EVERY_STEP,
        framework="numpy",
        versions={},
        nonfinite=lost,
        parts=found,
    )
    loaded = snapshot.load(framework="pt")
    for name, value in tensors.items():
        assert loaded[name].dtype == getattr(torch, kinds[name])
        assert loaded[name].shape == (6, 4)
        assert bytes(loaded[name].reshape(-1).view(torch.uint8).numpy()) == value.tobytes()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # it need not be enabled
def test_torchs_own_reader_reads_a_folder_of_parts(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    draws, tensors = np.random.default_rng(0), {}
    for dtype in ("f2", "f4", "f8", "i1", "u1", "i4", "i8", "?"):
        tensors[dtype] = draws.integers(0, 2, (6, 4)).astype(dtype)
    tensors["scalar"] = np.array(3.0)
    blocks = {name: tiling(each.shape, draws, 3) for name, each in tensors.items()}
    write(tmp_path, tensors, blocks)
    state = {name: torch.zeros_like(torch.from_numpy(each)) for name, each in tensors.items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    for name, value in state.items():
        assert value.numpy().tobytes() == tensors[name].tobytes()


class Passed(HostBuffers):
    """Takes bytes as they are."""

    def copy(self, weights: Any) -> Any:
        return dict(weights)


def raw_block(block: Any, dtype: str) -> TensorBytes:
    data = np.ascontiguousarray(block)
    return TensorBytes(dtype, block.shape, memoryview(data.tobytes()))
