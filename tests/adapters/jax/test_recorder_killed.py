"""A training process that is killed and resumed from its checkpoint ends as one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cosanneal.snapshots import SnapshotStore

# Trains, with a checkpoint as npz after every few updates, and dies without a
# word after so many. The optimizer's state has the schedule's count and rate.
SCRIPT = """
import os, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, optax
import cosanneal as ca
from cosanneal.adapters.jax import SnapshotRecorder, cyclic_cosine_schedule

home, every, dies = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
schedule = ca.CyclicCosine(0.1, total_steps=23, num_cycles=4, warmup_steps=2, cycle_decay=0.9)
if sys.argv[4] == "extended":
    schedule = schedule.extended(at=17, num_cycles=3, total_steps=31, max_lr=0.15)
tx = optax.inject_hyperparams(optax.sgd)(cyclic_cosine_schedule(schedule), momentum=0.9)
keys = jax.random.split(jax.random.key(0))
params = {
    "hidden": {"kernel": jax.random.normal(keys[0], (4, 8)), "bias": jnp.zeros(8)},
    "out": {"kernel": jax.random.normal(keys[1], (8, 3)), "bias": jnp.zeros(3)},
}
state = (params, tx.init(params))
rates = []

@jax.jit
def update(state, step):
    params, opt_state = state
    x = jax.random.normal(jax.random.fold_in(jax.random.key(7), step), (16, 4))

    def loss(params):
        hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
        labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    changes, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), opt_state.hyperparams["learning_rate"]

leaves, structure = jax.tree.flatten(state)
checkpoint, start = home / "checkpoint.npz", 0
if checkpoint.exists():
    with np.load(checkpoint) as saved:
        kept = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(leaves))]
        start, rates = int(saved["step"]), saved["rates"].tolist()
    state = jax.tree.unflatten(structure, kept)

def save(path, step):
    named = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    np.savez(home / "next.npz", step=step, rates=np.array(rates), **named)
    os.replace(home / "next.npz", path)

with SnapshotRecorder(home / "snapshots", schedule, resume_from=start) as recorder:
    for step in range(start, schedule.total_steps):
        state, rate = update(state, step)
        rates.append(float(rate))
        recorder.step(state[0])
        if (step + 1) % every == 0:
            recorder.wait()
            save(checkpoint, step + 1)
        if step + 1 == dies:
            os._exit(9)
save(home / "end.npz", schedule.total_steps)
"""


def train(home: Path, *, every: int, dies: int = 0, extended: bool = False) -> int:
    home.mkdir(exist_ok=True)
    given = [sys.executable, "-c", SCRIPT, str(home), str(every), str(dies), "extended" * extended]
    return subprocess.run(given, check=False, timeout=120).returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    assert train(home, every=100) == 0
    return home


# Killed in mid-cycle, at a cycle's end, and before the first checkpoint.
@pytest.mark.parametrize(("every", "deaths"), [(4, (3, 14)), (9, (18,))])
def test_a_killed_process_resumed_is_one_that_was_not(
    tmp_path: Path, whole: Path, every: int, deaths: tuple[int, ...]
) -> None:
    for dies in deaths:
        assert train(tmp_path, every=every, dies=dies) == 9
        assert not (tmp_path / "end.npz").exists()
    assert train(tmp_path, every=every) == 0
    with np.load(whole / "end.npz") as expected, np.load(tmp_path / "end.npz") as got:
        assert set(expected) == set(got)
        for name in expected:
            assert expected[name].tobytes() == got[name].tobytes()
        assert len(expected["rates"]) == 23
        assert len(set(expected["rates"])) > 15
    files, theirs = (
        {path.name: path.read_bytes() for path in (home / "snapshots").glob("*.safetensors")}
        for home in (tmp_path, whole)
    )
    assert len(files) == 4
    assert files == theirs


def test_a_run_killed_and_extended_is_one_that_had_the_new_schedule_all_along(
    tmp_path: Path,
) -> None:
    home, whole = tmp_path / "killed", tmp_path / "whole"
    assert train(whole, every=100, extended=True) == 0
    assert train(home, every=17, dies=20) == 9  # after cycle 2, where a checkpoint is
    assert train(home, every=4, dies=23, extended=True) == 9
    assert train(home, every=4, extended=True) == 0
    with np.load(whole / "end.npz") as expected, np.load(home / "end.npz") as got:
        assert set(expected) == set(got)
        for name in expected:
            assert expected[name].tobytes() == got[name].tobytes()
        assert len(expected["rates"]) == 31
        assert expected["rates"][17] == np.float32(0.15)
    ours, theirs = (SnapshotStore(each / "snapshots").list() for each in (home, whole))
    assert [each.path.name for each in ours] == [each.path.name for each in theirs]
    assert [each.step for each in ours] == [5, 11, 17, 21, 26, 31]
    for each, other in zip(ours, theirs, strict=True):
        loaded, expected_tensors = each.load(), other.load()
        assert all(loaded[name].tobytes() == x.tobytes() for name, x in expected_tensors.items())
        assert (each.path.read_bytes() == other.path.read_bytes()) is (each.step > 17)
