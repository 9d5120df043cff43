"""Options of the stages that import a net and export one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advkit.config.machine import Machine, Output
from advkit.errors import UsageError, brief, unknown
from advkit.options import COUNTS, SIDES, declared

MODEL = "Model"
"""Heading in the help."""
LIMIT = 1000
"""Test images that an imported net is tried on."""
FORMATS = ("state-dict", "hf", "robustbench", "onnx", "torch-export")
SIDE = 1 << 14
"""Pixels of the longest edge, or channels."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Machine, Output):
    """Options of `advkit import`; `parts` are those of the architecture."""

    arch: str = declared("", MODEL, "architecture, or torchvision:NAME, timm:NAME")
    data: str | None = declared(None, "Data", "data set that it was trained on")
    image_size: int | None = declared(None, "Data", "of folder:DIR", limits=SIDES)
    test_fraction: float | None = declared(
        None, "Data", "of folder:DIR without test/: share of each class", limits="(0, 1)"
    )
    skip_broken: bool = declared(
        False, "Data", "of folder:DIR: leave out images that cannot be read"
    )
    limit: int = declared(LIMIT, "Data", "test images that it is tried on", limits=COUNTS)
    classes: str | None = declared(
        None, MODEL, "without --data: how many classes, or their names a,b,c in the order of logits"
    )
    input_shape: str | None = declared(None, MODEL, "without --data: CxHxW, such as 3x32x32")
    mean: str | None = declared(None, MODEL, "that the net subtracts from pixels in [0, 1]: a,b,c")
    std: str | None = declared(None, MODEL, "that the net divides by then: a,b,c")
    normalise: bool | None = declared(
        None, MODEL, "by the statistics of --data where the file holds none, or not at all"
    )
    key: str | None = declared(None, MODEL, "where in the file the state dict lies")
    method: str = declared("imported", MODEL, "what tables call its training")
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            UsageError: no architecture, or options of which one makes the other void.
        """
        super().__post_init__()
        if not self.arch:
            raise UsageError("--arch is needed: a state dict does not say what net it is of")
        if self.data and (self.classes or self.input_shape):
            raise UsageError("--data knows classes and input shape: leave out the options for them")
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std go together")
        if self.mean is not None and self.normalise is not None:
            raise UsageError("--mean and --std, or --no-normalise: not both")
        if not self.method:
            raise UsageError("--method is empty")


def names(text: str) -> list[str]:
    """Read `--classes`: a number, or names apart by commas.

    >>> names("3"), names("cat,dog")
    (['0', '1', '2'], ['cat', 'dog'])

    Raises:
        UsageError: fewer than two, an empty one, or one that is there twice.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 7:
        classes = [str(number) for number in range(int(text))]
    else:
        classes = [word.strip() for word in text.split(",")]
    if len(classes) < 2 or not all(classes) or len(set(classes)) < len(classes):
        raise UsageError(
            f"--classes {brief(repr(text))}: a number from 2 on, or two or more names a,b,c"
        )
    return classes


def shape(text: str) -> list[int]:
    """Read `--input-shape`.

    >>> shape("3x32x32")
    [3, 32, 32]

    Raises:
        UsageError: it is no CxHxW.
    """
    words = text.lower().split("x")
    sides = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 6]
    if len(words) != 3 or len(sides) != 3 or not all(1 <= side <= SIDE for side in sides):
        raise UsageError(
            f"--input-shape {brief(repr(text))}: channels, height and width, such as 3x32x32"
        )
    return sides


def numbers(flag: str, text: str, channels: int) -> list[float]:
    """Read `--mean` or `--std`: a number a channel, or one for all.

    Raises:
        UsageError: no numbers, another count, or a deviation that is not above 0.
    """
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    values = values * channels if len(values) == 1 else values
    fine = all(math.isfinite(value) and abs(value) < 1e6 for value in values)
    if len(values) != channels or not fine or (flag == "--std" and min(values) <= 0):
        above = " above 0" if flag == "--std" else ""
        raise UsageError(
            f"{flag} {brief(repr(text))}: {channels} numbers{above} apart by commas, or one for all"
        )
    return values


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Output):
    """Options of `advkit export`."""

    to: str = declared("", "Export", "format", FORMATS)
    results: str | None = declared(
        None, "Export", "logits files of this checkpoint, apart by commas, whose accuracies to tell"
    )

    def __post_init__(self) -> None:
        """Check the format.

        Raises:
            UsageError: none is named, or one that does not exist.
        """
        super().__post_init__()
        if not self.to:
            raise UsageError(f"--to is needed: {', '.join(FORMATS)}")
        if self.to not in FORMATS:
            raise unknown("format", self.to, FORMATS)

    @property
    def logits(self) -> list[Path]:
        """The logits files."""
        return [Path(word) for word in (self.results or "").split(",") if word]
