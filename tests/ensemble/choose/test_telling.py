"""A choice, printed: what it says, and that it fits into a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cosanneal.ensemble import Choice, fit, fit_regression
from cosanneal.ensemble.choose.choice import warn_of_few

pytestmark = pytest.mark.filterwarnings("ignore:The ensemble was chosen on")


def chosen(members: int = 5, **options: Any) -> Choice:
    """A choice of late members, with a finding."""
    random = np.random.default_rng(0)
    y = random.integers(3, size=300)
    noise = np.linspace(12, 2, members)[:, None, None]
    p = np.exp(2 * np.eye(3)[y] + noise * random.normal(size=(members, 300, 3)))
    names = [f"cycle-{i:04}-step-{1000 * i:010}.safetensors" for i in range(members)]
    return fit(p / p.sum(-1, keepdims=True), y, names=names, **options)


def test_a_choice_is_told_in_lines_that_a_terminal_shows() -> None:
    choice = chosen(select="auto")
    lines = str(choice).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == (
        f"Chosen: {sum(w > 0 for w in choice.weights)} of 5 members "
        '(select="auto"), by log-loss on 300 validation samples'
    )
    used = {
        name.removesuffix(".safetensors"): f"{weight:.3f}"
        for name, weight in zip(choice.members, choice.weights, strict=True)
        if weight
    }
    assert dict(re.findall(r"^  (cycle-\S+)  (\S+)$", str(choice), re.MULTILINE)) == used
    text = " ".join(str(choice).split())
    assert f"temperature {choice.temperature:.4g}" in text
    assert f"log-loss {choice.candidates[-1].scores['log_loss']:.4g}" in text
    assert f"error rate {100 * choice.candidates[-1].scores['error']:.2f} %" in text
    assert "{:+.4g} to {:+.4g} log-loss".format(*choice.interval) in text
    assert choice.reason is not None
    assert choice.reason in text
    assert choice.findings
    assert all(f"- {finding.text}" in text for finding in choice.findings)


def test_of_many_members_those_of_the_greatest_weights_are_listed() -> None:
    choice = chosen(30)
    weights = np.arange(1, 31) / np.arange(1, 31).sum()
    text = str(replace(choice, weights=tuple(weights.tolist())))
    listed = re.findall(r"^  cycle-(\d{4})", text, re.MULTILINE)
    assert listed == [f"{i:04}" for i in range(18, 30)]
    assert "\n  and 18 more\n" in text


def test_nothing_is_said_of_what_is_not_there() -> None:
    choice = replace(chosen(1, temperature=False), findings=())
    assert "temperature" not in str(choice)
    assert "Found" not in str(choice)
    assert "1 of 1 member (" in str(choice)


def test_a_regression_is_told_with_its_variance() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=(300, 2))
    choice = fit_regression(y + random.normal(size=(3, 300, 2)), y)
    assert choice.noise is not None
    text = " ".join(str(choice).split())
    assert f"{choice.noise[0]:.4g}, {choice.noise[1]:.4g}" in text
    assert f"mean squared error {choice.candidates[-1].scores['mse']:.4g}" in text
    pairs = [(y + random.normal(size=y.shape), np.full(y.shape, 4.0)) for _ in range(3)]
    of_pairs = fit_regression(pairs, y, outputs="gaussian")
    assert f"variance: {of_pairs.variance_scale:.3g} times the members'" in str(of_pairs)
    assert max(map(len, str(of_pairs).splitlines())) <= 80


@pytest.mark.parametrize(
    ("interval", "warned", "stands"),
    [
        ((-0.056, -0.015), "there it is better, but by how much is not sure", "better than"),
        ((0.015, 0.056), "there it is worse. Take the mean of all members", "worse than"),
        ((-0.126, 0.0065), "it does not tell the two apart", "not told apart from"),
        ((0.0, 0.0), "it predicts there as the mean of all members does", "the same log-loss as"),
    ],
)
def test_what_follows_from_an_interval_is_said(
    interval: tuple[float, float], warned: str, stands: str
) -> None:
    choice = replace(chosen(), interval=interval)
    with pytest.warns(UserWarning, match=warned):
        warn_of_few(choice, "log-loss")
    assert f"  {stands} the plain mean of all" in str(choice)


def test_a_notebook_shows_what_print_shows() -> None:
    class Printer:
        shown = ""

        def text(self, text: str) -> None:
            self.shown += text

    choice, printer = chosen(), Printer()
    choice._repr_pretty_(printer, False)
    assert printer.shown == str(choice)
