"""What the help of a command with very many options leaves to --help-all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advkit import registry
from advkit.cli.common.markers import marked
from advkit.options import Option
from advkit.registry import Part

if TYPE_CHECKING:
    from advkit.cli.common.options import Command

MOST = 60
"""Options that a help shows all of: three screens."""
MAIN = {
    "method", "objective", "labels", "wa", "awp", "soft_labels", "teacher", "natural_teacher",
    "arch", "preset", "data", "augment", "limit", "val_size", "epochs", "batch_size", "lr",
    "norm", "eps", "attack_steps", "beta", "temperature", "seed", "select", "config", "name",
}  # fmt: skip
"""Settings of a run that most people give; the others are in `--help-all`."""


def is_long(options: Sequence[Option]) -> bool:
    """Whether a command has more options than one help shows."""
    return len(options) > MOST


def left_out(command: Command, options: Sequence[Option]) -> set[str]:
    """Return the names of those of a command's options that its short help leaves out."""
    from advkit.config import settings

    # Whoever brings parts of their own wants to see them.
    brought = [part for folder in command.listing for part in _parts(folder) if part.foreign]
    kept = MAIN | {option.name for part in brought for option in part.options}
    own = {option.name for option in options}
    return (own & {option.name for option in settings.options()}) - kept


def prose(command: Command, full: bool) -> str:
    """Return what a command does, its example, and its parts: each with its help if `full`."""
    from advkit.config import methods

    lines = [command.help, f"Example: {command.example}" if command.example else ""]
    if not full and "objectives" in command.listing:
        lines.append(f"Methods, each also with -awp, -wa or -awp-wa: {', '.join(methods.BASES)}")
    for folder in command.listing:
        parts, noun = _parts(folder), registry.NOUNS[folder].capitalize()
        names = "" if full else f" {', '.join(part.name for part in parts)}"
        told = [part for part in parts if full or part.foreign]
        lines.append("\n".join([f"{noun}:{names}", *(_entry(part) for part in told)]))
    return "\n\n".join(line for line in lines if line)


def _entry(part: Part) -> str:
    return f"- {part.name}: {marked(part)}"


def _parts(folder: str) -> list[Part]:
    return list(registry.parts(folder).values())
