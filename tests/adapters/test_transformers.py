"""transformers' Trainer: its scheduler and its snapshots, in one process, with tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import cosanneal as ca
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotRecorder
from cosanneal.adapters.transformers import CyclicCosineTrainer, SnapshotCallback
from cosanneal.snapshots import SnapshotStore
from tests.shared.examples import check_examples

ROWS = [{"input_ids": torch.arange(5) + i % 9, "labels": torch.tensor(i % 3)} for i in range(16)]


def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "vocab_size": 20,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "num_labels": 3,
    }
    return BertForSequenceClassification(BertConfig(**options))


def arguments(root: Path, kind: Any = TrainingArguments, **options: Any) -> Any:
    given: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 0.01,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 1,
    }
    return kind(str(root / "out"), **(given | options))


def trained(
    root: Path,
    name: str,
    *callbacks: Any,
    resume: Any = None,
    snapshots: Any = None,
    **options: Any,
) -> CyclicCosineTrainer:
    trainer = CyclicCosineTrainer(
        model(),
        arguments(root, **options),
        train_dataset=ROWS,
        eval_dataset=ROWS[:4],
        num_cycles=3,
        callbacks=[SnapshotCallback(root / name, **(snapshots or {})), *callbacks],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.glob("*.safetensors"))}


class Rates(TrainerCallback):
    """Keeps the rate of each update."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        self.found.append(kwargs["optimizer"].param_groups[0]["lr"])


class Kill(TrainerCallback):
    """Ends the training after an update."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.global_step == self.at:
            raise RuntimeError("killed")


def test_the_schedule_lasts_as_long_as_the_training(tmp_path: Path) -> None:
    rates = Rates()
    trainer = trained(tmp_path, "run", rates)
    assert rates.found == list(ca.CyclicCosine(0.01, total_steps=12, num_cycles=3).rates(0, 12))
    snapshots = SnapshotStore(tmp_path / "run").list()
    assert [each.step for each in snapshots] == [4, 8, 12]
    last = snapshots[-1].load(framework="pt")
    trained_model: Any = trainer.model
    own = trained_model.state_dict()
    assert last.keys() == own.keys()
    assert all(torch.equal(last[name], own[name]) for name in own)


def test_accumulation_and_warmup_count_updates(tmp_path: Path) -> None:
    rates = Rates()
    trained(tmp_path, "run", rates, gradient_accumulation_steps=2, warmup_steps=1)
    schedule = ca.CyclicCosine(0.01, total_steps=6, num_cycles=3, warmup_steps=1)
    assert rates.found == list(schedule.rates(0, 6))
    ends = [end + 1 for end in schedule.cycle_ends()]
    assert [each.step for each in SnapshotStore(tmp_path / "run").list()] == ends


def test_snapshots_are_those_of_a_plain_trainer_with_the_scheduler_given(tmp_path: Path) -> None:
    trained(tmp_path, "run")
    net = model()
    optimizer = Trainer(net, arguments(tmp_path)).create_optimizer()
    schedule = ca.CyclicCosine(0.01, total_steps=12, num_cycles=3)
    both: Any = optimizer, CyclicCosineLR(optimizer, schedule)
    Trainer(
        net,
        arguments(tmp_path),
        train_dataset=ROWS,
        optimizers=both,
        callbacks=[SnapshotCallback(tmp_path / "given")],
    ).train()
    assert files(tmp_path / "given") == files(tmp_path / "run")


@pytest.mark.parametrize(("at", "dies"), [(5, 6), (4, 4), (5, 9)])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path, at: int, dies: int) -> None:
    trained(tmp_path, "whole")
    options = {"save_strategy": "steps", "save_steps": at}
    with pytest.raises(RuntimeError, match="killed"):
        trained(tmp_path, "run", Kill(dies + 1), **options)
    trained(tmp_path, "run", resume=str(tmp_path / "out" / f"checkpoint-{at}"), **options)
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_what_was_logged_decides_which_are_kept(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 3}
    keep = {"keep_best": 1, "metric": "eval_loss"}
    trained(tmp_path, "run", snapshots=keep, **options)
    (kept,) = SnapshotStore(tmp_path / "run").list()
    assert 0.5 < kept.metadata["metrics"]["eval_loss"] < 2


def test_a_training_that_was_broken_off_gives_the_folder_back(tmp_path: Path) -> None:
    callback = SnapshotCallback(tmp_path / "run")
    trainer = CyclicCosineTrainer(
        model(),
        arguments(tmp_path),
        train_dataset=ROWS,
        num_cycles=3,
        callbacks=[callback, Kill(5)],
    )
    with pytest.raises(RuntimeError, match="killed"):
        trainer.train()
    assert callback.recorder is None
    SnapshotRecorder(tmp_path / "run", model(), trainer.lr_scheduler.schedules[0]).close(
        unfinished=True
    )
    assert [each.step for each in SnapshotStore(tmp_path / "run").list()] == [4]


def test_other_trainers_take_it_by_inheritance(tmp_path: Path) -> None:
    class Mine(CyclicCosineTrainer, Seq2SeqTrainer):
        pass

    def schedule(updates: int) -> ca.Schedule:
        return ca.CyclicCosine(0.02, total_steps=updates, num_cycles=2, min_lr=0.001)

    rates = Rates()
    trainer = Mine(
        model(),
        arguments(tmp_path, Seq2SeqTrainingArguments),
        train_dataset=ROWS,
        schedule=schedule,
        callbacks=[rates],
    )
    trainer.train()
    assert rates.found == list(schedule(12).rates(0, 12))


def test_another_scheduler_is_refused(tmp_path: Path) -> None:
    callback = SnapshotCallback(tmp_path / "run")
    trainer = Trainer(model(), arguments(tmp_path), train_dataset=ROWS, callbacks=[callback])
    with pytest.raises(ca.SnapshotError, match=r"one CyclicCosineLR.*LambdaLR; use CyclicCosineTr"):
        trainer.train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"`num_cycles` and `schedule` must be given one of both.*num_cycles=None"),
        ({"num_cycles": 2, "schedule": max}, r"one of both. Received: num_cycles=2"),
        (
            {"schedule": ca.CyclicCosine(0.1, total_steps=9, num_cycles=3)},
            r"a Schedule of the 12 updates that the trainer does. Received: ",
        ),
        ({"schedule": lambda updates: 0.1 * updates}, r"Received: 1\.2"),
        ({"num_cycles": 13}, r"total_steps"),
    ],
)
def test_schedules_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ca.ScheduleError, match=message):
        CyclicCosineTrainer(model(), arguments(tmp_path), train_dataset=ROWS, **options).train()


@pytest.mark.filterwarnings("ignore")  # of the smallest data and no device
def test_the_example_runs() -> None:
    check_examples("cosanneal.adapters.transformers")
