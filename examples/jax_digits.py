"""A snapshot ensemble of the scikit-learn digits in plain JAX and Optax.

python -m pip install 'cosanneal[jax]' scikit-learn && python jax_digits.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import cosanneal as ca
from cosanneal.adapters.jax import SnapshotEnsemble, SnapshotRecorder, cyclic_cosine_schedule

digits = load_digits()
rng = np.random.default_rng(0)
rows = rng.permutation(len(digits.target))  # 900 to train, the others to test
x, y = jnp.asarray(digits.data[rows] / 16), jnp.asarray(digits.target[rows])
first, second = jax.random.split(jax.random.key(0))
params = {
    "hidden": {"kernel": jax.random.normal(first, (64, 128)) / 8, "bias": jnp.zeros(128)},
    "out": {"kernel": jax.random.normal(second, (128, 10)) / 11, "bias": jnp.zeros(10)},
}


@jax.jit
def apply_fn(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


epochs, batch_size = 50, 25
schedule = ca.CyclicCosine(0.2, total_steps=epochs * 900 // batch_size, num_cycles=5)
rate = cyclic_cosine_schedule(schedule)
tx = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(rate, momentum=0.9))
opt_state = tx.init(params)


@jax.jit
def train_step(params, opt_state, x, y):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, x), y).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


# Starts over each time, in a folder of this model and schedule alone. To go on instead,
# give the step of your checkpoint as resume_from.
with SnapshotRecorder("runs/digits-jax", schedule, resume_from=0) as recorder:
    for epoch in range(epochs):
        for batch in rng.permutation(900).reshape(-1, batch_size):
            params, opt_state = train_step(params, opt_state, x[batch], y[batch])
            if recorder.step(params):
                print(f"epoch {epoch + 1}: snapshot at step {recorder.updates}")

for last in range(1, 6):
    ensemble = SnapshotEnsemble(apply_fn, "runs/digits-jax", like=params, last=last)
    error = float(jnp.mean(ensemble.predict(x[900:]).argmax(axis=1) != y[900:]))
    print(f"ensemble of the last {last}: {100 * error:.2f} % of the test scans wrong")
