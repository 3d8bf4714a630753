"""Draws the pictures of docs/conventions.md, from the presets themselves.

python docs/draw_conventions.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

from cosanneal import Schedule, presets

IMAGES = Path(__file__).parent / "images"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
Curve = tuple[str, Schedule]


def draw(name: str, title: str, panels: Sequence[tuple[str, Sequence[Curve], int, int]]) -> None:
    """One row of panels: a title, its curves, the steps shown and where the run ends (or 0)."""
    width = 4.6 * len(panels) + 0.4
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 2.9), squeeze=False)
    for axis, (subtitle, curves, steps, end) in zip(axes[0], panels, strict=True):
        for number, (label, schedule) in enumerate(curves):
            rates = schedule.rates(0, steps)
            colour = COLOURS[number % len(COLOURS)]
            marker = ("o", "s", "^", "D")[number % 4]
            # Points, since a rate is that of one step; a thin line leads the eye.
            axis.plot(rates, color=colour, linewidth=0.8, alpha=0.55)
            axis.plot(
                rates,
                linestyle="",
                marker=marker,
                markersize=3.4,
                color=colour,
                markerfacecolor="white" if number % 2 else colour,
                markeredgewidth=0.9,
                label=label,
            )
        if end:
            axis.axvline(end - 0.5, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
            axis.text(end, 1.27, "the run is over", fontsize=8, color="#555555", va="center")
        axis.set_title(subtitle, fontsize=10)
        axis.set_xlabel("step")
        axis.set_ylim(-0.04, 1.34)
        axis.set_yticks([0, 0.5, 1])
        axis.grid(axis="y", color="#e4e4e4", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(
            fontsize=8, frameon=False, loc="upper left" if end else "upper right", handletextpad=0.3
        )
    axes[0][0].set_ylabel("rate")
    figure.suptitle(title, fontsize=11.5, x=0.012, ha="left")
    figure.tight_layout()
    figure.savefig(IMAGES / f"{name}.png", dpi=110, metadata={"Software": None}, facecolor="white")
    plt.close(figure)


def main() -> None:
    """Every picture."""
    mpl.rcParams.update({"font.size": 9})
    cycle: dict[str, Any] = {
        "init_value": 0.0,
        "peak_value": 1.0,
        "warmup_steps": 4,
        "decay_steps": 16,
    }
    draw(
        "snapshots",
        "Snapshot ensembles: 20 steps in 3 cycles",
        [
            (
                "the paper: ⌈T/M⌉, the last cycle is cut off",
                [("snapshot_ensembles", presets.snapshot_ensembles(20, 3, 1.0))],
                28,
                20,
            ),
            (
                "its authors' code: from 1, down to exactly 0",
                [("snapshot_ensembles_lua", presets.snapshot_ensembles_lua(20, 3, 1, 1.0))],
                28,
                20,
            ),
            (
                "keras-contrib: ⌊T/M⌋, a further cycle begins",
                [("keras_contrib_snapshot", presets.keras_contrib_snapshot(20, 3, 1.0))],
                28,
                20,
            ),
        ],
    )
    draw(
        "decays",
        "A single fall of 16 steps, warmed up in 4: past its end",
        [
            (
                "held at the floor",
                [
                    (
                        "keras: decay_steps=16, without the warmup",
                        presets.keras_cosine_decay(0.0, 16, 0.1, warmup_target=1.0, warmup_steps=4),
                    ),
                    (
                        "optax: decay_steps=16, the warmup included",
                        presets.optax_warmup_cosine_decay(**cycle, end_value=0.1),
                    ),
                ],
                36,
                0,
            ),
            (
                "risen again",
                [
                    ("torch_cosine_annealing", presets.torch_cosine_annealing(1.0, 16, 0.1)),
                    ("hf_cosine", presets.hf_cosine(1.0, 4, 20)),
                ],
                36,
                0,
            ),
        ],
    )
    draw(
        "restarts",
        "Restarts: what happens to lengths, peaks and floors",
        [
            (
                "first length 6, factor 1.5",
                [
                    ("keras: 6, 9, 13.5, 20.25", presets.keras_cosine_decay_restarts(1.0, 6, 1.5)),
                    ("composer: 6, 9, 13, 19", presets.composer_warm_restarts(1.0, 6, 1.5)),
                ],
                48,
                0,
            ),
            (
                "peaks halve, floor 0.2",
                [
                    (
                        "keras: the height decays",
                        presets.keras_cosine_decay_restarts(1.0, 12, 1.0, 0.5, 0.2),
                    ),
                    (
                        "timm: the peak decays",
                        presets.timm_cosine(1.0, 12, 0.2, cycle_decay=0.5, cycle_limit=3),
                    ),
                    (
                        "ignite: the floor as well",
                        presets.ignite_cosine(1.0, 0.2, 12, 1.0, 0.5, 0.5),
                    ),
                ],
                48,
                0,
            ),
        ],
    )
    draw(
        "warmups",
        "Warmups: where the cosine's clock starts",
        [
            (
                "timm: warmup_t=5, t_initial=16",
                [
                    (
                        "warmup_prefix=False",
                        presets.timm_cosine(1.0, 16, warmup_t=5, cycle_limit=2),
                    ),
                    (
                        "warmup_prefix=True",
                        presets.timm_cosine(1.0, 16, warmup_t=5, cycle_limit=2, warmup_prefix=True),
                    ),
                ],
                42,
                0,
            ),
            (
                "a warmup to each cycle",
                [
                    (
                        "ignite: after the cycle",
                        presets.ignite_cosine(1.0, 0.0, 12, warmup_duration=4),
                    ),
                    ("optax sgdr: before it", presets.optax_sgdr([cycle, cycle])),
                ],
                42,
                0,
            ),
        ],
    )
    draw(
        "last_steps",
        "A run of 20 steps: its last step, and the steps after it",
        [
            (
                "real-valued lengths, then 0",
                [("hf_hard_restarts", presets.hf_hard_restarts(1.0, 0, 20, 3))],
                28,
                20,
            ),
            (
                "the last step's rate is held",
                [
                    (
                        "mmengine_cosine_restart",
                        presets.mmengine_cosine_restart(1.0, [7, 7, 6], [1, 1, 1], eta_min=0.0),
                    )
                ],
                28,
                20,
            ),
            (
                "one cycle: the last step is the floor",
                [("torch_one_cycle", presets.torch_one_cycle(1.0, 20))],
                28,
                20,
            ),
        ],
    )


if __name__ == "__main__":
    main()
