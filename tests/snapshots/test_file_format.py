"""docs/snapshot-format.md: its own reader reads what is written, and its tables say what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from numpy.typing import NDArray

from cosanneal.snapshots import Snapshot, SnapshotStore
from cosanneal.snapshots.file import DTYPES, FORMAT_VERSION, MAX_HEADER_BYTES, TensorBytes
from tests.shared.files import ARRAYS, SCHEDULE, every_dtype, raw, write
from tests.shared.parted import recorded

DOCUMENT = (Path(__file__).parents[2] / "docs" / "snapshot-format.md").read_text(encoding="utf-8")


@pytest.fixture
def read_snapshot() -> Any:
    """The reader in the document, which needs the standard library and xxhash only."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    needed = re.findall(r"^(?:import|from) .*", code, re.MULTILINE)
    assert needed == ["import json", "from xxhash import xxh3_128"]
    names: dict[str, Any] = {}
    exec(compile(code, "snapshot-format.md", "exec"), names)  # noqa: S102 - our own document
    return names["read_snapshot"]


def snapshot_of_everything(folder: Path) -> Snapshot:
    arrays: dict[str, NDArray[Any] | TensorBytes] = {**ARRAYS, "": np.ones(1)}
    arrays |= {name: raw(array) for name, array in every_dtype().items()}
    metrics = {"loss": float("nan"), 'naïve \u2028 \x1f\\"': [1, 0.1, "é"]}
    return write(SnapshotStore(folder), arrays=arrays, metrics=metrics)


def test_the_documents_reader_reads_a_snapshot(tmp_path: Path, read_snapshot: Any) -> None:
    snapshot = snapshot_of_everything(tmp_path)
    metadata, tensors = read_snapshot(snapshot.path)
    loaded = snapshot.load()
    assert tensors.keys() == loaded.keys()
    for name, (code, shape, data) in tensors.items():
        assert code == DTYPES[loaded[name].dtype.name][0]
        assert tuple(shape) == loaded[name].shape
        assert data == loaded[name].tobytes()
    ours = snapshot.metadata
    for name in ("cycle", "step"):
        assert int(metadata[name]) == ours[name]
    assert float(metadata["rate"]) == ours["rate"] == 0.1 / 3
    assert json.loads(metadata["schedule"]) == SCHEDULE.to_dict()
    assert json.loads(metadata["versions"]) == ours["versions"]
    assert metadata["framework"] == ours["framework"]
    assert str(json.loads(metadata["metrics"])) == str(ours["metrics"])


def test_the_documents_reader_notices_damage(tmp_path: Path, read_snapshot: Any) -> None:
    snapshot = write(SnapshotStore(tmp_path))
    content = snapshot.path.read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 0x11
        snapshot.path.write_bytes(changed)
        with pytest.raises((AssertionError, ValueError, KeyError, AttributeError)):
            read_snapshot(snapshot.path)


def test_the_documents_reader_of_parts_reads_what_is_recorded(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```\n(import json\n.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "snapshot-format.md", "exec"), names)  # noqa: S102 - our own document
    weights: dict[str, Any] = {
        "w": np.arange(35.0).reshape(7, 5),
        "b": np.arange(9),
        "n": np.float32(3),
    }
    assert recorded(tmp_path, [weights], {"w": [(3,), (2,)], "b": [(5,)]}, size=4) == [None] * 4
    (snapshot,) = SnapshotStore(tmp_path).list()
    found = names["read_parts"](snapshot.path)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes()
    first = next(tmp_path.glob("*-part-0001-*"))
    first.write_bytes(next(tmp_path.glob("*-part-0002-*")).read_bytes())
    with pytest.raises(AssertionError, match="another part"):
        names["read_parts"](snapshot.path)


def test_the_metadata_are_those_of_the_table(tmp_path: Path) -> None:
    snapshot = snapshot_of_everything(tmp_path)
    with safetensors.safe_open(snapshot.path, framework="numpy") as file:
        metadata = file.metadata()
    table = DOCUMENT.partition("## The metadata")[2].partition("## ")[0]
    sometimes = {"schedule_step", "nonfinite", "rest", "parts"}
    assert not sometimes & set(metadata)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sometimes | set(metadata)
    assert metadata["cosanneal"] == str(FORMAT_VERSION)
    assert f"version {FORMAT_VERSION}\n" in DOCUMENT.partition("\n")[0] + "\n"
    assert f"at most {MAX_HEADER_BYTES}\n" in DOCUMENT.replace(" |", "\n")


def test_the_dtypes_are_those_of_the_table() -> None:
    found = re.findall(r"\| `([A-Z][A-Z0-9_]*)` \| (\w+)(?:, 0 or 1)? \| (\d+) ", DOCUMENT)
    assert {name: (code, int(bits)) for code, name, bits in found} == DTYPES
    assert len(found) == len(DTYPES)


def test_the_order_of_the_data_is_as_described(tmp_path: Path) -> None:
    snapshot = snapshot_of_everything(tmp_path)
    content = snapshot.path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    bits = dict(DTYPES.values())
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    wanted = sorted(entries, key=lambda name: (-bits[entries[name]["dtype"]], name))
    assert list(entries) == wanted
    for entry in entries.values():
        assert entry["data_offsets"][0] % (bits[entry["dtype"]] // 8) == 0
