"""A working copy of a module, in the place of whose weights a member's are put."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FunctionType, MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.errors import EnsembleError
from ...snapshots.ranks import ALONE, Ranks
from .state import eager, plain_name, unwrapped

_REMEDY: Final = "give the ensemble a function that builds the model, in place of the model"

_OF_TORCH: Final = "torch.distributed."


class WorkingCopy:
    """A module of our own, whose tensors' data are exchanged.

    The tensors stay the same objects, so that whatever else of the module holds
    them has a member's data too: a list of its parameters, the flat weights of an
    LSTM, tied layers. Without a member they have one number for all of their data.

    Args:
        module: the module, which nobody else has.
        stale: tensors that the module made of its weights, and must make anew.
    """

    ranks: Ranks = ALONE  # each process has a copy to itself

    def __init__(self, module: nn.Module, stale: list[Tensor]) -> None:
        module.eval()
        self.module: nn.Module = module
        self._stale = stale
        # Where the tensors of the state are, by the plain model's names.
        self._slots: dict[str, tuple[dict[str, Any], str, Tensor]] = {}
        self.names: dict[str, str] = {}
        for name, (held, key) in slots_of(module).items():
            self._slots[plain_name(name)] = held, key, held[key]
            self.names[plain_name(name)] = name
        self.derives: bool = any(map(may_derive, module.modules()))
        self._empty = {name: _empty(value) for name, (_, _, value) in self._slots.items()}
        self.watched: bool = False  # whether it was looked at what the copy reaches
        self.alike = False  # whether it gave the same for a member that was run with others
        self.drop()

    @classmethod
    def of(cls, model: nn.Module) -> WorkingCopy:
        """A copy of a model: of its structure, its hooks, and of tensors that are no state.

        Raises:
            EnsembleError: a model that cannot be copied.
        """
        _refuse_traced(model)
        derives = any(map(may_derive, model.modules()))
        state = {id(each) for each in model.state_dict(keep_vars=True).values()}
        known = state | {id(each) for each in model.modules()}
        memo: dict[int, Any] = {}
        stale: list[Tensor] = []
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for value in held.values():
                    if id(value) in state and isinstance(value, Tensor):
                        # Where a layer merges weights, it writes into what it has.
                        bare = torch.empty_like(value) if derives else _empty(value)
                        if isinstance(value, nn.Parameter):
                            bare = nn.Parameter(bare, requires_grad=value.requires_grad)
                        memo[id(value)] = bare
            for value in vars(module).values():
                # What was computed with gradients, which torch would not copy.
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    stale.append(value.detach().clone())
                    memo[id(value)] = stale[-1]
                elif isinstance(value, dict) and not known.isdisjoint(value):
                    raise EnsembleError(
                        "The model must know its modules by names, and not by id(), which is "
                        f"another in a copy. Received: such a dict in a {type(module).__name__}; "
                        f"{_REMEDY}"
                    )
        with _same_randomness():
            copied = _copied(model, memo)
        _as_written(copied, model)
        _refuse_shared(copied, model)
        return cls(copied, stale)

    @classmethod
    def built(cls, build: Callable[[], Any]) -> WorkingCopy:
        """A module that a function builds.

        Raises:
            EnsembleError: it builds none, or the same one each time.
        """
        with _same_randomness():
            modules = build(), build()
        for each in modules:
            if not isinstance(each, nn.Module):
                raise EnsembleError(
                    "Argument `model` must be a torch.nn.Module, or a function that builds one. "
                    f"Received: a function that returns a {type(each).__name__}"
                )
        first, second = map(unwrapped, modules)
        _refuse_traced(first)
        _refuse_shared(first, second)
        return cls(first, [])

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a member's tensors in place, by the plain model's names.

        A module that may derive something of its weights is loaded by torch's own
        means: in `train()`, what was merged into other weights is parted and caches
        are emptied; `load_state_dict` calls the hooks; in `eval()`, it is merged again.

        Raises:
            EnsembleError: a name that no module holds.
        """
        if not tensors.keys() <= self._slots.keys():
            unknown = min(tensors.keys() - self._slots.keys())
            raise EnsembleError(
                "The model must hold the tensors of its state under their names. "
                f"Received: {unknown!r} in the state, which no module holds"
            )
        if not self.derives:
            self._exchange(tensors)
            return
        # A layer may write into them, and they are to stay as they were read.
        tensors = {name: value.clone() for name, value in tensors.items()}
        try:
            self.module.train()
            self._exchange(tensors)
            state = {self.names[name]: value for name, value in tensors.items()}
            self.module.load_state_dict(state, strict=False)
            self.module.eval()
        except Exception as error:
            raise EnsembleError(
                "The model must let itself be loaded, and switched to training and back, for each "
                f"member. Received: {type(error).__name__}: {error}"
            ) from error

    def _exchange(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            held, key, tensor = self._slots[name]
            if held[key] is not tensor:  # for the module has put another in its place
                held[key] = tensor
            tensor.data = value

    def drop(self) -> None:
        """Let go of the member's tensors, but where layers may write into what they have."""
        if not self.derives:
            for name, (_, _, tensor) in self._slots.items():
                tensor.data = self._empty[name]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let go of the members' tensors at the end of a pass."""
        try:
            yield
        finally:
            self.drop()

    def settled(self, output: Any) -> Any:
        """An output as it is; see `LentModel.settled`."""
        return output

    def run(
        self, call: Callable[[nn.Module], Any], own: Callable[[], Mapping[str, Any]] | None
    ) -> Any:
        """What a function of the module gives.

        Args:
            call: the function.
            own: the state of the model that was copied, at which the copy must not
                look; it is watched at the first call that has it.

        Raises:
            EnsembleError: it does.
        """
        if self.watched or own is None:
            return call(self.module)
        tensors = [*own().values(), *self._stale]
        watch = _Watch({_storage(each) for each in tensors if isinstance(each, Tensor)} - {0})
        with eager(self.module) or nullcontext(), watch:
            output = call(self.module)
        if watch.seen is not None:
            raise EnsembleError(
                "The model must reach its weights through its modules alone, for a copy to have "
                f"others. Received: {watch.seen} on the model's own weights, or on what it once "
                "made of them, in the copy: through a function's closure, a global, a hook or a "
                "plain attribute. A function given as forward= must run the module that it is "
                f"given; else {_REMEDY}"
            )
        self.watched = True
        return output


def slots_of(module: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each tensor of the state is held, by its name: the dict, and the key in it."""
    state = module.state_dict(keep_vars=True)
    slots: dict[str, tuple[dict[str, Any], str]] = {}
    for prefix, each in module.named_modules(remove_duplicate=False):
        for held in (each._parameters, each._buffers):
            for key, value in held.items():
                name = f"{prefix}.{key}" if prefix else key
                if value is not None and name in state:
                    slots[name] = held, key
    return slots


class _Watch(TorchFunctionMode):
    """Notes an operation on certain tensors: by their storages, through whatever views."""

    def __init__(self, storages: set[int]) -> None:
        super().__init__()
        self._storages = storages
        self.seen: str | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Look at an operation's arguments, and do it."""
        name = getattr(func, "__name__", str(func))
        # A shape or a device tells nothing of the numbers.
        given = [] if name == "__get__" else [*args, *(kwargs or {}).values()]
        while given:
            each = given.pop()
            if isinstance(each, list | tuple):
                given += each
            elif isinstance(each, Tensor) and _storage(each) in self._storages:
                self.seen = name
        return func(*args, **(kwargs or {}))


def may_derive(module: nn.Module) -> bool:
    """Whether a module by itself may keep something that it makes of its weights."""
    kind = type(module)
    loads = kind._load_from_state_dict is not nn.Module._load_from_state_dict
    return (
        kind.train is not nn.Module.train
        or kind.eval is not nn.Module.eval
        or bool(module._load_state_dict_post_hooks)
        or (loads and not kind.__module__.startswith("torch."))
    )


def keeps_of_weights(module: nn.Module) -> bool:
    """Whether a module may keep what it made of its weights, where these are exchanged in place.

    As `may_derive`, but for what FSDP2 adds: hooks of its own, and a class over the user's. Nor
    may it have computed something with gradients, and kept it.
    """
    kind = type(module)
    loader = next(each for each in kind.__mro__ if "_load_from_state_dict" in vars(each))
    hooks = [*module._load_state_dict_post_hooks.values()]
    own = [each for each in hooks if not getattr(each, "__module__", "").startswith(_OF_TORCH)]
    return (
        kind.train is not nn.Module.train
        or kind.eval is not nn.Module.eval
        or not loader.__module__.startswith("torch.")
        or bool(own)
        or any(isinstance(each, Tensor) and each.grad_fn for each in vars(module).values())
    )


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # of a kind that has none
        return 0


def _empty(value: Tensor) -> Tensor:
    """A tensor of the shape, the dtype and the place of another, in the memory of one number."""
    return torch.zeros((), dtype=value.dtype, device=value.device).expand(value.shape)


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception as error:
        # What cannot be copied, such as a lock or a file, both may have.
        for module in model.modules():
            for value in vars(module).values():
                if not isinstance(value, Tensor | nn.Module | dict):
                    try:
                        copy.deepcopy(value, dict(memo))
                    except Exception:
                        memo[id(value)] = value
        try:
            return copy.deepcopy(model, memo)
        except Exception:
            raise EnsembleError(
                f"The model must be one that copy.deepcopy copies. Received: "
                f"{type(model).__name__}, and {type(error).__name__}: {error}; {_REMEDY}"
            ) from error


def _as_written(copied: nn.Module, model: nn.Module) -> None:
    """Have a copy run its own methods as they are written, where the model's are compiled.

    What torch.compile makes of a bound method (`model.forward = torch.compile(model.forward)`,
    `model.compile()`, and what Lightning makes of a compiled module) is bound to the model for
    ever, and a copy has it too.
    """
    others = dict(copied.named_modules())
    own = {id(each): others.get(name) for name, each in model.named_modules()}
    for module in others.values():
        module.__dict__.pop("_compiled_call_impl", None)
        for name, value in list(module.__dict__.items()):
            written = value
            while isinstance(written, FunctionType):
                written = getattr(written, "_torchdynamo_orig_callable", None)
            if written is value or not isinstance(written, MethodType):
                continue
            other = own.get(id(written.__self__))
            if other is not None:
                module.__dict__[name] = MethodType(written.__func__, other)


def _refuse_traced(model: nn.Module) -> None:
    """Refuse modules of torch.jit.trace, for which `eval()` is without effect."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.TopLevelTracedModule):  # type: ignore[attr-defined]
            raise EnsembleError(
                "The model must not be one that torch.jit.trace made, since that stays in the mode "
                f"in which it was traced. Received: one in {name or 'the model'!r}; give the "
                "module that was traced, whose tensors have the same names, or a scripted one"
            )


def _refuse_shared(copied: nn.Module, model: nn.Module) -> None:
    """Refuse a copy that has modules or tensors of the model, which must not be written to."""
    modules = {id(each) for each in model.modules()}
    tensors = {id(each) for each in model.state_dict(keep_vars=True).values()}
    for name, module in copied.named_modules():
        held = (*module._parameters.values(), *module._buffers.values())
        if id(module) in modules or any(each is not None and id(each) in tensors for each in held):
            raise EnsembleError(
                "The model must be one of which there can be two, or the function that builds it "
                "must build another each time. Received: two that share "
                f"{name or type(module).__name__!r}; {_REMEDY}"
            )


@contextmanager
def _same_randomness() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
