"""What was tried around ADR before the study, one seed of it (docs/results/cpu)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from study.estimates import Estimate
from study.parts import ATTACKS, Part

NAMES = {
    "at": "AT",
    "adr": "ADR",
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
FAST = "fast"
EXPERIMENTS = ("at", "adr", "adr-held", "adr-tau", "adr-both")
CHECKS = ("at", "adr", "adr-logits-4", "adr-weights", "adr-linear", "adr-step", "adr-constant",
          "adr-end")  # fmt: skip


def name(row: str) -> str:
    """What the page calls RUN/POINT."""
    run, point = row.split("/")
    return NAMES[run] + ("+WA" if point.endswith("-ema") else "")


def accuracies(part: Part, runs: Sequence[str]) -> Iterator[str]:
    """Clean and robust accuracy, best / final, and AutoAttack's at best."""
    judged = [attack for attack in ATTACKS if any(key[1] == attack for key in part.accuracies)]
    heads = [f"{ATTACKS[attack]}, best / final" for attack in judged]
    yield f"| | clean, best / final | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    for run in runs:
        for end in ("", "-ema"):
            points = [f"{run}/{point}{end}" for point in ("best", "final")]
            if part.accuracy(points[0], "pgd", "robust"):
                columns = [("pgd", "clean"), *((attack, "robust") for attack in judged)]
                cells = [
                    " / ".join(percent(part.accuracy(row, *column)) for row in points)
                    for column in columns
                ]
                yield f"| {name(points[0])} | {' | '.join(cells)} |"


def beside(part: Part, base: str, runs: Sequence[str]) -> Iterator[str]:
    """Two tables of a recipe: differences from a run, and accuracies."""
    if not part.accuracies:
        yield "Not run yet."
        return
    alone = ", intervals of the choice of images alone" if part.seeds == 1 else ""
    yield from (f"APGD-CE+T, points, mean over {count(part)}{alone}.", "")
    yield from differences(part, base, [run for run in runs if run != base])
    yield from ("", f"Percent, mean over {count(part)}.", "")
    yield from accuracies(part, runs)


def differences(part: Part, base: str, runs: Sequence[str]) -> Iterator[str]:
    """Differences from a base run at best and final, and each run's own gap, where measured."""
    table = [[f"less {NAMES[base]}", "best", "final", "its own best − final"]]
    for run in runs:
        ends = [part.pair(FAST, f"{base}/{point}", f"{run}/{point}") for point in ("best", "final")]
        table.append([NAMES[run], *(interval(e) if e else "" for e in (*ends, part.gap(run)))])
    kept = [place for place in range(4) if any(line[place] for line in table[1:])]
    for line in [table[0], ["---"] * 4, *table[1:]]:
        yield f"| {' | '.join(line[place] for place in kept)} |"


def outputs(part: Part, rows: Sequence[str]) -> Iterator[str]:
    """Entropy, divergence and calibration under PGD-20."""
    keys = (("entropy", "clean_entropy"), ("entropy", "adversarial_entropy"),
            ("divergence", "divergence"), ("calibration", "clean_ece"),
            ("calibration", "adversarial_ece"))  # fmt: skip
    heads = ("mean over seeds", "entropy, clean", "under PGD-20", "Jensen–Shannon", "ECE, clean",
             "under PGD-20")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        found = [part.figure(*key, row) for key in keys]
        if any(found):
            end = ", final" if "/final" in row else ""
            cells = [f"{each.mean:.3f}" if each else "–" for each in found]
            yield f"| {name(row)}{end} | {' | '.join(cells)} |"


def shifts(part: Part) -> Iterator[str]:
    """How far the attack moves outputs and labels, and what it leaves between them."""
    heads = ("", "ADR's label to attacked output", "one-hot label to attacked output",
             "outputs move", "ADR's labels move")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    keys = ("adr_to_adversarial", "onehot_to_adversarial", "outputs_shift", "adr_shift")
    for row in ("at/best", "adr/best"):
        found = [part.figure("embedding", key, row) for key in keys]
        if all(found):
            cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in found if each]
            yield f"| {name(row)} | {' | '.join(cells)} |"


def count(part: Part) -> str:
    """How many seeds a part has, in words."""
    return f"{part.seeds} seed{'' if part.seeds == 1 else 's'}"


def percent(values: Sequence[float]) -> str:
    """A mean with a digit."""
    return f"{mean(values):.1f}" if values else "–"


def interval(found: Estimate) -> str:
    """A figure with its interval."""
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def signed(value: float) -> str:
    """A number with its sign: a digit from 1 on, else two or three; 0 has none."""
    digits = 1 if abs(value) >= 1 else 2 if abs(value) >= 0.1 else 3
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"
