"""The model card of a folder that is shipped: what is in it, how to load it, what it is worth.

Its front matter is YAML as the Hugging Face hub reads it. Texts stand there as JSON writes them,
which YAML reads as the same texts, whatever is in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..core.version import __version__
from ..ensemble.results import SCORES
from .words import (
    choice_of,
    member_title,
    number,
    plural,
    regression_choice_of,
    score,
    what_was_chosen,
)

# What stands in a folder under which name, by the format.
FILES: Final = {
    "onnx": "ensemble.onnx",
    "pt2": "ensemble.pt2",
    "keras": "ensemble.keras",
    "savedmodel": "ensemble",
    "stablehlo": "ensemble.stablehlo",
}
FRAMEWORKS: Final = {
    "onnx": "torch",
    "pt2": "torch",
    "keras": "keras",
    "savedmodel": "keras",
    "stablehlo": "jax",
}

_LOADS: Final = {
    "onnx": """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
x = np.zeros({shape}, "{dtype}")  # your samples
predictions = session.run(None, {{session.get_inputs()[0].name: x}})[0]
""",
    "pt2": """\
import torch

model = torch.export.load("{file}").module()
x = torch.zeros({shape}, dtype=torch.{dtype})  # your samples
with torch.no_grad():
    predictions = model(x)
""",
    "keras": """\
import keras
import numpy as np

import cosanneal.adapters.keras  # which has the ensemble's layers

model = keras.saving.load_model("{file}")
x = np.zeros({shape}, "{dtype}")  # your samples
predictions = model.predict(x)
""",
    "savedmodel": """\
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("{file}")
x = np.zeros({shape}, "{dtype}")  # your samples
predictions = model.serve(x)
""",
    "stablehlo": """\
from pathlib import Path

import jax
import numpy as np

model = jax.export.deserialize(bytearray(Path("{file}").read_bytes()))
x = np.zeros({shape}, "{dtype}")  # your samples
predictions = model.call(x)
""",
}

# What the hub calls the scores.
_TITLES: Final = {
    "error": "Error rate",
    "log_loss": "Log-loss (nats)",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "gaussian_nll": "Gaussian negative log-likelihood",
    "pinball": "Pinball loss",
    "calibration": "Calibration error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model card says beside what a results document has.

    Args:
        format: what was exported: "onnx", "pt2", "keras", "savedmodel" or "stablehlo".
        shape: of one sample of the input.
        dtype: of the input, by numpy's or torch's name.
        members: the names of the members that are in it.
        name: the model's; by default the results document's title.
        task: the hub's name of the task, such as "image-classification"; by default "other".
        dataset: the name of the data that it was scored on.
        intervals: of scores, the 95 % interval by the score's name.
        framework: of the snapshots, a tag; by default that whose format it is ("torch" of ONNX).
        held: the dtype to which the members' weights were rounded, if they were.

    Example:
        >>> Card(format="onnx", shape=(1, 28, 28), dtype="float32", members=["a", "b"]).file
        'ensemble.onnx'
    """

    format: str
    shape: Sequence[int]
    dtype: str
    members: Sequence[str]
    name: str | None = None
    task: str | None = None
    dataset: str | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    framework: str | None = None
    held: str | None = None

    @property
    def file(self) -> str:
        """The name of what was exported."""
        return FILES[self.format]

    def code(self) -> str:
        """Python code that loads what was exported, and predicts: `predictions` of `x`."""
        shape = repr((2, *self.shape))
        return _LOADS[self.format].format(file=self.file, shape=shape, dtype=self.dtype)


def card_text(
    card: Card,
    results: Mapping[str, Any],
    size: str,
    digest: str,
    compared: tuple[int, float] | None,
) -> str:
    """The card, as Markdown with its front matter.

    Args:
        card: what it says.
        results: the results document.
        size: of what was exported, in words.
        digest: its SHA-256; nothing for a folder.
        compared: on how many samples it was run and compared with the ensemble, and by how much
            it differed at most; None if it was not.

    Example:
        >>> card = Card(format="pt2", shape=(4,), dtype="float32", members=["a"], name="mine")
        >>> results = {"format": "cosanneal.results", "version": 1, "title": "a run"}
        >>> text = card_text(card, results, "3 kB", "00", None)
        >>> text.splitlines()[:2], "torch.export.load" in text
        (['---', 'library_name: cosanneal'], True)
    """
    name = _line(card.name or results["title"])
    parts = [
        "\n".join(_front(card, results, name)),
        f"# {_escaped(name)}",
        " ".join(_what(card, results)),
        "## Load it",
        f"```python\n{card.code()}```",
        _shape(card, results),
        "## Scores",
        *_scores(card, results),
        "## What is in it",
        *_contents(card, results, size, digest, compared),
        "## What is not known",
        "\n".join(f"- {each}" for each in _unknown(card, results)),
    ]
    return "\n\n".join(parts) + "\n"


def _front(card: Card, results: Mapping[str, Any], name: str) -> Iterator[str]:
    yield "---"
    yield "library_name: cosanneal"
    yield "tags:"
    framework = card.framework or FRAMEWORKS[card.format]
    yield from (f"- {each}" for each in ("snapshot-ensemble", framework, card.format))
    if card.task is not None:
        yield f"pipeline_tag: {_quoted(card.task)}"
    if scored := _scored(results):
        row, names, _ = scored
        yield "model-index:"
        yield f"- name: {_quoted(name)}"
        yield "  results:"
        yield "  - task:"
        yield f"      type: {_quoted(card.task or 'other')}"
        yield "    dataset:"
        yield f"      name: {_quoted(card.dataset or 'not named')}"
        yield f"      type: {_quoted(card.dataset or 'unknown')}"
        yield "    metrics:"
        for each in names:
            yield f"    - type: {each}"
            yield f"      value: {_number(row[each])}"
            yield f"      name: {_quoted(_TITLES[each])}"
    yield "---"


def _what(card: Card, results: Mapping[str, Any]) -> Iterator[str]:
    count = len(card.members)
    if count == 1:
        yield "One snapshot of a training run"
    else:
        yield f"An ensemble of {count} snapshots of training runs with a cyclic learning rate"
    kind = "folder" if card.format == "savedmodel" else "file"
    yield f"(cosanneal {__version__}), as one {kind}."
    if choice := choice_of(results) or regression_choice_of(results):
        samples = plural(choice["samples"], "held-out sample")
        yield f"It is {what_was_chosen(choice)}, chosen on {samples}."
        if "reason" in choice:
            yield _escaped(choice["reason"])
    elif count > 1:
        yield "It is their plain mean: nothing was chosen on held-out data."


def _shape(card: Card, results: Mapping[str, Any]) -> str:
    choice = choice_of(results)
    told = "what the ensemble predicts, its members pooled"
    if choice is not None or "analysis" in results:
        told = "probabilities"
        if choice is not None and choice["temperature"] != 1:
            told += f", at the temperature {choice['temperature']:.4g} that is in it"
    shape = ", ".join(map(str, ("samples", *card.shape)))
    return f"Input: {card.dtype} of shape ({shape}), any number of samples. Output: {told}."


def _scored(results: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str], str] | None:
    """The scores of what is shipped, which there are, and of what part they are."""
    for part in ("analysis", "regression"):
        if found := results.get(part):
            row = found["chosen"] or (found["ensembles"] or found["members"])[-1]
            known = SCORES if part == "analysis" else _TITLES
            names = [name for name in known if isinstance(row.get(name), float)]
            return row, names, part
    return None


def _scores(card: Card, results: Mapping[str, Any]) -> Iterator[str]:
    scored = _scored(results)
    if scored is None:
        yield "None were measured: no labels were given when it was exported."
        return
    row, names, part = scored
    last, fitted = results[part]["members"][-1], ""
    if "last_calibrated" in results[part]:
        last = results[part]["last_calibrated"]
        fitted = f" with its own {'temperature' if part == 'analysis' else 'variance'}"
    data = f"of {_escaped(card.dataset)}" if card.dataset else "of data that were not named"
    yield (
        f"On {plural(results[part]['samples'], 'sample')} {data}; less is better. The intervals "
        "are of 95 %, by the bootstrap over the samples."
    )
    lines = [
        f"| score | this model | interval | last snapshot alone{fitted} |",
        "|---|---|---|---|",
    ]
    for name in names:
        between = "not computed"
        if name in card.intervals:
            between = " to ".join(_told(name, each) for each in card.intervals[name])
        own, alone = (_told(name, each[name]) if name in each else "none" for each in (row, last))
        lines.append(f"| {_TITLES[name]} | {own} | {between} | {alone} |")
    yield "\n".join(lines)


def _told(name: str, value: float) -> str:
    return f"{score(name, {name: value})} %" if name in ("error", "ece") else number(value, 1, 4)


def _contents(
    card: Card,
    results: Mapping[str, Any],
    size: str,
    digest: str,
    compared: tuple[int, float] | None,
) -> Iterator[str]:
    choice = choice_of(results) or regression_choice_of(results)
    weights = {} if choice is None else {each["name"]: each["weight"] for each in choice["members"]}
    steps = {each["name"]: each["step"] for each in results.get("snapshots", ())}
    lines = [f"`{card.file}`: {size}" + (f", SHA-256 `{digest}`." if digest else ".")]
    if compared is None:
        lines.append("It was not run after it was written, and not compared with the ensemble.")
    else:
        samples, apart = compared
        lines.append(
            f"It was run after it was written, on {plural(samples, 'sample')}: it differs from the "
            f"ensemble by {apart:.1e} at most (of numbers above 1, relative to them)."
        )
    if card.held is not None:
        lines.append(f"Its members' weights were rounded to {card.held}, in which it computes.")
    yield " ".join(lines)
    rows = ["| member | weight | update |", "|---|---|---|"]
    for name in card.members:
        weight = weights.get(name, 1 / len(card.members))
        step = f"{steps[name]:,}" if name in steps else "not known"
        rows.append(f"| {_escaped(member_title(name))} | {weight:.3f} | {step} |")
    yield "\n".join(rows)
    others = ["`report.html` (figures and tables)", "`results.json` (its numbers)"]
    if choice is not None:
        others.append("`ensemble.json` (the choice, for the snapshots that it was made among)")
    yield f"Beside it: {', '.join(others)}."


def _unknown(card: Card, results: Mapping[str, Any]) -> Iterator[str]:
    yield "The training data, and whether they may be used: a program wrote this card, of files."
    yield "What it is meant for, whom it may harm, and under which license it is: write it here."
    scored = _scored(results)
    if scored is None:
        yield "How good it is: no scores were measured."
    else:
        yield (
            "Whether the samples of the scores were kept out of training and choosing: it was "
            "taken on trust. If they were not, the scores are too good."
        )
    if card.task is None:
        yield "The task, by the hub's name; the front matter says “other” for it."
    if choice_of(results) is None and regression_choice_of(results) is None:
        yield "Whether fewer members, or other weights, would be better: nothing was chosen."


def _number(value: float) -> str:
    """A number as YAML reads one, which wants a point before an exponent."""
    digits, mark, exponent = repr(value).partition("e")
    return digits + (".0" if mark and "." not in digits else "") + mark + exponent


def _quoted(text: str) -> str:
    """A text as JSON has it, on one line, which YAML reads as the same."""
    return json.dumps(_line(text), ensure_ascii=False)


def _line(text: str) -> str:
    """A text on one line, without what cannot be written or is seen by nobody."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _escaped(text: str) -> str:
    """A text as Markdown shows it: what would be a command in it is none."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!~$&])", r"\\\1", _line(text))
