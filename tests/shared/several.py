"""Several outputs, and batches of several lengths, by a plain loop; the adapters' tests call these.

The models here give for each position of `x`, of shape (samples, positions, 4), logits of
three classes and two values: `x @ kernel + bias`, whose first three columns are the logits;
and as "pair" the values as means, with 1 and their squares as variances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosanneal as ca
from cosanneal.ensemble import Choice, SnapshotEnsemble
from cosanneal.ensemble import fit as fit_arrays
from cosanneal.ensemble.arrays import as_numpy
from tests.shared.modes import MODES

Build = Callable[..., SnapshotEnsemble[Any]]

FORM = {"class": "logits", "box": "values", "aux": None}
MEMBERS = 3


def kernels(seed: int) -> tuple[Any, Any]:
    """The kernel and the bias of a member: near enough to each other for one valley."""
    base, random = np.random.default_rng(0), np.random.default_rng(seed + 1)
    shapes = ((4, 5), (5,))
    kernel, bias = (base.normal(size=s) + 0.2 * random.normal(size=s) for s in shapes)
    return kernel.astype(np.float32), bias.astype(np.float32)


def inputs(samples: int, positions: int, seed: int = 3) -> tuple[Any, Any]:
    """Inputs, and labels that are somewhat like what members say."""
    random = np.random.default_rng([seed, samples, positions])
    x = random.normal(size=(samples, positions, 4)).astype(np.float32)
    noisy = outputs_of(0, x)["class"] + random.gumbel(size=(samples, positions, 3))
    return x, noisy.argmax(-1)


def outputs_of(member: int, x: Any) -> dict[str, Any]:
    kernel, bias = kernels(member)
    z = x.astype(np.float64) @ kernel.astype(np.float64) + bias
    return {"class": z[..., :3], "box": z[..., 3:]}


def softmax(z: Any) -> Any:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def means(x: Any, weights: Sequence[float] = (1 / 3,) * 3) -> tuple[Any, Any]:
    """The probabilities and the values of the ensemble, by a loop."""
    every = [outputs_of(member, x) for member in range(MEMBERS)]
    p = sum(w * softmax(each["class"]) for w, each in zip(weights, every, strict=True))
    return p, sum(w * each["box"] for w, each in zip(weights, every, strict=True))


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(as_numpy(found), expected, rtol=2e-5, atol=2e-6)


def tempered(p: Any, temperature: float) -> Any:
    return softmax(np.log(p) / temperature)


class Ragged:
    """Batches of (x, y) of several lengths, the same in every pass."""

    def __init__(
        self, *shapes: tuple[int, int], labels: Callable[[Any], Any] | None = None
    ) -> None:
        self.batches = [inputs(*shape) for shape in shapes]
        self._labels = labels

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.batches:
            yield (x, y) if self._labels is None else (x, self._labels(y))


def check_several(build: Build, mode: Any) -> None:
    """Of a model that returns a dict of "class", "box" and "aux"."""
    x, _ = inputs(11, 6)
    p, values = means(x)
    ensemble = build(outputs=FORM, class_axis=-1)
    for batch_size in (None, 4):
        found: Any = ensemble.predict(x, mode=mode, batch_size=batch_size)
        assert list(found) == ["class", "box"]
        assert type(found["class"]) is type(build(output="class", class_axis=-1).predict(x))
        close(found["class"], p)
        close(found["box"], values)
    every: list[Any] = list(ensemble.member_predictions(x, batch_size=4))
    for member, each in enumerate(every):
        expected = outputs_of(member, x)
        assert list(each) == ["class", "box"]
        close(each["class"], softmax(expected["class"]))
        close(each["box"], expected["box"])
    close(build(output="class", class_axis=-1).predict(x, mode=mode), p)
    close(build(output="box", outputs="values").predict(x, mode=mode), values)
    # A class axis, and a rule of pooling, for all of them or for each.
    votes: Any = build(
        outputs={"class": "auto", "box": "values"}, class_axis={"class": -1}, pooling="vote"
    ).predict(x, mode=mode)
    top = np.stack([outputs_of(member, x)["class"].argmax(-1) for member in range(MEMBERS)])
    close(votes["class"], np.eye(3)[top].mean(0))
    close(votes["box"], values)
    boxes = np.stack([outputs_of(member, x)["box"] for member in range(MEMBERS)])
    mean, variance = build(outputs={"box": "values"}).predict_with_variance(x, mode=mode)
    close(mean["box"], boxes.mean(0))
    close(variance["box"], boxes.var(0))
    for call, message in (
        (lambda: ensemble.predict_with_variance(x), r"Output 'class': .*='values'.*None in outp"),
        (lambda: build().predict(x, mode=mode), r"return one array.* a dict with '.*'box'.* and '"),
        (
            lambda: build(output="boxes").predict(x, mode=mode),
            r"an output 'boxes'.*a dict with '.*'box'.* and '",
        ),
        (
            lambda: build(outputs={"b": "values"}).predict(x, mode=mode),
            r"output 'b'.*a dict with '.*'box'.* and '",
        ),
        (lambda: build(outputs={"class": "auto"}).predict(x), r"Output 'class': .*several things"),
        (lambda: build(outputs={"class": "softmax"}), r"Output 'class': .*must be 'logits'"),
        (lambda: build(outputs={"class": "logits"}, output="class"), r"`output` must be left out"),
        (lambda: build(output=1.5), r"`output` must be a key or a name.*output=1.5"),
        (lambda: build(outputs=FORM, class_axis={"x": 1}), r"`class_axis` must.*'x'"),
    ):
        with pytest.raises(ca.EnsembleError, match=message):
            call()


def check_pairs(build: Build, mode: Any, folder: Path) -> None:
    """A mean and its variance are one output, alone and as one of several."""
    sure: Any
    x, y = inputs(11, 6)
    every = np.stack([outputs_of(member, x)["box"] for member in range(MEMBERS)])
    mean, noise, spread = every.mean(0), (every**2 + 1).mean(0), every.var(0)
    alone = build(output="pair", outputs="gaussian")
    several = build(outputs={"class": "logits", "pair": "gaussian"}, class_axis=-1)
    cases: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (alone, lambda found: found),
        (several, lambda found: found["pair"]),
    )
    for ensemble, of in cases:
        for found, expected in zip(
            of(ensemble.predict(x, mode=mode, batch_size=4)), (mean, noise + spread), strict=True
        ):
            close(found, expected)
        sure = of(ensemble.predict_with_uncertainty(x, mode=mode, batch_size=4))
        close(sure.mean, mean)
        close(sure.aleatoric, noise)
        close(sure.epistemic, spread)
        second = of([*ensemble.member_predictions(x)][1])
        close(second[0], every[1])
        close(second[1], every[1] ** 2 + 1)
    sure = several.predict_with_uncertainty(x, mode=mode)
    p, _ = means(x)
    close(sure["class"].entropy, -(p * np.log(p)).sum(-1))
    close(alone.predict_with_variance(x, mode=mode)[1], noise + spread)
    loader = Ragged((4, 5), (3, 7))
    (padded, _), mask = alone.predict(loader, mode=mode, ragged="pad")
    close(
        padded[0, :5], np.mean([outputs_of(m, loader.batches[0][0])["box"][0] for m in range(3)], 0)
    )
    assert as_numpy(mask).sum() == (4 * 5 + 3 * 7) * 2
    sure = several.predict_with_uncertainty(loader, mode=mode, ragged="list")
    sure = sure[1]
    assert tuple(sure["class"].entropy.shape) == tuple(sure["pair"].mean.shape)[:2] == (3, 7)
    both: Any = several.predict_with_uncertainty(loader, mode=mode, ragged="pad")
    sure, masks = both
    assert tuple(sure["class"].entropy.shape) == tuple(masks["class"].shape) == (7, 7)
    # Arrays that are cut into batches are one.
    (listed,) = alone.predict(x, mode=mode, batch_size=4, ragged="list")
    close(listed[0], mean)
    targets = mean + np.random.default_rng(5).normal(size=mean.shape)
    with pytest.warns(UserWarning, match="11 validation samples"):
        choice = several.fit(x, {"class": y, "pair": targets}, output="pair", select="weights")
    with pytest.warns(UserWarning, match="11 validation samples"):
        expected_choice = alone.fit(x, targets, select="weights")
    assert (choice.outputs, choice.output) == ("gaussian", "pair")
    assert choice.weights == pytest.approx(expected_choice.weights, abs=1e-3)
    weighted = np.tensordot(choice.weights, every, 1)
    variance = np.tensordot(choice.weights, every**2 + 1 + (every - weighted) ** 2, 1)
    found = several.predict(x, mode=mode)
    close(found["class"], means(x, choice.weights)[0])
    close(found["pair"][1], choice.variance_scale * variance)
    several.save(folder / "choice.json")
    assert build(outputs={"class": "logits", "pair": "gaussian"}).load(folder / "choice.json")
    averaged = several.average_weights(x, {"pair": targets}, output="pair", barrier=1)
    assert averaged.scores is not None
    assert {*averaged.scores} == {"gaussian_nll", "mse", "equivalent_mse"}


def check_fitted_by_one(build: Build, folder: Path) -> None:
    """A choice by one of several outputs: its weights are all outputs', its temperature its own."""
    x, y = inputs(60, 3)
    ensemble = build(outputs=FORM, class_axis=-1)
    with pytest.warns(UserWarning, match="60 validation samples"):
        choice = ensemble.fit(x, y, select="weights")
    plain = [softmax(outputs_of(member, x)["class"]) for member in range(MEMBERS)]
    with pytest.warns(UserWarning, match="validation samples"):
        expected = fit_arrays(plain, y, select="weights")
    assert choice.weights == pytest.approx(expected.weights, abs=1e-3)
    assert choice.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert choice.interval == pytest.approx(expected.interval, abs=1e-4)
    assert (choice.output, expected.output) == ("class", None)
    with pytest.warns(UserWarning, match="validation samples"):
        named = ensemble.fit(x, {"class": y, "box": 0}, output="class", select="weights")
    assert named.weights == choice.weights
    x_new, _ = inputs(7, 4)
    p, values = means(x_new, choice.weights)
    for mode in MODES:
        found: Any = ensemble.predict(x_new, mode=mode)
        close(found["class"], tempered(p, choice.temperature))
        close(found["box"], values)
    ensemble.save(folder / "choice.json")
    again = build(outputs=FORM, class_axis=-1)
    assert again.load(folder / "choice.json") == choice == Choice.from_dict(choice.to_dict())
    close(again.predict(x_new)["box"], values)
    averaged = ensemble.average_weights(x, y, barrier=1)
    assert averaged.scores is not None
    assert averaged.ensemble_scores is not None
    pooled, _ = means(x, choice.weights)
    likelihoods = np.take_along_axis(tempered(pooled, choice.temperature), y[..., None], -1)
    assert averaged.ensemble_scores["log_loss"] == pytest.approx(-np.log(likelihoods).mean(), 1e-4)
    boxes = outputs_of(0, x)["box"]
    by_box = ensemble.average_weights(x, {"box": boxes}, output="box", barrier=1)
    errors = [np.mean((outputs_of(m, x)["box"] - boxes) ** 2) for m in range(MEMBERS)]
    assert [each["mse"] for each in by_box.member_scores] == pytest.approx(
        errors, rel=1e-4, abs=1e-9
    )
    assert ensemble.average_weights(barrier=float("inf")).scores is None
    single = build(output="class", class_axis=-1)
    calls: list[tuple[Callable[[], object], str]] = [
        (
            lambda: ensemble.fit(x, y, output="boxes"),
            r"`output` must be one of 'class', 'box'.*'bo",
        ),
        (lambda: ensemble.fit(x, {"box": y}), r"labels must have a key 'class'.*with 'box'"),
        (lambda: single.fit(x, y, output="class"), r"`output` must be left out"),
        (lambda: single.load(folder / "choice.json"), r"`output` must be left out"),
        (lambda: build(outputs={"a": "logits", "b": "auto"}).fit(x, y), r"'a', 'b'.*none"),
    ]
    for call, message in calls:
        with pytest.raises(ca.EnsembleError, match=message):
            call()


def check_ragged(build: Build, mode: Any) -> None:
    """Predictions for batches of several lengths: a list, or padded; of one output or several."""
    loader = Ragged((4, 5), (3, 7), (2, 5))
    expected = [means(x) for x, _ in loader.batches]
    one, several = build(output="class", class_axis=-1), build(outputs=FORM, class_axis=-1)
    listed: Any = one.predict(loader, mode=mode, ragged="list")
    assert isinstance(listed, list)
    nested: Any = several.predict(loader, mode=mode, ragged="list")
    for found, each, (p, values) in zip(listed, nested, expected, strict=True):
        close(found, p)
        close(each["class"], p)
        close(each["box"], values)
    whole, inside = np.zeros((9, 7, 3)), np.zeros((9, 7), bool)
    start = 0
    for p, _ in expected:
        whole[start : start + len(p), : p.shape[1]] = p
        inside[start : start + len(p), : p.shape[1]] = True
        start += len(p)
    padded, mask = one.predict(loader, mode=mode, ragged="pad")
    assert type(padded) is type(mask) is type(listed[0])
    close(padded, whole)
    assert as_numpy(mask).dtype == bool
    np.testing.assert_array_equal(as_numpy(mask), inside)
    structure, masks = several.predict(loader, mode=mode, ragged="pad")
    close(structure["class"], whole)
    np.testing.assert_array_equal(as_numpy(masks["class"]), inside)
    assert tuple(masks["box"].shape) == (9, 7, 2)
    boxes = build(output="box", outputs="values")
    mean, variance = boxes.predict_with_variance(loader, mode=mode, ragged="list")
    for (x, _), found, spread in zip(loader.batches, mean, variance, strict=True):
        every = np.stack([outputs_of(member, x)["box"] for member in range(MEMBERS)])
        close(found, every.mean(0))
        close(spread, every.var(0))
    for ensemble in (one, several):
        with pytest.raises(ca.EnsembleError, match=r"for batch 1, after.*give ragged='list'"):
            ensemble.predict(loader, mode=mode)
        with pytest.raises(ca.EnsembleError, match=r"`ragged` must be 'error', 'list' or 'pad'"):
            ensemble.predict(loader, ragged="rag")  # type: ignore[arg-type]
    members = list(one.member_predictions(loader, ragged="list"))
    close(members[1][2], softmax(outputs_of(1, loader.batches[2][0])["class"]))
    padded, mask = next(iter(one.member_predictions(loader, ragged="pad")))
    np.testing.assert_array_equal(as_numpy(mask), inside)
    with pytest.raises(ca.EnsembleError, match=r"for batch 1, after.*give ragged='list'"):
        next(one.member_predictions(loader))


def check_ragged_judged(build: Build, keep: Path) -> None:
    """A choice, and scores, by batches of several lengths are those of their rows of labels."""
    shapes = ((40, 5), (30, 7), (20, 2))
    loader = Ragged(*shapes)
    rows: list[Any] = [
        np.concatenate(
            [softmax(outputs_of(m, x)["class"]).reshape(-1, 3) for x, _ in loader.batches]
        )
        for m in range(MEMBERS)
    ]
    labels = np.concatenate([y.reshape(-1) for _, y in loader.batches])
    counts = np.repeat([length for _, length in shapes], [samples for samples, _ in shapes])
    for select in ("last", "greedy", "weights"):
        options: dict[str, Any] = {"select": select, "steps": 7}
        if select == "greedy":
            options["metric"] = "brier"
        with pytest.warns(UserWarning, match="90 validation samples"):
            expected = fit_arrays(rows, labels, counts=counts, **options)
        for ensemble in (build(output="class", class_axis=2), build(outputs=FORM, class_axis=2)):
            with pytest.warns(UserWarning, match="90 validation samples"):
                choice = ensemble.fit(loader, keep=keep / "kept.npy", **options)
            assert (choice.samples, choice.class_axis) == (90, 2)
            assert choice.weights == pytest.approx(expected.weights, abs=1e-3)
            assert choice.temperature == pytest.approx(expected.temperature, rel=1e-3)
            assert choice.interval == pytest.approx(expected.interval, abs=1e-5)
            np.testing.assert_allclose(np.load(keep / "kept.npy"), rows, rtol=2e-5, atol=2e-6)
            batches = [y for _, y in loader.batches]
            with pytest.warns(UserWarning, match="90 validation samples"):
                again = ensemble.fit(Inputs(loader), batches, **options)
            assert again.weights == choice.weights
            p, _ = means(loader.batches[1][0], choice.weights)
            found: Any = ensemble.predict(loader, ragged="list")[1]
            found = found["class"] if isinstance(found, Mapping) else found
            close(found, tempered(p, choice.temperature))
    averaged = ensemble.average_weights(loader, barrier=1)
    likelihoods = [r[np.arange(len(r)), labels] for r in rows]
    losses = [-np.log(each).mean() for each in likelihoods]
    assert [each["log_loss"] for each in averaged.member_scores] == pytest.approx(losses, rel=1e-4)
    pooled = sum(w * r for w, r in zip(choice.weights, rows, strict=True))
    own = tempered(pooled, choice.temperature)[np.arange(len(labels)), labels]
    assert averaged.ensemble_scores is not None
    assert averaged.ensemble_scores["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    message = r"list with an array for each batch.*Received: "
    for y, received in (
        (np.zeros((90, 5), int), r"an array of shape \(90, 5\)"),
        (batches[:2], r"2 for 3 batches"),
        ([batches[0], batches[1][:, :6], batches[2]], r"\(30, 6\) for batch 1, of outputs \(30, 7"),
    ):
        with pytest.raises(ca.EnsembleError, match=message + received):
            ensemble.fit(loader, y)


class Inputs:
    """The inputs alone."""

    def __init__(self, loader: Ragged) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return (x for x, _ in self._loader)
