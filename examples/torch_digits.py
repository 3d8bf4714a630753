"""A snapshot ensemble of the scikit-learn digits in plain PyTorch.

python -m pip install 'cosanneal[torch]' scikit-learn && python torch_digits.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
rows = torch.randperm(len(x))
train, test = rows[:900], rows[900:]
loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(x[train], y[train]), batch_size=25, shuffle=True
)

model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)
epochs = 50
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3)
schedule = ca.CyclicCosine(max_lr=0.1, total_steps=epochs * len(loader), num_cycles=5)
scheduler = CyclicCosineLR(optimizer, schedule)

# Starts over each time, in a folder of this model and schedule alone. To go on instead,
# load the scheduler's state and leave resume_from out.
with SnapshotRecorder("runs/digits-torch", model, scheduler, resume_from=0) as recorder:
    for epoch in range(epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()  # at a cycle's end, the recorder takes a snapshot
            if recorder.step():  # which this asks about; without it, one is taken just the same
                print(f"epoch {epoch + 1}: snapshot at step {recorder.updates}")

for last in range(1, 6):
    probabilities = SnapshotEnsemble(model, "runs/digits-torch", last=last).predict(x[test]).numpy()
    error = np.mean(probabilities.argmax(axis=1) != y[test].numpy())
    print(f"ensemble of the last {last}: {100 * error:.2f} % of the test scans wrong")
