"""What is measured beside what chooses: a run's teachers, once, and ADR's average at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from advkit.training.alarms import AVERAGE, Row
from advkit.training.selection import ACCURACIES, Measured, Validation
from advkit.training.teachers import Teacher


class Watching:
    """The teachers of a run beside its student, on the same validation images and noise.

    A fixed net is measured in the first epoch. The average that gives ADR its labels is measured
    in the last one: before, it lags behind a student that learns, as it should.

    Args:
        validation: how the run measures its nets.
        fixed: the fixed teachers by role.
        passes: how the run computes a net.
        average: ADR's teacher; None where the labels come from elsewhere.
    """

    def __init__(
        self,
        validation: Validation,
        fixed: Mapping[str, Teacher],
        passes: Callable[[nn.Module], nn.Module],
        average: nn.Module | None,
    ) -> None:
        self.validation = replace(validation, one_step=False, select="pgd")
        self.fixed = {role.replace("-", "_"): teacher for role, teacher in fixed.items()}
        self.passes, self.average = passes, average

    @property
    def roles(self) -> Mapping[str, bool | None]:
        """Role → whether it was trained without an attack, None where nobody knows."""
        own = {role: teacher.natural for role, teacher in self.fixed.items()}
        return {**own, **({} if self.average is None else {AVERAGE: False})}

    def measure(
        self, before: Sequence[Row], row: Row, last: bool, between: Callable[[], None]
    ) -> dict[str, float]:
        """Return what the epoch's row is to say of teachers that no row has spoken of.

        Args:
            before: the earlier rows of the log.
            row: this epoch's, with the figures of student and average.
            last: it is the run's last epoch.
            between: called after each batch; may raise to stop.
        """
        told: dict[str, float] = {}
        for role, teacher in self.fixed.items():
            if not any(f"{role}_clean_accuracy" in one for one in before):
                # A naturally trained net is judged clean: that spares the attack.
                threat = None if teacher.natural else self.validation.threat
                judge = replace(self.validation, threat=threat)
                told |= _named(role, judge.measure(self.passes(teacher.net), between))
        if last and self.average is not None:
            known: Row = {
                key: row[f"val_{key}-ema"] for key in ACCURACIES if f"val_{key}-ema" in row
            }
            own = known or self.validation.measure(self.passes(self.average), between)
            told |= _named(AVERAGE, own)
        return told


def _named(role: str, figures: Row | Measured) -> dict[str, float]:
    return {f"{role}_{key}": figures[key] for key in ACCURACIES if key in figures}
