"""What an ensemble is told of its members and of its model's outputs."""

from __future__ import annotations

from typing import TypedDict

from .members import Chosen
from .predict.outputs import Auto, Outputs, Structure
from .predict.pooling import Pooling


class EnsembleOptions(TypedDict, total=False):
    """What every ensemble takes by keyword: which snapshots, and what the model's outputs are.

    Args:
        last: how many of the last snapshots to use, in the order of the members and of all
            folders together; by default all. With `members`, of those. (Of each folder: add
            two ensembles.)
        members: which snapshots to use: a function of a `Snapshot` that says so, or
            a list of names of files (`run1/cycle-...`, where two folders have one of
            that name) and numbers of cycles; by default all.
        outputs: what the model returns: "logits" (a softmax over the class axis
            makes probabilities of them), "probabilities", or of a regression "values",
            which are averaged, or "gaussian": a tuple or a list of means and variances, or
            a dict with "mean" and "variance", of which `predict` gives the mixture's in
            that form (`GaussianPool`). Or a structure, for a model that returns several
            outputs. "auto" finds it out, as said below.
        output: which one of several outputs is taken, as said below.
        class_axis: the axis of the classes; None where each number is an
            outcome of its own (binary, multi-label), and a sigmoid makes its
            probability of its logit; "auto" finds it out.
        pooling: "probabilities" (their mean), "logits" (their mean, which is
            the geometric mean of probabilities), "log-probabilities" (the
            logarithm of the mean probabilities) or "vote", as in `Pool`.

    With `outputs="auto"` and `class_axis="auto"`, what is not given is found out
    once: from the model, where it says so for certain (the last activation or
    the loss of one of Keras', a softmax at the end of a torch.nn.Sequential);
    else from the first output. Rows in [0, 1] that sum to 1 along one axis are
    probabilities along it. Of two axes, and with numbers outside [0, 1], they
    are logits of classes. All else is an error that names what it could be: one
    number for each sample; numbers in [0, 1] that do not sum to 1; more axes.
    `predict_with_variance` takes them for values; `load` knows the class axis.
    (`class_axis=None` means outcomes, here and in all of `cosanneal.ensemble`.)

    Each output is looked at (on a device other than the host, the first of each
    member): a NaN is an error that names the member, and so are probabilities
    that are none; a UserWarning says once that logits are probabilities already.

    Of a model that returns several outputs, `output` says which one is meant: a
    dict's key, a field's name, the name of one of a functional model of Keras', or
    the number of an item. Without it, it is what is called `logits` in a dict, a
    NamedTuple or a dataclass (such as a ModelOutput of transformers), or else the
    only array there; and the first item of a tuple or a list, as in `(logits, aux)`,
    unless the items have names. All else is an error that names what there is. (A mean
    and a variance are one output, which only "gaussian" says.)

    Or several are taken at once: `outputs` is a dict, a tuple or a list of the form of
    what the model returns, such as `{"class": "logits", "box": "values"}`. Every
    prediction then has this form, each output pooled by itself. What is not named is
    left out, and so is what is None (in a tuple or list, None stays in its place).
    `class_axis` and `pooling` are for all of them that have classes, or such
    structures too. `fit`, `average_weights` and others that judge do so by one of
    them: `output` is then its key or place, or the keys on the way to it with dots
    between them, and by default the only one that is of no regression. Labels may be in a
    structure too. Weights that are chosen count for all outputs, a temperature
    for that one alone.

    Batches may be of several lengths or sizes: `fit` and the others count each label,
    and for intervals each sample, however many labels it has (of a regression, each
    target); `predict` is told by `ragged` what to give.
    """

    last: int | None
    members: Chosen | None
    outputs: Outputs | Auto | Structure
    output: str | int | None
    class_axis: int | Auto | Structure | None
    pooling: Pooling | Structure
