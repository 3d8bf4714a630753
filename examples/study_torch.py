"""Do cycles pay on scikit-learn's digits? Needs cosanneal[demo]."""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import cosanneal as ca
from cosanneal import study
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder


def train(schedule: ca.Schedule, folder: Path, seed: int) -> study.Run:
    """One run: what it leaves, and what its members predict."""
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    x, y = x[order := torch.randperm(len(x))], y[order]
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-3)
    scheduler = CyclicCosineLR(optimizer, schedule)
    with SnapshotRecorder(folder, model, scheduler):
        for _ in range(len(schedule.rates())):
            batch = torch.randint(300, (30,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            scheduler.step()
    ensemble = SnapshotEnsemble(model, folder, outputs="logits")
    return study.Run.of(ensemble, validation=(x[300:800], y[300:800]), test=(x[800:], y[800:]))


if __name__ == "__main__":
    steps, seeds = map(int, sys.argv[1:] or (2000, 5))
    results = study.run(train, total_steps=steps, max_lr=0.2, seeds=seeds, folder="runs/study")
    print(*study.sentences(results), sep="\n")
    study.write_page(results, "study.html")
