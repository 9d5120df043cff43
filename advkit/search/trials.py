"""The lines of a search for ADR's numbers: hard labels once, each trial at each of its rungs."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from advkit.artifacts.descriptions import LONG, Count, Share, Some, Span, Word
from advkit.artifacts.schema import Sized, fault
from advkit.search.space import Point

# `lambda` is a keyword, which the class form cannot have for a name.
_Trust = TypedDict("_Trust", {"lambda": NotRequired[Span]})


class Figures(TypedDict):
    """What a run was after so many of its epochs: the figures of its best checkpoint until then.

    `robust_accuracy` is under APGD-CE and APGD-T, `pgd_accuracy` under PGD-10, by which the
    checkpoint was selected. `standing` are the held-out examples in their order that neither
    attack broke, as bits in hex.
    """

    epochs: Some
    clean_accuracy: Share
    robust_accuracy: Share
    pgd_accuracy: Share
    masking_alarm: bool
    digest: Word
    standing: Annotated[str, Sized(2, LONG)]


class Rung(Figures, _Trust):
    """A line: hard labels, or a trial at a rung; see `POINT` and `PLAIN`.

    `trials` is how many there are to be.
    """

    kind: Literal["plain", "adr"]
    number: NotRequired[Count]
    tau: NotRequired[Span]
    ema_decay: NotRequired[Share]
    trials: NotRequired[Some]


POINT, PLAIN = ("number", "tau", "lambda", "ema_decay"), ("trials",)
"""What a trial's line always says beside its figures, and what that of hard labels does."""


def rung_fault(line: object) -> str:
    """Return the first thing that keeps something from being a line; empty if nothing does."""
    wrong = fault(line, Rung)
    if wrong:
        return wrong
    rung = cast(Rung, line)
    wanted = POINT if rung["kind"] == "adr" else PLAIN
    missing = next((key for key in wanted if key not in rung), "")
    if missing:
        return f"{missing} is missing"
    try:
        bytes.fromhex(rung["standing"])
    except ValueError:
        return "standing is no hexadecimal"
    return ""


def point_of(rung: Rung) -> Point:
    """Return where a trial lies."""
    return Point(rung["tau"], rung["lambda"], rung["ema_decay"])


def score(rung: Rung) -> float:
    """Return what a trial is chosen by, in [−1, 1]: robust accuracy, less 1 where an alarm rang."""
    return rung["robust_accuracy"] - rung["masking_alarm"]


def packed(standing: Tensor) -> str:
    """Return verdicts, (n,) bool, as hex.

    >>> packed(torch.tensor([True, False, False, False, False, False, False, True, True]))
    '8180'
    """
    return np.packbits(standing.cpu().numpy()).tobytes().hex()


def unpacked(text: str, n: int) -> Tensor:
    """Return n verdicts, (n,) bool, out of hex.

    >>> unpacked("8180", 9).nonzero().flatten().tolist()
    [0, 7, 8]
    """
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:n]
    return torch.from_numpy(bits.astype(bool))
