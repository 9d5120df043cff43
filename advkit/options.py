"""What an option is: name, kind, default, choices and limits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from advkit.errors import UsageError
from advkit.formulas.schedules import parse_span


@dataclass(frozen=True)
class Option:
    """One option of a part or a stage, as the command line and the configuration know it."""

    name: str
    kind: str
    default: Any
    help: str
    panel: str = ""
    choices: tuple[str, ...] = ()
    limits: str = ""

    @property
    def flag(self) -> str:
        """The option as typed: `ema_decay` is `--ema-decay`."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Check a value, each value of a list, or both ends of START:END, against the limits.

        >>> Option("lambda", "str", "", "", limits="[0, 1]").check("0.7:0.95")

        Raises:
            UsageError: outside, or not START:END where that is wanted.
        """
        if not self.limits or value is None:
            return
        values = parse_span(value) if isinstance(value, str) else value
        for each in values if isinstance(values, list | tuple) else [values]:
            if not within(self.limits, each):
                raise UsageError(f"{self.flag} {value} is not {self.limits}")


def within(limits: str, value: float) -> bool:
    """Whether a value keeps to limits: `> 0`, `>= 1`, `[0, 1]`, `[0, 1)` or `(0, 1]`.

    >>> within("[0, 1)", 1.0), within("> 0", 0.5)
    (False, True)
    """
    bound = re.fullmatch(r"(>=?) (\S+)", limits)
    if bound:
        least = float(bound[2])
        return value >= least if bound[1] == ">=" else value > least
    low, high = (float(end) for end in limits[1:-1].split(","))
    above = value > low if limits.startswith("(") else value >= low
    return above and (value < high if limits.endswith(")") else value <= high)


def readable(limits: str) -> bool:
    """Whether a text is limits at all.

    >>> readable("[0, 1)"), readable("0 to 1"), readable("[0; 1]")
    (True, False, False)
    """
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    return re.fullmatch(rf">=? {number}|[\[(]{number}, ?{number}[\])]", limits) is not None


def parse_temperatures(text: str) -> list[float]:
    """Read `1,2,5` as increasing temperatures.

    Raises:
        UsageError: not positive numbers apart by commas.
    """
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] <= 0 or not math.isfinite(found[-1]):
        raise UsageError(f"--temperatures {text!r}: positive numbers apart by commas")
    return found
