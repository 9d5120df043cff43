"""The two simulations of LTD's appendix C: what soft labels do to G(Z) on synthetic oracles."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.analyses.drawing.panels import curve
from advkit.artifacts.document import aligned
from advkit.artifacts.result import Result
from advkit.runtime import seeding

AMBIGUOUS = 0.03
EPSILON = 1e-4
"""Mass that a one-hot row keeps off its class, to keep logarithms finite."""
GAMMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
CLASSES, ALPHA, N = 10, 0.0005, 20_000
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MISTAKES = 0.01


def simulate(kind: str) -> Result:
    """Run the simulation `binary` or `dirichlet`."""
    return binary() if kind == "binary" else dirichlet()


def kl(oracle: Tensor, p: Tensor) -> Tensor:
    """Return KL(oracle ‖ p) per row, (B,), float64."""
    gap: Tensor = torch.special.xlogy(oracle, oracle) - torch.special.xlogy(oracle, p)
    return gap.sum(-1)


def binary() -> Result:
    """Two classes: 3 % of examples have the oracle (1 − γ, γ), the rest (1 − ε, ε).

    Model 1 answers (1 − ε, ε) to everything, model 2 answers (1 − s, s); s grows with the
    temperature. The paper's low temperature is s = γ/10. Exact expectations, no sampling.

    Source: LTD, appendix C, "Simulation Analysis".
    """
    rows = [
        (gamma, share, gamma * share, _mixed(gamma, EPSILON), _mixed(gamma, gamma * share))
        for gamma in GAMMAS
        for share in SHARES
    ]
    columns = ("gamma", "s_over_gamma", "s", "one_hot_discrepancy", "soft_discrepancy")
    low = [row for row in rows if row[1] == 0.1]
    wins = sum(row[4] < row[3] for row in low)
    series = {
        f"soft / one-hot, gamma {g:g}": [r[4] / r[3] for r in rows if r[0] == g]
        for g in (0.05, 0.1, 0.3)
    }
    picture = curve(
        SHARES,
        {**series, "equal": [1.0] * len(SHARES)},
        xlabel="s / gamma (rises with temperature)",
        ylabel="G soft / G one-hot",
        logx=True,
    )
    numbers = {"ambiguous": AMBIGUOUS, "wins_at_low_temperature": wins, "cases": len(low)}
    return Result(dict(numbers), columns, tuple(rows), (picture,), text=aligned([columns, *rows]))


def _mixed(gamma: float, s: float) -> float:
    def pair(q: float) -> Tensor:
        return torch.tensor([1 - q, q], dtype=torch.float64)

    rare, common = kl(pair(gamma), pair(s)), kl(pair(EPSILON), pair(s))
    return float(AMBIGUOUS * rare + (1 - AMBIGUOUS) * common)


def dirichlet() -> Result:
    """Ten classes: oracle ~ Dirichlet(α), at least 97 % of rows with a class above 0.995.

    Model 1 answers one-hot. The soft models answer rows from Dirichlet(c·α), the flatter the
    larger c. `soft`: flat where the oracle is flat, classes in the oracle's order.
    `soft_1pct_wrong`: the same, but its two top classes swapped in the 1 % of rows where it is
    least certain. `unrelated`: rows dealt out at random, classes in the oracle's order. All rows
    are clipped at ε and renormalised.

    Source: LTD, appendix C; which row answers which example is ours, the paper leaves it open,
    and `unrelated` shows that the claim rests on it.
    """
    generator = seeding.generator(0, "dirichlet simulation")
    # Rows from the most certain to the least, so that the k-th of one answers the k-th of another.
    oracle = _by_certainty(_clipped(_draw(ALPHA, generator)))
    order = oracle.argsort(1, descending=True)
    one_hot = _clipped(torch.nn.functional.one_hot(order[:, 0], CLASSES).double())
    hard = float(kl(oracle, one_hot).mean())
    # Rows lie in the order of certainty: the last ones are the least certain.
    least_certain = slice(int(N * (1 - MISTAKES)), N)
    rows = []
    for factor in FACTORS:
        drawn = _clipped(_draw(ALPHA * factor, generator)).sort(1, descending=True).values
        dealt = torch.empty_like(drawn).scatter(1, order, drawn)
        drawn = _by_certainty(drawn)
        soft = torch.empty_like(drawn).scatter(1, order, drawn)
        swapped = drawn.clone()
        swapped[least_certain, :2] = drawn[least_certain, :2].flip(1)
        wrong = torch.empty_like(drawn).scatter(1, order, swapped)
        rows.append((factor, hard, *(float(kl(oracle, p).mean()) for p in (soft, wrong, dealt))))
    columns = ("c", "one_hot", "soft", "soft_1pct_wrong", "unrelated")
    peaked = float((oracle.amax(1) > 0.995).double().mean())
    series = {name: [row[place] for row in rows] for place, name in enumerate(columns) if place}
    picture = curve(
        FACTORS, series, xlabel="c (rises with temperature)", ylabel="discrepancy (nats)", logx=True
    )
    numbers = {"n": N, "classes": CLASSES, "share_above_0.995": peaked}
    return Result(dict(numbers), columns, tuple(rows), (picture,), text=aligned([columns, *rows]))


def _by_certainty(p: Tensor) -> Tensor:
    """Sort rows by their top probability, the most certain first."""
    return p[p.amax(1).argsort(descending=True)]


def _draw(alpha: float, generator: torch.Generator) -> Tensor:
    """Draw N rows of a symmetric Dirichlet with α far below 1, in log space.

    log Gamma(α) = log Gamma(α + 1) + log(U)/α keeps what would underflow to 0.
    """
    concentration = torch.full((N, CLASSES), alpha + 1, dtype=torch.float64)
    log_gamma = torch._standard_gamma(concentration, generator=generator).log()
    uniform = torch.rand(N, CLASSES, generator=generator, dtype=torch.float64)
    # Gamma draws over their sum are a Dirichlet draw; softmax takes the sum in log space.
    return torch.softmax(log_gamma + uniform.log() / alpha, dim=1)


def _clipped(p: Tensor) -> Tensor:
    clipped = p.clamp_min(EPSILON)
    return clipped / clipped.sum(1, keepdim=True)
