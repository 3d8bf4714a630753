"""The copy from a CUDA device: no wait on the host, and never a weight of the next update.

python -m pytest -m gpu tests/gpu
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("torch_device")]

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def keep_busy(seconds: float) -> None:
    """Queue work on the current stream that takes about so long."""
    torch.cuda._sleep(int(seconds * 1.5e9))


def model_of(megabytes: int) -> nn.ParameterList:
    return nn.ParameterList(
        [torch.zeros(1000, 250, device="cuda") for _ in range(megabytes)]  # 1 MB each
    )


def test_the_snapshot_is_of_its_step_however_the_device_lags(tmp_path: Path) -> None:
    model = model_of(64)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for _ in range(6):
            keep_busy(0.05)
            with torch.no_grad():
                for each in model:
                    each += 1  # queued; the copy must wait for it, and the next for the copy
            recorder.step()
    for value, snapshot in enumerate(recorder.store.list(), 1):
        for tensor in snapshot.load(framework="pt").values():
            assert torch.equal(tensor, torch.full((1000, 250), float(value)))


def test_the_host_does_not_wait_for_the_device(tmp_path: Path) -> None:
    model = model_of(256)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()  # pins the memory
        recorder.wait()
        torch.cuda.synchronize()
        keep_busy(1.0)
        began = time.perf_counter()
        recorder.step()
        held = time.perf_counter() - began
        assert not torch.cuda.current_stream().query()  # the device is still at work
        assert held < 0.5


def test_the_held_memory_is_pinned_and_used_again(tmp_path: Path) -> None:
    model = model_of(4)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
        recorder.wait()
        (buffers,) = recorder._writer._buffers
        held = [tensor for tensor, *_ in buffers._tensors.values()]  # type: ignore[attr-defined]
        places = [tensor.data_ptr() for tensor in held]
        assert all(tensor.is_pinned() for tensor in held)
        recorder.step()
        recorder.wait()
        assert [t.data_ptr() for t, *_ in buffers._tensors.values()] == places  # type: ignore[attr-defined]


def test_every_kind_of_tensor_on_every_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = torch.randn(60, 70, device="cuda")
    tensors = {
        "host": torch.randn(3, 4),
        "turned": whole.t(),
        "spread": whole[::2, 1::3],
        "half": whole.half(),
        "brain": whole.bfloat16(),
        "eight": whole.to(torch.float8_e4m3fn),
        "flag": whole > 0,
        "conjugate": torch.randn(5, dtype=torch.complex64, device="cuda").conj(),
        "negative": torch.randn(5, dtype=torch.complex64, device="cuda").conj().imag,
        "empty": torch.zeros(0, 3, device="cuda"),
        "scalar": torch.tensor(7, device="cuda"),
    }
    for i in range(1, torch.cuda.device_count()):
        tensors[f"other{i}"] = torch.randn(9, 9, device=f"cuda:{i}")
    model = nn.Module()
    for name, value in tensors.items():
        model.register_buffer(name, value)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for _ in range(3):
            recorder.step()
    for snapshot in recorder.store.list():
        loaded = snapshot.load(framework="pt")
        for name, value in tensors.items():
            here = value.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
            there = loaded[name].reshape(-1)
            assert loaded[name].shape == value.shape
            assert torch.equal(there.view(torch.uint8), here.view(torch.uint8)), name


def test_a_model_that_moves_to_the_device_between_snapshots(tmp_path: Path) -> None:
    model = nn.Linear(30, 20)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
        model.cuda()
        recorder.step()
        model.cpu()
        recorder.step()
    one, two, three = (snapshot.load(framework="pt") for snapshot in recorder.store.list())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_training_on_a_stream_of_ones_own(tmp_path: Path) -> None:
    model = model_of(32)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        for _ in range(5):
            keep_busy(0.02)
            with torch.no_grad():
                for each in model:
                    each += 1
            recorder.step()
    for value, snapshot in enumerate(recorder.store.list(), 1):
        assert all((t == value).all() for t in snapshot.load(framework="pt").values())


def test_weights_that_are_freed_while_they_are_copied(tmp_path: Path) -> None:
    model = model_of(128)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
        recorder.wait()
        with torch.no_grad():
            for each in model:
                each.fill_(5)
        keep_busy(0.2)
        recorder.step()
        for each in model:
            each.data = torch.zeros_like(each)  # the memory before is free for others
        noise = [torch.full((1000, 250), -1.0, device="cuda") for _ in range(128)]
    del noise
    latest = recorder.store.list()[-1].load(framework="pt")
    assert all((tensor == 5).all() for tensor in latest.values())


def test_an_ensemble_of_what_was_recorded_on_the_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).cuda()
    x = torch.randn(6, 4, device="cuda")
    expected = model.eval()(x).softmax(-1)
    with SnapshotRecorder(tmp_path, model, EVERY_STEP) as recorder:
        recorder.step()
    torch.testing.assert_close(SnapshotEnsemble(model, tmp_path).predict(x), expected)
