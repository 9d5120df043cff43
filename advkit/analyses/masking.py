"""Gradient masking: ten named checks of a checkpoint, each with its figure, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from advkit import models
from advkit.analyses.drawing.panels import forest, in_percent, whole
from advkit.analyses.drawing.style import AMBER, BLUE, GREY, ORANGE, PANEL
from advkit.analyses.probing.battery import Measured, Plan, measure
from advkit.analyses.probing.checks import Check, judge
from advkit.analyses.probing.probe import Probe
from advkit.artifacts.document import aligned
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import MismatchError, UsageError
from advkit.formulas.stats import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

KINDS = ("checkpoint",)
PROBES = True
LIMIT = 500
LIMITS = {
    "steps": "[1, 1e5]",
    "more_steps": "[1, 1e5]",
    "queries": "[1, 1e7]",
    "points": "[1, 1e6]",
}
CHECKPOINTS = ("surrogate",)
WORDS = {
    "fail_on": (
        "any",
        "iterative-beats-one-step",
        "white-box-beats-black-box",
        "large-eps-reaches-zero",
        "more-steps-never-help",
        "success-grows-with-eps",
        "random-search-finds-nothing",
        "gradients-present",
        "gradient-honest",
        "logit-scale",
        "deterministic-forward",
    )
}
_ATTACKS = {
    "clean": "no attack",
    "fgsm": "FGSM",
    "pgd": "PGD-{steps}",
    "pgd_more": "PGD-{more_steps}",
    "margin": "PGD-{more_steps}, margin",
    "plain": "PGD-{more_steps}, plain CE",
    "random": "{points} random points",
    "square": "Square-{queries}",
    "transfer": "transfer",
    "half_eps": "PGD-{steps}, \N{GREEK SMALL LETTER EPSILON}/2",
    "double_eps": "PGD-{steps}, 2\N{GREEK SMALL LETTER EPSILON}",
    "four_eps": "PGD-{steps}, 4\N{GREEK SMALL LETTER EPSILON}",
    "large_eps": "PGD, large \N{GREEK SMALL LETTER EPSILON}",
}
"""What a model may be attacked with, in order, and how the picture calls it."""


class _State(NamedTuple):
    """How a picture shows a verdict: no two alike in shape, nor in colour."""

    words: str
    colour: str
    marker: str
    filled: bool


_STATES = {
    "passed": _State("passed", BLUE, "o", True),
    "over": _State(
        "passed, though over the threshold:\nchance, or no robustness to feign", AMBER, "^", False
    ),
    "failed": _State("failed", ORANGE, "X", True),
    "open": _State("not judged", GREY, "s", False),
}
_COLUMNS = ("check", "passed", "figure", "threshold", "reason")
_WORD = {True: "passed", False: "FAILED", None: "not judged"}


def analyze(
    inputs: Sequence[Probe],
    *,
    steps: int = 10,
    more_steps: int = 100,
    queries: int = 500,
    points: int = 100,
    surrogate: str | None = None,
    fail_on: str | None = None,
) -> Result:
    """Attack one model in several ways and judge whether its gradients can be trusted.

    Args:
        steps: of the short PGD; both have step size 2.5·ε/steps.
        more_steps: of the long PGD, also with the margin and with plain cross-entropy.
        queries: of Square, which is to find nothing that gradients missed.
        points: random points of the ball, in turn inside and on its surface.
        surrogate: checkpoint that transfers its adversarial images, a second black box.
        fail_on: any, or names of checks apart by commas; exit 8 if one of them fails.

    Raises:
        UsageError: ε is 0, more steps are not more, or a check has no such name.
        MismatchError: the surrogate has other classes or another input.

    Source: Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security",
    ICML 2018, section 3.1; Carlini et al., "On evaluating adversarial robustness", 2019; Croce
    and Hein, ICML 2020, on the scale of logits; ADR, appendix E; LTD, section 4.3.
    """
    (probe,) = inputs
    if probe.threat.eps == 0:
        raise UsageError("masking needs an eps above 0")
    if more_steps <= steps:
        raise UsageError(f"--more-steps {more_steps} must be more than --steps {steps}")
    wanted = wanted_checks(fail_on)
    net = _surrogate(probe, surrogate) if surrogate else None
    plan = Plan(steps, more_steps, queries, points, net)
    measured = measure(probe, plan)
    checks = judge(measured, plan)
    _say(probe, checks, wanted)
    failed = [check.name for check in checks if check.passed is False]
    masked = [name for name in failed if name in wanted]
    return Result(
        _numbers(measured, checks),
        _COLUMNS,
        tuple((c.name, c.passed, c.figure, c.threshold, c.reason) for c in checks),
        (_accuracies(measured, plan), _Table(checks)),
        text=_text(checks),
        verdict=f"{probe.path}: gradients are masked: {', '.join(masked)}" if masked else "",
    )


def wanted_checks(fail_on: str | None) -> tuple[str, ...]:
    """Return the names of the checks that `--fail-on` means.

    Raises:
        UsageError: there is no such check.
    """
    known = WORDS["fail_on"]
    words = tuple(word.strip() for word in fail_on.split(",")) if fail_on is not None else ()
    for word in words:
        if word not in known:
            raise UsageError(f"--fail-on {word!r}: one of {', '.join(known)}")
    return known[1:] if "any" in words else words


def _surrogate(probe: Probe, path: str) -> nn.Module:
    model, info = models.load(path, probe.device)
    for what, mine, its in (
        ("classes", probe.info["data"]["classes"], info["data"]["classes"]),
        ("input shape", probe.info["model"]["input_shape"], info["model"]["input_shape"]),
    ):
        if list(mine) != list(its):
            raise MismatchError(f"{path}: the surrogate's {what} differ from the model's")
    return model


def _say(probe: Probe, checks: Sequence[Check], wanted: Sequence[str]) -> None:
    """Say which verdicts that were asked for could not be given: they do not count as failed."""
    for check in checks:
        if check.name in wanted and check.passed is None:
            probe.reporter.warn(f"--fail-on {check.name}: not judged: {check.reason}")


def _numbers(measured: Measured, checks: Sequence[Check]) -> dict[str, Number]:
    failed = [check.name for check in checks if check.passed is False]
    masks = {name: measured.standing.get(name) for name in _ATTACKS}
    return {
        "masked": bool(failed),
        "masked_at_one_spread": any(name != "logit-scale" for name in failed),
        "failed": ",".join(failed),
        "not_judged": ",".join(check.name for check in checks if check.passed is None),
        "n": measured.n,
        **{
            f"{k}_accuracy": None if m is None else int(m.sum()) / measured.n
            for k, m in masks.items()
        },
        "zero_gradient": int(measured.flat.sum()) / measured.n,
        "saturated_softmax": measured.saturated / measured.n,
        "median_logit_gap": measured.gap,
        "forward_change": measured.unsteady,
    }


def _text(checks: Sequence[Check]) -> str:
    lines = [
        (c.name, _WORD[c.passed], _shown(c.figure), _shown(c.threshold), c.reason) for c in checks
    ]
    return aligned([("check", "verdict", "figure", "threshold", "reason"), *lines])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _accuracies(measured: Measured, plan: Plan) -> Panel:
    """Return the accuracies after each attack, with 95 % Wilson intervals."""
    names = [name for name in _ATTACKS if name in measured.standing]
    hits = [int(measured.standing[name].sum()) for name in names]
    points = [(hit / measured.n, wilson(hit, measured.n)) for hit in hits]
    labels = [_ATTACKS[name].format(**vars(plan)) for name in names]
    # matplotlib leaves a series whose name begins with _ out of the legend.
    draw = forest(labels, {"_": points}, xlabel="")

    def panel(axes: Axes) -> None:
        draw(axes)
        whole(axes, "x")
        in_percent(axes, "x", "accuracy, 95 % interval")
        axes.set_title(f"right answers of {measured.n}")

    return panel


class _Table:
    """The checks as a list: the name, a mark, the figure and its threshold; below the marks."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = checks
        self.inches = max(PANEL[1], 0.2 * (len(checks) + len(_STATES)) + 0.8)

    def __call__(self, axes: Axes) -> None:
        """Draw it."""
        for row, check in enumerate(self.checks):
            _mark(axes, row, _STATES[state(check)])
            figure = f"{_shown(check.figure)} ({_shown(check.threshold)})"
            axes.text(0.12, row, figure, va="center", fontsize=7.5)
        names = [check.name for check in self.checks]
        axes.set_yticks(range(len(names)), names, fontsize=7.5)
        for label, check in zip(axes.get_yticklabels(), self.checks, strict=True):
            label.set_fontweight("bold" if check.passed is False else "normal")
        axes.set(xlim=(-0.05, 1), ylim=(len(names) - 0.4, -0.6), xticks=[])
        axes.tick_params(left=False)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        masked = any(check.passed is False for check in self.checks)
        unknown = sum(check.passed is None for check in self.checks)
        left = f", {unknown} of {len(names)} not judged" if unknown and not masked else ""
        axes.set_title(f"gradients {'' if masked else 'not '}masked{left}: figure (threshold)")
        handles = [_mark(axes, None, own) for own in _STATES.values()]
        words = [own.words for own in _STATES.values()]
        axes.legend(handles, words, loc="upper center", bbox_to_anchor=(0.2, 0.0), fontsize=7.5)


def state(check: Check) -> str:
    """Return how a picture shows a check: `passed`, `over`, `failed` or `open`.

    `over`: it passed, though its figure is over the threshold: chance allows as much, or there is
    no robustness that could be feigned.
    """
    if check.passed is None:
        return "open"
    if not check.passed:
        return "failed"
    figure, threshold = check.figure, check.threshold
    return "passed" if figure is None or figure <= threshold else "over"


def _mark(axes: Axes, row: int | None, own: _State) -> PathCollection:
    """Draw a state's mark in a row, or nowhere, for a legend."""
    return axes.scatter(
        [] if row is None else [0],
        [] if row is None else [row],
        marker=own.marker,
        facecolors=own.colour if own.filled else "none",
        edgecolors=own.colour,
        s=30,
        clip_on=False,
    )
