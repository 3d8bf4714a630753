"""Recording a torch model, and predicting with what was recorded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.ensemble.predict.pooling import Pooling
from cosanneal.snapshots import SnapshotStore

SCHEDULE = ca.CyclicCosine(0.1, total_steps=20, num_cycles=4)


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def data(samples: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(samples, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class Training:
    """A run with everything that a checkpoint must carry."""

    def __init__(self, folder: Path, *, lr: float = 1.0) -> None:
        self.model = small_net()
        groups: list[dict[str, Any]] = [
            {"params": [*self.model[0].parameters()], "lr": lr / 4},
            {"params": [*self.model[1:].parameters()]},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        self.scheduler = CyclicCosineLR(self.optimizer, SCHEDULE)
        self.recorder = SnapshotRecorder(folder, self.model, self.scheduler)
        self.x, self.y = data()

    def update(self) -> None:
        rows = torch.randint(len(self.x), (16,))
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
        self.optimizer.step()
        self.scheduler.step()
        self.recorder.step({"seen": self.scheduler.last_epoch})

    def save(self, path: Path) -> None:
        self.recorder.wait()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "rng": torch.get_rng_state(),
            },
            path,
        )

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("saved", "killed"), [(3, 4), (8, 13), (10, 10), (9, 20), (0, 2)])
def test_a_killed_run_resumed_from_a_checkpoint_is_the_run_that_was_not(
    tmp_path: Path, saved: int, killed: int
) -> None:
    torch.manual_seed(0)
    whole = Training(tmp_path / "whole")
    for _ in range(20):
        whole.update()

    torch.manual_seed(0)
    broken = Training(tmp_path / "broken")
    for step in range(killed):
        if step == saved:
            broken.save(tmp_path / "checkpoint.pt")
        broken.update()
    if saved == killed:
        broken.save(tmp_path / "checkpoint.pt")
    broken.recorder.close()

    torch.manual_seed(999)  # another process, with another random state
    resumed = Training(tmp_path / "broken", lr=0.5)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(20 - saved):
        resumed.update()
    for run in (whole, resumed):
        run.recorder.close()

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert len(contents(tmp_path / "whole")) == 4


def test_snapshots_are_the_weights_after_each_cycles_last_update(tmp_path: Path) -> None:
    run = Training(tmp_path)
    expected = {}
    for step in range(20):
        run.update()
        if SCHEDULE.is_cycle_end(step):
            expected[step + 1] = clone(run.model)
    run.recorder.wait()
    snapshots = run.recorder.store.list()
    assert [snapshot.step for snapshot in snapshots] == [5, 10, 15, 20] == [*expected]
    assert [snapshot.cycle for snapshot in snapshots] == [0, 1, 2, 3]
    for snapshot in snapshots:
        loaded = snapshot.load(framework="pt")
        assert loaded.keys() == expected[snapshot.step].keys()  # buffers are among them
        for name, value in expected[snapshot.step].items():
            assert torch.equal(loaded[name], value)
            assert loaded[name].dtype == value.dtype
        assert snapshot.metadata["rate"] == SCHEDULE.rate(snapshot.step - 1)
        assert snapshot.metadata["metrics"] == {"seen": snapshot.step}
        assert snapshot.metadata["framework"] == "torch"
        assert snapshot.metadata["versions"]["torch"] == str(torch.__version__)
        assert snapshot.schedule == SCHEDULE


def test_a_recorder_with_a_schedule_counts_by_itself_and_resumes(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        assert [step for step in range(1, 13) if recorder.step()] == [5, 10]
        state = recorder.state_dict()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        recorder.load_state_dict(state)
        assert [step for step in range(13, 25) if recorder.step()] == [15, 20]
    with SnapshotRecorder(tmp_path, model, SCHEDULE, resume_from=12) as recorder:
        assert [snapshot.step for snapshot in recorder.store.list()] == [5, 10]
        assert [step for step in range(13, 25) if recorder.step()] == [15, 20]


def test_metrics_are_only_computed_when_a_cycle_ends(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(len(calls))
        return {"loss": torch.tensor(0.25), "nan": float("nan"), "names": ["a"]}

    with SnapshotRecorder(tmp_path, small_net(), SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step(measure)
    assert len(calls) == 2
    metrics = recorder.store.list()[0].metadata["metrics"]
    assert metrics["loss"] == 0.25
    assert metrics["nan"] != metrics["nan"]
    assert metrics["names"] == ["a"]


def test_a_scheduler_that_takes_several_steps_per_update_misses_no_cycle(tmp_path: Path) -> None:
    # As accelerate does with several processes: two steps of the scheduler per update.
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = CyclicCosineLR(optimizer, SCHEDULE)
    with SnapshotRecorder(tmp_path, model, scheduler) as recorder:
        for _ in range(10):
            optimizer.step()
            scheduler.step()
            scheduler.step()
            recorder.step()
    assert [(s.cycle, s.step) for s in recorder.store.list()] == [(0, 6), (1, 10), (2, 16), (3, 20)]


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step()
    before = contents(tmp_path)
    message = r"must hold no snapshots of another run\. Received: 2, up to step 10; .*resume_from=0"
    with (
        SnapshotRecorder(tmp_path, model, SCHEDULE) as again,
        pytest.raises(ca.SnapshotError, match=message),
    ):
        again.step()
    assert contents(tmp_path) == before
    with SnapshotRecorder(tmp_path, model, SCHEDULE, resume_from=0) as fresh:
        assert fresh.store.list() == []

    scheduler = CyclicCosineLR(torch.optim.SGD(model.parameters(), lr=0.1), SCHEDULE)
    with SnapshotRecorder(tmp_path, model, scheduler, resume_from=0) as fresh:
        scheduler.optimizer.step()
        scheduler.step()
        assert fresh.step() is False


def test_a_recorder_made_after_the_state_was_loaded_takes_the_run_up(tmp_path: Path) -> None:
    run = Training(tmp_path)
    for _ in range(12):
        run.update()
    run.recorder.close()
    state = run.scheduler.state_dict()
    scheduler = CyclicCosineLR(torch.optim.SGD(run.model.parameters(), lr=1.0), SCHEDULE)
    scheduler.load_state_dict(state | {"base_lrs": [1.0], "factors": [1.0]})
    with SnapshotRecorder(tmp_path, run.model, scheduler) as recorder:
        for _ in range(3):
            scheduler.optimizer.step()
            scheduler.step()
            recorder.step()
    assert [snapshot.step for snapshot in recorder.store.list()] == [5, 10, 15]


def test_resuming_under_another_schedule_is_refused(tmp_path: Path) -> None:
    model = small_net()
    with SnapshotRecorder(tmp_path, model, SCHEDULE) as recorder:
        for _ in range(10):
            recorder.step()
    other = ca.CyclicCosine(0.1, total_steps=24, num_cycles=4)
    with pytest.raises(ca.SnapshotError, match=r"rules\[0\]\.length = 5, and the schedule .* 6"):
        SnapshotRecorder(tmp_path, model, other, resume_from=10)
    assert len(recorder.store.list()) == 2


def test_a_model_whose_structure_changed_is_refused(tmp_path: Path) -> None:
    every_step = ca.CyclicCosine(0.1, cycle_steps=1)
    model = nn.Sequential(nn.Linear(4, 3))
    with SnapshotRecorder(tmp_path, model, every_step) as recorder:
        recorder.step()
        model.append(nn.Linear(3, 2, bias=False))
        with pytest.raises(ca.SnapshotError, match=r"the model's tensor '1\.weight' is not"):
            recorder.step()
        model.pop(1)
        assert recorder.step()
        assert recorder.updates == 3
    # A run resumed with another model is one too.
    with (
        SnapshotRecorder(tmp_path, model.double(), every_step, resume_from=3) as recorder,
        pytest.raises(ca.SnapshotError, match=r"'0\.weight' is float32 .*, the model's float64 of"),
    ):
        recorder.step()
    assert [snapshot.step for snapshot in SnapshotStore(tmp_path).list()] == [1, 3]


def test_a_closed_recorder_and_bad_arguments_are_refused(tmp_path: Path) -> None:
    model = small_net()
    recorder = SnapshotRecorder(tmp_path, model, SCHEDULE)
    recorder.step()
    recorder.close()
    recorder.close()
    with pytest.raises(ca.SnapshotError, match=r"closed.*resume_from=1"):
        recorder.step()
    with pytest.raises(ca.SnapshotError, match=r"`model` must be a torch.nn.Module.*dict"):
        SnapshotRecorder(tmp_path, {}, SCHEDULE)  # type: ignore[arg-type]
    with pytest.raises(ca.ScheduleError, match=r"`schedule` must be a cosanneal.Schedule"):
        SnapshotRecorder(tmp_path, model, 3)  # type: ignore[arg-type]
    with pytest.raises(ca.SnapshotError, match=r"must be the state of a SnapshotRecorder"):
        recorder.load_state_dict({})
    (tmp_path / "file").write_text("")
    with pytest.raises(ca.SnapshotError, match=r"must be a folder that can be written to"):
        SnapshotRecorder(tmp_path / "file", model, SCHEDULE)
    groups = [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))]}]
    differing = CyclicCosineLR(
        torch.optim.SGD(groups, lr=0.1), [SCHEDULE, ca.CyclicCosine(0.1, cycle_steps=3)]
    )
    with pytest.raises(ca.ScheduleError, match=r"must have the same cycles for a recorder"):
        SnapshotRecorder(tmp_path, model, differing)


class Corners(nn.Module):
    """State of every kind that a snapshot must hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.embed.weight
        self.strided = nn.Parameter(torch.randn(6, 4).t())
        self.halved = nn.Parameter(torch.randn(3).half())
        self.brain = nn.Parameter(torch.randn(3).bfloat16())
        for name, value in {
            "float8": torch.randn(5).to(torch.float8_e4m3fn),
            "rotated": torch.randn(2, dtype=torch.complex64),
            "conjugate": torch.randn(2, dtype=torch.complex64).conj(),
            "scalar": torch.tensor(3),
            "flags": torch.tensor([True, False]),
            "nothing": torch.zeros(0, 3),
            "wide": torch.randn(2, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value)
        self.register_buffer("fleeting", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.tied(self.embed(x)) @ self.strided
        return out


def record_once(folder: Path, model: nn.Module) -> SnapshotStore:
    with SnapshotRecorder(folder, model, ca.CyclicCosine(0.1, cycle_steps=1), resume_from=0) as r:
        r.step()
    return r.store


def test_state_of_every_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    model = Corners()
    (snapshot,) = record_once(tmp_path, model).list()
    loaded = snapshot.load(framework="pt")
    state = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert torch.equal(loaded[name].view(-1).view(torch.uint8), _bytes(value)), name


def _bytes(value: Tensor) -> Tensor:
    return value.resolve_conj().contiguous().view(-1).view(torch.uint8)


def test_tied_weights_predict_as_the_model_does(tmp_path: Path) -> None:
    model = Corners()
    record_once(tmp_path, model)
    x = torch.randn(5, 4)
    with torch.no_grad():
        expected = model(x).softmax(-1)
        model.embed.weight.mul_(3)
    # The strided weight is loaded contiguous, and multiplies in another order.
    torch.testing.assert_close(SnapshotEnsemble(model, tmp_path).predict(x), expected)


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Extra(2, 2), r"must consist of tensors.*'_extra_state', a dict"),
        (lambda: nn.LazyLinear(3), r"must be built before.*'weight' is not initialized"),
        (
            lambda: nn.ParameterDict({"z": nn.Parameter(torch.zeros(1, dtype=torch.complex128))}),
            r"'z' must have a dtype that safetensors holds.*complex128",
        ),
        (
            lambda: nn.ParameterDict({"s": nn.Parameter(torch.eye(2).to_sparse())}),
            r"must be dense.*'s' of layout torch.sparse_coo",
        ),
        (
            lambda: nn.ParameterDict({"__metadata__": nn.Parameter(torch.zeros(1))}),
            r"must not be named '__metadata__'",
        ),
    ],
)
def test_state_that_cannot_be_held_is_refused_by_name(
    tmp_path: Path, build: Callable[[], nn.Module], message: str
) -> None:
    model = build()
    with pytest.raises(ca.SnapshotError, match=message):
        record_once(tmp_path, model)
    assert list(tmp_path.iterdir()) == []


def trained(folder: Path) -> nn.Sequential:
    run = Training(folder)
    for _ in range(20):
        run.update()
    run.recorder.close()
    return run.model


def test_the_prediction_is_the_mean_of_the_members_softmax(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data(30)
    ensemble = SnapshotEnsemble(model, tmp_path, last=3)
    # The oracle loads each snapshot into a model of its own, in numpy float64.
    expected = torch.zeros(30, 3, dtype=torch.float64)
    for snapshot in SnapshotStore(tmp_path).list()[-3:]:
        member = small_net(5)
        member.load_state_dict(snapshot.load(framework="pt"))
        member.eval()
        with torch.no_grad():
            logits = member(x).double()
        powers = torch.exp(logits - logits.max(1, keepdim=True).values)
        expected += powers / powers.sum(1, keepdim=True) / 3
    probabilities = ensemble.predict(x)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.double(), expected, rtol=1e-6, atol=1e-7)
    for batch_size in (1, 7, 30, 100):
        torch.testing.assert_close(
            ensemble.predict(x, batch_size=batch_size), probabilities, rtol=2e-6, atol=1e-7
        )
    members = torch.stack(list(ensemble.member_predictions(x)))
    assert len(members) == len(ensemble) == 3
    torch.testing.assert_close(members.mean(0), probabilities, rtol=2e-6, atol=0)
    # Of its logits the probabilities are exact: rounded once, after the mean.
    np.testing.assert_array_max_ulp(probabilities.numpy(), expected.float().numpy(), 1)


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = clone(model)
    identities = [id(value) for value in model.parameters()]
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    rng = torch.get_rng_state()
    ensemble = SnapshotEnsemble(model, tmp_path)
    predictions = ensemble.member_predictions(x)
    first = next(predictions)
    assert [module.training for module in model.modules()] == modes  # also between two members
    predictions.close()  # type: ignore[attr-defined]
    ensemble.predict(x)
    assert not first.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [id(value) for value in model.parameters()] == identities
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(calls) == 5
    assert len(model._forward_hooks) == 1
    assert torch.equal(rng, torch.get_rng_state())
    hook.remove()


def test_a_model_that_fails_comes_back_too(tmp_path: Path) -> None:
    model = trained(tmp_path)
    model.train()
    with pytest.raises(RuntimeError):
        SnapshotEnsemble(model, tmp_path).predict(torch.zeros(3, 5))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("outputs", ["probabilities", "values"])
def test_other_outputs_are_averaged_as_they_are(tmp_path: Path, outputs: Any) -> None:
    model = trained(tmp_path)
    x, _ = data(9)
    ensemble = SnapshotEnsemble(model, tmp_path, last=2, outputs=outputs)
    members = torch.stack(list(ensemble.member_predictions(x)))
    assert (members < 0).any()  # no softmax
    torch.testing.assert_close(ensemble.predict(x), members.double().mean(0).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
def test_the_members_are_pooled_as_asked(
    tmp_path: Path, pooling: Pooling, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4).to(dtype)
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            with torch.no_grad():
                model.weight.normal_().mul_(8)  # whose smallest softmax float16 does not hold
            recorder.step()
    x = torch.randn(6, 3).to(dtype)
    logits = [
        nn.functional.linear(x, w["weight"], w["bias"]).double()
        for w in (snapshot.load(framework="pt") for snapshot in SnapshotStore(tmp_path).list())
    ]
    mean = torch.stack([z.softmax(-1) for z in logits]).mean(0)
    expected = {
        "probabilities": mean,
        "logits": torch.stack(logits).mean(0).softmax(-1),
        "log-probabilities": mean.log(),
        "vote": torch.stack([nn.functional.one_hot(z.argmax(-1), 4) for z in logits])
        .double()
        .mean(0),
    }[pooling]
    ensemble = SnapshotEnsemble(model, tmp_path, pooling=pooling)
    found = ensemble.predict(x)
    assert found.dtype == dtype
    # Members' probabilities are rounded to the dtype; logits are not rounded again.
    unit = torch.finfo(dtype).eps
    tolerance = unit * (expected.abs().max() if pooling == "log-probabilities" else 1)
    torch.testing.assert_close(found.double(), expected, rtol=unit, atol=float(tolerance))
    for z, member in zip(logits, ensemble.member_predictions(x), strict=True):
        torch.testing.assert_close(member.double(), z.softmax(-1), rtol=unit, atol=unit)


@pytest.mark.parametrize("pooling", ["probabilities", "logits", "log-probabilities", "vote"])
@pytest.mark.parametrize("outcomes", [1, 3])
def test_logits_of_outcomes_are_pooled_through_a_sigmoid(
    tmp_path: Path, outcomes: int, pooling: Pooling
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, outcomes), nn.Flatten(0) if outcomes == 1 else nn.Identity())
    with SnapshotRecorder(tmp_path, model, ca.CyclicCosine(0.1, cycle_steps=1)) as recorder:
        for _ in range(3):
            nn.init.normal_(model[0].weight)  # type: ignore[arg-type]
            recorder.step()
    x = torch.randn(6, 3)
    logits = []
    for snapshot in SnapshotStore(tmp_path).list():
        model.load_state_dict(snapshot.load(framework="pt"))
        logits.append(model(x).detach().double())
    shares = torch.stack(logits).sigmoid()
    expected = {
        "probabilities": shares.mean(0),
        "logits": torch.stack(logits).mean(0).sigmoid(),
        "log-probabilities": shares.mean(0).log(),
        "vote": (shares > 0.5).double().mean(0),
    }[pooling]
    found = SnapshotEnsemble(model, tmp_path, class_axis=None, pooling=pooling).predict(x)
    assert found.shape == ((6,) if outcomes == 1 else (6, 3))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_regression_has_a_variance_between_its_members(tmp_path: Path) -> None:
    model = trained(tmp_path)
    x, _ = data()
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    mean, variance = ensemble.predict_with_variance(x)
    members = torch.stack(list(ensemble.member_predictions(x))).double()
    torch.testing.assert_close(mean, ensemble.predict(x), rtol=2e-7, atol=1e-10)
    torch.testing.assert_close(mean.double(), members.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        variance.double(), members.var(0, unbiased=False), rtol=1e-6, atol=1e-9
    )
    with pytest.raises(ca.EnsembleError, match=r"must have outputs='values'.*'logits'"):
        SnapshotEnsemble(model, tmp_path).predict_with_variance(x)
    with pytest.raises(ca.EnsembleError, match=r"`pooling` must be left out.*pooling='vote'"):
        SnapshotEnsemble(model, tmp_path, outputs="values", pooling="vote")
    with pytest.raises(ca.EnsembleError, match=r"`pooling` must be 'probabilities'"):
        SnapshotEnsemble(model, tmp_path, pooling="mean")  # type: ignore[arg-type]


def test_the_class_axis_can_be_given(tmp_path: Path) -> None:
    model = nn.Conv2d(1, 4, 3, padding=1)
    record_once(tmp_path, model)
    probabilities = SnapshotEnsemble(model, tmp_path, class_axis=1).predict(torch.randn(2, 1, 5, 5))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 5, 5))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.left(a) + self.right(b)
        return out


def test_models_of_several_inputs_and_of_none(tmp_path: Path) -> None:
    model = TwoInputs()
    record_once(tmp_path, model)
    ensemble = SnapshotEnsemble(model, tmp_path)
    a, b = torch.randn(7, 2), torch.randn(7, 5)
    expected = model(a, b).softmax(-1).detach()
    torch.testing.assert_close(ensemble.predict((a, b), batch_size=3), expected)
    assert ensemble.predict((a[:0], b[:0])).shape == (0, 3)
    with pytest.raises(ca.EnsembleError, match=r"same number of samples.*\[7, 6\]"):
        ensemble.predict((a, b[:6]))
    with pytest.raises(ca.EnsembleError, match=r"`x` must be an array.*list"):
        ensemble.predict([a, b])


def test_ensembles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    model = small_net()
    missing = re.escape(str(tmp_path / "none"))
    with pytest.raises(ca.EnsembleError, match=rf"{missing} must hold at least one snapshot"):
        SnapshotEnsemble(model, tmp_path / "none")
    record_once(tmp_path, model)
    with pytest.raises(ca.EnsembleError, match=r"the 3 snapshots asked for\. Received: 1"):
        SnapshotEnsemble(model, tmp_path, last=3)
    with pytest.raises(ca.ScheduleError, match=r"`last` must be a positive integer"):
        SnapshotEnsemble(model, tmp_path, last=0)
    with pytest.raises(ca.EnsembleError, match=r"`outputs` must be 'logits'.*'softmax'"):
        SnapshotEnsemble(model, tmp_path, outputs="softmax")  # type: ignore[arg-type]
    x, _ = data(3)
    wider = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9))
    with pytest.raises(ca.EnsembleError, match=r"must fit the model: its tensor '0.weight' is"):
        SnapshotEnsemble(wider, tmp_path).predict(x)
    shorter = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(ca.EnsembleError, match=r"its tensor '1\.\w+' is not in the model"):
        SnapshotEnsemble(shorter, tmp_path).predict(x)
    longer = nn.Sequential(*small_net(), nn.Linear(3, 3))
    with pytest.raises(ca.EnsembleError, match=r"the model's tensor '5.weight' is not in it"):
        SnapshotEnsemble(longer, tmp_path).predict(x)
    single = nn.Linear(4, 1)
    record_once(tmp_path, single)
    with pytest.raises(ca.EnsembleError, match=r"at least two classes.*outputs='values'"):
        SnapshotEnsemble(single, tmp_path).predict(x)


class TupleOutput(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return (super().forward(x),)


def test_a_model_must_return_one_tensor(tmp_path: Path) -> None:
    model = TupleOutput(4, 3)
    record_once(tmp_path, model)
    with pytest.raises(ca.EnsembleError, match=r"must return one tensor\. Received: tuple"):
        SnapshotEnsemble(model, tmp_path).predict(torch.zeros(2, 4))


def test_a_damaged_member_is_not_predicted_with(tmp_path: Path) -> None:
    model = small_net()
    (snapshot,) = record_once(tmp_path, model).list()
    content = bytearray(snapshot.path.read_bytes())
    content[-1] ^= 1
    snapshot.path.write_bytes(content)
    with pytest.raises(ca.SnapshotError, match=r"is damaged.*does not match its digest"):
        SnapshotEnsemble(model, tmp_path).predict(torch.zeros(2, 4))


def test_a_step_that_is_not_the_schedulers_is_refused(tmp_path: Path) -> None:
    """What comes then would be taken in the middle of a cycle, as its end."""
    run = Training(tmp_path)
    for _ in range(12):
        run.update()
    run.recorder.close()
    for other in (0, 8, 20):
        with pytest.raises(ca.SnapshotError, match=rf"={other}, and a scheduler that has done 12"):
            SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=other)
    assert [each.step for each in SnapshotStore(tmp_path).list()] == [5, 10]
    SnapshotRecorder(tmp_path, run.model, run.scheduler, resume_from=12).close()
