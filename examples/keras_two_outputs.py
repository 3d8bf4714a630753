"""A snapshot ensemble of a Keras model with two inputs and two outputs.

python -m pip install 'cosanneal[tf]' && python keras_two_outputs.py
"""

import keras
import numpy as np

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)


def houses(count):
    """Rooms and a place, by name; what kind of house it is, and its price."""
    rooms = random.normal(size=(count, 4)).astype("float32")
    place = random.normal(size=(count, 2)).astype("float32")
    kind = np.argmax(rooms[:, :3] + 0.7 * random.normal(size=(count, 3)), 1)
    price = rooms.sum(1) + np.sin(3 * place[:, 0]) + 0.3 * random.normal(size=count)
    return {"rooms": rooms, "place": place}, {"kind": kind, "price": price[:, None]}


train, held_out, test = houses(1000), houses(1000), houses(1000)
inputs = {"rooms": keras.Input((4,), name="rooms"), "place": keras.Input((2,), name="place")}
hidden = keras.layers.Concatenate()([inputs["rooms"], inputs["place"]])
hidden = keras.layers.Dense(64, activation="relu")(hidden)
hidden = keras.layers.Dense(64, activation="relu")(hidden)
model = keras.Model(
    inputs,
    {
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(hidden),
        "price": keras.layers.Dense(1, name="price")(hidden),
    },
)
schedule = ca.CyclicCosine(0.02, total_steps=400, num_cycles=4)
model.compile(
    keras.optimizers.Adam(CyclicCosineSchedule(schedule)),
    loss={"kind": "sparse_categorical_crossentropy", "price": "mse"},
)
recorder = SnapshotRecorder("runs/two-outputs", schedule, resume_from=0)
model.fit(*train, batch_size=50, epochs=20, callbacks=[recorder], verbose=0)

ensemble = SnapshotEnsemble(
    model, "runs/two-outputs", outputs={"kind": "probabilities", "price": "values"}
)
choice = ensemble.fit(held_out[0], held_out[1]["kind"], output="kind")
last = model.predict(test[0], verbose=0)
for title, found in (("last snapshot", last), ("ensemble", ensemble.predict(test[0]))):
    error = np.mean(np.argmax(found["kind"], 1) != test[1]["kind"])
    rmse = np.sqrt(np.mean((found["price"] - test[1]["price"]) ** 2))
    print(f"{title}: {error:.2%} of the kinds wrong, prices off by {rmse:.3f}")
