"""Reaches for the private names of other objects: `_x` of anything but `self`, `cls`, `super()`.

Another instance of a class may be looked into by that class, where it has the name itself and
the other is a plain name (`other._rows` in an `__eq__`) that is not annotated as something else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .source import File, imports, read

# (where, what): why. Names that a framework has no public one for, of its objects and not of ours.
ALLOWED = {
    ("adapters.torch", "_buffers"): "the slots of a module's tensors, in which a member's are put",
    ("adapters.torch", "_forward_hooks"): "whether something makes another output of a module's",
    ("adapters.torch", "_foreach_copy_"): "many copies at one launch; torch's optimizers use it",
    ("adapters.torch", "_get_no_batch_dim"): "an instance norm: the axes of a single sample",
    ("adapters.torch", "_InstanceNorm"): "what the instance norms have in common; no public name",
    ("adapters.torch", "_NormBase"): "what batch and instance norms have in common; likewise",
    ("adapters.torch", "_load_from_state_dict"): "whether a module loads its state in its own way",
    ("adapters.torch", "_load_state_dict_post_hooks"): "whether a module hears of a new state",
    ("adapters.torch", "_milestones"): "where SequentialLR's parts begin; it tells nobody",
    ("adapters.torch", "_orig_mod"): "the model that torch.compile wrapped; there is no other name",
    ("adapters.torch", "_compiled_call_impl"): "what `module.compile()` made; there is no way back",
    ("adapters.torch", "_torchdynamo_orig_callable"): "the method that torch.compile wrapped",
    ("adapters.torch", "_parameters"): "as `_buffers`",
    ("adapters.torch", "_schedulers"): "SequentialLR's parts; it tells nobody",
    ("adapters.torch", "_step_count"): "how a scheduler tells torch that it has been stepped",
    ("adapters.torch", "_update_lr"): "by which releases of torch differ in how a rate is set",
    (
        "adapters.torch",
        "_version",
    ): "how often a tensor was changed in place; documented under no name",
    (
        "adapters.keras",
        "_call_has_training_arg",
    ): "whether a call can be told the mode, as Keras' own trainers look",
    (
        "adapters.keras",
        "_distribute_strategy",
    ): "over which replicas a model predicts; `distribute_strategy` cannot be set",
    ("adapters.keras", "_flatten_layers"): "the layers within a layer, however they are held",
    ("adapters.keras", "_keras_history"): "the layer that an output is of; no public name",
    ("adapters.keras", "_iterations"): "every pass counts; `iterations` may count one of several",
    ("adapters.keras", "_learning_rate"): "the schedule itself; `learning_rate` is its rate now",
}

# A namedtuple's methods are public; they begin with _ to leave the other names to its fields.
PUBLIC = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
SELF = ("self", "cls")
BY_NAME = ("getattr", "setattr", "hasattr", "delattr")
BY_DUNDER = ("__getattribute__", "__setattr__", "__delattr__")
GETTERS = ("attrgetter", "operator.attrgetter", "methodcaller", "operator.methodcaller")
IN_DICT = ("get", "pop", "setdefault", "__getitem__", "__setitem__", "__contains__")
ANY_INSTANCE = {"Self", "object", "Any"}

Functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Reach:
    module: str
    line: int
    name: str
    text: str


def found(source: Path, allowed: dict[tuple[str, str], str] = ALLOWED) -> list[str]:
    """Every reach that is not allowed, and what is allowed although nothing reaches for it."""
    files = read(source)
    lines, used = [], set()
    for file in files.values():
        place = file.module.removeprefix(f"{source.name}.") + "."
        for each in reaches(file, files):
            entries = {
                (where, name)
                for where, name in allowed
                if name == each.name and place.startswith(f"{where}.")
            }
            used |= entries
            if not entries:
                lines.append(f"{each.module}:{each.line} reaches for {each.text}")
    unused = [entry for entry in allowed if entry not in used]
    return [*lines, *(f"nothing in {where} reaches for {name} any more" for where, name in unused)]


def is_private(name: str) -> bool:
    if name.endswith("__") or name in PUBLIC:
        return False
    return name.startswith("_") and name != "_"


def reaches(file: File, files: dict[str, File]) -> Iterator[Reach]:
    """Every reach of a file, allowed or not."""
    for each in imports(file, files):
        for name in filter(is_private, [*each.module.split("."), each.name]):
            whole = f"{each.module}.{each.name}" if each.name else each.module
            yield Reach(file.module, each.line, name, f"{whole} (an import)")
    classes = {node.name: node for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)}
    yield from _walk(file.tree, file, classes, None, {})


def _walk(
    node: ast.AST,
    file: File,
    classes: dict[str, ast.ClassDef],
    inside: ast.ClassDef | None,
    annotated: dict[str, str],
) -> Iterator[Reach]:
    """The reaches below a node, which stands in the class `inside` if in any."""
    for receiver, name in _accesses(node):
        if is_private(name) and not _is_own(receiver, name, classes, inside, annotated):
            text = f"{ast.unparse(receiver)}.{name}" if receiver else name
            yield Reach(file.module, getattr(node, "lineno", 0), name, text)
    if isinstance(node, ast.ClassDef):
        inside = node
    elif isinstance(node, Functions):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        notes = {each.arg: ast.unparse(each.annotation) for each in given if each.annotation}
        annotated = {**annotated, **dict.fromkeys((each.arg for each in given), ""), **notes}
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, classes, inside, annotated)


def _accesses(node: ast.AST) -> Iterator[tuple[ast.expr | None, str]]:
    """What a node alone takes from which object, by attribute or by a name that is written out."""
    if isinstance(node, ast.Attribute):
        yield node.value, node.attr
    elif isinstance(node, ast.Subscript):
        if (owner := _dict_owner(node.value)) and (name := _constant(node.slice)):
            yield owner, name
    elif isinstance(node, ast.Compare):
        for place in node.comparators:
            if (owner := _dict_owner(place)) and (name := _constant(node.left)):
                yield owner, name
    elif isinstance(node, ast.Call):
        called, names = ast.unparse(node.func), [_constant(each) for each in node.args]
        if called in BY_NAME and len(names) > 1 and names[1]:
            yield node.args[0], names[1]
        elif called in GETTERS:
            for each in filter(None, names if called.endswith("attrgetter") else names[:1]):
                yield from ((None, part) for part in each.split("."))
        elif isinstance(node.func, ast.Attribute) and names:
            if node.func.attr in BY_DUNDER:
                if names[0]:
                    yield node.func.value, names[0]
                elif len(names) > 1 and names[1]:  # object.__setattr__(self, "_x", value)
                    yield node.args[0], names[1]
            elif node.func.attr in IN_DICT and (owner := _dict_owner(node.func.value)):
                yield owner, names[0]


def _constant(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _dict_owner(node: ast.expr) -> ast.expr | None:
    """The object whose attributes a dict holds: of `vars(x)` and `x.__dict__`."""
    if isinstance(node, ast.Attribute) and node.attr == "__dict__":
        return node.value
    if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "vars":
        return node.args[0]
    return None


def _is_own(
    receiver: ast.expr | None,
    name: str,
    classes: dict[str, ast.ClassDef],
    inside: ast.ClassDef | None,
    annotated: dict[str, str],
) -> bool:
    if receiver is None or inside is None:
        return False
    text = ast.unparse(receiver)
    if text in SELF or (isinstance(receiver, ast.Call) and ast.unparse(receiver.func) == "super"):
        return True
    if name not in _defined(inside, classes):
        return False
    if text in ("type(self)", "self.__class__"):
        return True
    note = set(re.findall(r"\w+", annotated.get(text, "")))
    same = {inside.name, *map(ast.unparse, inside.bases), *ANY_INSTANCE}
    return isinstance(receiver, ast.Name) and (not note or bool(note & same))


def _defined(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """The names that a class has by its body, its slots, its methods and its bases in the file."""
    names = set()
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            texts = {ast.unparse(target) for target in targets}
            names |= texts
            if "__slots__" in texts and statement.value:
                parts = ast.walk(statement.value)
                names |= {_constant(each) for each in parts if isinstance(each, ast.expr)}
    for inner in ast.walk(node):
        is_set = isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
        if is_set or (isinstance(inner, ast.Call) and "setattr" in ast.unparse(inner.func)):
            owned = ((receiver, name) for receiver, name in _accesses(inner) if receiver)
            names |= {name for receiver, name in owned if ast.unparse(receiver) in SELF}
    for base in node.bases:
        if (above := classes.get(ast.unparse(base))) and above is not node:
            names |= _defined(above, classes)
    return names
