"""Methods: named combinations of three independent choices, and the numbers that go with them.

objective × labels × weight space. `trades-adr-wa` is the TRADES objective on ADR labels with
weight averaging; any other combination is spelt with the three options.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from advkit import registry
from advkit.errors import UsageError, brief, near, unknown

PRESETS = ("paper", "repo", "ltd")
"""What the papers say, what the original codes do, and LTD's settings for what it compares with."""
BASES = {
    "natural": ("natural", "onehot"),
    "at": ("at", "onehot"),
    "trades": ("trades", "onehot"),
    "mart": ("mart", "onehot"),
    "ls": ("at", "smoothing"),
    "adr": ("at", "adr"),
    "trades-adr": ("trades", "adr"),
    "ltd": ("trades", "soft"),
    "rslad": ("rslad", "soft"),
    "ard": ("ard", "soft"),
    "score": ("score", "onehot"),
    "adaad": ("adaad", "onehot"),
    "iad": ("iad", "onehot"),
    "hat": ("hat", "onehot"),
    "kd": ("kd", "onehot"),
    "igdm": ("igdm", "onehot"),
    "saad": ("saad", "onehot"),
    "sat": ("sat", "onehot"),
    "te": ("te", "onehot"),
    "ikl": ("ikl", "onehot"),
}
"""Name → (objective, labels)."""
SUFFIXES = ("", "-awp", "-wa", "-awp-wa")
AWP_RADIUS = 0.005
"""ρ of the methods that end in -awp, where none is given (ADR, section 5.1)."""


@dataclass(frozen=True)
class Choices:
    """The three choices: an objective, a label source, and what happens in weight space."""

    objective: str
    labels: str
    wa: bool
    awp: bool = False

    @property
    def name(self) -> str:
        """The method's name where it has one, else its parts: `trades+smoothing`."""
        pair = (self.objective, self.labels)
        names = [name for name, parts in BASES.items() if parts == pair]
        suffix = ("-awp" if self.awp else "") + ("-wa" if self.wa else "")
        return (names[0] if names else "+".join(pair)) + suffix


def names() -> list[str]:
    """Every method that `--method` knows."""
    return [base + suffix for base in BASES for suffix in SUFFIXES]


def parse(name: str) -> Choices:
    """Return the choices behind a name.

    >>> parse("trades-adr-wa")
    Choices(objective='trades', labels='adr', wa=True, awp=False)
    >>> parse("trades+smoothing").labels
    'smoothing'

    Raises:
        UsageError: no such method.
    """
    # From the end: a base may hold a dash itself (trades-adr), and -wa comes after -awp.
    wa = name.endswith("-wa")
    base = name.removesuffix("-wa").removesuffix("-awp")
    awp = name.removesuffix("-wa").endswith("-awp")
    objective, plus, labels = base.partition("+")
    if not plus:
        if base not in BASES:
            if base in registry.parts("objectives"):
                raise UsageError(f"{base} is an objective: as a method write {base}+onehot")
            if base in registry.parts("labels"):
                raise UsageError(f"{base} is a label source: as a method write at+{base}")
            meant = near(name, names())
            if not meant:
                known = f"{', '.join(sorted(BASES))}; each also with {', '.join(SUFFIXES[1:])}"
                raise UsageError(f"unknown method {brief(name)!r} (known: {known})")
            raise unknown("method", name, names(), meant)
        objective, labels = BASES[base]
    return Choices(objective, labels, wa, awp)


@dataclass(frozen=True)
class Rule:
    """Values for the settings that `when` describes, and where they come from.

    `open` names options that the source leaves open, so that the user has to give them.
    """

    source: str
    when: Mapping[str, tuple[object, ...]]
    values: Mapping[str, object]
    open: tuple[str, ...] = ()

    def fits(self, facts: Mapping[str, object]) -> bool:
        """Whether every condition names the fact at hand."""
        return all(facts.get(key) in allowed for key, allowed in self.when.items())


@cache
def rules(preset: str) -> tuple[Rule, ...]:
    """Read the rules of `default`, `paper` or `repo` in their order; later ones win."""
    path = Path(__file__).parent / "presets" / f"{preset}.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Rule(
            row["source"],
            {key: tuple(allowed) for key, allowed in row.get("when", {}).items()},
            row.get("values", {}),
            tuple(row.get("open", ())),
        )
        for row in table["rule"]
    )


def facts(values: Mapping[str, object]) -> dict[str, object]:
    """Return what rules may ask about: settings, with AWP and extra data as on or off."""
    return {
        **values,
        "data": registry.split_path(str(values["data"]))[0],
        "awp": cast(float, values["awp"]) > 0,
        "extra": values["extra_data"] is not None,
    }


def fitting(preset: str, facts: Mapping[str, object]) -> Iterator[Rule]:
    """Yield the rules of a preset that fit data set, architecture and method parts.

    Raises:
        UsageError: no such preset.
    """
    if preset not in (*PRESETS, "default"):
        raise unknown("preset", preset, PRESETS)
    fit = [rule for rule in rules(preset) if rule.fits(facts)]
    # A paper that did not try a combination has no numbers for it; defaults are for everything.
    if not fit and preset != "default":
        about = ", ".join(f"{key} {facts[key]}" for key in ("data", "arch", "objective", "labels"))
        about += (", AWP" if facts["awp"] else "") + (", extra data" if facts["extra"] else "")
        raise UsageError(f"--preset {preset} has no numbers for {about}: see `advkit presets`")
    return iter(fit)
