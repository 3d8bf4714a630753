"""The processes of a run under torch.distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from ...snapshots.ranks import ALONE, Ranks, Together


def ranks_here() -> Ranks:
    """The processes of the default group; this one alone where there is no group."""
    return Together(DefaultGroup()) if are_several() else ALONE


def are_several() -> bool:
    """Whether there is a default group of more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


# The last collective, which a thread of gloo's may hold a little longer than its end. If it were
# the last to let go of the tensors, it would need the interpreter for that; and where this has
# begun to end, the process is aborted ("terminate called without an active exception").
latest: list[object] = []

# The bytes of a message that goes at once.
_SHORT: Final = 1016
# Of tensors of more bytes, a smaller collective takes the place.
_SMALL: Final = 1 << 16


class DefaultGroup:
    """torch's default process group, by whose own collectives messages and rows go."""

    def __init__(self) -> None:
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()
        # NCCL knows tensors of its devices alone; beside it there may be another for the host's.
        backend = str(dist.get_backend())
        on_device = "nccl" in backend and "cpu:" not in backend
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_device else "cpu"

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank."""
        own = message.encode()
        # Nearly all are short, and go with their length in one collective.
        begin = len(own).to_bytes(8, "little") + own[:_SHORT].ljust(_SHORT)
        sent = torch.frombuffer(bytearray(begin), dtype=torch.uint8).to(self._device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        _all_gather(received, sent)
        begun = [bytes(each.cpu().numpy()) for each in received]
        lengths = [int.from_bytes(each[:8], "little") for each in begun]
        if max(lengths) <= _SHORT:
            return [each[8 : 8 + n].decode() for each, n in zip(begun, lengths, strict=True)]
        rows = torch.frombuffer(bytearray(own), dtype=torch.uint8)[:, None]
        return [bytes(each.cpu().numpy()).decode() for each in self.gathered(rows, lengths)]

    def gathered(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows of all, by rank.

        Args:
            rows: those of this process: bytes, of shape (rows, bytes of one).
            counts: how many each has, by rank; each row is of as many bytes.
        """
        padded = rows.new_zeros((max(counts), rows.shape[1]), device=self._device)
        padded[: len(rows)] = rows.to(self._device)
        received = [torch.empty_like(padded) for _ in range(self.size)]
        _all_gather(received, padded)
        if padded.nbytes > _SMALL:
            small = padded.new_zeros(1)
            _all_gather([torch.empty_like(small) for _ in range(self.size)], small)
        return [each[:count] for each, count in zip(received, counts, strict=True)]

    def first(self, value: Tensor) -> Tensor:
        """The tensor of rank 0, of which all others have one of its shape and dtype."""
        if not value.numel():
            return value
        own = value.detach().to(self._device).contiguous().clone()
        work = dist.broadcast(own.reshape(-1).view(torch.uint8), 0, async_op=True)
        work.wait()
        latest[:] = [work]
        return own.to(value.device)


def _all_gather(received: list[Tensor], own: Tensor) -> None:
    """`dist.all_gather`, whose work is kept until the next."""
    work = dist.all_gather(received, own, async_op=True)
    work.wait()
    latest[:] = [work]
