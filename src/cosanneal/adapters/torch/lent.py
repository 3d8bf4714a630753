"""A module in shards, which cannot be copied: members' shards are lent to it, and its own kept.

All processes that have a part of it load each member, run each batch and come to the end
together. They say what they are about to do before each of it, so that none waits for
another that failed or has fewer batches.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from ...core.errors import EnsembleError, SnapshotError
from ...ensemble.structure import map_leaves, named_leaves
from ...snapshots.ranks import ALONE, Ranks, Together
from .capture import ModuleCapture
from .ranks import DefaultGroup, are_several
from .shards import local_part, refuse_flat, whole
from .state import is_shard, plain_name, unwrapped
from .working import WorkingCopy, keeps_of_weights

T = TypeVar("T")

_WHOLE: Final = "give a model that has its weights whole, or a function that builds one"


def is_sharded(model: object) -> bool:
    """Whether it is a module some of whose tensors are DTensors.

    Raises:
        EnsembleError: a module in shards of another kind.
    """
    if not isinstance(model, nn.Module):
        return False
    try:
        refuse_flat(model)
    except SnapshotError as error:
        raise EnsembleError(str(error)) from None
    return any(is_shard(each) for each in unwrapped(model).state_dict(keep_vars=True).values())


class LentModel:
    """The user's own module in shards, with a member's while it is lent.

    What it has of its own is kept in the host's memory meanwhile, and put back at the end, also
    after an error: parameters, buffers and modes. It is used by all processes at once, in one
    thread of each.

    Attributes:
        module: the module.
        names: the module's names of its tensors, by the plain model's.
        tensors: its tensors by these, as they are when nothing is gathered.
        ranks: the processes.
        watched: see `WorkingCopy`; whatever reaches the weights finds the member's.
        derives: likewise; such modules are refused.
        alike: likewise.

    Args:
        model: the module.

    Raises:
        EnsembleError: a module of which some tensor cannot be exchanged.
    """

    watched = True
    derives = alike = False

    def __init__(self, model: nn.Module) -> None:
        self.module: nn.Module = unwrapped(model)
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}
        self._look()
        self._refuse()
        self._line = Line() if are_several() else None
        self.ranks: Ranks = ALONE if self._line is None else Together(self._line, EnsembleError)
        # What is the module's own, while it is lent.
        self._own: list[tuple[Tensor, Tensor]] | None = None
        self._held: list[tuple[dict[str, Any], str, Any]] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._present: Mapping[str, Tensor] | None = None
        self._dealt = False  # whether each process has rows of its own
        self._compared = False  # whether what was loaded was seen to be what was read

    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process' shards of weights that the first one has whole.

        All processes must ask.

        Args:
            tensors: by name, all or some; in the others none.

        Raises:
            EnsembleError: torch has no way to load them.
        """
        # Which takes long to import, and few need.
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        names: list[str] = self.ranks.shared(lambda: [*tensors])
        with self.lent():
            self._present = None
            self._look()
            options = StateDictOptions(
                full_state_dict=True, broadcast_from_rank0=True, strict=False
            )
            try:
                set_model_state_dict(self.module, dict(tensors), options=options)
            except (ValueError, RuntimeError, NotImplementedError) as error:
                raise EnsembleError(
                    "The model must be one that set_model_state_dict of torch loads. "
                    f"Received: {type(error).__name__}: {error}; {_WHOLE}"
                ) from error
            self._look()
            if not self._compared:
                self._compare(tensors, names)
            return {name: local_part(self.tensors[name].detach()).clone() for name in names}

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put a member's shards in place, as `load` gives them; while it is lent."""
        if weights is self._present:
            return
        self._present = None
        self._look()
        for name, value in weights.items():
            local_part(self.tensors[name].detach()).copy_(value)
        self._present = weights

    def run(self, call: Callable[[nn.Module], Any], own: object) -> Any:  # noqa: ARG002
        """What a function of the module gives."""
        try:
            return call(self.module)
        except Exception:
            self._recover()
            raise

    def meet(self, batch: Any) -> None:
        """Wait for the others to have a batch, which must be the same unless rows are dealt out.

        Raises:
            EnsembleError: in every process, where one has none, or another.
        """
        if self._line is None:
            return
        said = self._line.meet("batch", "" if self._dealt else _digest(batch))
        if len(set(said)) > 1:
            self._line.failed = True
            other = next(rank for rank, each in enumerate(said) if each != said[0])
            raise EnsembleError(
                "Every process must be given the same samples where a model is sharded. Received: "
                f"another batch in the process of rank {other}; give all of them the same input, "
                "or where FSDP2 alone shards the model, a loader with a DistributedSampler"
            )

    def settled(self, output: Any) -> Any:
        """An output whole, and the first process' in all of them unless rows are dealt out.

        So it is bit for bit the same wherever something is decided by it.
        """
        line = None if self._dealt else self._line

        def one(leaf: Any) -> Any:
            leaf = leaf.full_tensor() if hasattr(leaf, "full_tensor") else leaf
            return leaf if line is None or not isinstance(leaf, Tensor) else line.first(leaf)

        return map_leaves(one, output)

    def common(self, name: str, value: Tensor) -> Tensor:
        """The first process' value of a tensor; one that was gathered is the same in all."""
        shared = self._line is None or is_shard(self.tensors[name])
        return value if shared else cast(Line, self._line).first(value)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Lend the module for a pass, at whose end all processes meet; it is then its own again."""
        line = self._line
        if line is not None:
            line.failed = False
        with self.lent():
            try:
                yield
            except (Exception, GeneratorExit) as error:
                if line is not None and not line.failed:
                    line.fail(error)
                raise
            if line is not None:
                line.meet("end", "")

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Keep what is the module's own, and put it back."""
        if self._own is not None:
            yield
            return
        self._look()
        each_once = {
            id(each): each.detach() for each in (*self.module.parameters(), *self.module.buffers())
        }
        kept = [(part, _on_host(part)) for part in map(local_part, each_once.values())]
        self._held = [
            (module._buffers, key, value)
            for module in self.module.modules()
            for key, value in module._buffers.items()
        ]
        self._modes = [(each, each.training) for each in self.module.modules()]
        self._own = kept
        try:
            with torch.no_grad():
                self.module.eval()
                yield
        finally:
            self.show_own()
            self._own, self._held = None, []
            for module, training in self._modes:
                module.training = training

    def show_own(self) -> None:
        """Put the module's own tensors back, if it is lent; a member's may follow."""
        if self._own is None:
            return
        self._present = None
        self._look()
        with torch.no_grad():
            for held, key, value in self._held:
                held[key] = value
            for part, own in self._own:
                part.copy_(own)

    @contextmanager
    def dealing(self) -> Iterator[None]:
        """Have each process run batches of its own: as many as the others."""
        before, self._dealt = self._dealt, True
        try:
            yield
        finally:
            self._dealt = before

    def check_dealing(self, name: str) -> None:
        """Refuse a loader of a share of the samples where processes run a batch together.

        So it is with tensor parallelism, where each has a part of every layer. FSDP2 gathers a
        layer's weights before each of its processes runs rows of its own.

        Raises:
            EnsembleError: in every process, where a tensor stays a shard when the model runs.
        """
        self._look()
        shards = {name for name, each in self.tensors.items() if is_shard(each)}
        kind = _fully_sharded()
        for module in self.module.modules() if kind is not None else ():
            if isinstance(module, kind):
                module.unshard()
                # Which puts its own parameters in the shards' place.
                for path, each in self.module.named_parameters(remove_duplicate=False):
                    if not is_shard(each):
                        shards.discard(plain_name(path))
                self._look()
        if shards:
            raise EnsembleError(
                f"Argument `{name}` must give every process the same samples where a tensor stays "
                "in shards while the model runs, as with tensor parallelism. Received: a loader of "
                f"a share of them, and {min(shards)!r}; give arrays, or a loader without a "
                "distributed sampler"
            )

    def _look(self) -> None:
        """Note the tensors of the state; torch has modules reshard what is gathered."""
        state = self.module.state_dict(keep_vars=True)
        self.names = {plain_name(name): name for name, each in state.items() if _is_tensor(each)}
        self.tensors = {plain: state[name] for plain, name in self.names.items()}

    def _recover(self) -> None:
        """After an error amid a forward, have FSDP2 begin anew (torch before 2.13 cannot)."""
        kind, within = _fully_sharded(), set[nn.Module]()
        for module in self.module.modules() if kind is not None else ():
            if isinstance(module, kind) and module not in within:
                within.update(module.modules())
                reset = getattr(module, "reset_iter_state", None)
                with contextlib.suppress(AttributeError):  # of one that never ran, torch's own
                    if reset is not None:
                        reset()

    def _refuse(self) -> None:
        for name, each in self.tensors.items():
            if each.is_meta or hasattr(each, "ds_id"):
                what = "without data" if each.is_meta else "a shard of DeepSpeed's ZeRO"
                raise EnsembleError(
                    "A model in shards must have its weights, in DTensors and plain tensors. "
                    f"Received: {name!r}, {what}; {_WHOLE}"
                )
        held = {id(each) for each in (*self.module.parameters(), *self.module.buffers())}
        for name, each in self.tensors.items():
            if id(each) not in held:
                raise EnsembleError(
                    "A model in shards must hold the tensors of its state under their names. "
                    f"Received: {name!r} in the state, which no module holds; {_WHOLE}"
                )
        for name, module in self.module.named_modules():
            if keeps_of_weights(module):
                raise EnsembleError(
                    "A model in shards must keep nothing that it makes of its weights, since they "
                    f"are exchanged in place. Received: {name or 'the model'!r}, a "
                    f"{type(module).__name__}, which may; {_WHOLE}"
                )

    def _compare(self, tensors: Mapping[str, Tensor], names: Collection[str]) -> None:
        """Refuse a way of sharding in which a tensor that was loaded is not what was read."""
        wrong = ""
        for name in names:
            found = whole(self.tensors[name].detach(), writes=self.ranks.writes)
            if self.ranks.writes and _bytes(found) != _bytes(tensors[name]):
                wrong = wrong or name
        wrong = self.ranks.shared(lambda: wrong)
        if wrong:
            raise EnsembleError(
                "The model must be sharded in a way in which set_model_state_dict of "
                f"torch loads weights rightly. Received: {wrong!r}, which was "
                f"another when it was gathered; {_WHOLE}"
            )
        self._compared = True


def unsharded(copy: WorkingCopy | LentModel, what: str, remedy: str) -> WorkingCopy:
    """The copy of a model, for something that one in shards cannot do.

    Args:
        copy: the copy, or the model that is lent.
        what: what it is for.
        remedy: what to do in its place.

    Raises:
        EnsembleError: a model in shards.
    """
    if isinstance(copy, LentModel):
        raise EnsembleError(
            f"The model must not be sharded for {what}. Received: a model in shards; {remedy}"
        )
    return copy


class OwnCapture(ModuleCapture):
    """What a module in shards has of its own, also while it is lent; the same in all processes.

    Where each has another, as of a buffer that is no DTensor, it is the first one's, for that
    one's was recorded.
    """

    def __init__(self, lent: LentModel) -> None:
        super().__init__(lent.module)
        self._lent = lent

    def tensors(self, *args: Any, **options: Any) -> dict[str, Tensor]:
        """The tensors, as `ModuleCapture.tensors` gives them."""
        self._lent.show_own()
        found = super().tensors(*args, **options)
        return {name: self._lent.common(name, value) for name, value in found.items()}

    def stamps(self, names: Collection[str]) -> dict[str, object]:
        """Others each time, so that all processes look at the same tensors anew."""
        return {name: object() for name in names}


class Dealing:
    """The processes of a share of the samples, within whose meetings each has rows of its own.

    Args:
        inner: the processes.
        lent: the model that they run.
    """

    alone = False

    def __init__(self, inner: Ranks, lent: LentModel) -> None:
        self._inner, self._lent = inner, lent
        self.writes: bool = inner.writes

    def told(self, do: Callable[[], T]) -> T | None:
        """See `Ranks.told`."""
        return self._inner.told(do)

    def shared(self, do: Callable[[], Any]) -> Any:
        """See `Ranks.shared`."""
        return self._inner.shared(do)

    def agreed(self, do: Callable[[], T]) -> T:
        """See `Ranks.agreed`."""
        with self._lent.dealing():
            return self._inner.agreed(do)

    def said(self, do: Callable[[], T], say: Callable[[T], Any]) -> tuple[T, list[Any]]:
        """See `Ranks.said`."""
        with self._lent.dealing():
            return self._inner.said(do, say)

    def agreed_and_told(
        self, do: Callable[[], T], tell: Callable[[], object], say: Callable[[T], Any]
    ) -> tuple[T, list[Any], Exception | None]:
        """See `Ranks.agreed_and_told`."""
        with self._lent.dealing():
            return self._inner.agreed_and_told(do, tell, say)


class Line:
    """A link of processes that each say what they are about to do; see `snapshots.ranks.Link`.

    Attributes:
        rank: the number of this process.
        size: how many there are.
        failed: whether all know that one of them failed, so that none waits any more.
    """

    def __init__(self) -> None:
        self._group = DefaultGroup()
        self.rank: int = self._group.rank
        self.size: int = self._group.size
        self.failed: bool = False

    def everyones(self, message: str) -> list[str]:
        """The messages of all, by rank."""
        said = self.meet("load", message)
        self.failed = any("error" in json.loads(each) for each in said)
        return said

    def meet(self, act: str, what: str) -> list[str]:
        """What all say of an act, by rank.

        Raises:
            EnsembleError: one of them failed, or does something else.
        """
        acts, said = self._acts(act, what)
        if "failed" in acts:
            self.failed = True
            rank = acts.index("failed")
            raise EnsembleError(f"The process of rank {rank} failed: {said[rank]}")
        if len(set(acts)) > 1:
            self.failed = True
            other = next(rank for rank, each in enumerate(acts) if each != acts[0])
            does = {"load": "loads a member", "batch": "has a batch", "end": "has no more batches"}
            raise EnsembleError(
                "All processes must have as many batches where a model is sharded. Received: the "
                f"process of rank 0 {does[acts[0]]}, that of rank {other} {does[acts[other]]}; "
                "give all of them the same input, or a loader whose sampler gives each as many"
            )
        return said

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process failed; they raise that."""
        self.failed = True
        self._acts("failed", f"{type(error).__name__}: {error}")

    def first(self, value: Tensor) -> Tensor:
        """The first process' tensor; all must have one of its shape and dtype."""
        return self._group.first(value)

    def _acts(self, act: str, what: str) -> tuple[list[str], list[str]]:
        heard = [json.loads(each) for each in self._group.everyones(json.dumps([act, what]))]
        return [each[0] for each in heard], [each[1] for each in heard]


def _fully_sharded() -> Any:
    """The class of FSDP2's modules; None where none can be."""
    for name in ("torch.distributed.fsdp", "torch.distributed._composable.fsdp"):
        found = getattr(sys.modules.get(name), "FSDPModule", None)
        if found is not None:
            return found
    return None


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _on_host(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="cpu").copy_(value)


def _bytes(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return xxh3_128(flat.view(torch.uint8).numpy().data).digest() if flat.numel() else b""


def _digest(batch: Any) -> str:
    """A digest of a batch's arrays and numbers; of what else is in it, the kinds."""
    found = xxh3_128()
    for path, leaf in named_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided and not leaf.is_nested:
            found.update(f"{path} {leaf.dtype} {tuple(leaf.shape)}".encode())
            found.update(_bytes(leaf))
        else:
            plain = isinstance(leaf, str | int | float | bool | None)
            found.update(f"{path} {repr(leaf) if plain else type(leaf).__name__}".encode())
    return found.hexdigest()
