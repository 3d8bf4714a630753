"""A snapshot ensemble of a module of flax' nnx, and how sure it is.

python -m pip install 'cosanneal[jax]' flax && python jax_nnx.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, cyclic_cosine_schedule

random = np.random.default_rng(0)


def spirals(count):
    """Points on two spirals, and which of both they are on."""
    y, turn = random.integers(2, size=count), random.uniform(1, 9, size=count)
    x = np.stack([np.cos(turn + np.pi * y), np.sin(turn + np.pi * y)], 1) * turn[:, None]
    return jnp.asarray(x / 5 + random.normal(size=(count, 2)) / 10), jnp.asarray(y)


rngs = nnx.Rngs(0)
first, second, last = (nnx.Linear(*sizes, rngs=rngs) for sizes in ((2, 64), (64, 64), (64, 2)))
graphdef, params = nnx.split(nnx.Sequential(first, nnx.relu, second, nnx.relu, last))
schedule = ca.CyclicCosine(0.02, total_steps=800, num_cycles=4)
tx = optax.adam(cyclic_cosine_schedule(schedule))


@jax.jit
def update(params, state, x, y):
    """One update of the params, and of the optimizer's state."""

    def loss(params):
        logits = nnx.merge(graphdef, params)(x)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    changes, state = tx.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, changes), state


state = tx.init(params)
(x, y), held_out, test = spirals(500), spirals(1000), spirals(2000)
with SnapshotRecorder("runs/nnx", schedule, resume_from=0) as recorder:
    for _ in range(800):
        rows = random.integers(500, size=50)
        params, state = update(params, state, x[rows], y[rows])
        recorder.step(params)

ensemble = SnapshotEnsemble(
    jax.jit(lambda params, x: nnx.merge(graphdef, params)(x)), "runs/nnx", like=params
)
ensemble.fit(*held_out)
found = ensemble.predict_with_uncertainty(test[0])
wrong = found.probabilities.argmax(1) != test[1]
sure, unsure = (found.entropy[these].mean() for these in (~wrong, wrong))
print(f"{wrong.mean():.2%} of the points wrong; entropy {sure:.3f} nats, and there {unsure:.3f}")
