"""Recording params that lie on several devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import pytest

DEVICES = """
from pathlib import Path
import jax, jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, snapshot_buffer
assert len(jax.devices()) == 4
SCHEDULE = ca.CyclicCosine(0.1, total_steps=7, num_cycles=3)

def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}

def update(params, step):
    return {**params, "w": params["w"] + step, "k": jax.random.fold_in(params["k"], step)}

@jax.jit
def scanned(params, buffer):
    def one(carry, step):
        params = update(carry[0], step)
        return (params, carry[1].update(step, params)), None
    return lax.scan(one, (params, buffer), jnp.arange(7))[0]

def recorded(folder, buffer):
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        assert recorder.record(buffer) == 3
    return contents(folder)

for kind in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(kind, kind))
    def laid(array, *spec):
        return jax.device_put(array, NamedSharding(mesh, P(*spec)))
    params = {
        "w": laid(jnp.arange(16.0).reshape(4, 4), "a", "b"),
        "rows": laid(jnp.ones((4, 3), jnp.bfloat16), ("a", "b")),
        "whole": laid(jnp.zeros((0, 2)), None),
        "k": laid(jax.random.key(1)),
    }
    folder = FOLDER + kind.name
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        each = params
        for step in range(7):
            each = update(each, step)
            recorder.step(each)
    wanted = contents(folder)
    assert len(wanted) == 3
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params
    )
    made = {
        "arrays": snapshot_buffer(SCHEDULE, params, 3),
        "shapes": snapshot_buffer(SCHEDULE, shapes, 3),
        "jit": jax.jit(lambda params: snapshot_buffer(SCHEDULE, params, 3))(params),
    }
    with jax.set_mesh(mesh):
        made["mesh"] = snapshot_buffer(SCHEDULE, jax.eval_shape(lambda: params), 3)
    for name, buffer in made.items():
        if name in ("arrays", "shapes"):
            assert buffer.params["w"].sharding.spec == P(None, "a", "b")
        _, after = scanned(params, buffer)
        assert after.params["w"].sharding.spec == P(None, "a", "b"), name
        assert recorded(folder + name, after) == wanted, name
    buffer, each = made["arrays"], params
    for step in range(7):  # without jit
        each = update(each, step)
        buffer = buffer.update(step, each)
    assert recorded(folder + "host", buffer) == wanted
    if kind == AxisType.Explicit:
        try:
            snapshot_buffer(SCHEDULE, jax.eval_shape(lambda: params), 3)
        except ca.SnapshotError as error:
            print(error)
"""


@pytest.mark.skipif(not hasattr(jax.sharding, "AxisType"), reason="this jax has no explicit axes")
def test_a_buffer_of_sharded_params_records_what_a_loop_records(tmp_path: Path) -> None:
    code = "import os\nos.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'\n"
    code += f"FOLDER = {str(tmp_path / 'run')!r}\n" + DEVICES
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "make the buffer under jax.set_mesh(mesh)" in run.stdout
