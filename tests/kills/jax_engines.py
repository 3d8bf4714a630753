"""What JAX trains over several devices, with checkpoints of Orbax', in a loop of a user's own."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, cyclic_cosine_schedule
from cosanneal.snapshots import assembly
from tests.kills.driver import Engine, begun, reporter

UPDATES = 40
SCHEDULE = ca.CyclicCosine(0.01, total_steps=UPDATES, num_cycles=20)
EVERY = 5  # updates between two checkpoints: now and then amid a cycle
PAUSE = 0.03  # seconds of an update, so that kills come amid the run
WIDTH, HIDDEN = 301, 400
HEARTBEAT = 5  # seconds after which JAX holds a process for dead that says nothing; else 100
WAITS = 2.0  # seconds that process 0 waits for the parts of others, in place of ten minutes
DEVICES = 4  # of all processes
# How the tensors lie over the devices: by columns, by rows, each device the whole.
SPECS = {
    "first": PartitionSpec(None, ("a", "b")),
    "bias": PartitionSpec("a"),
    "last": PartitionSpec("b", None),
    "scale": PartitionSpec(),
}


def begin(processes: int) -> None:
    """Bring the processes together, on CPUs."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    jax.config.update("jax_platforms", "cpu")
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
            processes,
            int(os.environ["RANK"]),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )


def numbers() -> dict[str, Any]:
    """The params of the begin, the same in each process."""
    rng = np.random.default_rng(0)
    return {
        "first": rng.normal(0, 0.1, (WIDTH, HIDDEN)).astype(np.float32),
        "bias": np.zeros(HIDDEN, np.float32),
        "last": rng.normal(0, 0.1, (HIDDEN, 3)).astype(np.float32),
        "scale": np.ones(3, np.float32),
    }


def batch(update: int) -> tuple[Any, Any]:
    """That of an update, the same in each process."""
    x = np.random.default_rng(update).normal(0, 0.1, (8, WIDTH)).astype(np.float32)
    return x, x[:, :3].argmax(1)


def loss(params: Any, x: Any, y: Any) -> Any:
    hidden = jax.nn.relu(x @ params["first"] + params["bias"])
    logits = hidden @ params["last"] * params["scale"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


TX = optax.sgd(cyclic_cosine_schedule(SCHEDULE), momentum=0.9)


def one(state: Any, x: Any, y: Any) -> Any:
    """One update."""
    params, opt_state = state
    changes, opt_state = TX.update(jax.grad(loss)(params, x, y), opt_state, params)
    return optax.apply_updates(params, changes), opt_state


do = jax.jit(one)


def plain(folder: Path) -> None:
    """The same training in this process, on one device."""
    params = {name: jnp.asarray(each) for name, each in numbers().items()}
    state = params, TX.init(params)
    with SnapshotRecorder(folder, SCHEDULE) as recorder:
        for update in range(UPDATES):
            state = do(state, *batch(update))
            recorder.step(state[0])


def loop(processes: int, options: Any, root: Path, rank: int, attempt: int) -> None:
    """A loop with checkpoints, each process its own part of them."""
    assembly.PARTS_SECONDS = WAITS  # type: ignore[misc]
    begin(processes)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))

    def laid(array: Any, spec: PartitionSpec = SPECS["scale"]) -> jax.Array:
        lies = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, lies, lambda index: array[index])

    # The optimizer's state lies as the params do, which have each a shape of its own.
    specs = {each.shape: SPECS[name] for name, each in numbers().items()}
    state = jax.tree.map(
        lambda leaf: laid(np.asarray(leaf), specs.get(leaf.shape, SPECS["scale"])),
        (numbers(), TX.init(numbers())),
    )
    kept = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(root / "checkpoints", options=kept) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
            state = checkpoints.restore(done, args=ocp.args.StandardRestore(abstract))
        do(state, *map(laid, batch(done)))  # compiled, before there is anything to kill
        multihost_utils.sync_global_devices("met")
        begun(root, rank, attempt, done)
        options = {**options, "max_pending": 2, "on_durable": reporter(root, attempt)}
        with SnapshotRecorder(root / "run", SCHEDULE, resume_from=done, **options) as recorder:
            for update in range(done, UPDATES):
                state = do(state, *map(laid, batch(update)))
                time.sleep(PAUSE)
                recorder.step(state[0])
                if (update + 1) % EVERY == 0:
                    recorder.wait()
                    multihost_utils.sync_global_devices("waited")  # process 0 too
                    checkpoints.save(update + 1, args=ocp.args.StandardSave(state))


def over(name: str, processes: int, **options: Any) -> Engine:
    """An engine of the loop's."""
    return Engine(
        name=name,
        processes=processes,
        schedule=SCHEDULE,
        train=partial(loop, processes, options),
        plain=plain,
        tolerance=1e-5,  # a sum over devices is of another order
        forks=False,
        parted="sharded" in options,
    )


ENGINES = {
    each.name: each
    for each in (
        over("jax", 2),
        over("jax-sharded", 2, sharded=True),
        over("jax-devices", 1),
        over("jax-devices-sharded", 1, sharded=True),
    )
}
