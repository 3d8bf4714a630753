"""A snapshot ensemble of few of scikit-learn's digits, distilled into one model.

python -m pip install 'cosanneal[torch]' scikit-learn && python torch_distill.py [SEED [ALPHA]]
"""

import sys
from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss

import cosanneal as ca
from cosanneal.adapters import torch as cat

seed, alpha = (*sys.argv[1:], *("0", "0.9")[len(sys.argv) - 1 :])
torch.manual_seed(int(seed))
x, y = (torch.tensor(each) for each in load_digits(return_X_y=True))
x = x.reshape(-1, 1, 8, 8).float() / 16
train, validation, test = torch.randperm(len(x)).split([150, 1000, 647])


def fit(x, loss_of, folder, num_cycles, steps=1800):  # a new model
    conv, norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
    schedule = ca.CyclicCosine(max_lr=0.05, total_steps=steps, num_cycles=num_cycles)
    scheduler = cat.CyclicCosineLR(optimizer, schedule)
    with cat.SnapshotRecorder(folder, model, scheduler, resume_from=0):
        for _ in range(steps):
            rows = torch.randint(len(x), (15,))
            optimizer.zero_grad()
            loss_of(model(x[rows]), rows).backward()
            optimizer.step()
            scheduler.step()
    return model.eval()


near = x[train].repeat(20, 1, 1, 1) + 0.1 * torch.randn(20 * 150, 1, 8, 8)  # for both
labels = y[train].repeat(20)
teacher = fit(near, lambda z, rows: cross_entropy(z, labels[rows]), "runs/teacher", 6)
ensemble = cat.SnapshotEnsemble(teacher, "runs/teacher")
ensemble.fit(x[validation], y[validation])
q, distil = ensemble.predict(near), partial(cat.distillation_loss, alpha=float(alpha))
student = fit(near, lambda z, i: distil(z, q[i], labels[i], temperature=2.0), "runs/student", 1)
predicted = {"last snapshot": teacher(x[test]).softmax(1), "ensemble": ensemble.predict(x[test])}
for name, p in (predicted | {"student": student(x[test]).softmax(1)}).items():
    wrong, loss = (p.argmax(1) != y[test]).double().mean(), nll_loss(p.log(), y[test])
    print(f"{name}: {100 * wrong:.2f} % of the test scans wrong, log-loss {loss:.4f}")
