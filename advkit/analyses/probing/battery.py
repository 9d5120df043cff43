"""A battery of attacks for the masking checks: which examples each leaves standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from advkit import registry
from advkit.analyses.probing import gradients
from advkit.analyses.probing.gradients import Connected
from advkit.analyses.probing.probe import Probe
from advkit.attacks.pgd import ScaledCE, pgd
from advkit.formulas.losses import margin
from advkit.formulas.threat import Threat
from advkit.runtime.counting import counted

LARGE_STEPS = 50
WHITE_BOX = ("fgsm", "pgd", "pgd_more", "margin")
"""Attacks that follow the gradients of the model as it is."""
BLACK_BOX = ("square", "transfer")
GROWING = {"half_eps": 0.5, "pgd": 1.0, "double_eps": 2.0, "four_eps": 4.0}
"""The short PGD in balls of growing size, as multiples of ε."""

Run = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Plan:
    """How much of each attack: steps, Square's queries, random points; a net to transfer from."""

    steps: int = 10
    more_steps: int = 100
    queries: int = 500
    points: int = 100
    surrogate: nn.Module | None = None


@dataclass
class Measured:
    """What was seen of n examples.

    `standing` has for each attack a mask (n,) of the examples that are right with and without it;
    an attack that did not run is missing. `flat`, `crooked` and `compared` are those of
    `_gradients`; `saturated` counts softmaxes that are exactly 1; `gap` is the median of the
    highest logit less the second; `answers` counts the classes that the model gives at all.
    """

    n: int
    standing: dict[str, Tensor] = field(default_factory=dict)
    flat: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    crooked: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    compared: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    saturated: int = 0
    unsteady: float = 0.0
    gap: float = 0.0
    answers: int = 0

    def together(self, names: tuple[str, ...]) -> Tensor:
        """Return which examples stand all of these attacks, (n,)."""
        masks = [self.standing[name] for name in names if name in self.standing]
        return torch.stack(masks).all(0)


def large(threat: Threat, pixels: int) -> Threat:
    """Return the same norm with an ε so large that every image is in every image's ball."""
    reach = {"linf": 1.0, "l2": pixels**0.5, "l1": float(pixels)}
    return Threat(threat.norm, reach[threat.norm])


def share(steps: int) -> float:
    """Return the step size of PGD as a share of ε: 2.5/steps, as Madry et al. have it.

    >>> share(10), share(100), share(1)
    (0.25, 0.025, 1.0)
    """
    return min(1.0, 2.5 / steps)


def measure(probe: Probe, plan: Plan) -> Measured:
    """Look at the model, then attack it."""
    model = Connected(probe.model)
    measured = Measured(len(probe.positions))
    runs = _runs(probe.threat, plan)
    names = ("clean", *runs)
    measured.standing = {name: torch.zeros(measured.n, dtype=torch.bool) for name in names}
    # Every image counts once for each attack: the bar moves where all of them are one batch.
    probe.reporter.begin("masking checks", measured.n * len(runs))
    with counted([model], "gradients", probe.reporter):
        _look(model, probe, measured)
    for x, y, rows in probe.batches():
        right = _right(model, x, y)
        measured.standing["clean"][rows] = right.cpu()
        for name, run in runs.items():
            if bool(right.any()):
                # A stream for each attack and batch: one attack more changes no other's draws.
                generator = probe.generator("masking", name, int(rows[0]))
                with counted([model], name.replace("_", " "), probe.reporter):
                    x_adv = run(model, x[right], y[right], generator)
                measured.standing[name][rows[right.cpu()]] = _right(model, x_adv, y[right]).cpu()
            probe.reporter.advance(len(rows))
    probe.reporter.end()
    return measured


def _look(model: nn.Module, probe: Probe, measured: Measured) -> None:
    """Fill in everything that takes no attack."""
    gaps, flat, crooked, compared = [], [], [], []
    answers: set[int] = set()
    for x, y, rows in probe.batches():
        with torch.no_grad():
            logits = model(x)
        answers.update(logits.argmax(1).unique().tolist())
        gaps.append(gradients.gaps(logits).cpu())
        measured.saturated += int(gradients.saturated(logits).sum())
        measured.unsteady = max(measured.unsteady, gradients.unsteady(model, x))
        generator = probe.generator("masking", "gradients", int(rows[0]))
        flat.append(gradients.flat(model, x, y, probe.threat, generator).cpu())
        off, seen = gradients.crooked(model, x, y, probe.threat)
        crooked.append(off.cpu())
        compared.append(seen.cpu())
    measured.flat, measured.crooked, measured.compared = map(torch.cat, (flat, crooked, compared))
    measured.answers = len(answers)
    # A logit of infinity has no gap; the median of the others still says how large logits are.
    finite = torch.cat(gaps)
    finite = finite[finite.isfinite()]
    if len(finite):
        measured.gap = float(finite.median())


def _runs(threat: Threat, plan: Plan) -> Mapping[str, Run]:
    """Return the attacks by name, in the order in which they are shown."""
    # Step sizes as text, which is how the parts' options are typed.
    short = {"steps": plan.steps, "step_size": f"{share(plan.steps):.9f}*eps"}
    more = {"steps": plan.more_steps, "step_size": f"{share(plan.more_steps):.9f}*eps"}
    runs: dict[str, Run] = {
        "fgsm": _part("fgsm", threat),
        "pgd": _part("pgd", threat, **short),
        "pgd_more": _part("pgd", threat, **more),
        "margin": _margin(threat, plan.more_steps),
    }
    # All others bring logits to one spread; this one meets them as other codes' PGD does.
    runs["plain"] = _part("pgd", threat, **more, loss="ce")
    runs["random"] = _random(threat, plan.points)
    runs["square"] = _part("square", threat, queries=plan.queries)
    if plan.surrogate is not None:
        runs["transfer"] = _part("transfer", threat, surrogate=plan.surrogate)
    for name, multiple in GROWING.items():
        if name not in runs:
            runs[name] = _part("pgd", Threat(threat.norm, multiple * threat.eps), **short)
    runs["large_eps"] = _unbounded(threat)
    return runs


def _part(name: str, threat: Threat, **options: object) -> Run:
    attack = registry.load("attacks", name).attack

    def run(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        x_adv: Tensor = attack(model, x, y, threat, generator=generator, **options)
        return x_adv

    return run


def _margin(threat: Threat, steps: int) -> Run:
    size = share(steps) * threat.eps

    def run(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        return pgd(
            model, x, y, threat, steps=steps, step_size=size, loss=margin, generator=generator
        )

    return run


def _unbounded(threat: Threat) -> Run:
    """Start at the image itself: a random image is wrong by itself, whatever the gradients say."""

    def run(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        wide = large(threat, x[0].numel())
        size = share(LARGE_STEPS) * wide.eps
        steps, loss = LARGE_STEPS, ScaledCE()
        return pgd(model, x, y, wide, steps=steps, step_size=size, loss=loss, random_start=False)

    return run


def _random(threat: Threat, points: int) -> Run:
    """Return a search over random points, in turn inside the ball and on its surface."""

    def run(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        best = x.clone()
        left = torch.arange(len(x), device=x.device)
        for turn in range(points):
            if not len(left):
                break
            point = threat.start(x[left], "uniform", generator)
            # Uniform draws hardly meet linf's corners, where a loss moves the farthest.
            point = _outward(point, x[left], threat) if turn % 2 else point
            broken = ~_right(model, point, y[left])
            best[left[broken]] = point[broken]
            left = left[~broken]
        return best

    return run


def _outward(point: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Push points to the surface of the ball; in linf to a corner of it."""
    delta = point - x
    if threat.norm == "linf":
        return threat.project(x + threat.eps * delta.sign(), x)
    # A point that is the image itself has no way outward, and stays.
    length = threat.distance(point, x).view(-1, *[1] * (x.dim() - 1))
    return threat.project(x + delta * (threat.eps / length.where(length > 0, 1.0)), x)


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which answers are right, (B,); one that is not finite never is."""
    with torch.no_grad():
        logits = model(x)
    right: Tensor = (logits.argmax(1) == y) & logits.isfinite().all(1)
    return right
