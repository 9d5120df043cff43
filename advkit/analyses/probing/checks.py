"""The masking checks: each a figure, a threshold, and what the two mean.

A check fails where its figure exceeds its threshold by more than chance allows: an honest model
that sits exactly on the threshold is failed with probability ALPHA at most. A dozen such
comparisons then raise a false alarm in about 1 % of runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from advkit.analyses.probing.battery import BLACK_BOX, GROWING, WHITE_BOX, Measured, Plan
from advkit.formulas.stats import tail

ALPHA = 0.001
FORWARD_CHANGE = 1e-4
"""Relative change of the logits that makes a forward pass random: the AutoAttack authors' bound."""
THRESHOLDS = {
    "iterative-beats-one-step": 0.01,
    "white-box-beats-black-box": 0.01,
    "large-eps-reaches-zero": 0.01,
    "more-steps-never-help": 0.01,
    "success-grows-with-eps": 0.01,
    "random-search-finds-nothing": 0.01,
    "gradients-present": 0.01,
    "gradient-honest": 0.1,
    "logit-scale": 0.2,
    "deterministic-forward": FORWARD_CHANGE,
}
"""What a check lets pass: a share of the examples, for `gradient-honest` of those that have a
gradient, for `logit-scale` of those that stand plain cross-entropy; the last is a relative change.
"""
FALL = 0.05
"""Accuracy that more steps may take away before the short attack counts as unconverged."""
BROKEN = 0.05
"""Accuracy under white-box attacks up to which a net shows no robustness that could be feigned."""


@dataclass(frozen=True)
class Check:
    """One verdict: `passed` is None where it could not be judged; `reason` says why it is so."""

    name: str
    passed: bool | None
    figure: float | None
    threshold: float
    reason: str


def beyond(count: int, n: int, threshold: float) -> bool:
    """Whether count of n is more than a true share of `threshold` explains at level ALPHA."""
    return tail(count, n, threshold) < ALPHA


def exceeds(gained: int, lost: int, n: int, threshold: float) -> bool:
    """Whether paired outcomes of n examples differ by more than a threshold and chance.

    Both must hold: the exact McNemar test (one-sided) of `gained` against `lost`, and the net
    gain against the threshold.

    Source: McNemar, "Note on the sampling error of the difference between correlated
    proportions", Psychometrika 1947.
    """
    return tail(gained, gained + lost, 0.5) < ALPHA and beyond(gained - lost, n, threshold)


def judge(measured: Measured, plan: Plan) -> list[Check]:
    """Return every check, in the order in which they are shown."""
    return [_judged(name, check, measured, plan) for name, check in _CHECKS.items()]


def _judged(name: str, check: _Judge, measured: Measured, plan: Plan) -> Check:
    threshold = THRESHOLDS[name]
    # Paired outcomes are tossed like a coin: so few that all one way is still chance say nothing.
    least = max(threshold, 0.5) if name in _PAIRED else threshold
    if name != "deterministic-forward" and not beyond(measured.n, measured.n, least):
        reason = f"{measured.n} examples are too few to tell from chance"
    elif name in _ATTACKING and not bool(measured.standing["clean"].any()):
        reason = "no example is right without an attack: there is nothing to break"
    elif name in _ATTACKING and measured.answers == 1:
        reason = "the model gives every image the same class: there is no other to be pushed to"
    elif name in _ABOUT_ROBUSTNESS and _broken(measured):
        left = _mean(measured.together(WHITE_BOX))
        reason = f"gradient attacks leave {left:.1%} right: there is no robustness to be feigned"
        return Check(name, True, check(name, measured, plan).figure, threshold, reason)
    else:
        return check(name, measured, plan)
    return Check(name, None, None, threshold, reason)


def _broken(measured: Measured) -> bool:
    """Whether gradient attacks break a net that was right without them."""
    left = _mean(measured.together(WHITE_BOX))
    return bool(measured.standing["clean"].any()) and left <= BROKEN


def _iterative(name: str, measured: Measured, plan: Plan) -> Check:
    one, many = measured.standing["fgsm"], measured.standing["pgd"]
    return _verdict(
        name,
        exceeds(*_changes(one, many), measured.n, THRESHOLDS[name]),
        _mean(many) - _mean(one),
        f"FGSM breaks more than PGD-{plan.steps}: following the gradient further leads astray",
        f"PGD-{plan.steps} breaks what FGSM breaks, but for chance",
    )


def _black_box(name: str, measured: Measured, plan: Plan) -> Check:
    ran = tuple(attack for attack in BLACK_BOX if attack in measured.standing)
    alone = measured.together(WHITE_BOX) & ~measured.together(ran)
    who = " and ".join(ran).replace("square", f"Square ({plan.queries} queries)")
    return _by_share(
        name,
        alone,
        f"{who} broke examples that every gradient attack left standing",
        f"{who} found next to nothing that gradient attacks missed",
    )


def _large(name: str, measured: Measured, plan: Plan) -> Check:
    return _by_share(
        name,
        measured.standing["large_eps"],
        "with every image in reach some stay right: the attack cannot move",
        "with every image in reach PGD breaks all",
    )


def _steps(name: str, measured: Measured, plan: Plan) -> Check:
    few, many = measured.standing["pgd"], measured.standing["pgd_more"]
    change = _mean(many) - _mean(few)
    gained, lost = _changes(few, many)
    short, long = f"PGD-{plan.steps}", f"PGD-{plan.more_steps}"
    if exceeds(gained, lost, measured.n, THRESHOLDS[name]):
        reason = f"{long} breaks less than {short}: more steps help the defender"
        return Check(name, False, change, THRESHOLDS[name], reason)
    if exceeds(lost, gained, measured.n, FALL):
        reason = f"{long} breaks far more: {short} has not converged and overstates robustness"
        return Check(name, False, change, -FALL, reason)
    return Check(name, True, change, THRESHOLDS[name], f"{long} and {short} agree")


def _random(name: str, measured: Measured, plan: Plan) -> Check:
    alone = measured.together(WHITE_BOX) & ~measured.standing["random"]
    return _by_share(
        name,
        alone,
        f"{plan.points} random points broke examples that every gradient attack left standing",
        f"{plan.points} random points found next to nothing that gradient attacks missed",
    )


def _present(name: str, measured: Measured, plan: Plan) -> Check:
    return _by_share(
        name,
        measured.flat,
        "too many examples have a zero or non-finite gradient: the attack stands still there",
        "next to every example has a gradient to follow",
    )


def _honest(name: str, measured: Measured, plan: Plan) -> Check:
    threshold, compared = THRESHOLDS[name], int(measured.compared.sum())
    if measured.unsteady > FORWARD_CHANGE:
        return Check(name, None, None, threshold, "the forward pass is random: nothing to compare")
    if not beyond(compared, compared, threshold):
        reason = f"{compared} examples have a gradient: too few to compare"
        return Check(name, None, None, threshold, reason)
    off = int(measured.crooked.sum())
    return _verdict(
        name,
        beyond(off, compared, threshold),
        off / compared,
        "a small step along the gradient does not change the loss as the gradient says",
        "a small step along the gradient changes the loss as it says",
    )


def _grows(name: str, measured: Measured, plan: Plan) -> Check:
    """Compare each ball with the next larger one."""
    radii = list(GROWING)
    masks = [measured.standing[radius] for radius in radii]
    rises = [_changes(few, many) for few, many in itertools.pairwise(masks)]
    steepest = max(range(len(rises)), key=lambda k: rises[k][0] - rises[k][1])
    figure = (rises[steepest][0] - rises[steepest][1]) / measured.n
    small, wide = (f"{GROWING[radii[steepest + k]]:g} eps" for k in (0, 1))
    return _verdict(
        name,
        any(exceeds(*rise, measured.n, THRESHOLDS[name]) for rise in rises),
        figure,
        f"PGD-{plan.steps} breaks less at {wide} than at {small}, which lies inside",
        f"PGD-{plan.steps} breaks no less in a larger ball",
    )


def _scale(name: str, measured: Measured, plan: Plan) -> Check:
    plain, scaled = measured.standing["plain"], measured.standing["pgd_more"]
    more, less = _changes(scaled, plain)
    stand = max(1, int(plain.sum()))
    return _verdict(
        name,
        exceeds(more, less, stand, THRESHOLDS[name]),
        (more - less) / stand,
        f"plain cross-entropy leaves {_mean(plain):.1%} right, at one spread of the logits "
        f"{_mean(scaled):.1%}: their scale hides the gradient from it",
        "plain cross-entropy and that at one spread of the logits agree well enough",
    )


def _steady(name: str, measured: Measured, plan: Plan) -> Check:
    return _verdict(
        name,
        measured.unsteady > FORWARD_CHANGE,
        measured.unsteady,
        "the same images give other logits each time: attacks must average over the randomness",
        "the same images give the same logits",
    )


def _by_share(name: str, mask: Tensor, masked: str, honest: str) -> Check:
    """Judge by the share of the examples in a mask (n,)."""
    failed = beyond(int(mask.sum()), len(mask), THRESHOLDS[name])
    return _verdict(name, failed, _mean(mask), masked, honest)


def _verdict(name: str, failed: bool, figure: float, masked: str, honest: str) -> Check:
    return Check(name, not failed, figure, THRESHOLDS[name], masked if failed else honest)


def _changes(before: Tensor, after: Tensor) -> tuple[int, int]:
    """Return how many stand only `after`, and how many only `before`."""
    return int((after & ~before).sum()), int((before & ~after).sum())


def _mean(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)


_Judge = Callable[[str, Measured, Plan], Check]
_CHECKS: dict[str, _Judge] = {
    "iterative-beats-one-step": _iterative,
    "white-box-beats-black-box": _black_box,
    "large-eps-reaches-zero": _large,
    "more-steps-never-help": _steps,
    "success-grows-with-eps": _grows,
    "random-search-finds-nothing": _random,
    "gradients-present": _present,
    "gradient-honest": _honest,
    "logit-scale": _scale,
    "deterministic-forward": _steady,
}
_ATTACKING = {*_CHECKS} - {"gradients-present", "gradient-honest", "deterministic-forward"}
_ABOUT_ROBUSTNESS = {*_CHECKS} - {"logit-scale", "deterministic-forward"}
_PAIRED = {
    "iterative-beats-one-step",
    "more-steps-never-help",
    "success-grows-with-eps",
    "logit-scale",
}
