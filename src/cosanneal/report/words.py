"""The report's words: numbers, names, and the sentences that say what the numbers say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..core import errors

_SCALES: Final = {"error": (100, 2), "log_loss": (1, 4), "brier": (1, 4), "ece": (100, 2)}

# Of the scores that sentences tell: the name, the word and the unit.
_ALONE: Final = (("error", "error", " %"), ("log_loss", "log-loss", ""))

# By what samples are told from out of distribution.
OOD_SCORES: Final = {
    "max_probability": "highest probability",
    "entropy": "entropy",
    "expected_entropy": "members' own entropy",
    "mutual_information": "mutual information",
    "variation_ratio": "variation ratio",
}

MINUS: Final = "\N{MINUS SIGN}"


def plural(count: int, word: str) -> str:
    """So many of them, in words: "1 sample", "1,200 samples"."""
    return errors.plural(count, word, ",")


def member_title(name: str) -> str:
    """A member's name; of a snapshot's file, without what all of them end in."""
    return name.removesuffix(".safetensors")


def number(value: float, scale: float = 1, digits: int = 2) -> str:
    """The number times its scale, with so many digits after the point."""
    return f"{scale * value:.{digits}f}".replace("-", MINUS)


def score(name: str, row: Mapping[str, Any]) -> str:
    """A score in the unit of its heading; nothing where the row has none."""
    return number(row[name], *scale_of(name)) if name in row else ""


def scale_of(name: str) -> tuple[float, int]:
    """What a score is multiplied by, and its digits: errors are told in percent."""
    return _SCALES.get(name) or ((100, 2) if name.endswith("_error") else (1, 4))


def spread(found: Mapping[str, Any], scale: float, digits: int) -> str:
    """A mean over the seeds and its standard deviation, where there are several."""
    told = (found[name] for name in ("mean", "std") if found[name] is not None)
    return " ± ".join(number(value, scale, digits) for value in told)


def listed(words: Sequence[str]) -> str:
    """The words with commas between, and "and" before the last."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def seeds_of(results: Mapping[str, Any]) -> int:
    """Of how many seeds there are results; all but a comparison and a study are the first's."""
    seeds: int = (results.get("comparison") or {}).get("seeds", 1)
    return seeds


def choice_of(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was chosen of classes: as it was analyzed, or as it stands in a folder."""
    analysis: Mapping[str, Any] = results.get("analysis") or {}
    found = analysis.get("choice") or results.get("choice")
    return found if found and found["outputs"] == "probabilities" else None


def beside_last(part: Mapping[str, Any]) -> tuple[str, str]:
    """The last snapshot as it is to be compared with, in words, and the comparisons' field.

    Where something was fitted after pooling, that is the last one with the same fitted to it: what
    a temperature does for any model is no gain of the ensemble.
    """
    field = "comparisons_with_last_calibrated"
    if field not in part:
        return "the last snapshot alone", "comparisons"
    fitted = "variance" if "outputs" in part else "temperature"
    return f"the last snapshot alone with its own {fitted}", field


def last_title(part: Mapping[str, Any]) -> str:
    """The last member alone, with what was fitted to it, as a row's name."""
    if "last_calibrated" not in part:
        return "The last alone"
    return f"The last with its own {'variance' if 'outputs' in part else 'temperature'}"


def regression_choice_of(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was chosen of a regression: as it was analyzed, or as it stands in a folder."""
    part: Mapping[str, Any] = results.get("regression") or {}
    found = part.get("choice") or results.get("choice")
    return found if found and found["outputs"] != "probabilities" else None


def what_was_chosen(choice: Mapping[str, Any]) -> str:
    """The chosen members."""
    count = len(choice["members"])
    used = sum(member["weight"] > 0 for member in choice["members"])
    if count == 1:
        return "the only member"
    if choice["select"] == "last":
        if used == count:
            return f"the mean of all {count}"
        return "the last one alone" if used == 1 else f"the mean of the last {used}"
    if choice["select"] == "auto":
        return "one member alone" if used == 1 else f"a mean of {used}"
    least = {"mse": "mean squared error", "gaussian_nll": "negative log-likelihood"}
    how = f"of the least {least.get(choice['metric'], 'log-loss')}"
    how = "found greedily" if choice["select"] == "greedy" else how
    return f"a mean of {used} with the weights {how}"


def barrier(height: float | None) -> str:
    """The height of a barrier, of which None stands for one that is not finite."""
    return "not finite" if height is None else f"{height:.3g}"


def paragraphs(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say: of run and choice, uncertainty, weights, all seeds, passes."""
    seeds = seeds_of(results)
    return [
        of_first(" ".join(_background(results)), "The first seed", seeds),
        of_first(" ".join(_uncertainty_lead(results)), "The first seed", seeds),
        of_first(" ".join(_average_lead(results)), "The first seed", seeds),
        " ".join(_comparison_lead(results)),
        of_first(" ".join(_passes_lead(results)), "The first seed", seeds),
    ]


def _background(results: Mapping[str, Any]) -> Iterator[str]:
    """Where the members come from, and why they were chosen."""
    choice = choice_of(results)
    if "snapshots" in results:
        snapshots = results["snapshots"]
        yield (
            f"The folder holds {plural(len(snapshots), 'snapshot')}, the last of them after "
            f"{plural(snapshots[-1]['step'], 'update')}."
        )
    elif "run" in results:
        run = results["run"]
        steps = len(run["rate"]) if "rate" in run else run["updates"]
        snapshots = plural(len(run["cycle_ends"]), "snapshot")
        yield f"The run of {plural(steps, 'update')} left {snapshots}."
    if choice and "reason" in choice:
        yield f"Why: {choice['reason']}"
    if (results.get("analysis") or {}).get("chosen"):
        yield (
            "Members, weights and temperature come from the validation data alone; the scores "
            "come from data that had no part in the choice."
        )
    elif "snapshots" in results and not choice and regression_choice_of(results) is None:
        yield "No ensemble was chosen among them yet."


def _uncertainty_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """What is known of how sure the prediction is."""
    if "uncertainty" not in results:
        return
    part = results["uncertainty"]
    selective = part["selective"]
    row = selective["rows"][0]
    yield (
        f"Where the prediction is the surest, of {100 * selective['coverage']:.3g} % of all, "
        f"{number(row['risk_at_coverage'], 100)} % are wrong; an error rate of at most "
        f"{100 * selective['risk']:.3g} % can be kept for {number(row['coverage_at_risk'], 100)} % "
        "of all."
    )
    if part["members"] > 1 and part["entropy"] > 0:
        share = part["mutual_information"] / part["entropy"]
        yield (
            f"{number(share, 100, 0)} % of its entropy comes from members that differ; the rest "
            "each of them has by itself."
        )
    for sets in part.get("conformal", ())[:1]:
        yield (
            f"Sets of classes that promise to hold the true one in "
            f"{number(1 - sets['alpha'], 100, 0)} % of all cases held it in "
            f"{number(sets['coverage'], 100)} %, with {number(sets['size'])} classes on average."
        )
    if "ood" in part:
        best = max(part["ood"]["rows"], key=lambda row: row["auroc"])
        yield (
            f"{plural(part['ood']['samples'], 'sample')} from out of distribution "
            f"{'is' if part['ood']['samples'] == 1 else 'are'} told best by the "
            f"{OOD_SCORES.get(best['score'], best['score'])}, with an AUROC of "
            f"{number(best['auroc'], 100)} %."
        )


def _average_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """What averaged weights are worth."""
    if "average" not in results:
        return
    average = results["average"]
    count = plural(len(average["members"]), "member")
    if average["refused"] is not None:
        yield f"The weights of {count} were not averaged: {average['refused'].rstrip('.')}."
        return
    told = f"The mean of the weights of {count}, one model at the cost of one, has an error of "
    told += f"{score('error', average)} % and a log-loss of {score('log_loss', average)}"
    if ensemble := average.get("ensemble"):
        told += f"; their ensemble has {score('error', ensemble)} % and "
        told += score("log_loss", ensemble)
    yield f"{told}."
    yield from _better_alone(average, (results.get("analysis") or {}).get("members", ()))
    height = average.get("barrier")
    if "allowed" in average and (height is None or height > average["allowed"]):
        yield (
            "By default they would not be averaged: a barrier "
            f"{'that is' if height is None else 'of'} {barrier(height)} lies between "
            f"them, where {average['allowed']:.3g} is allowed."
        )


def _better_alone(
    average: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Which members alone are better than the mean of their weights."""
    own = [member for member in members if member["name"] in average["members"]]
    if len(own) < 2 or len(own) < len(average["members"]):
        return
    if all(average[name] > max(row[name] for row in own) for name, _, _ in _ALONE):
        yield "Each of them alone is better."
        if members[-1] in own:
            return
        own = []
    told: dict[str, str] = {}  # of the last member, where it is the best of them
    for who, rows in (("The best of them", own), ("The last member", members[-1:])):
        lower = [
            f"a lower {what} ({score(name, best)}{unit})"
            for name, what, unit in _ALONE
            for best in [min(rows, key=lambda row: row[name], default=average)]
            if best[name] < average[name]
        ]
        if lower:
            told[listed(lower)] = who
    for what, who in told.items():
        yield f"{who} alone has {what}."


def _passes_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """What a budget of passes costs."""
    budget = (choice_of(results) or {}).get("budget")
    if budget is None:
        return
    yield (
        f"For classes alone, a budget of {budget['asked']:g} members a sample was asked for. On "
        f"the validation data it takes {number(budget['passes'])}, with an error of "
        f"{score('error', budget)} %; exact classes take {number(budget['exact_passes'])}, with "
        f"{number(budget['exact_error'], 100)} %."
    )
    if budget["increase"] is not None:
        yield (
            f"By no more than {number(budget['increase'], 100)} percentage points does the error "
            "rise, with 95 % confidence."
        )
    if rows := (results.get("analysis") or {}).get("passes"):
        own, exact = row_of(rows, budget), rows[-1]
        yield (
            f"On the data that are reported here it takes {number(own['passes'])}, with "
            f"{score('error', own)} %, beside {number(exact['passes'])} with "
            f"{score('error', exact)} %."
        )


def row_of(rows: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of errors by care, the row of a budget."""
    return next(row for row in rows if row["care"] == budget["care"])


def _comparison_lead(results: Mapping[str, Any]) -> Iterator[str]:
    """Which of the models compared is best."""
    if rows := (results.get("comparison") or {}).get("rows"):
        names = ("test_error", "test_nll")
        # Of equal ones, that which is the best in the other score too.
        best = [
            min(rows, key=lambda row: [row[each]["mean"] for each in order])
            for order in (names, names[::-1])
        ]
        error = f"error ({spread(best[0]['test_error'], 100, 2)} %)"
        loss = f"log-loss ({spread(best[1]['test_nll'], 1, 4)})"
        other = "" if best[0] is best[1] else f"“{best[1]['model']}” has the least mean test "
        told = f"“{best[0]['model']}” has the least mean test {error} and {other}{loss}"
        yield f"Over {plural(seeds_of(results), 'seed')}, {told}."


def of_first(text: str, seed: str, several: int) -> str:
    """A text of the first seed alone, which says so where there are several."""
    return f"{seed}: {text[:1].lower()}{text[1:]}" if several > 1 and text else text


def figures_note(titles: Mapping[str, str], seeds: int) -> str:
    """Which figures, titles by name, are of the first seed alone, where there are several."""
    others = [f"“{title}”" for name, title in titles.items() if name == "study"]
    if seeds == 1 or len(others) == len(titles):
        return ""
    return f"All of the first seed{', but for' if others else ''} {listed(others)}".rstrip() + "."


def missing(results: Mapping[str, Any]) -> str:
    """What a report could also show, and where it comes from."""
    found = []
    if "run" not in results:
        found.append("the rate of the run (`cosanneal report FOLDER`, of its snapshots)")
    elif results["run"]["loss"] is None:
        found.append("the training loss (a results document takes it in its part `run`)")
    if "analysis" not in results and "regression" not in results:
        found.append(
            "the members' scores on test data, their correlation and reliability (`cosanneal "
            "evaluate --predictions 'test/*.npy' --labels y.npy --report page.html`, or "
            "`cosanneal.ensemble.analyze`)"
        )
    if "uncertainty" not in results and "regression" not in results:
        found.append(
            "how sure the prediction is (`cosanneal evaluate` too, or "
            "`cosanneal.ensemble.analyze_uncertainty`)"
        )
    if choice_of(results) is None and regression_choice_of(results) is None:
        found.append(
            "a choice of members (`--validation-predictions` and `--validation-labels` of "
            "`cosanneal evaluate`, or `fit` and `save` of a SnapshotEnsemble)"
        )
    if not results.get("interpolations"):
        found.append(
            "the loss between two members' weights (`barriers` of what `average_weights` returns, "
            "or `cosanneal.ensemble.interpolate`)"
        )
    if "average" not in results:
        found.append("averaged weights beside the ensemble (`cosanneal.ensemble.average_weights`)")
    if not found:
        return ""
    return (
        f"Not in this report: {'; '.join(found)}. "
        "`cosanneal.ensemble.write_results` writes all of it into one document, of which "
        "`cosanneal report results.json` makes a page."
    )
