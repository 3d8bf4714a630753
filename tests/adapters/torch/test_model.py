"""The user's module is never touched, and whatever it derives from its weights is derived anew."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cosanneal as ca
from cosanneal.adapters.torch import SnapshotEnsemble, SnapshotRecorder
from cosanneal.adapters.torch.model import TorchModel
from cosanneal.adapters.torch.working import WorkingCopy
from cosanneal.snapshots import SnapshotStore
from tests.shared.modes import MODES

EVERY_STEP = ca.CyclicCosine(0.1, cycle_steps=1)


def recorded(folder: Path, model: nn.Module, members: int = 3) -> list[dict[str, Tensor]]:
    """Snapshots of other weights each; and these, by name."""
    states = []
    with SnapshotRecorder(folder, model.train(), EVERY_STEP) as recorder:
        for seed in range(members):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
            states.append({name: value.clone() for name, value in model.state_dict().items()})
            recorder.step()
    return states


def alone(build: Callable[[], nn.Module], states: list[dict[str, Tensor]], x: Tensor) -> Tensor:
    """The mean of what a fresh module of each member's own predicts."""
    every = []
    for state in states:
        model = build()
        model.load_state_dict(state)
        with torch.no_grad():
            every.append(model.eval()(x).double())
    return torch.stack(every).mean(0).float()


class Caching(nn.Module):
    """As transformers' LevitAttention: in evaluation mode a look-up of a parameter is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Caching:
        super().train(mode)
        if mode:
            self.cache = {}
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x + self.bias[[2, 0, 1]]
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[[2, 0, 1]]
        return x + self.cache["bias"]


class Normed(nn.Module):
    """A weight that is brought to length 1 when it is loaded, by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))
        self.normed = torch.ones(3, 4) / 2
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda module, _: module.norm()
        )

    def norm(self) -> None:
        self.normed = nn.functional.normalize(self.weight.detach(), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.normed.t()


class Fused(nn.Module):
    """Two weights that become one where nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(3, 4))
        self.second = nn.Parameter(torch.ones(3, 4))
        self.fused: Tensor | None = None

    def train(self, mode: bool = True) -> Fused:
        super().train(mode)
        self.fused = None if mode else (self.first * self.second).detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.first * self.second if self.fused is None else self.fused).t()


class Lora(nn.Linear):
    """A weight into which a low-rank part is merged where nothing is trained."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.a, self.b = nn.Parameter(torch.ones(2, 4)), nn.Parameter(torch.ones(3, 2))
        self.merged = False

    def train(self, mode: bool = True) -> Lora:
        super().train(mode)
        if self.merged is mode:
            self.weight.data += self.b.data @ self.a.data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return super().forward(x)
        return nn.functional.linear(x, self.weight + self.b @ self.a, self.bias)


DERIVING: dict[str, Callable[[], nn.Module]] = {
    "caching": lambda: nn.Sequential(nn.Linear(4, 3), Caching()),
    "a load hook": Normed,
    "fused": Fused,
    "LoRA": Lora,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", DERIVING)
def test_what_is_derived_is_each_members_own(tmp_path: Path, kind: str, mode: Any) -> None:
    build = DERIVING[kind]
    model = build()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(9))
    states = recorded(tmp_path, model)
    expected = alone(build, states, x)
    # In evaluation mode, with what it derived of its own weights at hand.
    with torch.no_grad():
        own = model.eval()(x)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    # Which shows nothing of the model, and is no reason not to look at it afterwards.
    assert ensemble.predict(x[:0], mode=mode).shape == expected[:0].shape
    if mode == "stacked" and kind in ("a load hook", "fused"):
        with pytest.raises(ca.EnsembleError, match=r"keep nothing.*give mode='resident'"):
            ensemble.predict(x, mode=mode)
    else:
        for _ in range(3):  # nothing is left of the call before
            torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    with torch.no_grad():
        assert torch.equal(model(x), own)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_members_that_merge_are_averaged_as_they_were_recorded(tmp_path: Path) -> None:
    model = Lora()
    states = recorded(tmp_path, model)
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    found = SnapshotEnsemble(model, tmp_path).average_weights(x, y, barrier=1e9)
    for name, value in found.weights.items():
        mean = torch.stack([state[name].double() for state in states]).mean(0).float()
        assert torch.equal(value, mean)


class Interrupting(nn.Module):
    """Ctrl-C, in the middle of a pass or of what a module does when weights come."""

    at: int = -1
    calls: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))

    def interrupt(self) -> None:
        Interrupting.calls += 1
        if Interrupting.calls == Interrupting.at:
            raise KeyboardInterrupt

    def train(self, mode: bool = True) -> Interrupting:
        self.interrupt()
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.interrupt()
        return x @ self.weight.t()


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_an_interrupt_at_any_place_leaves_the_model_and_the_ensemble_right(
    tmp_path: Path, mode: Any
) -> None:
    model = Interrupting()
    states = recorded(tmp_path, model)
    own = model.weight.detach().clone()
    x = torch.randn(5, 4)
    expected = alone(Interrupting, states, x)
    interrupted = 0
    for at in range(1, 30):
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        Interrupting.calls, Interrupting.at = 0, at
        try:
            ensemble.predict(x, mode=mode)
        except KeyboardInterrupt:
            interrupted += 1
        Interrupting.at = -1
        assert torch.equal(model.weight, own)
        assert model.training
        assert torch.is_grad_enabled()
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    assert interrupted >= 9


def test_a_copy_without_a_member_has_no_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(50, 50), nn.BatchNorm1d(50))
    model.register_buffer("table", torch.arange(4.0), persistent=False)
    recorded(tmp_path, model)
    seam = TorchModel(model)
    for _ in range(2):
        copied = WorkingCopy.of(model).module
        assert sum(each.untyped_storage().nbytes() for each in copied.state_dict().values()) < 100
        assert torch.equal(copied.get_buffer("table"), torch.arange(4.0))
        weights = seam.load(SnapshotStore(tmp_path).list()[0].load(framework="pt"))
        with seam.running(lambda output: output) as run:
            run(weights, (torch.randn(4, 50),))
        seen = [weakref.ref(each) for each in weights.values()]
        del weights
        gc.collect()
        assert not any(ref() is not None for ref in seen)


def test_the_structure_stays_that_of_when_the_ensemble_was_made(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    states = recorded(tmp_path, model)
    x = torch.randn(5, 4)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    model[1] = nn.ReLU()
    model.register_forward_hook(lambda *_: pytest.fail("a hook that came later"))
    expected = alone(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), states, x)
    torch.testing.assert_close(ensemble.predict(x), expected)


class Locked(nn.Module):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lock = nn.Linear(4, 3), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            out: Tensor = self.linear(x)
        return out


class Single(nn.Linear):
    """There is one of it, whoever copies it."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def __deepcopy__(self, memo: object) -> Single:
        return self


class Closed(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def __deepcopy__(self, memo: object) -> Closed:
        raise RuntimeError("no copies")


@pytest.mark.parametrize("given", ["a module", "a function"])
def test_a_module_may_hold_what_cannot_be_copied(tmp_path: Path, given: str) -> None:
    states = recorded(tmp_path, Locked())
    model: Any = Locked() if given == "a module" else Locked
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    x = torch.randn(5, 4)
    expected = alone(Locked, states, x)
    for mode in MODES:
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    assert ensemble.average_weights(barrier=1e9, x_val=x, y_val=torch.zeros(5, 3)).weights


def test_what_cannot_be_copied_or_built_is_refused_and_left_alone(tmp_path: Path) -> None:
    single = Single()
    states = recorded(tmp_path, nn.Linear(4, 3))
    own = {name: value.clone() for name, value in single.state_dict().items()}
    nested = nn.Sequential(single)
    for given, message in (
        (single, r"there can be two.*two that share 'Single'"),
        (nested, r"two that share '0'"),
        (lambda: single, r"build another each time.*two that share 'Single'"),
        (
            Closed(),
            r"copy.deepcopy copies. Received: Closed, and RuntimeError: no copies; give the",
        ),
        (lambda: 3, r"builds one\. Received: a function that returns a int"),
        (3, r"or a function that builds one\. Received: int"),
    ):
        wanted: Any = given
        with pytest.raises(ca.EnsembleError, match=message):
            SnapshotEnsemble(wanted, tmp_path)
    assert all(torch.equal(value, own[name]) for name, value in single.state_dict().items())
    x = torch.randn(5, 4)
    ensemble = SnapshotEnsemble(Single, tmp_path, outputs="values")
    torch.testing.assert_close(ensemble.predict(x), alone(lambda: nn.Linear(4, 3), states, x))


REGISTRY: dict[str, Any] = {}


def _weakly(module: nn.Module) -> Any:
    held: Any = weakref.ref(module)
    return lambda x: held()(x)


class Elsewhere(nn.Module):
    """Reaches its weights by a way that a copy of it does not follow."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.apply_it: Any = None
        linear = self.linear
        if how == "closure":
            self.apply_it = lambda x: self.linear(x)
        elif how == "parameter":
            self.apply_it = lambda x: x @ linear.weight.t()
        elif how == "nested":
            inner: Any = lambda x: linear(x)  # noqa: E731
            self.apply_it = lambda x: inner(x)
        elif how == "default":
            self.apply_it = lambda x, linear=linear: linear(x)
        elif how == "weak reference":
            self.apply_it = _weakly(linear)
        elif how == "partial":
            self.apply_it = functools.partial(lambda x: linear(x))
        elif how == "registry":
            REGISTRY["linear"] = linear
            self.apply_it = lambda x: REGISTRY["linear"](x)
        elif how == "hook":
            self.register_forward_hook(lambda _, args, __: linear(args[0]))
        elif how == "patched":
            forward = self.forward
            self.forward = lambda x: forward(x) * 2  # type: ignore[method-assign]
        elif how == "made once":
            self.made = self.linear.weight.t() * 1

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "made"):
            return x @ self.made
        found: Tensor = (self.apply_it or self.linear)(x)
        return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "how",
    [
        *("closure", "parameter", "nested", "default", "weak reference", "partial", "registry"),
        *("hook", "patched", "made once"),
    ],
)
def test_a_copy_that_looks_at_the_models_own_weights_is_refused(
    tmp_path: Path, how: str, mode: Any
) -> None:
    recorded(tmp_path, Elsewhere("none"))
    ensemble = SnapshotEnsemble(Elsewhere(how), tmp_path)
    with pytest.raises(ca.EnsembleError, match=r"through its modules alone.*a function that build"):
        ensemble.predict(torch.randn(2, 4), mode=mode)
    SnapshotEnsemble(Elsewhere("none"), tmp_path).predict(torch.randn(2, 4), mode=mode)


class Aliased(nn.Module):
    """Holds its weights by other names too, of which the state knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)
        self.every = list(self.parameters())
        self.pair = {"weights": (self.first.weight, self.second.weight)}
        self.register_buffer("scale", torch.ones(3))
        self.scales = [self.get_buffer("scale")]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x @ self.pair["weights"][0].t() + self.every[1]
        return torch.as_tensor(self.second(out) * self.scales[0] + self.every[2].sum())


def test_other_names_of_the_weights_have_a_members_too(tmp_path: Path) -> None:
    model = Aliased()
    states = recorded(tmp_path, model)
    x = torch.randn(5, 4)
    expected = alone(Aliased, states, x)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    for mode in ("stream", "resident", "stream"):
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    with pytest.raises(ca.EnsembleError, match=r"give mode='resident'"):
        ensemble.predict(x, mode="stacked")
    torch.testing.assert_close(ensemble.predict(x, mode="auto"), expected)


def test_methods_and_partial_functions_are_copied_with_the_model(tmp_path: Path) -> None:
    class Patched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.bound: Any = self.linear.forward
            self.partial: Any = functools.partial(nn.Linear.forward, self.linear)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bound(x) + self.partial(x)
            return out

    model = Patched()
    states = recorded(tmp_path, model)
    x = torch.randn(5, 4)
    expected = alone(Patched, states, x)
    ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
    for mode in ("stream", "resident"):
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)


def test_a_train_of_the_users_need_not_return_the_module(tmp_path: Path) -> None:
    class Silent(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)

    states = recorded(tmp_path, nn.Linear(4, 3))
    x = torch.randn(5, 4)
    expected = alone(lambda: nn.Linear(4, 3), states, x)
    ensemble = SnapshotEnsemble(Silent(), tmp_path, outputs="values")
    for mode in MODES:
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)


def test_random_numbers_stay_as_they_are(tmp_path: Path) -> None:
    recorded(tmp_path, nn.Linear(4, 3))
    state = torch.get_rng_state()
    SnapshotEnsemble(lambda: nn.Linear(4, 3), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_ensemble_made_in_inference_mode_predicts_outside_of_it(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    states = recorded(tmp_path, model)
    x = torch.randn(5, 4)
    expected = alone(lambda: nn.Linear(4, 3), states, x)
    with torch.inference_mode():
        ensemble = SnapshotEnsemble(model, tmp_path, outputs="values")
        for mode in MODES:
            torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)
    for mode in MODES:
        torch.testing.assert_close(ensemble.predict(x, mode=mode), expected)


def test_a_module_that_cannot_be_switched_is_refused_by_its_own_words(tmp_path: Path) -> None:
    class Fixed(nn.Linear):
        def train(self, mode: bool = True) -> Fixed:
            if mode:
                raise RuntimeError("inference only")
            super().train(mode)
            return self

    recorded(tmp_path, nn.Linear(4, 3))
    ensemble = SnapshotEnsemble(Fixed(4, 3), tmp_path)
    with pytest.raises(
        ca.EnsembleError, match=r"let itself be loaded.*RuntimeError: inference only"
    ):
        ensemble.predict(torch.randn(2, 4))


def test_a_model_that_knows_its_modules_by_id_is_refused(tmp_path: Path) -> None:
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.factors = {id(self.linear): 3.0}

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.linear(x) * self.factors.get(id(self.linear), 1.0))

    states = recorded(tmp_path, Keyed())
    with pytest.raises(ca.EnsembleError, match=r"not by id\(\).*such a dict in a Keyed"):
        SnapshotEnsemble(Keyed(), tmp_path)
    x = torch.randn(5, 4)
    ensemble = SnapshotEnsemble(Keyed, tmp_path, outputs="values")
    torch.testing.assert_close(ensemble.predict(x), alone(Keyed, states, x))
