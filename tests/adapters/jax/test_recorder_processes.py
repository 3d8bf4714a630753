"""Recording params that lie on several devices, or in several processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cosanneal.snapshots import SnapshotStore

PROCESS = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize("localhost:{port}", 2, int(sys.argv[1]))
import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder
mesh = jax.make_mesh((2,), ("d",))
given = np.arange(8, dtype=np.float32).reshape(2, 4)

def laid(*spec):
    return jax.make_array_from_callback(
        given.shape, NamedSharding(mesh, P(*spec)), lambda index: given[index]
    )

update = jax.jit(lambda w, s: w + s.sum(), out_shardings=NamedSharding(mesh, P()))
whole, part = laid(), laid("d")
assert jax.process_count() == 2 and not whole.is_fully_addressable
schedule = ca.CyclicCosine(0.1, cycle_steps=2)
with SnapshotRecorder({folder!r} + sys.argv[1], schedule) as recorder:
    for _ in range(2):
        whole = update(whole, part)
        recorder.step({{"w": whole, "key": jax.random.key(3)}})
with SnapshotRecorder({folder!r} + "part" + sys.argv[1], schedule) as recorder:
    try:
        recorder.step({{"w": part}})
    except ca.SnapshotError as error:
        print(error)
"""


def test_what_every_process_has_whole_is_recorded(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = PROCESS.format(port=port, folder=str(tmp_path / "run"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for i, process in enumerate(processes):
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert "'w', sharded over several; gather it first" in out
        snapshots = SnapshotStore(tmp_path / f"run{i}").list()
        assert [snapshot.step for snapshot in snapshots] == [2]
        loaded = snapshots[0].load()
        assert np.array_equal(loaded["w"], np.arange(8.0).reshape(2, 4) + 2 * 28)
        assert loaded["key"].tolist() == [0, 3]


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
