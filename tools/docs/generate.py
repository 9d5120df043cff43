"""Write docs/cli.md from the commands and the registry; with --check, say if it is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from advkit import registry
from advkit.cli.app import commands, groups
from advkit.cli.common.markers import marked
from advkit.cli.common.options import Command, flags, value
from advkit.cli.common.shorter import MOST
from advkit.config import methods
from advkit.options import Option

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
TITLES = {
    "augment": "Augmentations (`--augment`)",
    "labels": "Label sources (`--labels`)",
    "objectives": "Objectives (`--objective`)",
    "models": "Architectures (`--arch`)",
    "data": "Data sets (`--data`)",
    "attacks": "Attacks (`advkit attack --attack`)",
    "analyses": "Analyses (`advkit analyze`)",
}


def page() -> str:
    """Return the whole page."""
    lines = [
        "# Commands and parts",
        "",
        "Made by `make docs` from the code; `make check` fails where it is stale. Defaults that a",
        "data set or a preset changes are listed by `advkit presets`. The help of a command with",
        f"more than {MOST} options shows the main ones, and all of them with `--help-all`.",
        "",
    ]
    for command in commands():
        lines += _command(command.name, command)
    for group, (text, several) in groups().items():
        lines += [f"## advkit {group}", "", text, ""]
        for command in several:
            lines += _command(f"{group} {command.name}", command, "###")
    lines += ["## Methods (`--method`)", "", "| name | objective | labels |", "|---|---|---|"]
    for name, (objective, labels) in methods.BASES.items():
        lines.append(f"| `{name}` | `{objective}` | `{labels}` |")
    lines += [
        "",
        "Each also with `-awp`, `-wa` or `-awp-wa` behind it: weights are perturbed, the weight",
        "average is selected and reported, or both.",
        "",
    ]
    for folder, title in TITLES.items():
        lines += [f"## {title}", "", *_parts(folder), ""]
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Command, level: str = "##") -> Iterator[str]:
    yield f"{level} advkit {name}{' ' + command.argument if command.argument else ''}"
    yield from ("", command.help, "")
    if command.example:
        yield from ("```sh", command.example, "```", "")
    yield from ("| option | | default |", "|---|---|---|")
    for option in command.every:
        yield _row(option)
    yield ""


def _row(option: Option) -> str:
    words = [word for flag in flags(option) for word in flag.split("/")]
    typed = " ".join(f"`{word}`" for word in words)
    kind = "" if option.kind == "bool" else f" {value(option)}"
    default = "" if option.default in (None, "") else f"`{_word(option.default)}`"
    return f"| {typed}{_safe(kind)} | {_safe(option.help)} | {default} |"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parts(folder: str) -> Iterator[str]:
    for part in registry.parts(folder).values():
        options = ", ".join(f"`{option.flag}`" for option in part.options)
        yield f"- **`{part.name}`**: {marked(part)}" + (f" Options: {options}." if options else "")


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/cli.md is stale: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
