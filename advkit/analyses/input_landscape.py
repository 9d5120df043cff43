"""Loss around single images, along the gradient's sign and a random sign vector."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advkit.analyses.drawing.style import ORANGE
from advkit.analyses.probing.landscape import grid
from advkit.analyses.probing.probe import Probe
from advkit.artifacts.result import Curve, Number, Panel, Result
from advkit.errors import NumericalError, UsageError, brief
from advkit.formulas.losses import cross_entropy
from advkit.formulas.threat import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("checkpoint",)
PROBES = True
LIMIT = 3
LIMITS = {"points": "[3, 1000]", "reach": "(0, 1]"}

_COLUMNS = ("example", "a", "b", "loss", "gradient_norm")
_EDGE = 0.86
"""Share of the reach within which a contour's label is not cut."""

_AVERAGED = ("loss", "gradient_norm", "loss_range", "nonlinearity")


@dataclass(frozen=True)
class Surface:
    """The loss around one image, at x + a·r1 + b·r2 for a and b in `places`.

    `losses`, `norms` of the gradient, `linear` (what the first-order expansion at x predicts) and
    `distances` (‖a·r1 + b·r2‖ in the threat's norm) are (points, points) float64, a along rows;
    `centre` is the loss at x, `name` that of the class.
    """

    example: int
    label: int
    name: str
    places: tuple[float, ...]
    losses: Tensor
    norms: Tensor
    centre: float
    linear: Tensor
    distances: Tensor

    @property
    def figures(self) -> dict[str, float]:
        """Figures of this image."""
        return {
            "example": self.example,
            "label": self.label,
            "loss": self.centre,
            "gradient_norm": float(self.norms.mean()),
            "loss_range": float(self.losses.max() - self.losses.min()),
            "nonlinearity": float((self.losses - self.linear).abs().max()),
        }


def analyze(
    inputs: Sequence[Probe], *, pick: str | None = None, points: int = 25, reach: str | None = None
) -> Result:
    """Measure ℓ(x + a·r1 + b·r2) and ‖∇ₓℓ‖₂ there for |a|, |b| ≤ reach.

    ℓ is the cross-entropy of the true class, r1 = sign ∇ₓℓ(x), r2 has ±1 with even chances, the
    same for an image whatever the net. Pixels may leave [0, 1], as in the papers: cut off, the
    surface would have edges that are not the net's. The images are the first test examples
    (`--limit`, 3), class balanced, or those picked. `gradient_norm` is the mean over the grid,
    `loss_range` the difference of highest and lowest loss, `nonlinearity` the greatest
    |ℓ(x + δ) − ℓ(x) − δᵀ∇ℓ(x)| of the grid, 0 for a plane; the record's numbers are means over
    images.

    Args:
        pick: positions in the test split, as in 12,77, instead of the first examples.
        points: values of a and of b, an odd number.
        reach: greatest |a| and |b| in pixel space, as in 16/255; if not given 2ε for linf, and
            for other norms what makes the end of an axis 2ε long.

    Raises:
        UsageError: an impossible position, number of points or reach.
        NumericalError: the loss is not finite somewhere.

    Source: ADR, appendix E and figure 7; Engstrom et al. 2018 ("Evaluating and understanding the
    robustness of adversarial logit pairing"); `nonlinearity` is the local linearity measure of
    Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019, on the grid.
    """
    (probe,) = inputs
    if reach is None and probe.threat.eps == 0:
        raise UsageError("--eps 0 reaches nowhere: give --reach")
    places = grid(_reach(probe, reach), points)
    chosen = probe if pick is None else replace(probe, positions=_picked(pick, probe))
    probe.reporter.begin("input landscape, images", len(chosen.positions))
    surfaces = list(_surfaces(chosen, places))
    probe.reporter.end()
    groups = tuple(surface.figures for surface in surfaces)
    numbers: dict[str, Number] = {"n": len(groups), "reach": places[-1]}
    for name in _AVERAGED:
        numbers[name] = statistics.fmean(group[name] for group in groups)
    rows = [row for surface in surfaces for row in _rows(surface)]
    panels = tuple(_panel(surface, probe.threat.eps) for surface in surfaces)
    along = {
        f"example {surface.example}": tuple(surface.losses[:, points // 2].tolist())
        for surface in surfaces
    }
    sketch = Curve("loss along the sign of the gradient", places, dict(along))
    return Result(numbers, _COLUMNS, tuple(rows), panels, (sketch,), groups=groups)


def _reach(probe: Probe, text: str | None) -> float:
    if text is not None:
        return number(text)
    # Along an axis every pixel moves by as much: linf's 2ε, and less for norms that add pixels up.
    ones = torch.ones(1, *probe.info["model"]["input_shape"])
    return 2 * probe.threat.eps / float(probe.threat.distance(ones, torch.zeros_like(ones)))


def _picked(text: str, probe: Probe) -> Tensor:
    """Read `12,77` as positions of the test split."""
    try:
        positions = [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--pick {brief(repr(text))}: positions apart by commas, as in 12,77"
        ) from None
    count = len(probe.images.labels)
    for position in positions:
        if not 0 <= position < count:
            raise UsageError(f"--pick {position}: the test split has positions 0 to {count - 1}")
    return torch.tensor(list(dict.fromkeys(positions)))  # an image named twice is drawn once


def _surfaces(probe: Probe, places: tuple[float, ...]) -> Iterator[Surface]:
    for x, y, rows in probe.batches():
        for row in range(len(rows)):
            example = int(probe.positions[rows[row]])
            yield _surface(probe, x[row : row + 1], y[row : row + 1], example, places)
            probe.reporter.advance()


def _surface(
    probe: Probe, x: Tensor, y: Tensor, example: int, places: tuple[float, ...]
) -> Surface:
    """Visit the grid around an image (1, C, H, W), a batch of points at a time."""
    centre, gradient = _loss_and_gradient(probe, x, y)
    r1 = gradient.sign()
    if not bool(r1.any()):
        probe.reporter.warn(f"example {example}: its loss has no gradient, so that r1 is 0")
    draw = probe.generator("rademacher", example)
    r2 = (2 * torch.randint(2, x.shape, generator=draw) - 1).to(x)
    a, b = (axis.flatten() for axis in torch.meshgrid(*[torch.tensor(places)] * 2, indexing="ij"))
    rows = []
    for part in torch.split(torch.arange(len(a)), probe.batch_size):
        steps = [axis[part].to(x).view(-1, 1, 1, 1) for axis in (a, b)]
        moved = x + steps[0] * r1 + steps[1] * r2
        losses, gradients = _loss_and_gradient(probe, moved, y.expand(len(part)))
        distances = probe.threat.distance(moved, x)
        norms = gradients.flatten(1).norm(dim=1)
        linear = centre + ((moved - x) * gradient).flatten(1).sum(1)
        rows.append(torch.stack([losses, norms, linear, distances]).cpu().double())
    losses, norms, linear, distances = torch.cat(rows, 1).view(4, len(places), len(places))
    if not bool(torch.isfinite(losses + norms).all()):
        raise NumericalError(
            f"{probe.path}: the loss around example {example} is not finite: try a smaller --reach"
        )
    label, height = int(y), float(centre)
    name = probe.images.classes[int(probe.images.labels[example])]
    return Surface(example, label, name, places, losses, norms, height, linear, distances)


def _loss_and_gradient(probe: Probe, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss per image (B,) and its gradient in the image (B, C, H, W)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        losses = cross_entropy(probe.model(x), y)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient


def _rows(surface: Surface) -> Iterator[tuple[int, float, float, float, float]]:
    losses, norms = surface.losses.tolist(), surface.norms.tolist()
    for i, a in enumerate(surface.places):
        for j, b in enumerate(surface.places):
            yield surface.example, a, b, losses[i][j], norms[i][j]


def _panel(surface: Surface, eps: float) -> Panel:
    """Draw the loss as contour lines over the gradient's norm, cut at 1, and the ball of ε."""

    def draw(axes: Axes) -> None:
        from matplotlib.patheffects import AbstractPathEffect, withStroke

        halo: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground="white")]
        places, norms = surface.places, surface.norms.T.clamp(max=1).tolist()
        colours = axes.pcolormesh(
            places, places, norms, cmap="cividis", vmin=0, vmax=1, shading="gouraud"
        )
        if float(surface.losses.max()) > float(surface.losses.min()):
            lines = axes.contour(
                places, places, surface.losses.T.tolist(), levels=6, colors="black", linewidths=0.8
            )
            lines.set_path_effects(halo)
            for text in axes.clabel(lines, fontsize=7.5, fmt="%.3g", inline=False):
                text.set_bbox({"boxstyle": "round,pad=0.12", "facecolor": "white", "linewidth": 0})
                text.set_visible(max(map(abs, text.get_position())) < _EDGE * places[-1])
        if 0 < eps < float(surface.distances.max()):
            ball = axes.contour(
                places,
                places,
                surface.distances.T.tolist(),
                levels=[eps],
                colors=ORANGE,
                linestyles="--",
                linewidths=1.4,
            )
            ball.set_path_effects(halo)
        axes.plot([0], [0], "+", color=ORANGE, path_effects=halo)
        title = f"example {surface.example}, class {surface.name}"
        below = f"lines: loss (nats); dashed: ε = {eps:.3g}"
        axes.set(xlabel=f"a, along sign ∇ℓ (pixel value)\n{below}", ylabel="b, along random signs")
        axes.set_title(title)
        axes.grid(visible=False)
        axes.set_aspect("equal")
        axes.figure.colorbar(colours, ax=axes, label="‖∇ℓ‖₂ (nats / pixel value)", extend="max")

    return draw
