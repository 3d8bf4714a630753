"""How a process that a test starts joins the others, on CPUs or on GPUs."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def joined(kind: str) -> torch.device:
    """Join the group that the environment names, if any; and the device of this process.

    Args:
        kind: "cpu", where gloo brings the processes together, or "cuda", where nccl does,
            and each has the GPU of its rank.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        if kind == "cuda":
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    return device
