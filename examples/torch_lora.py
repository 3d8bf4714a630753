"""A snapshot ensemble of adapters: of the model, 3 % is trained, recorded and shipped.

python -m pip install 'cosanneal[torch]' scikit-learn && python torch_lora.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import cosanneal as ca
import cosanneal.adapters.torch as snapshots

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
train, test = torch.randperm(len(x)).tensor_split([900])


class LoRA(nn.Module):
    """A layer that is frozen, beside an adapter of low rank."""

    def __init__(self, layer, rank=4):
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        """The layer's output, and what the adapter adds."""
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


model = nn.Sequential(
    *(LoRA(nn.Linear(64, 512)), nn.ReLU(), LoRA(nn.Linear(512, 512)), nn.ReLU()),
    LoRA(nn.Linear(512, 10)),
)
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
scheduler = snapshots.CyclicCosineLR(
    optimizer, ca.CyclicCosine(0.01, total_steps=500, num_cycles=5)
)
with snapshots.SnapshotRecorder(
    "runs/lora", model, scheduler, resume_from=0, which="trainable"
) as recorder:
    for _ in range(500):
        batch = train[torch.randint(900, (100,))]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        scheduler.step()
last = recorder.store.list()[-1]
size = sum(value.nbytes for value in model.state_dict().values())
print(f"{last.path.stat().st_size:,} bytes each, of a model of {size:,}")
probabilities = snapshots.SnapshotEnsemble(model, "runs/lora", last=3).predict(x[test])
snapshots.load_snapshot(model, last)
for name, found in (("last snapshot", model(x[test])), ("ensemble", probabilities)):
    print(f"{name}: {(found.argmax(1) != y[test]).float().mean():.2%} of the test scans wrong")
snapshots.export_weights(last, "runs/adapter.safetensors", overwrite=True)
