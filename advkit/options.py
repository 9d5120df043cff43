"""What an option is: name, kind, default, choices and limits; and options declared by a class."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from advkit.errors import UsageError, brief, unknown
from advkit.formulas.schedules import parse_span
from advkit.formulas.threat import number as fraction

SEEDS = "[0, 4294967295]"
COUNTS = "[1, 1e9]"
BATCHES = "[1, 1e6]"
SIDES = "[1, 4096]"
TEMPERATURES = "[1e-6, 1e6]"
"""Limits that several options share: wide enough for whatever is meant, so that a slip is told."""

TEXTS = "NAME=TEXT"
"""Kind of an option that may be given several times, a text each."""

MEANT = {
    "int": "a whole number",
    "float": "a number",
    "ints": "whole numbers apart by commas, for example 100,150",
    "bool": "true or false",
}
"""Kind of an option → what is said to be wanted where a value is none; all others are text."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Seconds of each unit of a time."""


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
        """Check a value, each of a list or of A,B,C, or both ends of START:END, against the limits.

        >>> Option("lambda", "str", "", "", limits="[0, 1]").check("0.7:0.95")

        Raises:
            UsageError: outside, not finite, or not START:END where that is wanted.
        """
        if value is None or (isinstance(value, str) and not self.limits):
            return
        for number in self._numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"{self.flag} {value} is not a finite number")
            if self.limits and not within(self.limits, number):
                between = "in " if self.limits[0] in "[(" else ""
                raise UsageError(f"{self.flag} {brief(value)} is not {between}{self.limits}")

    def misread(self, value: object) -> UsageError:
        """Return the error for a value that cannot be read as one of its kind."""
        return misread(self.flag, value, self.kind)

    def require(self, value: Any) -> None:
        """Check a value against the choices too: those of the part that will get it.

        Parts that share an option may know other words for it than its list of all.

        Raises:
            UsageError: as `check`, or no word of the part's.
        """
        if value is not None and self.choices and value not in self.choices:
            raise unknown(self.flag, str(value), self.choices)
        self.check(value)

    def _numbers(self, value: Any) -> Sequence[float]:
        if isinstance(value, list | tuple):
            return [number for number in value if isinstance(number, int | float)]
        if not isinstance(value, str):
            return [value] if isinstance(value, int | float) else []
        try:
            if "," in value or "/" in value:
                return [fraction(word) for word in value.split(",")]
            return parse_span(value)
        except UsageError as error:
            if "," in str(self.default):
                meant = f"numbers apart by commas, for example {self.default}"
                raise UsageError(f"{self.flag} {brief(repr(value))}: {meant}") from None
            raise UsageError(f"{self.flag}: {error}") from None


def misread(flag: str, value: object, kind: str) -> UsageError:
    """Return the error for a value that cannot be read as one of its option's kind.

    >>> str(misread("--epochs", "1.5", "int"))
    "--epochs '1.5' is not a whole number"
    """
    return UsageError(f"{flag} {brief(repr(value))} is not {MEANT.get(kind, 'text')}")


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


def parse_temperatures(text: str, flag: str = "--temperatures") -> list[float]:
    """Read `1,2,5` as increasing temperatures.

    Args:
        text: what was typed.
        flag: of the option, for the message.

    Raises:
        UsageError: not numbers in `TEMPERATURES` apart by commas.
    """
    try:
        temperatures = sorted({float(word) for word in text.split(",")})
    except ValueError:
        temperatures = []
    # Written so that NaN, which no comparison holds for, is refused too.
    if not temperatures or not all(within(TEMPERATURES, number) for number in temperatures):
        raise UsageError(f"{flag} {brief(repr(text))}: numbers in {TEMPERATURES} apart by commas")
    return temperatures


def parse_budget(text: str) -> float:
    """Read a time as seconds.

    >>> parse_budget("4h"), parse_budget("1.5d"), parse_budget("90m")
    (14400.0, 129600.0, 5400.0)

    Raises:
        UsageError: not a number above 0 with s, m, h or d behind it.
    """
    parts = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text.strip())
    if not parts or not float(parts[1]):
        raise UsageError(f"--budget {brief(text)}: a number and s, m, h or d, for example 4h")
    return float(parts[1]) * UNITS[parts[2]]
