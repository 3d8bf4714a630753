"""The processes of a run under torch.distributed."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ...snapshots.ranks import ALONE, Ranks, Together


def ranks_here() -> Ranks:
    """The processes of the default group; this one alone where there is no group."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Together(_DefaultGroup())


class _DefaultGroup:
    """torch's default process group, by whose own collectives messages go."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank."""
        # NCCL knows tensors of its devices alone.
        on_device = str(dist.get_backend()) == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if on_device else "cpu"
        data = message.encode()
        own = torch.tensor([len(data)], device=device)
        lengths = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(lengths, own)
        room = max(int(each) for each in lengths)
        padded = torch.zeros(room, dtype=torch.uint8, device=device)
        padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        received = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return [
            bytes(each[: int(length)].cpu().numpy()).decode()
            for each, length in zip(received, lengths, strict=True)
        ]
