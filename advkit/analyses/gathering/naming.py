"""How pictures and documents call runs, methods and attacks: as papers do, or as `--label` says.

Names pass through every analysis, those of other people too, and none of them would gain by an
argument for them: the labels of a call are therefore held here while it lasts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from advkit.analyses.gathering.labels import parse as parse  # stays importable from here
from advkit.analyses.gathering.rows import run_name
from advkit.artifacts.descriptions import Description
from advkit.config import printed
from advkit.errors import unknown
from advkit.evaluation.settings import SUITES

_LABELS: ContextVar[Mapping[str, str]] = ContextVar("labels", default={})  # noqa: B039


class Source(Protocol):
    """An input of an analysis: where it lies, and what it says of itself."""

    @property
    def path(self) -> str:
        """Where it lies."""

    @property
    def info(self) -> Description:
        """Its description."""


@dataclass(frozen=True)
class Named:
    """What is left of an input once it was analysed."""

    path: str
    info: Description


@contextmanager
def labelled(labels: Mapping[str, str]) -> Iterator[None]:
    """Show these names under others inside."""
    token = _LABELS.set(labels)
    try:
        yield
    finally:
        _LABELS.reset(token)


def require_known(labels: Mapping[str, str], inputs: Sequence[Source]) -> None:
    """Check that every label is of something among the inputs.

    Raises:
        UsageError: one is not.
    """
    known = dict.fromkeys(name for source in inputs for name in _names(source))
    for name in labels:
        if name not in known:
            raise unknown("name for --label", name, list(known))


def _names(source: Source) -> list[str]:
    """Return by what names a label may call an input, the more particular first."""
    names = [source.path, Path(source.path).name, run_name(source.path)]
    own = method_of(source)
    return [*names, own, _method(source)] if own else names


def method_of(source: Source) -> str:
    """Return the method of an input as we spell it; empty if it names none."""
    return str(source.info.get("method", ""))


def labels() -> Mapping[str, str]:
    """Return what `--label` of this call said."""
    return _LABELS.get()


def method(name: str, train_attack: object = None) -> str:
    """Return a method's label, or its name as papers print it."""
    own, given = printed.method(name, str(train_attack or "pgd")), _LABELS.get()
    return given.get(name, given.get(own, own))


def beside(source: Source, name: str) -> str:
    """Return what an input is called among others, whose names begin with their methods.

    Args:
        source: the input.
        name: its method, and after a space what tells it from others, as in `adr s0`.
    """
    first, _, rest = name.partition(" ")
    words = [_method(source) if first == method_of(source) else method(first)]
    words += [re.sub(r"^s([0-9]+)(?= |$)", r"seed \1", rest)] if rest else []
    return label_of(source) or ", ".join(words)


def _method(source: Source) -> str:
    """Return the method of an input as papers print it; empty if it names none."""
    own = method_of(source)
    told = source.info.get("trained") or source.info.get("config")
    attack = told.get("train_attack") if isinstance(told, Mapping) else None
    return method(own, attack) if own else ""


def attack(name: str, steps: int | None = None) -> str:
    """Return an attack's name as papers print it: AutoAttack, PGD-50, Square."""
    words = {**SUITES, "none": "clean", "square": "Square", "transfer": "transfer"}
    text = words.get(name, name.upper())
    return f"{text}-{steps}" if steps else text


def attacked(source: Source) -> str:
    """Return attack and radius of a logits file: `PGD-10, ℓ∞, ε = 8/255`; empty without them."""
    config = source.info.get("config")
    return against(config) if isinstance(config, Mapping) and "attack" in config else ""


def against(config: Mapping[str, Any]) -> str:
    """Return attack and radius of a logits file's configuration."""
    if not config.get("eps"):
        return ""
    norm = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}.get(str(config.get("norm")), config.get("norm"))
    ball = f"{norm}, " if norm else ""
    return f"{attack(config['attack'], config.get('steps'))}, {ball}ε = {config['eps']}"


def shared(sources: Sequence[Source]) -> str:
    """Return what attacked all of them, empty if not all were attacked alike."""
    attacks = {attacked(source) for source in sources}
    return attacks.pop() if len(attacks) == 1 else ""


def label_of(source: Source) -> str | None:
    """Return what `--label` says of a file or its run; None if it says nothing."""
    given = _LABELS.get()
    names = (source.path, Path(source.path).name, run_name(source.path))
    return next((given[name] for name in names if name in given), None)


def name(source: Source) -> str:
    """Return what one input is called: its label, or its method and its run."""
    label = label_of(source)
    if label is not None:
        return label
    own, run = _method(source), run_name(source.path)
    return f"{own} ({run})" if own else run


def names(sources: Sequence[Source]) -> list[str]:
    """Return what inputs are called side by side: the method alone where that tells them apart."""
    short = [label_of(x) or _method(x) for x in sources]
    return [
        own if own and short.count(own) == 1 else name(source)
        for own, source in zip(short, sources, strict=True)
    ]
