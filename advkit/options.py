"""What an option is: name, kind, default, choices and limits; and options declared by a class."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from advkit.errors import UsageError
from advkit.formulas.schedules import parse_span


@dataclass(frozen=True)
class Option:
    """One option of a part or a stage, as the command line and the configuration know it."""

    name: str
    kind: str
    default: object
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
        for number in values if isinstance(values, list | tuple) else [values]:
            if not within(self.limits, number):
                raise UsageError(f"{self.flag} {value} is not {self.limits}")


def declared(
    default: object,
    panel: str,
    text: str,
    choices: tuple[str, ...] = (),
    *,
    kind: str = "",
    limits: str = "",
) -> Any:
    """Declare an option as a field of a dataclass; `options_of` reads it back.

    Args:
        default: of the field.
        panel: heading in the help.
        text: what it means.
        choices: its values, where they are few.
        kind: of the option, where the field's annotation does not say it.
        limits: see `within`.
    """
    meta = {"panel": panel, "help": text, "choices": choices, "kind": kind, "limits": limits}
    return field(default=default, metadata=meta)


def options_of(declaring: type, *, inherited: bool = False) -> tuple[Option, ...]:
    """Return the options that a dataclass declares itself; those of its bases too if `inherited`.

    >>> @dataclass
    ... class Cut:
    ...     depth: int | None = declared(None, "Saw", "in millimetres", limits=">= 1")
    >>> [(option.flag, option.kind, option.limits) for option in options_of(Cut)]
    [('--depth', 'int', '>= 1')]
    """
    own = inspect.get_annotations(declaring)
    return tuple(
        Option(
            entry.name,
            # Annotations are text here: every module has `from __future__ import annotations`.
            entry.metadata["kind"] or str(entry.type).removesuffix(" | None"),
            entry.default,
            entry.metadata["help"],
            entry.metadata["panel"],
            entry.metadata["choices"],
            entry.metadata["limits"],
        )
        for entry in dataclasses.fields(declaring)
        if "help" in entry.metadata and (inherited or entry.name in own)
    )


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of a stage: declared once, checked whoever gives them."""

    def __post_init__(self) -> None:
        """Check every value against its limits.

        Raises:
            UsageError: one is outside.
        """
        for option in options_of(type(self), inherited=True):
            option.check(getattr(self, option.name))

    @classmethod
    def build(cls, values: Mapping[str, object]) -> Self:
        """Return the options of these values; None and what is no option of theirs is left out."""
        names = {entry.name for entry in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names and v is not None})


def within(limits: str, value: float) -> bool:
    """Whether a value keeps to limits: `> 0`, `>= 1`, `[0, 1]`, `[0, 1)` or `(0, 1]`.

    >>> within("[0, 1)", 1.0), within("> 0", 0.5)
    (False, True)
    """
    # No eval: limits come out of the files of parts, which are read without being run.
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
        temperatures = sorted({float(word) for word in text.split(",")})
    except ValueError:
        temperatures = []
    if not temperatures or temperatures[0] <= 0 or not math.isfinite(temperatures[-1]):
        raise UsageError(f"--temperatures {text!r}: positive numbers apart by commas")
    return temperatures
