"""The callback for Lightning, in trainers of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cosanneal as ca
from cosanneal.adapters.lightning import SnapshotCallback
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.snapshots import SnapshotStore
from tests.shared.examples import check_examples
from tests.shared.modes import MODES

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "shared" / "lightning_run.py"
SCHEDULE = ca.CyclicCosine(0.1, total_steps=12, num_cycles=3)

pytestmark = [
    # What Lightning guesses of small data, and says of its own use of torch.
    pytest.mark.filterwarnings(
        "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
        "ignore:.*LeafSpec",
        "ignore:.*You're resuming from a checkpoint that ended before",
    ),
]


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(32, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=8)


class Classifier(pl.LightningModule):
    """A user's module, which may have a scheduler as `configure` says."""

    def __init__(self, configure: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
        self.configure = configure
        self.rates: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
        x, y = batch
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return optimizer if self.configure is None else self.configure(optimizer)


class Quick(Classifier):
    """One whose step is soon compiled: it notes no rates."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def stepped(optimizer: Any, schedule: ca.Schedule = SCHEDULE, **config: Any) -> Any:
    scheduler = CyclicCosineLR(optimizer, schedule)
    wanted = {"scheduler": scheduler, "interval": "step"} | config
    return {"optimizer": optimizer, "lr_scheduler": wanted}


def trainer(root: Path, *callbacks: Any, **options: Any) -> pl.Trainer:
    given: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": root,
    }
    return pl.Trainer(callbacks=[*callbacks], **(given | options))


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.glob("*.safetensors"))}


def by_hand(folder: Path, updates: int = 12, accumulate: int = 1) -> list[dict[str, Tensor]]:
    """The weights at the cycles' ends of a plain loop, and its snapshots."""
    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = ca.CyclicCosine(0.1, total_steps=updates, num_cycles=3)
    scheduler, found = CyclicCosineLR(optimizer, schedule), []
    with SnapshotRecorder(folder, model, scheduler) as recorder:
        for _ in range(3):
            for i, (x, y) in enumerate(data()):
                (nn.functional.cross_entropy(model(x), y) / accumulate).backward()
                if (i + 1) % accumulate == 0:
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                    if recorder.step():
                        found.append({k: v.clone() for k, v in model.state_dict().items()})
    return found


def test_the_module_is_recorded_as_a_plain_loop_records_it(tmp_path: Path) -> None:
    expected = by_hand(tmp_path / "loop")
    module = Classifier(stepped)
    trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(module, data())
    assert module.rates == list(SCHEDULE.rates(0, 12))
    snapshots = SnapshotStore(tmp_path / "run").list()
    assert [each.step for each in snapshots] == [4, 8, 12]
    for snapshot, weights in zip(snapshots, expected, strict=True):
        found = snapshot.load(framework="pt")
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_schedule_over_the_trainers_own_budget_is_made(tmp_path: Path) -> None:
    module = Classifier()
    callback = SnapshotCallback(tmp_path / "run", num_cycles=3)
    trainer(tmp_path, callback, accumulate_grad_batches=2).fit(module, data())
    expected = by_hand(tmp_path / "loop", updates=6, accumulate=2)
    snapshots = SnapshotStore(tmp_path / "run").list()
    assert [each.step for each in snapshots] == [2, 4, 6]
    rates = ca.CyclicCosine(0.1, total_steps=6, num_cycles=3)
    assert module.rates == [rates(i // 2) for i in range(12)]
    for snapshot, weights in zip(snapshots, expected, strict=True):
        found = snapshot.load(framework="pt")
        assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_max_steps_cut_the_schedule(tmp_path: Path) -> None:
    callback = SnapshotCallback(tmp_path / "run", num_cycles=2)
    trainer(tmp_path, callback, max_steps=6, max_epochs=-1).fit(Classifier(), data())
    assert [each.step for each in SnapshotStore(tmp_path / "run").list()] == [3, 6]


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize(("cycles", "at"), [(2, 4), (2, 8), (3, 4), (2, 5)])
def test_a_run_goes_on_in_mid_cycle_as_if_it_had_not_stopped(
    tmp_path: Path, made: bool, cycles: int, at: int
) -> None:
    schedule = ca.CyclicCosine(0.1, total_steps=12, num_cycles=cycles)

    def fit(name: str, *callbacks: Any, **options: Any) -> list[float]:
        callback = SnapshotCallback(tmp_path / name, num_cycles=cycles if made else None)
        module = Classifier(None if made else partial(stepped, schedule=schedule))
        trainer(tmp_path, callback, *callbacks).fit(module, data(), **options)
        return module.rates

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "at.ckpt")
                raise RuntimeError("killed")

    rates = fit("whole")
    with pytest.raises(RuntimeError, match="killed"):
        fit("run", Stop())
    assert fit("run", ckpt_path=tmp_path / "at.ckpt") == rates[at:]
    whole, run = files(tmp_path / "whole"), files(tmp_path / "run")
    # In mid-epoch, Lightning begins the data anew.
    assert run == whole if at % 4 == 0 else run.keys() == whole.keys()


def test_a_fit_that_is_broken_off_gives_the_folder_back(tmp_path: Path) -> None:
    class Broken(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.trainer.global_step == 5:
                raise ValueError("a bad batch")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="a bad batch"):
        trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(Broken(stepped), data())
    assert [each.step for each in SnapshotStore(tmp_path / "run").list()] == [4]
    callback = SnapshotCallback(tmp_path / "run", resume_from=0)
    trainer(tmp_path, callback).fit(Classifier(stepped), data())
    assert [each.step for each in SnapshotStore(tmp_path / "run").list()] == [4, 8, 12]


def test_manual_optimization_is_recorded(tmp_path: Path) -> None:
    class Manual(Classifier):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            scheduler: Any = self.lr_schedulers()
            scheduler.step()
            return loss

    for name, module, cycles in (("own", Manual(stepped), None), ("made", Manual(), 3)):
        callback = SnapshotCallback(tmp_path / name, num_cycles=cycles)
        trainer(tmp_path, callback).fit(module, data())
        assert module.rates == list(SCHEDULE.rates(0, 12))
    assert [each.step for each in SnapshotStore(tmp_path / "own").list()] == [4, 8, 12]
    assert files(tmp_path / "own") == files(tmp_path / "made")


def test_what_was_logged_decides_which_are_kept(tmp_path: Path) -> None:
    callback = SnapshotCallback(tmp_path / "run", keep_best=1, metric="val_loss")
    options = {"val_check_interval": 2, "num_sanity_val_steps": 0}
    trainer(tmp_path, callback, **options).fit(Classifier(stepped), data(), data())
    (kept,) = SnapshotStore(tmp_path / "run").list()
    assert 0 < kept.metadata["metrics"]["val_loss"] < 1


def test_a_snapshot_is_logged(tmp_path: Path) -> None:
    logger = pl.loggers.CSVLogger(tmp_path, name="log")
    trainer(tmp_path, SnapshotCallback(tmp_path / "run"), logger=logger).fit(
        Classifier(stepped), data()
    )
    logger.save()
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "snapshots" in rows[0]
    assert len(rows) == 4


def test_the_ensemble_takes_the_module(tmp_path: Path) -> None:
    module = Classifier(stepped)
    trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(module, data())
    x = torch.randn(10, 4)
    found = SnapshotEnsemble(module, tmp_path / "run").predict(x)
    expected = []
    for snapshot in SnapshotStore(tmp_path / "run").list():
        one = Classifier().eval()
        one.load_state_dict(snapshot.load(framework="pt"))
        with torch.no_grad():
            expected.append(one(x).double().softmax(1))
    assert torch.allclose(found.double(), torch.stack(expected).mean(0), atol=1e-7, rtol=0)


def test_the_ensemble_takes_a_compiled_module(tmp_path: Path) -> None:
    plain = Classifier(stepped)
    trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(plain, data())
    x = torch.randn(10, 4)
    expected = SnapshotEnsemble(plain, tmp_path / "run").predict(x)
    own = Classifier(stepped)
    own.compile(backend="eager")
    options = {"num_sanity_val_steps": 0, "limit_val_batches": 0}
    outside: Any = torch.compile(Quick(stepped), backend="eager")
    for name, module in {"outside": outside, "itself": own}.items():
        folder = tmp_path / name
        trainer(tmp_path, SnapshotCallback(folder), **options).fit(module, data())
        inner = getattr(module, "_orig_mod", module)
        assert files(folder) == files(tmp_path / "run")
        before = {key: value.clone() for key, value in inner.state_dict().items()}
        for given in (module, inner):  # which Lightning has given a compiled forward
            for mode in MODES:
                found = SnapshotEnsemble(given, folder).predict(x, mode=mode)
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert all(torch.equal(value, before[key]) for key, value in inner.state_dict().items())


def test_a_module_that_predicts_by_no_forward_is_told_how(tmp_path: Path) -> None:
    class Headed(Classifier):
        forward = pl.LightningModule.forward

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ARG002
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    module = Headed(stepped)
    trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(module, data())
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        SnapshotEnsemble(module, tmp_path / "run").predict(torch.randn(3, 4))
    ensemble = SnapshotEnsemble(
        module, tmp_path / "run", forward=lambda module, batch: cast(Any, module).net(batch[0])
    )
    assert ensemble.predict(data()).shape == (32, 2)


def test_a_trial_run_records_nothing(tmp_path: Path) -> None:
    for module, cycles in ((Classifier(stepped), None), (Classifier(), 3)):
        callback = SnapshotCallback(tmp_path / "run", num_cycles=cycles)
        trainer(tmp_path, callback, fast_dev_run=True).fit(module, data())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("configure", "cycles", "message"),
    [
        (None, None, r"must find a CyclicCosineLR.*Received: none; return .*'interval': 'step'"),
        (
            lambda o: [[o], [torch.optim.lr_scheduler.StepLR(o, 1)]],
            None,
            r"Received: StepLR; .*, or give num_cycles= to have it made",
        ),
        (lambda o: [[o], [CyclicCosineLR(o, SCHEDULE)]], None, r"after every update.*'epoch'"),
        (lambda o: stepped(o, frequency=2), None, r"Received: interval='step', frequency=2"),
        (stepped, 3, r"`num_cycles` must be left out.*num_cycles=3, and CyclicCosineLR"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    tmp_path: Path, configure: Any, cycles: int | None, message: str
) -> None:
    callback = SnapshotCallback(tmp_path / "run", num_cycles=cycles)
    with pytest.raises(ca.SnapshotError, match=message):
        trainer(tmp_path, callback).fit(Classifier(configure), data())
    assert not (tmp_path / "run").exists()


def test_a_run_without_an_end_cannot_be_cut_into_cycles(tmp_path: Path) -> None:
    callback = SnapshotCallback(tmp_path / "run", num_cycles=3)
    with pytest.raises(ca.SnapshotError, match=r"how many updates.*inf; give the Trainer max_st"):
        trainer(tmp_path, callback, max_epochs=-1).fit(Classifier(), data())


def test_optimizers_of_unlike_schedules_are_refused(tmp_path: Path) -> None:
    class Two(Classifier):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            both = [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]
            other = ca.CyclicCosine(0.1, total_steps=12, num_cycles=2)
            return both, [CyclicCosineLR(both[0], SCHEDULE), CyclicCosineLR(both[1], other)]

    with pytest.raises(ca.SnapshotError, match=r"one CyclicCosineLR.*2 that differ"):
        trainer(tmp_path, SnapshotCallback(tmp_path / "run")).fit(Two(), data())


@pytest.mark.filterwarnings("ignore")  # of the smallest data and no device
def test_the_example_runs() -> None:
    check_examples("cosanneal.adapters.lightning")


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("one") / "run", 1, "lightning.pytorch")


def fitted(folder: Path, processes: int, package: str, *told: str) -> Path:
    """What a process of its own, or several, record with one of Lightning's two packages."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(RUN), str(folder), str(processes), package, *told]
    done = subprocess.run(
        run, check=False, timeout=300, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("processes", "package"), [(2, "lightning.pytorch"), (1, "pytorch_lightning")]
)
def test_processes_and_packages_record_the_same(
    tmp_path: Path, by_one: Path, processes: int, package: str
) -> None:
    found = fitted(tmp_path / "run", processes, package)
    assert [each.step for each in SnapshotStore(found).list()] == [4, 8, 12]
    assert files(found) == files(by_one)


def test_each_process_of_model_parallel_writes_its_part(tmp_path: Path, by_one: Path) -> None:
    found = fitted(tmp_path / "run", 2, "lightning.pytorch", "parts")
    assert len([*found.glob("*-part-*")]) == 3 * 2
    for own, whole in zip(SnapshotStore(found).list(), SnapshotStore(by_one).list(), strict=True):
        own.verify()
        weights = own.load(framework="pt")
        assert own.step == whole.step
        for name, value in whole.load(framework="pt").items():
            assert torch.equal(weights[name], value)
