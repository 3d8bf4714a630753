"""A snapshot ensemble of a segmentation net, with pixels that do not count, in plain PyTorch.

python -m pip install 'cosanneal[torch]' && python torch_segmentation.py
"""

import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

torch.manual_seed(0)


def scenes(count):
    """Noisy images of a disc (1) and a square (2); the pixels of the border are not labelled."""
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    places = torch.randint(4, 12, (count, 4, 1, 1))
    y = ((rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2 < 12).long()
    y[((rows - places[:, 2]).abs() < 3) & ((columns - places[:, 3]).abs() < 3)] = 2
    x = torch.stack([(y == 1), (y == 2)], 1) + 2 * torch.randn(count, 2, 16, 16)
    y[:, [0, -1]] = y[:, :, 0] = y[:, :, -1] = 255
    return x, y


(x, y), held_out, test = scenes(300), scenes(1000), scenes(500)
model = nn.Sequential(
    *(nn.Conv2d(2, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU()),
    nn.Conv2d(8, 3, 1),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = CyclicCosineLR(optimizer, ca.CyclicCosine(0.1, total_steps=120, num_cycles=4))
loss = nn.CrossEntropyLoss(ignore_index=255)
with SnapshotRecorder("runs/segmentation", model, scheduler, resume_from=0):
    for _ in range(120):
        rows = torch.randint(300, (25,))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        scheduler.step()

# The classes lie along the second axis; where an output is open, the error names the readings.
ensemble = SnapshotEnsemble(model, "runs/segmentation", outputs="logits", class_axis=1)
choice = ensemble.fit(*held_out, ignore_index=255, metric="mean_iou_error")
found = ensemble.evaluate(*test, ignore_index=255)
for row in found["members"]:
    print(f"{row['name']}: mean IoU {1 - row['metrics']['mean_iou_error']:.3f}")
print(f"chosen: mean IoU {1 - found['chosen']['metrics']['mean_iou_error']:.3f}")
