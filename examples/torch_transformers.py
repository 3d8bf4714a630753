"""A snapshot ensemble of a small transformer on padded token sequences, in plain PyTorch.

python -m pip install 'cosanneal[transformers]' && python torch_transformers.py
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder

torch.manual_seed(0)


def texts(count):
    """Sequences of 5 to 12 tokens, in dicts of 50: which of 6 and 7 comes more often?"""
    batches = []
    for _ in range(count // 50):
        ids = torch.randint(1, 12, (50, 12))
        mask = (torch.arange(12) < torch.randint(5, 13, (50, 1))).long()
        ids *= mask
        labels = ((ids == 6).sum(1) > (ids == 7).sum(1)).long()
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


train, held_out, test = (
    torch.utils.data.DataLoader(texts(1000), batch_size=None) for _ in range(3)
)
config = BertConfig(
    vocab_size=12,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
)
model = BertForSequenceClassification(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
scheduler = CyclicCosineLR(optimizer, ca.CyclicCosine(5e-3, total_steps=200, num_cycles=4))
with SnapshotRecorder("runs/transformers", model, scheduler, resume_from=0):
    for _ in range(10):
        for batch in train:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            scheduler.step()

ensemble = SnapshotEnsemble(model, "runs/transformers")  # dicts by keyword, labels apart
ensemble.fit(held_out)
found = ensemble.evaluate(test)
rows = [(each["name"], each["error"]) for each in found["members"]]
for name, error in [*rows, ("chosen", found["chosen"]["error"])]:
    print(f"{name}: {error:.2%} of the test sequences wrong")
