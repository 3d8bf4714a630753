"""Predict with members and input that lie on four devices; a process of its own sets them up."""

from __future__ import annotations

import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble.predict.modes import Mode

MODES: tuple[Mode, ...] = ("stream", "resident", "stacked")


def main(folder: str, classes: int) -> None:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_sample = NamedSharding(mesh, PartitionSpec("data", None))

    def params(seed: int) -> dict[str, jax.Array]:
        drawn = jax.random.normal(jax.random.key(seed), (3, classes))
        return {"w": jax.device_put(drawn, everywhere)}

    with SnapshotRecorder(folder, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for seed in range(3):
            recorder.step(params(seed))
    ensemble = SnapshotEnsemble(jax.jit(lambda p, x: x @ p["w"]), folder, like=params(0))
    x = jax.device_put(jax.random.normal(jax.random.key(9), (8, 3)), by_sample)
    streamed = ensemble.predict(x)
    for mode in ("resident", "stacked", "auto"):
        found = ensemble.predict(x, mode=mode)
        np.testing.assert_allclose(found, streamed, rtol=1e-5)
        assert found.sharding.is_equivalent_to(by_sample, 2), (mode, found.sharding)
    for mode in MODES:
        numbers = ensemble.predict_classes(10 * x, mode=mode)
        np.testing.assert_array_equal(numbers, ensemble.predict(10 * x).argmax(-1))
        along = NamedSharding(mesh, PartitionSpec("data"))
        assert numbers.sharding.is_equivalent_to(along, 1), (mode, numbers.sharding)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
