"""The tasks: data, network, optimizer, budgets; and which half each is of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import cosanneal as ca

Half: TypeAlias = Literal["tuning", "reported"]
Network: TypeAlias = Literal["mlp", "cnn", "gru"]

SGD_PEAKS: Final = (0.01, 0.03, 0.1, 0.3)
REGRESSION_PEAKS: Final = (0.003, 0.01, 0.03, 0.1)
ADAMW_PEAKS: Final = (0.001, 0.003, 0.01, 0.03)

# By these each peak is chosen; they are in no reported number.
SELECTION_SEEDS: Final = (100, 101, 102)
BUDGETS: Final = ("short", "long")
# Of how many members each is; "separate" are five runs of a fifth of the budget.
PLAIN: Final = {"cosine": 1, "cyclic3": 3, "cyclic5": 5, "doubling4": 4, "separate": 5}
# Plain schedules that are trained with restarts alone.
BASES: Final = {**PLAIN, "doubling3": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What is done at each restart of a schedule, beside raising the rate.

    Args:
        base: the plain schedule.
        shrink: the share of the old weights.
        perturb: the share of fresh ones.
        reset: whether the optimizer forgets its momentum.
    """

    base: str
    shrink: float = 0.5
    perturb: float = 0.5
    reset: bool = False


RESTARTS: Final = {
    "cyclic5-half": Restart(base="cyclic5"),
    "cyclic5-half-reset": Restart(base="cyclic5", reset=True),
    "cyclic5-fifth": Restart(base="cyclic5", shrink=0.8, perturb=0.2),
    "doubling4-half": Restart(base="doubling4"),
    "doubling3-fifth": Restart(base="doubling3", shrink=0.8, perturb=0.2),
    "doubling4-fifth": Restart(base="doubling4", shrink=0.8, perturb=0.2),
    "cyclic5-reset": Restart(base="cyclic5", shrink=1.0, perturb=0.0, reset=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A run of a plain schedule, at its peak, that keeps more of each cycle than its snapshot.

    Args:
        base: the plain schedule.
        noise: the temperature of the noise in the last part of each cycle; 0 for none, and then
            the run is that of the plain schedule, bit for bit.
    """

    base: str
    noise: float = 0.0


# So many shares of a cycle before its end; means of the weights over its last share; noise there.
BEFORE: Final = (0.2, 0.1, 0.05, 0.025)
MEANS: Final = (0.4, 0.2, 0.1)
NOISY: Final = 0.2
COLUMNS: Final = (
    *(f"before {share:g}" for share in BEFORE),
    "end",
    *(f"mean {share:g}" for share in MEANS),
)
WATCHES: Final = {
    "cyclic5-watched": Watch(base="cyclic5"),
    "doubling4-watched": Watch(base="doubling4"),
    "cyclic5-noise-1": Watch(base="cyclic5", noise=1.0),
    "cyclic5-noise-0.1": Watch(base="cyclic5", noise=0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Members of a run that keeps more.

    Args:
        run: of `WATCHES`.
        columns: of `COLUMNS`, taken of each cycle, in this order.
        reported: whether the tuning half let it be scored on the other one too.
    """

    run: str
    columns: tuple[str, ...] = ("end",)
    reported: bool = False


# The first two are the plain schedules once more, as they come out on the machine of the others.
VIEWS: Final = {
    "cyclic5-again": View(run="cyclic5-watched", reported=True),
    "doubling4-again": View(run="doubling4-watched", reported=True),
    "cyclic5-near3": View(run="cyclic5-watched", columns=("before 0.05", "before 0.025", "end")),
    "cyclic5-wide3": View(
        run="cyclic5-watched", columns=("before 0.2", "before 0.1", "end"), reported=True
    ),
    "cyclic5-averaged-0.2": View(run="cyclic5-watched", columns=("mean 0.2",)),
    "cyclic5-averaged-0.4": View(run="cyclic5-watched", columns=("mean 0.4",)),
    "cyclic5-both-0.4": View(run="cyclic5-watched", columns=("mean 0.4", "end"), reported=True),
    "cyclic5-noise-1": View(run="cyclic5-noise-1"),
    "cyclic5-noise-0.1": View(run="cyclic5-noise-0.1", reported=True),
}
# What is trained with a search for its peak; what can be trained; and what is scored.
SEARCHED: Final = {**PLAIN, **{name: BASES[each.base] for name, each in RESTARTS.items()}}
SCHEDULES: Final = {
    **SEARCHED,
    **BASES,
    **{name: PLAIN[each.base] * len(COLUMNS) for name, each in WATCHES.items()},
}
SCORED: Final = (*SEARCHED, *VIEWS)
# Of what has one, the plain schedule beside which it stands, of the same machine.
BASE_OF: Final = {
    **{name: each.base for name, each in RESTARTS.items() if each.base in PLAIN},
    "doubling4-fifth": "doubling4-again",
    "doubling3-fifth": "doubling4-again",
    **{
        name: f"{WATCHES[each.run].base}-again"
        for name, each in VIEWS.items()
        if not name.endswith("-again")
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained on, and how.

    Args:
        name: also of the data set.
        half: "tuning", on which rules may be tuned, or "reported", on which they are judged.
        network: "mlp", "cnn" (of 8 x 8 images) or "gru" (of characters).
        hidden: widths of the layers; of the CNN its channels, of the GRU its one width.
        optimizer: "sgd" (momentum 0.9, decay 5e-4) or "adamw" (decay 0.01).
        peaks: the learning rates among which each schedule's peak is chosen.
        steps: updates of the short budget.
        factor: the long budget is so many times the short one.
        batch: samples of an update.
        shares: of the samples, for training and for validation; the rest are the test data.
        seeds: how many are reported, from 0 on.
    """

    name: str
    half: Half
    network: Network = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    peaks: tuple[float, ...] = SGD_PEAKS
    steps: int = 200
    factor: int = 12
    batch: int = 32
    shares: tuple[float, float] = (0.5, 0.25)
    seeds: int = 6

    def budget(self, name: str) -> int:
        """The updates of the budget of that name."""
        return self.steps * (self.factor if name == "long" else 1)

    def recipe(self) -> dict[str, Any]:
        """All that a run's predictions depend on, as plain data."""
        recipe = asdict(self)
        del recipe["half"]
        return recipe


def schedule_of(name: str, steps: int, peak: float) -> ca.Schedule:
    """The learning rates of one of `SCHEDULES` in a budget of `steps`."""
    if name in RESTARTS or name in WATCHES:
        name = (RESTARTS.get(name) or WATCHES[name]).base
    if name == "separate":
        return ca.CyclicCosine(peak, total_steps=steps // PLAIN[name], num_cycles=1)
    growth = 2 if name.startswith("doubling") else 1
    return ca.CyclicCosine(peak, total_steps=steps, num_cycles=BASES[name], cycle_mult=growth)


# The halves were written down before anything was trained.
TASKS: Final = {
    task.name: task
    for task in (
        Task(
            name="digits",
            half="tuning",
            network="cnn",
            hidden=(6, 12),
            steps=150,
            factor=4,
        ),
        Task(name="vowel", half="tuning"),
        Task(name="breast_cancer", half="tuning"),
        Task(name="sonar", half="tuning"),
        Task(name="diabetes", half="tuning", peaks=REGRESSION_PEAKS),
        Task(name="servo", half="tuning", optimizer="adamw", peaks=ADAMW_PEAKS),
        Task(
            name="text",
            half="reported",
            network="gru",
            hidden=(32,),
            optimizer="adamw",
            peaks=ADAMW_PEAKS,
            steps=100,
            factor=4,
            shares=(0.84, 0.08),
        ),
        Task(name="vehicle", half="reported"),
        Task(name="dna", half="reported", optimizer="adamw", peaks=ADAMW_PEAKS, factor=4),
        Task(name="ionosphere", half="reported"),
        Task(name="wine", half="reported"),
        Task(name="ozone", half="reported", peaks=REGRESSION_PEAKS),
    )
}
