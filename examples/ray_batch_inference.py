"""Batch inference over the machines of a Ray cluster: each worker holds one ensemble.

python -m pip install 'cosanneal[torch]' 'ray[data]' && python ray_batch_inference.py
"""

import ray
import torch

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

torch.manual_seed(0)
x = torch.randn(2500, 2)
y = (x[:, 0] * x[:, 1] > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
schedule = ca.CyclicCosine(max_lr=0.5, total_steps=300, num_cycles=3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
scheduler = CyclicCosineLR(optimizer, schedule)
with SnapshotRecorder("runs/ray", model, scheduler, resume_from=0):
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[:500]), y[:500]).backward()
        optimizer.step()
        scheduler.step()
ensemble = SnapshotEnsemble(model, "runs/ray")  # a folder that all machines reach
ensemble.fit(x[500:1500], y[500:1500])


class Predict:
    """What a worker does, with a copy of the ensemble that it reads the snapshots for."""

    def __init__(self, ensemble):
        self.ensemble = ensemble

    def __call__(self, batch):
        """A batch, which is of numpy's arrays, with a column more."""
        return {**batch, "probabilities": self.ensemble.predict(batch["x"]).numpy()}


ray.init(num_cpus=2, include_dashboard=False)  # in a cluster: ray.init(address="auto")
rows = ray.data.from_items([{"x": x[i].numpy(), "y": int(y[i])} for i in range(2500)])
workers = ray.data.ActorPoolStrategy(size=2)
found = rows.map_batches(Predict, fn_constructor_args=[ensemble], batch_size=250, compute=workers)
kept = found.take_all()  # or found.write_parquet(folder)
right = [row["probabilities"].argmax() == row["y"] for row in kept]
print(f"accuracy {sum(right) / len(right):.3f} of {len(right)} rows")
ray.shutdown()
