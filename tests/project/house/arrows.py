"""Which part of the library may import which, and which part knows a framework."""

from __future__ import annotations

import sys
from pathlib import Path

from .source import Import, imports, read

# What each part may import, itself aside. "root" is cosanneal/__init__.py, the public names of
# core and presets.
PARTS: dict[str, set[str]] = {
    "root": {"core", "presets"},
    "core": set(),
    "presets": {"core"},
    "snapshots": {"root", "core"},
    "ensemble": {"root", "core", "snapshots"},
    "adapters": {"root", "core", "presets", "snapshots", "ensemble"},
    "report": {"root", "core", "snapshots", "ensemble"},
    "demo": {"root", "core", "presets", "snapshots", "ensemble", "adapters", "report"},
    # Its training is the user's own, so that it knows no adapter.
    "study": {"root", "core", "snapshots", "ensemble", "report"},
    "cli": {
        *("root", "core", "presets", "snapshots", "ensemble", "adapters", "report", "demo"),
        "study",
    },
}

# Within a part, what its rooms may import of it. A room is a folder or a file; of two that hold a
# file the narrower one counts. A file in none of them, as the part's __init__.py, stands on top:
# it may import every room, and no room may import it.
_ENSEMBLE: dict[str, set[str]] = {
    "arrays": set(),
    "structure": set(),
    "distillation": set(),
    "onnx_file": {"arrays"},
    # The truth, in whatever form people have it.
    "class_names": {"arrays"},
    "labels": {"arrays", "class_names"},
    "score": {"arrays", "labels"},
    "predict.share": set(),
    "predict.batches": {"arrays", "structure", "predict.share"},
    "predict.rules": {"arrays"},
    "predict.pooling": {"arrays", "predict.rules"},
    "predict.gaussian": {"arrays", "predict.pooling"},
    "predict.outputs": {"arrays", "predict.pooling", "predict.gaussian"},
    "weights.moments": {"arrays"},
    # What a framework is asked for is said in terms of batches and of what outputs are.
    "model": {"arrays", "predict.batches", "predict.outputs"},
    "choose": {"arrays", "labels", "score"},
    "choose.choice": {
        *("arrays", "labels", "score", "choose", "predict.pooling", "predict.gaussian"),
    },
    "choose.moments": {
        *("arrays", "labels", "score", "choose", "predict.pooling", "predict.gaussian"),
    },
    # It makes a choice as that of classes is.
    "choose.regression": {
        *("arrays", "labels", "score", "choose", "choose.choice", "choose.moments"),
    },
    # Its questions are put to what was chosen, so that it stands on choosing.
    "score.analysis": {"arrays", "labels", "score", "choose"},
    # What members are worth, alone, together and as they were chosen.
    "findings": {
        *("arrays", "labels", "score", "score.analysis", "choose", "choose.choice"),
        *("predict.pooling", "predict.uncertainty"),
    },
    "regression": {
        *("arrays", "score", "score.analysis", "choose", "choose.choice", "choose.moments"),
        *("choose.regression", "findings", "predict.pooling", "predict.gaussian"),
    },
    "parts": {"model"},
    # What is shipped of a prediction, with the temperature of a choice.
    "combined": {
        *("choose", "choose.choice", "predict", "predict.taken", "predict.outputs"),
        *("predict.gaussian", "predict.rules"),
    },
    # What a user of a choice is warned of.
    "cautions": {"choose.choice"},
    # A member has its weight by a choice.
    "members": {"arrays", "model", "parts", "choose.choice"},
    "predict": {
        *("arrays", "structure", "predict.batches", "predict.outputs", "predict.pooling"),
        "predict.gaussian",
    },
    "predict.taken": {
        *("model", "predict", "predict.outputs", "predict.pooling", "predict.gaussian"),
    },
    # What it finds are scores too.
    "predict.uncertainty": {
        *("arrays", "score", "predict.outputs", "predict.pooling", "predict.gaussian"),
    },
    "predict.modes": {
        *("arrays", "members", "model", "predict"),
        *("predict.batches", "predict.outputs", "predict.taken", "predict.gaussian"),
    },
    "predict.classes": {
        *("arrays", "structure", "model", "predict", "predict.batches", "predict.outputs"),
        *("predict.pooling", "predict.taken", "predict.modes"),
    },
    "predict.validation": {
        *("arrays", "model", "predict", "predict.batches", "predict.outputs"),
        *("predict.taken", "predict.modes", "predict.share"),
    },
    "options": {"members", "predict.outputs", "predict.pooling"},
    "fitting": {
        *("members", "choose", "choose.choice", "choose.moments", "choose.regression"),
        *("findings", "regression", "cautions"),
        *("predict", "predict.taken", "predict.outputs", "predict.validation"),
    },
    "weights": {"arrays", "predict.pooling"},
    "weights.barrier": {"weights"},
    # What was made of several members predicts, at a temperature.
    "weights.one_model": {
        *("arrays", "choose", "members", "model", "weights.barrier", "predict"),
        *("predict.modes", "predict.outputs", "predict.taken"),
    },
    "weights.averaging": {
        *("arrays", "labels", "score", "choose", "choose.choice", "members", "model", "weights"),
        *("weights.barrier", "weights.one_model", "predict", "predict.batches", "predict.outputs"),
        *("predict.pooling", "predict.gaussian", "predict.taken", "predict.validation"),
    },
}
# On top, and the document of all of it above.
_ENSEMBLE["ensemble"] = {*_ENSEMBLE}
_ENSEMBLE["results"] = {*_ENSEMBLE}
ROOMS = {"ensemble": _ENSEMBLE}

FRAMEWORKS = {
    *("torch", "tensorflow", "keras", "jax", "jaxlib", "optax", "flax", "equinox", "haiku"),
    *("lightning", "pytorch_lightning", "transformers"),
}
WITHOUT_FRAMEWORK = {"root", "core", "presets", "snapshots", "ensemble", "report", "study"}
STANDARD_LIBRARY_ONLY = {"root", "core", "presets"}
# An adapter knows its own.
OWN_FRAMEWORKS = {
    "torch": {"torch"},
    "keras": {"keras"},
    "jax": {"jax", "jaxlib", "optax"},
    "lightning": {"lightning", "pytorch_lightning"},
    "transformers": {"transformers", "torch"},
}
# The trainers stand on the framework that they train with.
STAND_ON = {"lightning": "torch", "transformers": "torch"}


def found(source: Path) -> list[str]:
    """Every import, in any file of the package at `source`, that may not be."""
    files = read(source)
    parts = {module.split(".")[1] for module in files if "." in module}

    def part_of(module: str) -> str:
        name = "".join(module.split(".")[1:2])
        if name == "__main__":  # python -m cosanneal
            return "cli"
        return name if name in parts else "root"

    lines = []
    for module, file in files.items():
        part = part_of(module)
        if part not in PARTS:
            lines.append(f"{module}: no such part of the library is known")
            continue
        for each in imports(file, files):
            ours = each.module.partition(".")[0] == source.name
            to = part_of(each.module) if ours else ""
            if not (_may_know(module, part, each, to) if ours else _may_use(module, part, each)):
                target = each.module or "what cannot be told"
                lines.append(f"{module}:{each.line} imports {target}")
    return [*dict.fromkeys(lines)]


def _may_use(module: str, part: str, imported: Import) -> bool:
    """Whether a file may import a package that is not ours."""
    top = imported.module.partition(".")[0]
    if not top:
        return False
    if part in STANDARD_LIBRARY_ONLY:
        return top in sys.stdlib_module_names
    if part == "adapters":
        return top not in FRAMEWORKS - OWN_FRAMEWORKS.get("".join(module.split(".")[2:3]), set())
    return part not in WITHOUT_FRAMEWORK or top not in FRAMEWORKS


def _may_know(module: str, part: str, imported: Import, to: str) -> bool:
    """Whether a file may import one of ours, which belongs to the part `to`."""
    if to != part:
        return to in PARTS[part]
    if part == "adapters":  # an adapter knows no other
        own, other = (each.split(".")[2:3] for each in (module, imported.module))
        return own == other or other == [STAND_ON.get("".join(own))]
    room, target = (_room(part, each) for each in (module, imported.module))
    return not room or target == room or target in ROOMS[part][room]


def _room(part: str, module: str) -> str:
    """The room of its part that a file belongs to, "" if to none."""
    inner = ".".join(module.split(".")[2:])
    rooms = [room for room in ROOMS.get(part, ()) if f"{inner}.".startswith(f"{room}.")]
    return max(rooms, key=len, default="")
