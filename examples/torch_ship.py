"""An ensemble shipped as one file, which runs without the library and the snapshots.

python -m pip install 'cosanneal[torch]' && python torch_ship.py
"""

import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

torch.manual_seed(0)
x = torch.randn(3000, 2)
y = (x[:, 0] * x[:, 1] > 0).long()  # the sign of a product
train, validation, test = torch.arange(1000), torch.arange(1000, 2000), torch.arange(2000, 3000)

model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
schedule = ca.CyclicCosine(max_lr=0.5, total_steps=600, num_cycles=4)
scheduler = CyclicCosineLR(optimizer, schedule)
with SnapshotRecorder("runs/ship-torch", model, scheduler, resume_from=0):
    for _ in range(600):
        rows = train[torch.randint(len(train), (50,))]
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

ensemble = SnapshotEnsemble(model, "runs/ship-torch")
choice = ensemble.fit(x[validation], y[validation])
predicted = ensemble.predict(x[test])

module = ensemble.as_module()  # the chosen members, their weights and the temperature
program = torch.export.export(
    module, (x[:10],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
)
torch.export.save(program, "ensemble.pt2")

loaded = torch.export.load("ensemble.pt2").module()
shipped = loaded(x[test])
error = (shipped.argmax(dim=1) != y[test]).double().mean()
print(f"{len(module.members)} members at the temperature {choice.temperature:.2f}")
print(f"shipped: {100 * error:.2f} % of the test points wrong")
print(f"the largest difference to the ensemble: {(shipped - predicted).abs().max():.1e}")
