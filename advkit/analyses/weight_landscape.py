"""Loss along random filter-normalised directions in weight space, clean and under attack."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.probing.landscape import band, direction, grid, moved, spread
from advkit.analyses.probing.probe import Probe
from advkit.artifacts.result import Curve, Layer, Number, Panel, Result
from advkit.attacks.pgd import pgd
from advkit.errors import NumericalError
from advkit.formulas.losses import cross_entropy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("checkpoint",)
PROBES = True
LIMIT = 1000
OVERLAY = True
LIMITS = {
    "directions": "[1, 1e4]",
    "points": "[3, 1000]",
    "reach": "(0, 1000]",
    "attack_steps": "[1, 1e5]",
}

_MEASURES = ("adversarial_loss", "clean_loss", "adversarial_accuracy", "clean_accuracy")
_COLUMNS = ("direction", "alpha", *_MEASURES)
_CONDITIONS = ("clean", "adversarial")
_XLABEL = "step α along a direction (filter lengths)"


def analyze(
    inputs: Sequence[Probe],
    *,
    directions: int = 3,
    points: int = 21,
    reach: float = 1.0,
    attack_steps: int = 10,
) -> Result:
    """Measure the mean cross-entropy at w + α·d, with adversarial examples found anew there.

    The attack is PGD of step ε/4 whose last iterate counts, from the same random start at every
    point, so that points differ by their weights alone. The hard label is the truth, whatever
    the net was trained on. The net is in eval mode and the statistics of batch normalisation stay
    those of w. `..._mean_rise` is the mean of ℓ(α) − ℓ(0) over |α| ≤ reach (trapezoids), less
    being flatter, with its sample standard deviation over directions; `..._rise_half` and
    `..._rise_full` are the rise at ±reach/2 (linear between points) and at ±reach.

    Args:
        directions: random directions; the same for every net of an architecture and a seed.
        points: values of α, an odd number.
        reach: greatest |α|; at 1 each filter of d is as long as the net's own.
        attack_steps: steps of PGD at each point.

    Raises:
        UsageError: an even number of points.
        NumericalError: the loss is not finite somewhere.

    Source: ADR, section 5.5 and figure 4; Wu et al., "Adversarial Weight Perturbation
    Helps Robust Generalization", NeurIPS 2020, section 3.
    """
    alphas = grid(reach, points)
    (probe,) = inputs
    measured = _measured(probe, directions, alphas, attack_steps)
    for k, place in (~torch.isfinite(measured).all(2)).nonzero().tolist():
        raise NumericalError(
            f"{probe.path}: the loss is not finite at alpha {alphas[place]:g} of direction {k}: "
            "try a smaller --reach"
        )
    losses = {name: measured[:, :, _MEASURES.index(f"{name}_loss")] for name in _CONDITIONS}
    rises = {name: loss - loss[:, points // 2, None] for name, loss in losses.items()}
    rows = [
        (k, alpha, *measured[k, place].tolist())
        for k in range(directions)
        for place, alpha in enumerate(alphas)
    ]
    groups = [{"direction": k, **_risen(rises, [k])} for k in range(directions)]
    numbers: dict[str, Number] = {"n": len(probe.positions)}
    numbers |= dict(zip(_MEASURES, measured[0, points // 2].tolist(), strict=True))
    numbers |= _risen(rises, range(directions))
    for name in _CONDITIONS:
        own = [float(group[f"{name}_mean_rise"]) for group in groups]
        numbers[f"{name}_mean_rise_sd"] = statistics.stdev(own) if directions > 1 else None
    means = {name: tuple(loss.mean(0).tolist()) for name, loss in losses.items()}
    steps = f"PGD-{attack_steps}"
    return Result(
        numbers,
        _COLUMNS,
        tuple(rows),
        (_panel(alphas, losses, steps),),
        (Curve("loss", alphas, dict(means)),),
        groups=tuple(groups),
        overlay=(
            _layer(alphas, losses["adversarial"], "cross-entropy (nats)", steps),
            _layer(alphas, rises["adversarial"], "rise over α = 0 (nats)", steps),
        ),
        together=True,
    )


def _measured(probe: Probe, directions: int, alphas: Sequence[float], steps: int) -> Tensor:
    """Return the mean of each of `MEASURES`, (directions, points, 4) float64.

    A batch visits all points before the next, so that images are decoded once; directions are
    drawn anew for each, so that one is held at a time.
    """
    middle = len(alphas) // 2  # α = 0, the same net in every direction: measured once
    total = torch.zeros(directions, len(alphas), len(_MEASURES), dtype=torch.float64)
    visits = -(-len(probe.positions) // probe.batch_size) * (directions * (len(alphas) - 1) + 1)
    probe.reporter.begin("weight landscape, points", visits)
    for number, (x, y, _) in enumerate(probe.batches()):
        total[:, middle] += _summed(probe, x, y, number, steps)
        probe.reporter.advance()
        for k in range(directions):
            along = direction(probe.model, probe.generator("direction", k))
            for place, alpha in enumerate(alphas):
                if place == middle:
                    continue
                with moved(probe.model, along, alpha):
                    total[k, place] += _summed(probe, x, y, number, steps)
                probe.reporter.advance()
    probe.reporter.end()
    return total / len(probe.positions)


def _summed(probe: Probe, x: Tensor, y: Tensor, number: int, steps: int) -> Tensor:
    """Return each of `MEASURES` summed over a batch, (4,), with the weights as they are."""
    draw = probe.generator("attack", number)  # from its start at every point of the grid
    x_adv = pgd(probe.model, x, y, probe.threat, steps=steps, generator=draw)
    with torch.no_grad():
        logits = [probe.model(images) for images in (x_adv, x)]
    losses = [cross_entropy(z, y).cpu().double().sum() for z in logits]
    right = [(z.argmax(1) == y).cpu().double().sum() for z in logits]
    return torch.stack([*losses, *right])


def _risen(rises: dict[str, Tensor], chosen: Sequence[int]) -> dict[str, float]:
    """Return mean rises of the chosen directions, by name."""
    by_name = {}
    for name in _CONDITIONS:
        rise = rises[name][list(chosen)].mean(0)
        both = (rise + rise.flip(0)) / 2  # of +α and −α
        # α = −reach/2 is a point only where the number of steps is a multiple of four.
        quarter, rest = divmod(len(rise) - 1, 4)
        half = both[quarter] if rest == 0 else (both[quarter] + both[quarter + 1]) / 2
        by_name[f"{name}_mean_rise"] = float(torch.trapezoid(rise) / (len(rise) - 1))
        by_name[f"{name}_rise_half"] = float(half)
        by_name[f"{name}_rise_full"] = float(both[0])
    return by_name


def _panel(alphas: Sequence[float], losses: dict[str, Tensor], steps: str) -> Panel:
    def draw(axes: Axes) -> None:
        for place, (name, runs) in enumerate(losses.items()):
            label = f"under {steps}" if name == "adversarial" else name
            band(axes, alphas, runs, label, place)
        axes.set(xlabel=_XLABEL, ylabel="cross-entropy (nats)", title=spread(losses["clean"]))

    return draw


def _layer(alphas: Sequence[float], runs: Tensor, ylabel: str, steps: str) -> Layer:
    def draw(axes: Axes, name: str, place: int) -> None:
        band(axes, alphas, runs, name, place)
        axes.set(xlabel=_XLABEL, ylabel=ylabel, title=f"{steps}, {spread(runs)}")

    return draw
