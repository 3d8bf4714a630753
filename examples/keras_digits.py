"""A snapshot ensemble of the scikit-learn digits in plain Keras, on any of its backends.

python -m pip install 'cosanneal[tf]' scikit-learn && python keras_digits.py
"""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import cosanneal as ca
from cosanneal.adapters.keras import CyclicCosineSchedule, SnapshotEnsemble, SnapshotRecorder

keras.utils.set_random_seed(0)
digits = load_digits()
rows = np.random.default_rng(0).permutation(len(digits.target))
x = digits.images[rows, :, :, None].astype("float32") / 16
y = digits.target[rows]

model = keras.Sequential(
    [
        *(keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same")),
        *(layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()),
        *(layers.Conv2D(32, 3, padding="same"), layers.BatchNormalization()),
        *(layers.ReLU(), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10)),
    ]
)
epochs, batch_size = 50, 25
schedule = ca.CyclicCosine(max_lr=0.1, total_steps=epochs * 900 // batch_size, num_cycles=5)
model.compile(
    keras.optimizers.SGD(CyclicCosineSchedule(schedule), momentum=0.9, weight_decay=5e-3),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)

# Starts over each time, in a folder of this model and schedule alone. To go on instead,
# restore the optimizer and leave resume_from out.
recorder = SnapshotRecorder("runs/digits-keras", schedule, resume_from=0)
model.fit(x[:900], y[:900], batch_size=batch_size, epochs=epochs, callbacks=[recorder], verbose=2)

for last in range(1, 6):
    probabilities = SnapshotEnsemble(model, "runs/digits-keras", last=last).predict(x[900:])
    error = np.mean(probabilities.argmax(axis=1) != y[900:])
    print(f"ensemble of the last {last}: {100 * error:.2f} % of the test scans wrong")
