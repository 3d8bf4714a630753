"""The schedules of other libraries and of the papers, as tables.

One function for each peer, with the peer's own parameter names (`base_lr`
stands for the rate that it takes from the optimizer). Each returns a Schedule:
data for the one table that every adapter reads, never a second formula.

In the equations `C(x) = (1 + cos(pi * x)) / 2` falls from 1 to 0, `t` is the
step, counted from 0, and `c` the number of steps since the cycle began. A step
is an optimizer step unless the peer counts epochs. What a peer gets wrong by
rounding (a cycle found by a float logarithm, `1 + cos` where it cancels) is
not reproduced; what it defines is: its lengths, its clocks, its last step and
what it does past its end.

A float that stands for a length or a factor (`T_max=10.5`, `t_mul=1.1`) means
the decimal it is written as: a restart that falls on a whole step on paper
falls there here. Where a peer rounds each cycle's length down to an integer,
its own product of two floats decides, and is computed likewise.
"""

from .keras import keras_contrib_snapshot, keras_cosine_decay, keras_cosine_decay_restarts
from .optax import optax_cosine_decay, optax_sgdr, optax_warmup_cosine_decay
from .papers import sgdr, snapshot_ensembles, snapshot_ensembles_lua
from .timm import timm_cosine
from .torch import torch_cosine_annealing, torch_one_cycle, torch_warm_restarts
from .trainers import (
    composer_warm_restarts,
    fastai_sgdr,
    ignite_cosine,
    mmengine_cosine_restart,
    torchensemble_snapshot,
)
from .transformers import hf_cosine, hf_cosine_with_min_lr, hf_hard_restarts

__all__ = [
    "composer_warm_restarts",
    "fastai_sgdr",
    "hf_cosine",
    "hf_cosine_with_min_lr",
    "hf_hard_restarts",
    "ignite_cosine",
    "keras_contrib_snapshot",
    "keras_cosine_decay",
    "keras_cosine_decay_restarts",
    "mmengine_cosine_restart",
    "optax_cosine_decay",
    "optax_sgdr",
    "optax_warmup_cosine_decay",
    "sgdr",
    "snapshot_ensembles",
    "snapshot_ensembles_lua",
    "timm_cosine",
    "torch_cosine_annealing",
    "torch_one_cycle",
    "torch_warm_restarts",
    "torchensemble_snapshot",
]
