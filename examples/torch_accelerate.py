"""Cycles and snapshots with accelerate, on one process or several; a run that stopped goes on.

python -m pip install 'cosanneal[torch]' accelerate && accelerate launch torch_accelerate.py
"""

import math
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader, TensorDataset

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

# With it, a run that goes on has the batches that it would have had.
seedable = DataLoaderConfiguration(use_seedable_sampler=True)
accelerator = Accelerator(gradient_accumulation_steps=2, dataloader_config=seedable)
torch.manual_seed(0)
x = torch.randn(3000, 8)
y = (torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + torch.randn(3000) > 0).long()
training = DataLoader(TensorDataset(x[:800], y[:800]), batch_size=16, shuffle=True)
held_out = DataLoader(TensorDataset(x[800:], y[800:]), batch_size=100)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
model, optimizer, training, held_out = accelerator.prepare(model, optimizer, training, held_out)
epochs = 12
updates = epochs * math.ceil(len(training) / 2)  # the last batches of an epoch make one too
schedule = ca.CyclicCosine(max_lr=0.2, total_steps=updates, num_cycles=4)
scheduler = CyclicCosineLR(optimizer, schedule)  # not prepared: accelerate would step it more often
recorder = SnapshotRecorder("runs/accelerate", model, scheduler)
accelerator.register_for_checkpointing(scheduler, recorder)
saved = sorted(Path("runs").glob("state-*"))
if saved:
    accelerator.load_state(str(saved[-1]))
with recorder:
    for epoch in range(len(saved), epochs):
        training.set_epoch(epoch)
        for inputs, labels in training:
            with accelerator.accumulate(model):
                accelerator.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
                optimizer.step()
                if accelerator.sync_gradients:
                    scheduler.step()
                optimizer.zero_grad()
        accelerator.save_state(f"runs/state-{epoch:02}")
ensemble = SnapshotEnsemble(model, "runs/accelerate")
choice = ensemble.fit(held_out, select="weights")  # each process runs its share of the data
accelerator.print(f"weights {[round(w, 2) for w in choice.weights]} of {len(ensemble)} members")
accelerator.end_training()  # closes the processes' connections, before one of them is gone
