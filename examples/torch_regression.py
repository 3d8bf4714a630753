"""A snapshot ensemble of a regression with a mean and a variance, in plain PyTorch.

python -m pip install 'cosanneal[torch]' && python torch_regression.py
"""

import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble import gaussian_nll, interval_coverage, prediction_interval, rmse

torch.manual_seed(0)
x = torch.rand(2900, 1) * 6 - 3
y = torch.sin(2 * x) + (0.1 + 0.1 * x.abs()) * torch.randn(2900, 1)
train, held_out, test = slice(0, 400), slice(400, 1650), slice(1650, 2900)
data = torch.utils.data.TensorDataset(x[train], y[train])
loader = torch.utils.data.DataLoader(data, batch_size=50, shuffle=True)


class Heads(nn.Module):
    """Returns the mean and the variance of a normal distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.mean, self.variance = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two for each row."""
        hidden = self.body(x)
        return self.mean(hidden), nn.functional.softplus(self.variance(hidden)) + 1e-4


model, epochs = Heads(), 150
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
schedule = ca.CyclicCosine(max_lr=0.02, total_steps=epochs * len(loader), num_cycles=5)
scheduler = CyclicCosineLR(optimizer, schedule)
loss = nn.GaussianNLLLoss()
with SnapshotRecorder("runs/regression-torch", model, scheduler, resume_from=0):
    for _ in range(epochs):
        for inputs, targets in loader:
            mean, variance = model(inputs)
            optimizer.zero_grad()
            loss(mean, targets, variance).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()

ensemble = SnapshotEnsemble(model, "runs/regression-torch", outputs="gaussian")
choice = ensemble.fit(x[held_out], y[held_out], select="weights")
mean, variance = ensemble.predict(x[test])  # of the mixture, at the scale that was fitted
low, high = prediction_interval(mean, variance, level=0.9)
print(
    f"weights {[round(w, 2) for w in choice.weights]}, variance scale {choice.variance_scale:.2f}"
)
print(f"RMSE {rmse(mean, y[test]):.3f}, NLL {gaussian_nll(mean, variance, y[test]):.3f} nats")
print(f"{100 * interval_coverage(low, high, y[test]):.1f} % of targets in the 90 % intervals")
