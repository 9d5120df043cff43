"""Robust accuracy against ε and against the attack's steps (PGD), with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import curve, layer, whole
from advkit.analyses.drawing.style import GREY, ORANGE
from advkit.analyses.probing.probe import Probe
from advkit.analyses.probing.sweep import Point, Standing, half, parse_radii, parse_steps
from advkit.artifacts.document import aligned
from advkit.artifacts.result import Curve, Layer, Number, Panel, Result
from advkit.attacks import pgd
from advkit.errors import NumericalError, UsageError
from advkit.evaluation.audit import audited
from advkit.formulas.threat import Threat, require_step
from advkit.formulas.threat import step_size as parse_step
from advkit.runtime.counting import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMITS = {"steps": "[1, 1e5]", "restarts": "[1, 1e4]", "steps_grid": "[1, 1e5]"}
KINDS = ("checkpoint",)
PROBES = True
LIMIT = 1000
OVERLAY = True

Loss = Literal["scaled-ce", "ce"]


class Row(NamedTuple):
    """One point: its attack, who stands with the 95 % interval, and how likely its rise is."""

    sweep: str
    eps: float
    steps: int
    step_size: float
    accuracy: float
    low: float
    high: float
    nested_accuracy: float
    rise_p: float | None


def analyze(
    inputs: Sequence[Probe],
    *,
    steps: int = 20,
    step_size: str = "eps/4",
    restarts: int = 1,
    loss: Literal["scaled-ce", "ce"] = "scaled-ce",
    eps_grid: str = "0,eps/4,eps/2,eps,1.5*eps,2*eps,3*eps,4*eps,8*eps",
    steps_grid: str = "1,2,4,8,16,32,64",
) -> Result:
    """Attack one checkpoint with PGD over a grid of ε, then of steps at its own ε.

    Each point attacks every example that is right when clean, from random starts of its own, and
    an example stands unless one iterate is misclassified. Whoever falls at a small ε could count
    as fallen at every larger one; that would hide the very rises by which masked gradients show,
    so it is a second figure, `nested_accuracy`. A step size like eps/4 grows with ε; one in pixel
    space stays, and may then be too small for a large ball.

    Args:
        steps: gradient steps at every ε; the paper's are 100.
        step_size: in pixel space, or a share of the point's ε such as eps/4.
        restarts: random starts; the worst is kept for each example.
        loss: scaled-ce is cross-entropy of logits brought to one spread; ce the plain one that
            the paper's figure is of.
        eps_grid: ε, apart by commas: shares of the checkpoint's such as eps/4, or values like
            8/255.
        steps_grid: numbers of steps at the checkpoint's ε, apart by commas.

    Raises:
        UsageError: an impossible grid, or ε = 0.
        NumericalError: the model gives NaN or infinite logits.

    Source: ADR, appendix E and figure 6.
    """
    (probe,) = inputs
    if steps < 1 or restarts < 1:
        raise UsageError("--steps and --restarts must be at least 1")
    if probe.threat.eps == 0:
        raise UsageError("--eps 0 leaves nothing to sweep: give the ε to measure by")
    require_step(step_size, probe.threat.eps)
    radii = parse_radii(eps_grid, probe.threat, math.prod(probe.info["model"]["input_shape"]))
    counts = parse_steps(steps_grid)

    def point(sweep: str, eps: float, count: int) -> Point:
        # A ball of radius 0 is the image: no step, and whoever is right when clean stands.
        threat = Threat(probe.threat.norm, eps)
        return Point(sweep, threat, count if eps else 0, parse_step(step_size, eps))

    points = [point("eps", eps, steps) for eps in radii]
    points += [point("steps", probe.threat.eps, count) for count in counts]
    right, stands = _attacked(probe, points, restarts, loss)
    by_eps = Standing(points[: len(radii)], stands[: len(radii)])
    by_steps = Standing(points[len(radii) :], stands[len(radii) :])
    rows = _rows(by_eps) + _rows(by_steps)
    return Result(
        _numbers(probe, float(right.double().mean()), by_eps, by_steps),
        Row._fields,
        rows,
        _panels(probe, by_eps, by_steps, steps),
        _sketches(by_eps, by_steps, steps),
        text=_text(rows),
        overlay=_layers(probe, by_eps, by_steps, steps),
    )


def _attacked(
    probe: Probe, points: Sequence[Point], restarts: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Return who is right when clean, (N,) bool, and who stands at each point, (points, N)."""
    n = len(probe.positions)
    right = torch.zeros(n, dtype=torch.bool)
    stands = torch.zeros(len(points), n, dtype=torch.bool)
    probe.reporter.begin("attacking", n * len(points))
    for x, y, rows in probe.batches():
        right[rows] = _right(probe, x, y)
        # Whoever is wrong when clean has fallen already: attacks spend no step on them.
        chosen = right[rows]
        x, y, rows = x[chosen.to(x.device)], y[chosen.to(y.device)], rows[chosen]
        for place, point in enumerate(points):
            if len(rows):
                what = f"eps {point.threat.eps:.4g}, {point.steps} steps,"
                with counted([probe.model], what, probe.reporter):
                    stands[place, rows] = _stand(probe, point, x, y, int(rows[0]), restarts, loss)
            probe.reporter.advance(len(chosen))
    probe.reporter.end()
    return right, stands


def _stand(
    probe: Probe, point: Point, x: Tensor, y: Tensor, first: int, restarts: int, loss: Loss
) -> Tensor:
    if point.threat.eps == 0:
        return torch.ones(len(x), dtype=torch.bool)
    # The stream's name holds all that tells a point apart: a finer grid leaves the others as is.
    name = ("sweep", point.sweep, repr(point.threat.eps), point.steps, first)
    x_adv = pgd.attack(
        probe.model,
        x,
        y,
        point.threat,
        generator=probe.generator(*name),
        steps=point.steps,
        step_size=repr(point.size),
        restarts=restarts,
        loss=loss,
    )
    audited(x_adv, x, point.threat, "pgd")  # a verdict never trusts the attack
    return _right(probe, x_adv, y)


def _right(probe: Probe, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = probe.model(x)
    if not bool(torch.isfinite(logits).all()):
        raise NumericalError(f"{probe.path}: the model gives NaN or infinite logits")
    right: Tensor = (logits.argmax(1) == y).cpu()
    return right


def _rows(swept: Standing) -> tuple[Row, ...]:
    return tuple(
        Row(point.sweep, point.threat.eps, point.steps, point.size, accuracy, *interval, nested, p)
        for point, accuracy, interval, nested, p in zip(
            swept.points, swept.accuracy, swept.intervals, swept.nested, swept.rises, strict=True
        )
    )


def _text(rows: Sequence[Row]) -> str:
    """Return the rows as text; rises only where accuracy rose."""
    width = len(Row._fields) - all(row.rise_p is None for row in rows)
    lines = [
        (row.sweep, f"{row.eps:.4g}", row.steps, f"{row.step_size:.4g}", *row[4:]) for row in rows
    ]
    return aligned([line[:width] for line in (Row._fields, *lines)])


def _numbers(probe: Probe, clean: float, by_eps: Standing, by_steps: Standing) -> dict[str, Number]:
    radii = [point.threat.eps for point in by_eps.points]
    own = radii.index(probe.threat.eps) if probe.threat.eps in radii else None
    return {
        "n": len(probe.positions),
        "norm": probe.threat.norm,
        "eps": probe.threat.eps,
        "clean_accuracy": clean,
        "robust_accuracy": None if own is None else by_eps.accuracy[own],
        "largest_eps": radii[-1],
        "accuracy_at_largest_eps": by_eps.accuracy[-1],
        "eps_half": half(radii, by_eps.accuracy, clean),
        "monotone_eps": by_eps.monotone,
        "most_steps": by_steps.points[-1].steps,
        "accuracy_at_most_steps": by_steps.accuracy[-1],
        "monotone_steps": by_steps.monotone,
    }


def _panels(probe: Probe, by_eps: Standing, by_steps: Standing, steps: int) -> tuple[Panel, Panel]:
    norm, eps = probe.threat.norm, probe.threat.eps
    scale, unit = _unit(probe.threat)
    radii = [point.threat.eps * scale for point in by_eps.points]
    counts = [point.steps for point in by_steps.points]
    name, own = f"PGD-{steps}", f"ε = {eps * scale:.4g}" + ("/255" if scale > 1 else "")
    first = curve(
        radii,
        {name: by_eps.accuracy},
        xlabel=f"{norm} radius ε ({unit})",
        ylabel="robust accuracy",
        percent=True,
        intervals={name: by_eps.intervals},
    )
    second = curve(
        counts,
        {"PGD": by_steps.accuracy},
        xlabel="steps of PGD (count)",
        ylabel="robust accuracy",
        percent=True,
        title=own,
        logx=True,
        intervals={"PGD": by_steps.intervals},
    )
    return (
        _panel(first, radii, by_eps, "and at every smaller ε", (own, eps * scale)),
        _panel(second, counts, by_steps, "and by fewer steps"),
    )


def _layers(probe: Probe, by_eps: Standing, by_steps: Standing, steps: int) -> tuple[Layer, Layer]:
    """Return the same two curves for panels of several nets."""
    scale, unit = _unit(probe.threat)
    own = f"ε = {probe.threat.eps * scale:.4g}" + ("/255" if scale > 1 else "")
    return (
        layer(
            [point.threat.eps * scale for point in by_eps.points],
            by_eps.accuracy,
            xlabel=f"{probe.threat.norm} radius ε ({unit})",
            ylabel="robust accuracy",
            title=f"PGD-{steps}",
            percent=True,
            intervals=by_eps.intervals,
        ),
        layer(
            [point.steps for point in by_steps.points],
            by_steps.accuracy,
            xlabel="steps of PGD (count)",
            ylabel="robust accuracy",
            title=own,
            logx=True,
            percent=True,
            intervals=by_steps.intervals,
        ),
    )


def _unit(threat: Threat) -> tuple[float, str]:
    """Return how to write ε: in 1/255 where it is a whole number of those."""
    levels = threat.eps * 255
    whole = threat.norm == "linf" and abs(levels - round(levels)) < 1e-6
    return (255.0, "1/255") if whole else (1.0, "pixels in [0, 1]")


def _panel(
    draw_curve: Panel,
    x: Sequence[float],
    swept: Standing,
    nested: str,
    mark: tuple[str, float] | None = None,
) -> Panel:
    """Return the curve over an accuracy's whole range, with nested verdicts where they differ."""

    def draw(axes: Axes) -> None:
        draw_curve(axes)
        whole(axes, "y")
        if swept.nested != swept.accuracy:
            axes.plot(x, swept.nested, color=ORANGE, linewidth=1, linestyle="--", label=nested)
        if mark is not None:
            axes.axvline(mark[1], color=GREY, linewidth=0.9, linestyle=":", label=mark[0])

    return draw


def _sketches(by_eps: Standing, by_steps: Standing, steps: int) -> tuple[Curve, Curve]:
    name, radii = f"PGD-{steps} by ε", tuple(point.threat.eps for point in by_eps.points)
    counts = tuple(point.steps for point in by_steps.points)
    return (
        Curve(name, radii, {name: tuple(by_eps.accuracy)}),
        Curve("PGD by steps", counts, {"PGD by steps": tuple(by_steps.accuracy)}),
    )
