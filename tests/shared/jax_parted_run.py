"""Part params as they lie on four devices of one process, or of two; started by tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import cosanneal as ca
from cosanneal.adapters.jax.capture import PytreeCapture
from cosanneal.adapters.jax.ranks import ranks_here
from tests.shared.jax_ranked_run import begin, start


def laid(array: Any, mesh: Mesh, *spec: Any) -> jax.Array:
    array = np.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def any_bits(dtype: Any, *shape: int) -> NDArray[Any]:
    """All that bits can say, NaNs of any payload too."""
    size = jnp.dtype(dtype).itemsize
    drawn = np.random.default_rng(5).integers(0, 256, (*shape, size), np.uint8)
    found: NDArray[Any] = drawn.view(dtype).reshape(shape)
    return found


def params(order: list[int]) -> dict[str, dict[str, Any]]:
    """Params in all the ways in which they may lie; of a mesh with the devices in an order."""
    devices = np.array(jax.devices())[order]
    line, square = Mesh(devices, ("d",)), Mesh(devices.reshape(2, 2), ("a", "b"))
    return {
        "line": {
            "rows": laid(any_bits(np.float32, 8, 3), line, "d"),
            "columns": laid(any_bits(jnp.bfloat16, 3, 4), line, None, "d"),
            "eighths": laid(any_bits(jnp.float8_e4m3fn, 16), line, "d"),
            "halves": laid(any_bits(jnp.float8_e5m2, 4, 2), line),
        },
        "square": {
            "both": laid(any_bits(np.float32, 4, 6), square, "a", "b"),
            "folded": laid(any_bits(jnp.bfloat16, 8), square, ("a", "b")),
            "turned": laid(any_bits(np.int16, 2, 6, 4), square, "b", None, "a"),
            "part": laid(any_bits(np.float32, 64, 2), square, "a"),  # twice, once for each b
            "other": laid(any_bits(np.float32, 2, 62), square, None, "b"),
            "one": laid(np.float32(7), square),
            **{f"whole{i}": laid(any_bits(np.uint8, 100 + i), square) for i in range(8)},
            "none": laid(np.zeros((0, 2), np.float32), square, "a", "b"),
        },
        "kinds": start(),
        "host": {"numpy": any_bits(np.float64, 5), "number": 3, "small": np.float32(2)},
    }


def main(folder: Path) -> None:
    """Write down the pieces of each case, beside what is gathered."""
    rank = begin()
    ranks = ranks_here()
    for case, tree in params([0, 1, 2, 3]).items():
        capture = PytreeCapture(tree, ranks, writes=ranks.writes)
        number, layout, pieces = capture.parts()
        found: dict[str, Any] = {}
        for part, named in pieces.items():
            for name, (data, begins) in named.items():
                array = np.asarray(data)
                at = json.dumps([part, name, begins, array.shape])
                found[at] = np.frombuffer(array.tobytes(), np.uint8)
        np.savez(folder / f"{case}-{rank}.npz", **found)
        here = {"number": number, "layout": layout, "parts": sorted(pieces)}
        (folder / f"{case}-{rank}.json").write_text(json.dumps(here))
        wanted = capture.tensors()
        if ranks.writes:
            gathered = {name: np.asarray(each) for name, each in wanted.items()}
            as_bytes: dict[str, Any] = {
                name: np.frombuffer(each.tobytes(), np.uint8) for name, each in gathered.items()
            }
            np.savez(folder / f"{case}.npz", **as_bytes)
    wrong = []
    if not ranks.alone:
        others = params([0, 1, 2, 3] if rank else [3, 1, 2, 0])
        unlike = [{"w": others["line"][name]} for name in ("rows", "columns")]
        extra = {"n": np.ones(2)} | ({"w": np.ones(3)} if rank else {})
        for tree in (others["line"], unlike[rank], extra):
            try:
                PytreeCapture(tree, ranks, writes=ranks.writes).parts()
            except ca.SnapshotError as error:
                wrong.append(str(error))
    (folder / f"wrong-{rank}.json").write_text(json.dumps(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
