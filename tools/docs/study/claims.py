"""What is claimed, and by whom, as differences that are positive if it is so; the first decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from study.estimates import Estimate
from study.parts import ATTACKS, Part

NAMES = {
    "natural": "natural",
    "at": "AT",
    "ls": "AT+LS",
    "adr": "ADR",
    "trades": "TRADES",
    "trades-adr": "TRADES+ADR",
    "ltd-T1": "LTD, T = 1",
    "ltd-T2": "LTD, T = 2",
    "ltd-T5": "LTD, T = 5",
    "ltd-T8": "LTD, T = 8",
    "ltd-T20": "LTD, T = 20",
    "at-awp": "AT+AWP",
    "adr-awp": "ADR+AWP",
    "ltd-T5-awp": "LTD, T = 5, +AWP",
    "adr-held": "λ 0.3, τ 2, held",
    "adr-tau": "λ 0.3, τ 3 → 1",
    "adr-both": "λ 0.5 → 0.9, τ 3 → 1",
    "adr-logits-4": "noise of σ 4 on the teacher's logits",
    "adr-weights": "noise of σ 0.5 on the teacher's weights",
    "adr-linear": "linear instead of cosine",
    "adr-step": "one step at half time",
    "adr-constant": "constant at the start: λ 0.7, τ 2.5",
    "adr-end": "constant at the end: λ 0.95, τ 2",
}
AA, FAST = "autoattack", "fast"
ADR, LTD, AWP, OURS = "ADR", "LTD", "AWP", "this project"
"""Who claims it: ADR (arXiv 2305.12118), LTD (2111.02331), AWP (Wu et al., 2004.05884), or nobody
before this project, which asks. Whose figure: ADR's tables 1, 2 and 4 (ResNet-18), LTD's table 4
(WRN-34-10; its TRADES row is judged at ε 0.031); both CIFAR-10 under AutoAttack."""
Measure = Callable[[dict[str, Part]], Estimate | None]


@dataclass(frozen=True)
class Shown:
    """A difference, in points unless `unit` says otherwise, and the same in a paper."""

    what: str
    measure: Measure
    paper: float | None = None
    source: str = ""
    unit: str = "points"


@dataclass(frozen=True)
class Claim:
    """What is said, by whom, and how it is measured here."""

    by: str
    said: str
    shown: tuple[Shown, ...]


def name(row: str) -> str:
    """What the page calls RUN/POINT."""
    run, point = row.split("/")
    return NAMES[run] + ("+WA" if point.endswith("-ema") else "")


def gain(
    more: str,
    fewer: str,
    attack: str = FAST,
    paper: float | None = None,
    source: str = ADR,
    part: str = "study",
) -> Shown:
    """One row less another in robust accuracy; a row is the best checkpoint unless it says so."""
    more, fewer = (row if "/" in row else f"{row}/best" for row in (more, fewer))
    final = ", final" if more.endswith("/final") else ""
    what = f"{name(more)} − {name(fewer)}{final}, {ATTACKS[attack]}"
    return Shown(what, lambda parts: parts[part].pair(attack, fewer, more), paper, source)


def gap(run: str) -> Measure:
    """Best less final."""
    return lambda parts: parts["study"].gap(run)


def figure(analysis: str, key: str, run: str) -> Measure:
    """A figure of the best checkpoint's outputs under PGD-20."""
    return lambda parts: parts["study"].figure(analysis, key, f"{run}/best")


def rise(run: str) -> Measure:
    """How far the loss rises around the weights."""
    return lambda parts: parts["study"].rise(run)


def less(one: Measure, other: Measure) -> Measure:
    """One less the other, if both are there."""

    def found(parts: dict[str, Part]) -> Estimate | None:
        a, b = one(parts), other(parts)
        return a - b if a and b else None

    return found


def both(analysis: str, key: str, more: str, fewer: str) -> Measure:
    """A figure of one run less that of another."""
    return less(figure(analysis, key, more), figure(analysis, key, fewer))


CLAIMS = (
    Claim(ADR, "AT overfits: its best checkpoint is more robust than its last", (
        Shown("AT, best − final, APGD-CE+T", gap("at"), 5.62, ADR),
    )),
    Claim(ADR, "ADR is more robust than AT at best", (
        gain("adr", "at", AA, 1.57),
        gain("adr", "at", FAST, 1.57),
    )),
    Claim(ADR, "ADR is more robust than AT at the end", (
        gain("adr/final", "at/final", FAST, 3.99),
    )),
    Claim(ADR, "ADR's gap from best to final is smaller", (
        Shown("gap of AT − gap of ADR, APGD-CE+T", less(gap("at"), gap("adr")), 2.42, ADR),
    )),
    Claim(ADR, "TRADES+ADR is more robust than TRADES", (
        gain("trades-adr", "trades", FAST, 0.92),
        gain("trades-adr/final", "trades/final", FAST, 2.23),
    )),
    Claim(OURS, "ADR's outputs have a higher entropy than AT's", (
        Shown("ADR − AT under PGD-20", both("entropy", "adversarial_entropy", "adr", "at"),
              unit="nats"),
        Shown("ADR − AT, clean", both("entropy", "clean_entropy", "adr", "at"), unit="nats"),
    )),
    Claim(OURS, "ADR is better calibrated than AT under attack", (
        Shown("ECE of AT − of ADR under PGD-20",
              both("calibration", "adversarial_ece", "at", "adr"), unit=""),
    )),
    Claim(OURS, "ADR is better calibrated than AT on clean images", (
        Shown("ECE of AT − of ADR, clean", both("calibration", "clean_ece", "at", "adr"), unit=""),
    )),
    Claim(OURS, "ADR's outputs move less under attack", (
        Shown("Jensen–Shannon of AT − of ADR, PGD-20",
              both("divergence", "divergence", "at", "adr"), unit="nats"),
    )),
    Claim(ADR, "ADR's loss is flatter around its weights", (
        Shown("rise of AT − of ADR, PGD-10", less(rise("at"), rise("adr")), unit="nats"),
    )),
    Claim(ADR, "Annealing helps ADR over constants", (
        gain("adr", "adr-constant", part="checks"),
        gain("adr", "adr-end", part="checks"),
        gain("adr", "adr-held", part="experiments"),
    )),
    Claim(LTD, "LTD at a low temperature is more robust than TRADES on one-hot labels", (
        gain("ltd-T5", "trades", AA, 2.01, LTD),
        gain("ltd-T5", "trades", FAST, 2.01, LTD),
        gain("ltd-T2", "trades", FAST, 1.82, LTD),
        gain("ltd-T1", "trades", FAST, 1.3, LTD),
        gain("ltd-T5/final", "trades/final"),
    )),
    Claim(OURS, "LTD at a low temperature is more robust than AT on one-hot labels", (
        gain("ltd-T5", "at", AA),
        gain("ltd-T5", "at"),
        gain("ltd-T2", "at"),
        gain("ltd-T1", "at"),
    )),
    Claim(LTD, "A high temperature costs LTD robustness under AutoAttack (in the paper, all)", (
        gain("ltd-T5", "ltd-T20", AA, 55.09, LTD),
        gain("ltd-T5", "ltd-T8", AA, 0.46, LTD),
    )),
    Claim(ADR, "Weight averaging adds", (
        gain("at/best-ema", "at/best", AA, 1.12),
        gain("adr/best-ema", "adr/best", FAST, 0.47),
        gain("ltd-T5/best-ema", "ltd-T5/best"),
    )),
    Claim(ADR, "AWP adds to weight averaging", (
        gain("at-awp/best-ema", "at/best-ema", FAST, 0.79),
        gain("adr-awp/best-ema", "adr/best-ema", FAST, 0.33),
        gain("ltd-T5-awp/best-ema", "ltd-T5/best-ema"),
        gain("at-awp", "at"),
    )),
    Claim(AWP, "AWP flattens the loss around the weights", (
        Shown("rise of AT − of AT+AWP, PGD-10", less(rise("at"), rise("at-awp")), unit="nats"),
    )),
    Claim(ADR, "ADR with AWP and WA is more robust than AT, also with AWP and WA", (
        gain("adr-awp/best-ema", "at/best", AA, 2.37),
        gain("adr-awp/best-ema", "at-awp/best-ema", FAST, 0.46),
    )),
)  # fmt: skip
