"""An ensemble as one torch module: members, weights, temperature and pooling, all in one graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from ...core.errors import EnsembleError, shown
from ...ensemble.combined import Combination, unseen
from ...ensemble.model import Forward
from ...ensemble.structure import map_leaves
from .model import TorchModel, copied
from .working import WorkingCopy, slots_of

_WIDE: Final = frozenset({torch.float32, torch.float64})


class EnsembleModule(nn.Module):
    """The members of an ensemble as one module, which gives what `predict` gives for a batch.

    It takes what the model takes, or where the ensemble has `forward=`, a batch.

    Attributes:
        members: a module for each member; or one for all, whose tensors have the members
            along a first axis.
        combination: what is made of what they return.

    Args:
        members: the same.
        combination: the same.
        forward: runs a member on a batch; by default it is called.
        stacked: the names of the tensors that have the members along a first axis, where
            one module is all of them.
        cast: whether floats of the input are taken in the members' dtype, and predictions
            left in the one in which they were pooled.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        combination: Combination,
        forward: Forward[nn.Module] | None,
        *,
        stacked: Collection[str] | None = None,
        cast: bool = False,
    ) -> None:
        super().__init__()
        self.members: nn.ModuleList = nn.ModuleList(_Member(each, forward) for each in members)
        self.combination = combination
        self._stacked = None if stacked is None else [f"module.{name}" for name in stacked]
        self._cast = cast
        self._operations = _Wide() if cast else _Tensors()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The prediction for a batch.

        Args:
            args: what the model takes, or where the ensemble has `forward=`, a batch.
            kwargs: what the model takes by name.
        """
        if self._cast:
            held = [*self.members.parameters(), *self.members.buffers()]
            dtype = next(each.dtype for each in held if each.is_floating_point())

            def cast(leaf: Any) -> Any:
                floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
                return leaf.to(dtype) if floating else leaf

            args, kwargs = map_leaves(cast, args), map_leaves(cast, kwargs)
        combination, operations = self.combination, self._operations
        if self._stacked is None:
            picked = [
                # Not called as a module, which takes as long as an operation.
                combination.pick(member.forward(args, kwargs), operations.is_array)
                for member in self.members
            ]
        else:
            picked = combination.unstacked(self._run_stacked(self._stacked, args, kwargs))
        return combination.combine(picked, operations)

    def _run_stacked(self, names: Sequence[str], args: Any, kwargs: Any) -> tuple[Any, ...]:
        """What is picked of what all members return, along a first axis."""
        jit: Any = torch.jit
        if jit.is_tracing():
            raise EnsembleError(
                "A module with vmap=True must be exported by torch.export or compiled by "
                "torch.compile. Received: torch.jit.trace, which has no vectorized maps; ship the "
                "ensemble with vmap=False"
            )
        member = self.members[0]
        every = {
            **dict(member.named_parameters(remove_duplicate=False)),
            **dict(member.named_buffers(remove_duplicate=False)),
        }

        def one(weights: dict[str, Tensor]) -> Any:
            # Tied tensors stand in it under each of their names.
            returned = torch.func.functional_call(
                member, weights, (args, kwargs), tie_weights=False
            )
            return self.combination.pick(returned, self._operations.is_array)

        return tuple(torch.func.vmap(one)({name: every[name] for name in names}))

    def get_extra_state(self) -> Tensor:
        """The weights and the temperatures, by which a state of other members is known."""
        numbers = [
            number
            for leaf in self.combination.leaves
            for number in (*leaf.weights, leaf.temperature, leaf.variance_scale)
        ]
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Refuse the state of another ensemble, which would be weighted as this one is.

        Raises:
            EnsembleError: it is.
        """
        own = self.get_extra_state()
        if not (isinstance(state, Tensor) and torch.equal(state.cpu(), own)):
            raise EnsembleError(
                "A state must be that of an ensemble with the same weights and temperature to be "
                f"loaded. Received: {shown(state)}, and here {own.tolist()}; ship the ensemble "
                "that it is of"
            )

    def extra_repr(self) -> str:
        """What is no module in it."""
        return ", ".join(map(str, self.combination.leaves))


def ship(
    model: TorchModel,
    loads: Sequence[Callable[[], Mapping[str, Tensor]]],
    rest: Collection[str],
    combination: Combination,
    *,
    vmap: bool = False,
    dtype: torch.dtype | None = None,
) -> EnsembleModule:
    """The module of an ensemble.

    Args:
        model: the model.
        loads: each loads one member's weights.
        rest: the names of those that all members share, since their snapshots leave them out.
        combination: what is made of what the members return.
        vmap: whether all members are run in one pass, by a vectorized map.
        dtype: of the members' weights, and in which they are computed.

    Raises:
        EnsembleError: nothing was predicted yet; no such dtype; or members that a vectorized
            map cannot run.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise EnsembleError(
            "Argument `dtype` must be a floating dtype of torch, or None for the model's own. "
            f"Received: dtype={shown(dtype)}"
        )
    if model.placed != model.place() or not model.copy.watched:
        raise unseen("whether the model has weights that are not in its modules")
    with torch.inference_mode(mode=False), torch.no_grad():
        if vmap:
            members, stacked = _stacked(model, loads, rest)
        else:
            members, stacked = _one_by_one(model, loads, rest), None
        cast = dtype is not None
        made = EnsembleModule(members, combination, model.forward, stacked=stacked, cast=cast)
        if dtype is not None:
            made = made.to(dtype)
    _sign(made, members[0] if model.forward is None else None)
    return made.eval().requires_grad_(False)


def _one_by_one(
    model: TorchModel, loads: Sequence[Callable[[], Mapping[str, Tensor]]], rest: Collection[str]
) -> list[nn.Module]:
    """A module for each member, with weights of its own but for the rest."""
    shared: dict[str, Tensor] = {}
    members = []
    for load in loads:
        working = copied(model.model)
        working.put(load())
        if not working.derives:  # or they are its own already, and it may have written to them
            _make_own(working, rest, shared)
        members.append(working.module)
    return members


def _make_own(working: WorkingCopy, rest: Collection[str], shared: dict[str, Tensor]) -> None:
    """Give a copy memory of its own, in place of a file's or of the user's model."""
    done: set[int] = set()
    slots = slots_of(working.module)
    for name, place in working.names.items():
        held, key = slots[place]
        tensor = held[key]
        if id(tensor) in done:  # tied
            continue
        done.add(id(tensor))
        if name not in rest:
            tensor.data = tensor.data.clone()
            continue
        if name not in shared:
            shared[name] = tensor.data.clone()
        tensor.data = shared[name]


def _stacked(
    model: TorchModel, loads: Sequence[Callable[[], Mapping[str, Tensor]]], rest: Collection[str]
) -> tuple[list[nn.Module], list[str]]:
    """One module whose tensors have the members along a first axis, and the names of these."""
    working = copied(model.model)
    if working.derives:
        raise EnsembleError(
            "The model must keep nothing that it makes of its weights, for vmap=True. Received: "
            "one with modules that switch modes or load weights in their own way, as those do that "
            "merge some; give vmap=False"
        )
    if not model.copy.alike:
        raise EnsembleError(
            "The ensemble must have predicted with mode='stacked' before it is shipped with "
            "vmap=True, which finds out whether a vectorized map can run the model. Received: one "
            "that has not; call predict(x, mode='stacked') on some samples first"
        )
    slots = slots_of(working.module)
    stacked: dict[str, Tensor] = {}
    for i, load in enumerate(loads):
        weights = load()
        if not i:
            working.put(weights)
            _make_own(working, (), {})
        for name, value in weights.items():
            if name not in rest:
                if name not in stacked:
                    stacked[name] = value.new_empty((len(loads), *value.shape))
                stacked[name][i].copy_(value)
    for name, value in stacked.items():
        held, key = slots[working.names[name]]
        held[key].data = value
    return [working.module], [working.names[name] for name in stacked]


class _Member(nn.Module):
    """A member, and how it is run."""

    def __init__(self, module: nn.Module, run: Forward[nn.Module] | None) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, args: Any, kwargs: Any) -> Any:
        """What it returns for some arguments, or for a batch as the only one."""
        return (self.run or _call)(self.module, *args, **kwargs)


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


class _Tensors:
    """Tensors where a prediction is made of them; see `Operations`."""

    def is_array(self, thing: object) -> bool:
        """Whether something is a tensor."""
        return isinstance(thing, Tensor)

    def widen(self, array: Tensor) -> Tensor:
        """A tensor in its own dtype, but at least float32; integers in float64, as numpy has it."""
        if array.dtype in _WIDE:  # the usual ones, at once
            return array
        exact = not (array.is_floating_point() or array.is_complex())
        least = torch.float64 if exact else torch.float32
        return array.to(torch.promote_types(array.dtype, least))

    def narrow(self, wide: Tensor, like: Tensor) -> Tensor:
        """What was made of such, in the dtype of a member's tensor, if that has fractions."""
        fractions = like.is_floating_point() or like.is_complex()
        return wide.to(like.dtype) if fractions else wide


class _Wide(_Tensors):
    """The same, with predictions as they were pooled."""

    def narrow(self, wide: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002
        """What was made of tensors, as it is."""
        return wide


def _sign(module: EnsembleModule, member: nn.Module | None) -> None:
    """Give a module's forward the signature of a member's, by which exporters name inputs.

    Without one, it takes a batch.
    """
    try:
        signature = inspect.signature(_of_batch if member is None else member.forward)
    except (TypeError, ValueError):  # of what is not written in Python
        return

    class Signed(EnsembleModule):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return EnsembleModule.forward(self, *args, **kwargs)

    named = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    Signed.forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*named, *signature.parameters.values()]
    )
    Signed.__name__ = Signed.__qualname__ = EnsembleModule.__name__
    module.__class__ = Signed


def _of_batch(batch: Any) -> Any:
    """What is run on a batch."""
    return batch
