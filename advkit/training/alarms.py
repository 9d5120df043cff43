"""The alarms of training: signs in a run's rows that its figures or its labels deserve no trust.

Each returns a line for a person where it rings, else None; a row is marked with its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from advkit.formulas.stats import wilson

Row = Mapping[str, float]
"""What the log says of an epoch."""
ROBUST, ONE_STEP = "val_robust_accuracy", "val_one_step_accuracy"
PERFECT, FLAT_TARGETS = 0.97, 0.9
"""Training robust accuracy, and target entropy as a share of ln C, above which to be alarmed."""

FALLEN, CERTAIN = 0.5, 3.0
"""What is left of the best robust accuracy, and standard errors of a difference of two counts:
beyond both it has collapsed, beyond the second accuracy under one step has risen."""

NO_GRADIENT = 0.01
"""Share of examples without a gradient above which to be alarmed; `analyze masking` asks the same
of test images."""
OVERSTATED = 0.1
"""Share of what stands PGD that may fall to the margin: after 15 epochs on digits, nets of AT and
ADR lose up to 0.045, TRADES 0.10 to 0.16, LTD 0.07 to 0.20 at T = 1 to 5 and 0.39 to 0.85 at 20."""
FEWEST = 30
"""Examples that have to stand PGD before what falls of them is judged. A Wilson bound of few
says little: 1 of 1 lies above a tenth, and so do 2 of 5; of 30 it takes 7. Of a net that loses
4.5 %, 1 of 1 would ring in one run of 22; from 30 on fewer than one in a thousand."""
CLOSING = "final_margin_accuracy"
"""What the last row calls accuracy under PGD on the margin, measured once at the end."""
MARGINS = ("val_margin_accuracy", "val_apgd_accuracy", CLOSING)
"""Accuracies that PGD on cross-entropy is held against, where a row has one."""
AVERAGE = "average"
"""The role of ADR's teacher, the weight average; the others are those of fixed nets."""
ADVICE = {AVERAGE: "lower --ema-decay or train longer"}


def masking(row: Row, classes: int) -> str | None:
    """Return a warning where an epoch bears LTD's masking signature.

    It is near-perfect robustness on near-uniform targets.

    Source: LTD, section 5.4: robust training accuracy near 100 % while AutoAttack reaches 0.
    """
    most, entropy = math.log(classes), row["target_entropy"]
    robust = row.get("train_robust_accuracy", 0.0)
    if not (robust > PERFECT and entropy > FLAT_TARGETS * most):
        return None
    return (
        f"training robust accuracy {robust:.3f} on nearly uniform targets (entropy {entropy:.2f} "
        f"of {most:.2f}): gradients may be masked; do not trust PGD"
    )


def collapsed(rows: Sequence[Row], n: int) -> str | None:
    """Return a warning where the last epoch bears the signature of catastrophic overfitting.

    Against the epoch of the highest robust accuracy before it, that under PGD has fallen to less
    than half and that under one step has risen, both by more than three standard errors of a
    difference of two counts: what chance does on few examples is no alarm.

    Args:
        rows: the log's, of a run whose attack is one step, the last epoch at the end.
        n: validation examples.

    Source: Wong et al., "Fast is better than free", ICLR 2020, who describe it; the rule is ours.
    """
    known = [row for row in rows if {ROBUST, ONE_STEP} <= row.keys()]
    if len(known) < 2 or known[-1] is not rows[-1]:
        return None
    best, now = max(known[:-1], key=lambda row: row[ROBUST]), known[-1]
    fell = now[ROBUST] < FALLEN * best[ROBUST] and _apart(now[ROBUST], best[ROBUST], n)
    rose = now[ONE_STEP] > best[ONE_STEP] and _apart(now[ONE_STEP], best[ONE_STEP], n)
    if not (fell and rose):
        return None
    return (
        f"catastrophic overfitting: validation accuracy under PGD fell from {best[ROBUST]:.3f} to "
        f"{now[ROBUST]:.3f} while under one step it rose from {best[ONE_STEP]:.3f} to "
        f"{now[ONE_STEP]:.3f}: do not trust one-step accuracy; try --train-attack n-fgsm, "
        "--grad-align, or more --attack-steps"
    )


def uniform(row: Row, classes: int) -> str | None:
    """Return a warning where an epoch's labels are more uniform than informative.

    They keep less than a tenth of the ln C nats that a hard label has over the uniform one, and
    name the true class with less than twice the mass that drawing lots would, 2/C.
    """
    most, entropy = math.log(classes), row.get("target_entropy", 0.0)
    mass = row.get("target_mass", 1.0)
    if not (entropy > FLAT_TARGETS * most and mass < 2 / classes):
        return None
    return (
        f"labels more uniform than informative: entropy {entropy:.2f} of {most:.2f}, the true "
        f"class has a mass of {mass:.3f} (uniform: {1 / classes:.3f}): lower --temperature, --tau, "
        "--lambda or --smoothing"
    )


def gradient(row: Row) -> str | None:
    """Return a warning where the inner attack had no gradient at any step for too many examples.

    Exactly zero: their training images are the attack's start, clean but for its noise.
    """
    share = row.get("zero_gradient", 0.0)
    if not share > NO_GRADIENT:
        return None
    return (
        f"no gradient: for {share:.1%} of the training examples every gradient of the inner "
        "attack was exactly zero: they were trained on without an attack; look for saturated "
        "outputs or a layer without a gradient; lower --lr or raise --eps"
    )


def margins(row: Row, n: int) -> str | None:
    """Return a warning where PGD on cross-entropy leaves much standing that the margin does not.

    The lower end of the 95 % Wilson interval of the share that falls is above a tenth, and at least
    30 examples stand. Both attacks were made on the same images. The student is asked, then its
    average.

    Args:
        row: the log's.
        n: validation examples.
    """
    for suffix in ("", "-ema"):
        robust = row.get(f"{ROBUST}{suffix}")
        other = next((row[key + suffix] for key in MARGINS if key + suffix in row), None)
        if not robust or other is None:
            continue
        standing = round(robust * n)
        fallen = max(0, standing - round(other * n))
        if standing >= FEWEST and wilson(fallen, standing)[0] > OVERSTATED:
            return (
                f"PGD and margin diverge: of the validation examples that stand PGD-10 on "
                f"cross-entropy ({robust:.3f}), {fallen / standing:.0%} fall to an attack on the "
                f"margin ({other:.3f}): do not compare PGD figures; try --select margin"
            )
    return None


def teacher(rows: Sequence[Row], n: int, roles: Mapping[str, bool | None]) -> str | None:
    """Return a warning where, in the last epoch of `rows`, a teacher is worse than its student.

    Worse is lower accuracy on the validation split by more than three standard errors of a
    difference of two counts, each net under its own PGD-10 as robust accuracy is usually
    reported; clean accuracy of a naturally trained teacher, or of a student trained so; both of a
    teacher of whose training nothing is known.

    Args:
        rows: the log's. A teacher's accuracies are in the row of the epoch that measured them.
        n: validation examples.
        roles: of the teachers → whether trained without an attack, None where nobody knows.
    """
    row = rows[-1]
    for role, natural in roles.items():
        known = {key: value for one in rows for key, value in one.items()}
        pairs = {
            what: (known[f"{role}_{what}_accuracy"], row[f"val_{what}_accuracy"])
            for what in ("clean", "robust")
            if f"{role}_{what}_accuracy" in known and f"val_{what}_accuracy" in row
        }
        wanted = ["clean", "robust"] if natural is None else ["clean" if natural else "robust"]
        asked = [what for what in wanted if what in pairs] or [*pairs]
        if asked and all(b > a and _apart(a, b, n) for a, b in (pairs[what] for what in asked)):
            told = ", ".join(
                f"{what} {pairs[what][0]:.3f} against {pairs[what][1]:.3f}" for what in asked
            )
            name = "weight average" if role == AVERAGE else role.replace("_", " ")
            advice = ADVICE.get(role, f"give a better --{role.replace('_', '-')}")
            return f"{name} worse than its student (validation accuracy, {told}): {advice}"
    return None


def raised(
    rows: Sequence[Row], n: int, classes: int, roles: Mapping[str, bool | None]
) -> dict[str, str]:
    """Return the alarms that ring in the last of `rows`, by what the row is marked with.

    That of masking is not among them: a run's state remembers it. Arguments as above.
    """
    row = rows[-1]
    rules: Mapping[str, Callable[[], str | None]] = {
        "overfitting_alarm": lambda: collapsed(rows, n),
        "teacher_alarm": lambda: teacher(rows, n, roles),
        "labels_alarm": lambda: uniform(row, classes),
        "gradient_alarm": lambda: gradient(row),
        "margin_alarm": lambda: margins(row, n),
    }
    told = {name: rule() for name, rule in rules.items()}
    return {name: text for name, text in told.items() if text is not None}


def _apart(a: float, b: float, n: int) -> bool:
    """Whether two shares of n lie further apart than chance, as of independent samples."""
    pooled = (a + b) / 2
    return abs(a - b) > CERTAIN * math.sqrt(2 * pooled * (1 - pooled) / n)
