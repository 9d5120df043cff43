"""The two simulations of LTD's appendix C: what soft labels do to G(Z) on synthetic oracles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import curve
from advkit.artifacts.document import aligned
from advkit.artifacts.result import Number, Result
from advkit.errors import UsageError
from advkit.runtime import seeding

GAMMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
TOP = 0.1
"""Of γ ~ U[0, 0.1]."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
LOW = 0.1
"""s/γ of the paper's low temperature."""
CLASSES, N = 10, 20_000
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MISTAKES = 0.01
PEAK = 0.995
_WORDS = (
    "one-hot labels",
    "soft labels",
    "soft labels, 1 % with the wrong class on top",
    "soft labels of other examples",
)
"""What the Dirichlet simulation compares, as its picture says it."""


@dataclass(frozen=True)
class Options:
    """Options of a simulation; `epsilon` is what a one-hot row keeps for each class not its own."""

    @classmethod
    def of(cls, given: Mapping[str, float | str]) -> Self:
        """Return the options of these values."""
        return cls(**given)


@dataclass(frozen=True)
class Binary(Options):
    """Options of the binary simulation.

    `share` is that of ambiguous examples; `gamma` is fixed (each of some values) or uniform,
    U[0, 0.1].
    """

    epsilon: float = 1e-4
    share: float = 0.03
    gamma: str = "fixed"


@dataclass(frozen=True)
class Dirichlet(Options):
    """Options of the Dirichlet simulation; the paper gives none of them a value."""

    epsilon: float = 1e-4
    alpha: float = 0.0005
    classes: int = CLASSES


def simulate(kind: str, given: Mapping[str, float | str]) -> Result:
    """Run the simulation `binary` or `dirichlet`.

    Args:
        kind: which.
        given: options by name.

    Raises:
        UsageError: one that this simulation does not have, or an ε that leaves nothing of a class.
    """
    known = [field.name for field in fields(Binary if kind == "binary" else Dirichlet)]
    for name in given:
        if name not in known:
            own = ", ".join(f"--{other}" for other in known)
            raise UsageError(f"--{name} has no meaning for --simulate {kind}: it has {own}")
    if kind == "binary":
        return binary(Binary.of(given))
    options = Dirichlet.of(given)
    if options.epsilon >= 1 / options.classes:
        raise UsageError(
            f"--epsilon {options.epsilon:g} is not below 1/{options.classes}, an even row's mass"
        )
    return dirichlet(options)


def kl(oracle: Tensor, p: Tensor) -> Tensor:
    """Return KL(oracle ‖ p) per row, (B,), float64."""
    gap: Tensor = torch.special.xlogy(oracle, oracle) - torch.special.xlogy(oracle, p)
    return gap.sum(-1)


def binary(options: Binary) -> Result:
    """Two classes: few examples have the oracle (1 − γ, γ), the rest (1 − ε, ε).

    Model 1 answers (1 − ε, ε) to everything, model 2 answers (1 − s, s); s grows with the
    temperature. The paper's low temperature is s = γ/10, of γ ~ U[0, 0.1] a tenth of its mean.
    Exact expectations, no sampling. `groups` hold for each γ `wins_up_to`, the s/γ below which
    model 2 has the smaller discrepancy, as long as s is above ε.

    Source: LTD, appendix C, "Simulation Analysis", where ε is "a tiny positive value".
    """
    uniform = options.gamma == "uniform"
    gammas = (TOP / 2,) if uniform else GAMMAS
    rows = []
    for gamma in gammas:
        hard = _mixed(gamma, options.epsilon, options)
        for ratio in SHARES:
            s = gamma * ratio
            rows.append((gamma, ratio, s, hard, _mixed(gamma, s, options)))
    columns = ("gamma", "s_over_gamma", "s", "one_hot_discrepancy", "soft_discrepancy")
    ends = [{"gamma": g, "wins_up_to": _break_even(g, options) / g} for g in gammas]
    low = [row for row in rows if row[1] == LOW]
    shown = gammas if uniform else (0.05, 0.1, 0.3)
    series = {
        # Where s = ε is the oracle itself, one-hot labels have no discrepancy: no ratio.
        f"γ {'of mean ' if uniform else '= '}{g:g}": [
            r[4] / r[3] if r[3] > 0 else None for r in rows if r[0] == g
        ]
        for g in shown
    }
    picture = curve(
        SHARES,
        series,
        xlabel="s / γ, which rises with temperature (no unit)",
        ylabel="G(soft) / G(one-hot) (no unit)",
        logx=True,
        level=("both alike", 1.0),
    )
    numbers: dict[str, Number] = {
        "ambiguous": options.share,
        "epsilon": options.epsilon,
        "gamma": options.gamma,
        "wins_at_low_temperature": sum(row[4] < row[3] for row in low),
        "cases": len(low),
    }
    text = "\n".join(
        [
            aligned([columns, *rows]),
            aligned([tuple(ends[0]), *(tuple(group.values()) for group in ends)]),
        ]
    )
    return Result(numbers, columns, tuple(rows), (picture,), text=text, groups=tuple(ends))


def _mixed(gamma: float, s: float, options: Binary) -> float:
    """Return the discrepancy of (1 − s, s) over all examples, in nats.

    γ is each ambiguous example's, or the mean of U[0, 2γ].
    """
    entropy = _pair_entropy(gamma) if options.gamma == "fixed" else _mean_entropy(2 * gamma)
    rare = _cross_entropy(gamma, s) - entropy
    common = _cross_entropy(options.epsilon, s) - _pair_entropy(options.epsilon)
    return options.share * rare + (1 - options.share) * common


def _cross_entropy(q: float, s: float) -> float:
    return -q * math.log(s) - (1 - q) * math.log1p(-s)


def _pair_entropy(q: float) -> float:
    return _cross_entropy(q, q)


def _mean_entropy(top: float) -> float:
    """Return the mean entropy of (1 − γ, γ) for γ ~ U[0, top], by its integral."""
    # ∫ x ln x = x²/2 (ln x − 1/2), for x from 0 to top and from 1 − top to 1.
    rest = 1 - top
    inner = top**2 / 2 * (math.log(top) - 0.5)
    outer = -0.25 - rest**2 / 2 * (math.log(rest) - 0.5)
    return -(inner + outer) / top


def _break_even(gamma: float, options: Binary) -> float:
    """Return the s above ε at which model 2 is as far from the oracle as model 1; 0 without one.

    The mean cross-entropy is that of the mean oracle q, least at s = q: model 1 stands at ε, on the
    left of q, and the other s of the same height lies on its right.
    """
    q = options.share * gamma + (1 - options.share) * options.epsilon
    if q <= options.epsilon:
        return 0.0
    height = _cross_entropy(q, options.epsilon)
    low, high = q, 1 - 1e-12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _cross_entropy(q, middle) < height else (low, middle)
    return low


def dirichlet(options: Dirichlet) -> Result:
    """Ten classes, say: oracle ~ Dirichlet(α), at least 97 % of rows with a class above 0.995.

    Model 1 answers one-hot. The soft models answer rows from Dirichlet(c·α), the flatter the
    larger c. `soft`: flat where the oracle is flat, classes in the oracle's order.
    `soft_1pct_wrong`: the same, but its two top classes swapped in the 1 % of rows where it is
    least certain. `unrelated`: rows dealt out at random, classes in the oracle's order. All rows
    are clipped at ε and renormalised.

    Source: LTD, appendix C; which row answers which example is ours, the paper leaves it open,
    and `unrelated` shows that the claim rests on it.
    """
    generator = seeding.generator(0, "dirichlet simulation")
    alpha, classes, epsilon = options.alpha, options.classes, options.epsilon
    # Rows from the most certain to the least, so that the k-th of one answers the k-th of another.
    raw = _draw(alpha, generator, classes)
    # Before they are clipped: a large ε leaves no row above it.
    peaked = float((raw.amax(1) > PEAK).double().mean())
    oracle = _by_certainty(_clipped(raw, epsilon))
    order = oracle.argsort(1, descending=True)
    one_hot = _clipped(torch.nn.functional.one_hot(order[:, 0], classes).double(), epsilon)
    hard = float(kl(oracle, one_hot).mean())
    # Rows lie in the order of certainty: the last ones are the least certain.
    least_certain = slice(int(N * (1 - MISTAKES)), N)
    rows = []
    for factor in FACTORS:
        drawn = _clipped(_draw(alpha * factor, generator, classes), epsilon)
        drawn = drawn.sort(1, descending=True).values
        dealt = torch.empty_like(drawn).scatter(1, order, drawn)
        drawn = _by_certainty(drawn)
        soft = torch.empty_like(drawn).scatter(1, order, drawn)
        swapped = drawn.clone()
        swapped[least_certain, :2] = drawn[least_certain, :2].flip(1)
        wrong = torch.empty_like(drawn).scatter(1, order, swapped)
        rows.append((factor, hard, *(float(kl(oracle, p).mean()) for p in (soft, wrong, dealt))))
    columns = ("c", "one_hot", "soft", "soft_1pct_wrong", "unrelated")
    series = {name: [row[place] for row in rows] for place, name in enumerate(_WORDS, start=1)}
    picture = curve(
        FACTORS,
        series,
        xlabel="c, which rises with temperature (no unit)",
        ylabel="discrepancy G(Z) (nats)",
        logx=True,
    )
    numbers: dict[str, Number] = {
        "n": N,
        "classes": classes,
        "alpha": alpha,
        "epsilon": epsilon,
        "share_above_0.995": peaked,
    }
    return Result(numbers, columns, tuple(rows), (picture,), text=aligned([columns, *rows]))


def _by_certainty(p: Tensor) -> Tensor:
    """Sort rows by their top probability, the most certain first."""
    return p[p.amax(1).argsort(descending=True)]


def _draw(alpha: float, generator: torch.Generator, classes: int = CLASSES) -> Tensor:
    """Draw N rows of a symmetric Dirichlet with α far below 1, in log space.

    log Gamma(α) = log Gamma(α + 1) + log(U)/α keeps what would underflow to 0.
    """
    concentration = torch.full((N, classes), alpha + 1, dtype=torch.float64)
    log_gamma = torch._standard_gamma(concentration, generator=generator).log()
    uniform = torch.rand(N, classes, generator=generator, dtype=torch.float64)
    # Gamma draws over their sum are a Dirichlet draw; softmax takes the sum in log space.
    return torch.softmax(log_gamma + uniform.log() / alpha, dim=1)


def _clipped(p: Tensor, epsilon: float) -> Tensor:
    clipped = p.clamp_min(epsilon)
    return clipped / clipped.sum(1, keepdim=True)
