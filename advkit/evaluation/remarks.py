"""What a person should know of an evaluation's result beside its numbers."""

from __future__ import annotations

from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.rows import argmax
from advkit.evaluation import passes
from advkit.evaluation.settings import AUTOATTACK, SUITES
from advkit.runtime.reporting import Reporter

SQUARE_ALARM = 0.002
"""Share of examples that Square may break alone before upstream's check calls it suspicious."""
FEW = 1
"""So many are no sign of anything: upstream's share is meant for thousands of examples."""


def flat(count: int, total: int, reporter: Reporter) -> None:
    """Warn of examples whose cross-entropy has an exactly zero gradient at the clean image."""
    if count:
        reporter.warn(
            f"{count} of {total} examples have a zero gradient of cross-entropy at the clean "
            "image: attacks that ascend it (APGD-CE, --loss ce) cannot move them; whether other "
            "gradient attacks can is what `advkit analyze masking` asks"
        )


def verdicts(logits: Logits, reporter: Reporter) -> None:
    """Tell of broken examples that were not counted, and of an alarming share that Square broke."""
    if logits.adversarial is None or logits.broken_by is None:
        return
    attack = logits.info["config"]["attack"]
    standing = logits.broken_by == ROBUST
    fell = int((standing & (argmax(logits.adversarial) != logits.labels)).sum())
    last = passes.last_pass(attack)
    if fell and last:
        reporter.note(
            f"the last pass ({last}) broke {fell} of {int(standing.sum())} examples "
            f"that {SUITES.get(attack, attack)} left standing; verdicts and accuracies do not "
            "count it; analyses of the logits do"
        )
    if attack == AUTOATTACK and "square" in logits.attacks:
        by_square = int((logits.broken_by == logits.attacks.index("square")).sum())
        n = len(logits.labels)
        if by_square > max(FEW, SQUARE_ALARM * n):
            reporter.warn(
                f"Square broke {by_square} of {n} examples that white-box attacks left standing: "
                "gradients may be masked"
            )


def of_merged(logits: Logits, reporter: Reporter) -> None:
    """Say of a merged file what its evaluation in one process would have said."""
    share = logits.info.get("zero_gradient") or 0.0
    flat(round(share * len(logits.labels)), len(logits.labels), reporter)
    verdicts(logits, reporter)
