"""Shards of a stage's work: which of how many, and where its file lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advkit.errors import UsageError, brief
from advkit.parallel import ranks


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shards, from 1 on."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def described(self) -> list[int]:
        """As descriptions and records carry it."""
        return [self.number, self.count]

    def beside(self, whole: Path) -> Path:
        """Return where its file lies: next to the whole one.

        >>> Shard(1, 3).beside(Path("a.b.h5")).name
        'a.b.shard-1-of-3.h5'
        """
        return whole.with_name(f"{whole.stem}.shard-{self.number}-of-{self.count}{whole.suffix}")

    def require(self, pieces: int, what: str) -> None:
        """Check that every shard gets something to do.

        Raises:
            UsageError: there are more shards than pieces.
        """
        if self.count > pieces:
            raise UsageError(f"--shard {self}: only {pieces} {what} to share out")


def parse(text: str) -> Shard:
    """Read I/N.

    >>> parse("2/3")
    Shard(number=2, count=3)

    Raises:
        UsageError: not two numbers, or I is not in 1..N.
    """
    parts = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
        raise UsageError(f"--shard {brief(text)}: wanted I/N with I from 1 to N, as in 1/3")
    return Shard(int(parts[1]), int(parts[2]))


def said(info: Mapping[str, Any]) -> Shard | None:
    """Return which shard a description says its file is, None of a whole one."""
    pair = info.get("config", {}).get("shard")
    return None if pair is None else Shard(*pair)


def whole(path: Path) -> Path | None:
    """Return where the file lies whose shard this is by its name, None if it is none by name.

    >>> whole(Path("a.b.shard-1-of-3.h5")).name
    'a.b.h5'
    """
    stem = re.sub(r"\.shard-[0-9]+-of-[0-9]+$", "", path.stem)
    return None if stem == path.stem else path.with_name(f"{stem}{path.suffix}")


def launched(shard: str | None) -> bool:
    """Whether this is one of several processes that share the work by themselves.

    Args:
        shard: I/N, where the one to do was named.
    """
    return ranks.world() > 1 and not shard


def chosen(shard: str | None) -> Shard | None:
    """Return the shard to do: the one named, else under torchrun this process's."""
    if shard:
        return parse(shard)
    return Shard(ranks.rank() + 1, ranks.world()) if launched(shard) else None
