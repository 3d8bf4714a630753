"""What an ensemble's prediction costs: ours in each mode, beside M plain evaluation passes.

    python -m benchmarks.ensemble_predict

Of M = 5 and M = 20 members of a small convolutional network (BatchNorm, 0.3 million
weights) over a data loader of 192 images of 3 x 16 x 16, in batches of 64 and on one
thread. The limit is M passes of the loader through one model in evaluation mode, whose
softmax is kept: what a person would write for a single model, M times. The same of a
loader of dicts, which go in by keyword. Then one sample at a time (batch 1), where calls
cost more than they compute; there the limit is one pass through each of M models, all in
memory, whose softmaxes are kept (M passes through a single one, whose weights stay in the
processor's cache, are a peer). as_module is the module that is shipped. "loop" is a loop
over M models that are all in memory, whose softmaxes are averaged; torch.func.vmap is what
its documentation writes for an ensemble, over weights that stack_module_state stacked;
torchensemble is its SnapshotEnsembleClassifier with the same members. The limit of
predict_with_uncertainty is predict, of the same loader and streaming too.

The limit of predict_classes is predict too: of 5 members that were trained on images of ten
patterns under noise, in batches of 256, streaming and resident. Its mean number of passes is a line
of its own beside M; where all members agree and are sure, three of five are enough.

Then a budget of 1.5 passes a sample, on three tasks and several seeds each: the demonstration's
digits, the patterns, and a table (breast cancer). The choice is made on validation data, with
select="last"; passes and errors are those of the test data, beside those of exact classes (the
limit) and of the last snapshot alone (a peer). "gain lost" is the share that is lost
of the ensemble's gain in error over that snapshot, by the sums over the seeds, beside the tenth
that may be; where there is no gain, there is no such line.

Memory is the peak of the resident memory over that before the call, divided by the size
of one member, for members of 100 MB, each in a process of its own; the others' for M = 5 alone.
Streaming may take one member and the buffer of the result, whatever M is; 1.1 leaves
room for what reads and digests it.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cosanneal as ca
from benchmarks.harness import Figure, alone, in_turn, optional, with_peak
from benchmarks.quality.data import LOADERS
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.training import train
from cosanneal.adapters.torch import CyclicCosineLR, SnapshotEnsemble, SnapshotRecorder
from cosanneal.demo import Backend
from cosanneal.demo.digits import batch_order, split_digits
from cosanneal.demo.experiment import Config, count_updates, plan_runs, training_function
from cosanneal.demo.training import Training
from cosanneal.ensemble import analyze, fit
from cosanneal.ensemble.arrays import as_numpy
from cosanneal.ensemble.predict.modes import Mode

MEMBERS = (5, 20)
MODES: tuple[Mode, ...] = ("stream", "resident", "stacked", "auto")
STREAM, UNCERTAINTY, MEMORY = 1.1, 1.15, 1.1
RESIDENT, MODULE, PASSES, CLASSES = 1.2, 1.05, 0.65, 0.8
SAMPLES, BATCH, SINGLES = 192, 64, 8
CLASSES_BATCH, CLASSES_SAMPLES, NOISE, STEPS = 256, 512, 5.0, 40
BUDGET, LOST, SEEDS = 1.5, 0.1, 3
EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)

Predict = Callable[[Any], Tensor]

GOALS = {
    ("loader", "stream"): STREAM,
    ("batch 1", "resident"): RESIDENT,
    ("batch 1", "as_module"): MODULE,
    ("loader", "as_module"): MODULE,
}


def network() -> nn.Module:
    """A small convolutional network."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(3, 32), *block(32, 64), nn.MaxPool2d(2), *block(64, 128), nn.MaxPool2d(2)]
    layers += [*block(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers).eval()


def wide_network() -> nn.Module:
    """25 layers of 4 MB."""
    return nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(25)), nn.Linear(1000, 10))


def record(folder: Path, build: Callable[[], nn.Module], members: int) -> None:
    """Snapshots of so many models that differ."""
    model = build()
    with SnapshotRecorder(folder, model, EVERY_STEP) as recorder:
        for seed in range(members):
            torch.manual_seed(seed)
            model.load_state_dict(build().state_dict())
            recorder.step()


def plain(model: nn.Module, members: int) -> Predict:
    """So many evaluation passes."""

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        for _ in range(members):
            out = torch.cat([model(x).softmax(1) for x in inputs(data)])
        return out

    return predict


def inputs(data: Any) -> Iterator[Tensor]:
    """The inputs of a loader's batches, or one input."""
    if isinstance(data, Tensor):
        return iter([data])
    return (each["input"] if isinstance(each, dict) else each[0] for each in data)


def as_dict(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A batch as a dict: the input under the name of the model's argument, and the labels."""
    x, labels = zip(*samples, strict=True)
    return {"input": torch.stack(x), "labels": torch.stack(labels)}


def bare(models: list[nn.Module]) -> Predict:
    """A pass through each of several models."""

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        for model in models:
            out = torch.cat([model(x).softmax(1) for x in inputs(data)])
        return out

    return predict


def shipped(ensemble: SnapshotEnsemble) -> Predict:
    """The module that is shipped, called as one calls a module."""
    module = ensemble.as_module()

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        return torch.cat([module(x) for x in inputs(data)])

    return predict


def looped(models: list[nn.Module]) -> Predict:
    """A loop over all models."""

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        softmaxes = ([model(x).softmax(1) for model in models] for x in inputs(data))
        return torch.cat([torch.stack(each).mean(0) for each in softmaxes])

    return predict


def mapped(models: list[nn.Module]) -> Predict:
    """All models at once, as torch's documentation has it."""
    weights, buffers = torch.func.stack_module_state(models)

    def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        output = torch.func.functional_call(models[0], (weights, buffers), (x,))
        return torch.as_tensor(output)

    every = torch.vmap(one, in_dims=(0, 0, None))

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        return torch.cat([every(weights, buffers, x).softmax(2).mean(0) for x in inputs(data)])

    return predict


def torchensemble(models: list[nn.Module]) -> Predict:
    """Its ensemble of the same models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forest = optional("torchensemble").SnapshotEnsembleClassifier(
            estimator=models[0], n_estimators=len(models), cuda=False
        )
    forest.estimators_.extend(models)
    forest.eval()

    @torch.no_grad()
    def predict(data: Any) -> Tensor:
        return torch.cat([forest(x) for x in inputs(data)])

    return predict


def others() -> dict[str, Callable[[list[nn.Module]], Predict]]:
    """What else people write."""
    found: dict[str, Callable[[list[nn.Module]], Predict]] = {
        "loop": looped,
        "torch.func.vmap": mapped,
    }
    if optional("torchensemble") is not None:
        found["torchensemble"] = torchensemble
    return found


def times(members: int, folder: Path, repeats: int) -> Iterator[Figure]:
    """Of a loader, and of one sample at a time."""
    record(folder, network, members)
    ensemble = SnapshotEnsemble(network(), folder)
    models = [network() for _ in range(members)]
    for model, snapshot in zip(models, ensemble.members, strict=True):
        model.load_state_dict(snapshot.load(framework="pt"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 3, 16, 16, generator=generator)
    loader = DataLoader(TensorDataset(x, torch.zeros(SAMPLES)), batch_size=BATCH)
    dicts = DataLoader(loader.dataset, batch_size=BATCH, collate_fn=as_dict)
    peers = {name: make(models) for name, make in others().items()}
    limit = plain(models[0], members)
    ours: dict[str, Predict] = {
        mode: lambda data, mode=mode: ensemble.predict(data, mode=mode)  # type: ignore[misc]
        for mode in MODES
    }
    ensemble.predict(x[:1])  # which finds out what outputs are
    ours["as_module"] = shipped(ensemble)
    expected = peers["loop"](loader)
    for predict in (*ours.values(), *peers.values()):
        for data in (loader, dicts):
            torch.testing.assert_close(predict(data), expected, rtol=1e-3, atol=1e-5)

    def singly(predict: Predict) -> None:
        for i in range(SINGLES):
            predict(x[i : i + 1])

    found = in_turn(
        {
            "limit": lambda: ensemble.predict(loader) is None,
            "ours": lambda: ensemble.predict_with_uncertainty(loader) is None,
        },
        repeats=repeats,
        per=1e-3,
    )
    yield Figure(
        name=f"loader, uncertainty, M = {members}",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        goal=UNCERTAINTY,
    )
    for what, per, call in (
        ("loader", 1e-3, lambda predict: predict(loader) is None),
        ("dict loader", 1e-3, lambda predict: predict(dicts) is None),
        ("batch 1", SINGLES * 1e-3, singly),
    ):
        beside = {"one model, M times": limit, **peers} if what == "batch 1" else peers
        least = bare(models) if what == "batch 1" else limit
        runs: dict[str, Callable[[], object]] = {
            name: functools.partial(call, predict)
            for name, predict in {"limit": least, **ours, **beside}.items()
        }
        found = in_turn(runs, repeats=repeats, per=per)
        for name in ours:
            yield Figure(
                name=f"{what}, {name}, M = {members}",
                unit="ms",
                ours=found[name],
                peers={peer: found[peer] for peer in beside},
                limit=found["limit"],
                goal=GOALS.get((what, name)) if members == MEMBERS[0] or what == "loader" else None,
            )


def patterns(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of ten patterns, with noise on them, and which pattern each is."""
    shown = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(99))
    shown = nn.functional.interpolate(shown, scale_factor=4)
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (samples,), generator=generator)
    x = shown[y] + NOISE * torch.randn(samples, 3, 16, 16, generator=generator)
    return x, y


def record_trained(folder: Path, members: int, seed: int = 0) -> nn.Module:
    """A run of so many cycles, and one before in which the model begins to learn."""
    torch.manual_seed(seed)
    model = network().train()
    schedule = ca.CyclicCosine(0.05, total_steps=STEPS * (members + 1), num_cycles=members + 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    scheduler = CyclicCosineLR(optimizer, schedule)
    with SnapshotRecorder(folder, model, scheduler):
        for step in range(schedule.total_steps or 0):
            x, y = patterns(BATCH, 1000 * (seed + 1) + step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
    return model.eval()


def classes(members: int, folder: Path, repeats: int) -> Iterator[Figure]:
    """The classes alone, beside the whole prediction."""
    ensemble = SnapshotEnsemble(record_trained(folder, members), folder, last=members)
    x, _ = patterns(CLASSES_SAMPLES, 1)
    modes: tuple[Mode, ...] = ("stream", "resident")
    for mode in modes:

        def predict(mode: Mode = mode) -> Tensor:
            return ensemble.predict(x, mode=mode, batch_size=CLASSES_BATCH)

        def decide(mode: Mode = mode) -> Tensor:
            return ensemble.predict_classes(x, mode=mode, batch_size=CLASSES_BATCH)

        torch.testing.assert_close(decide(), predict().argmax(1), rtol=0, atol=0)
        runs: dict[str, Callable[[], object]] = {
            "limit": lambda predict=predict: predict() is None,  # type: ignore[misc]
            "ours": lambda decide=decide: decide() is None,  # type: ignore[misc]
        }
        found = in_turn(runs, repeats=repeats, per=1e-3)
        yield Figure(
            name=f"classes, {mode}, M = {members}",
            unit="ms",
            ours=found["ours"],
            limit=found["limit"],
            goal=CLASSES,
        )
        yield Figure(
            name=f"classes, {mode}, passes",
            unit="passes",
            ours=[ensemble.passes],
            limit=float(members),
        )


Predicted = tuple[NDArray[Any], NDArray[Any]]  # of all members, and the truth


def digits(seed: int) -> Iterator[Predicted]:
    """The demonstration's cyclic run: its validation data, and its test data."""
    config = Config()
    split = split_digits(seed)
    updates = count_updates(config, len(split.train))
    (cyclic,) = (run for run in plan_runs(config, updates) if run.name == "cyclic")
    with tempfile.TemporaryDirectory() as folder:
        trained = training_function(Backend.TORCH)(
            Training(
                split=split,
                order=batch_order(seed, len(split.train), config.batch_size, updates),
                seed=seed,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                schedule=cyclic.schedules[0],
                folder=Path(folder),
                progress=lambda: None,
            )
        )
        ensemble = trained.ensemble(Path(folder))
        for part in (split.validation, split.test):
            each = ensemble.member_predictions(trained.inputs(part))
            yield np.stack([as_numpy(p) for p in each]), part.y


def noisy_patterns(seed: int) -> Iterator[Predicted]:
    """The patterns, of which each seed has other ones to choose by and to test on."""
    with tempfile.TemporaryDirectory() as folder:
        model = record_trained(Path(folder), MEMBERS[0], seed)
        ensemble = SnapshotEnsemble(model, folder, last=MEMBERS[0])
        for part in (1, 2):
            x, y = patterns(1000, 10**6 * (seed + 1) + part)
            each = ensemble.member_predictions(x, batch_size=CLASSES_BATCH)
            yield np.stack([as_numpy(p) for p in each]), y.numpy()


def breast_cancer(seeds: Sequence[int]) -> list[list[Predicted]]:
    """A small table, trained for all seeds at once."""
    name = "breast_cancer"
    found, _ = train(TASKS[name], LOADERS[name](), "short", "cyclic5", 0.03, seeds)
    return [[(p[:, i], truth[i]) for p, truth in found] for i in range(len(seeds))]


def budget(name: str, runs: Sequence[Sequence[Predicted]]) -> Iterator[Figure]:
    """Passes and errors at a budget, of several seeds.

    Args:
        name: of the task.
        runs: of each seed the validation data and the test data.
    """
    passes, errors, alone = [], [], []
    for (p_val, y_val), (p, y) in runs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of few validation samples
            choice = fit(p_val, y_val, budget=BUDGET)
        found = analyze(p, y, choice=choice)
        (own,) = (row for row in found["passes"] if row["care"] == choice.care)
        exact = found["passes"][-1]
        passes.append((own["passes"], exact["passes"]))
        errors.append((100 * own["error"], 100 * exact["error"]))
        alone.append(100 * found["members"][-1]["error"])
    yield Figure(
        name=f"classes, {name}, passes",
        unit="passes",
        ours=[exact for _, exact in passes],
        limit=float(len(p)),
        goal=PASSES,
    )
    title = f"budget {BUDGET}, {name}"
    ours, limit = zip(*passes, strict=True)
    yield Figure(name=f"{title}, passes", unit="passes", ours=ours, limit=limit)
    ours, limit = zip(*errors, strict=True)
    peers = {"last snapshot": alone}
    yield Figure(name=f"{title}, errors", unit="%", ours=ours, limit=limit, peers=peers)
    gain = sum(alone) - sum(limit)
    if gain > 0:
        lost = [(sum(ours) - sum(limit)) / gain]
        yield Figure(name=f"{title}, gain lost", unit="share", ours=lost, limit=LOST, goal=1.0)


def budgets() -> Iterator[Figure]:
    """Passes and errors at a budget, on three tasks."""
    yield from budget("digits", [[*digits(seed)] for seed in range(SEEDS)])
    yield from budget("patterns", [[*noisy_patterns(seed)] for seed in range(SEEDS)])
    yield from budget("breast cancer", breast_cancer(range(6)))


def memory(members: int, folder: Path) -> Iterator[Figure]:
    """The peaks, as shares of one member."""
    record(folder, wide_network, members)
    theirs = [*others()] if members == MEMBERS[0] else []
    names = [*MODES[:3], *theirs]
    command = [sys.executable, "-m", "benchmarks.ensemble_predict", "--peak"]
    peaks: dict[str, list[float]] = {}
    for name in names:
        done = subprocess.run(
            [*command, name, str(folder)], stdout=subprocess.PIPE, check=True, text=True
        )
        peaks[name] = [json.loads(done.stdout.splitlines()[-1])]
    for mode in MODES[:3]:
        yield Figure(
            name=f"memory, {mode}, M = {members}",
            unit="members",
            ours=peaks[mode],
            peers={name: peaks[name] for name in theirs},
            limit=1.0,
            goal=MEMORY if mode == "stream" else None,
        )


def peak(name: str, folder: Path) -> float:
    """The peak of one way to predict, in members."""
    torch.set_num_threads(1)
    model = wide_network()
    size = sum(int(value.nbytes) for value in model.state_dict().values())
    x = torch.randn(SAMPLES, 1000)
    loader = DataLoader(TensorDataset(x, torch.zeros(SAMPLES)), batch_size=BATCH)
    plain(model, 1)(loader)  # what a pass takes is there already
    with tempfile.TemporaryDirectory() as small:  # and what is imported at the first call
        record(Path(small), lambda: nn.Linear(1000, 10), 1)
        SnapshotEnsemble(nn.Linear(1000, 10), small).predict(loader)

    def predict() -> Tensor:
        ensemble = SnapshotEnsemble(model, folder)
        if name in MODES:
            mode: Any = name
            return ensemble.predict(loader, mode=mode)
        models = [wide_network() for _ in ensemble.members]
        for each, snapshot in zip(models, ensemble.members, strict=True):
            each.load_state_dict(snapshot.load(framework="pt"))
        return others()[name](models)(loader)

    return with_peak(predict)[1] / size


def measure(repeats: int = 3) -> Iterator[Figure]:
    """Times and memory."""
    torch.set_num_threads(1)
    for members in MEMBERS:
        with tempfile.TemporaryDirectory() as folder:
            yield from times(members, Path(folder), repeats)
    with tempfile.TemporaryDirectory() as folder:
        yield from classes(MEMBERS[0], Path(folder), repeats)
    yield from budgets()
    for members in MEMBERS:
        with tempfile.TemporaryDirectory() as folder:
            yield from memory(members, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak(sys.argv[2], Path(sys.argv[3]))))
    else:
        sys.exit(alone(measure()))
