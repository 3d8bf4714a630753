"""Ensembles of params and input that lie on a mesh with explicit axes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import pytest

LAID = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, snapshot_buffer
assert len(jax.devices()) == 4
SCHEDULE = ca.CyclicCosine(0.1, total_steps=6, num_cycles=2)
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
def laid(array, *spec):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))
def apply_fn(params, x):
    return x @ params["w"] + params["b"]
rng = np.random.default_rng(0)
x = rng.standard_normal((4800, 4), np.float32)
each = [
    {"w": rng.standard_normal((4, 3), np.float32), "b": rng.standard_normal(3, np.float32)}
    for _ in range(6)
]
wanted = np.mean([jax.nn.softmax(apply_fn(params, x)) for params in (each[2], each[5])], axis=0)
def put(params):
    return {"w": laid(params["w"], "d"), "b": laid(params["b"])}
buffer = snapshot_buffer(SCHEDULE, put(each[0]), 2)
with SnapshotRecorder(FOLDER, SCHEDULE) as recorder:
    for step, params in enumerate(map(put, each)):
        recorder.step(params)
        buffer = buffer.update(step, params)
def close(found):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
"""

HELD = """
params = put(each[0])
shapes = jax.eval_shape(lambda: params)
assert not isinstance(shapes["w"].sharding.mesh, jax.sharding.Mesh)
for mode in ("stream", "stacked"):
    for given in ((buffer,), (FOLDER, shapes)):
        close(SnapshotEnsemble(apply_fn, *given).predict(x, mode=mode))
with jax.set_mesh(mesh):
    under = SnapshotEnsemble(apply_fn, FOLDER, shapes)
for ensemble in (SnapshotEnsemble(apply_fn, buffer), under):
    mean = ensemble.average_weights(x, np.arange(4800) % 3, barrier=99.0).weights
    assert mean["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
"""

LOADERS = """
class Loader:
    def __init__(self, *spec):
        self.spec = spec
    def __iter__(self):
        for half in np.split(x, 2):
            yield laid(half, *self.spec), None
ensemble = SnapshotEnsemble(apply_fn, FOLDER, {name: laid(leaf) for name, leaf in each[0].items()})
for spec in (("d",), (None, "d")):
    close(ensemble.predict(Loader(*spec)))
"""


ARRAYS = """
params = {name: laid(leaf) for name, leaf in each[0].items()}
sizes = []
def noting(params, x):
    sizes.append(len(x))
    assert str(x.sharding) == str(given.sharding)
    return apply_fn(params, x)
ensemble = SnapshotEnsemble(noting, FOLDER, params)
for given in (laid(x, "d"), laid(x, None, "d")):
    close(ensemble.predict(given))
assert sizes == [4800] * 4, sizes
for given in (laid(x, "d"), laid(x, None, "d")):
    close(ensemble.predict(given, batch_size=1000))
    close(ensemble.predict((given,), batch_size=2400, mode="resident"))
given = laid(x, "d")
try:
    ensemble.predict(given, batch_size=1001)
except ca.EnsembleError as error:
    assert "`batch_size` must be a multiple of the devices" in str(error), error
    assert "a batch of 1001 samples" in str(error), error
else:
    raise AssertionError
"""


@pytest.mark.skipif(not hasattr(jax.sharding, "AxisType"), reason="this jax has no explicit axes")
@pytest.mark.parametrize("code", [HELD, LOADERS, ARRAYS], ids=["held", "loaders", "arrays"])
def test_what_lies_on_explicit_axes_is_predicted_with(tmp_path: Path, code: str) -> None:
    lines = "import os\nos.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'\n"
    lines += f"FOLDER = {str(tmp_path)!r}\n{LAID}{code}"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
