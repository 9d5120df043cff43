"""Random command lines from the options' own types, at their edges."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from advkit.cli.app import commands, groups
from advkit.cli.common.options import Command
from advkit.options import Option
from tests.conftest import Outcome
from tests.faults._runs import Running

EVERY: list[tuple[list[str], Command]] = [([command.name], command) for command in commands()]
EVERY += [([group, each.name], each) for group, (_, of) in groups().items() for each in of]
EVERY = [(words, command) for words, command in EVERY if words != ["data", "fetch"]]  # it downloads
NEEDED = {
    "train": ["--data", "digits", "--width", "2", "--limit", "60", "--batch-size", "16",
              "--epochs", "1", "--attack-steps", "1"],
    "pretrain-teacher": ["--data", "digits", "--width", "2", "--limit", "60", "--batch-size", "16",
                         "--epochs", "1"],
    "bench": ["--data", "digits", "--width", "2", "--steps", "1", "--methods", "at"],
    "attack": ["--attack", "fgsm", "--limit", "10"],
}  # fmt: skip
"""Words that make a small work of a command, where the random ones do not say otherwise."""
NUMBERS = ["0", "-1", "1", "nan", "inf", "-inf", "1e308", "1e-308", "9" * 30, "9" * 5000, "-0.0",
           "1.5", "", " ", "0x10", "٣", "1e999999999", "8/255", "1/0", "None"]  # fmt: skip
WORDS = ["", " ", "-", "--", ".", "..", "/", "/dev/null", "/proc/x", "none", "n" * 300, "caf\udce9",
         "a\nb", "\x1b[2J", "[red]", "$x^", "1,2", "2:1", "a:b", "auto", "all", "1/2", "eps/0",
         "../x"]  # fmt: skip
SOON, STOP = 25.0, 35.0
"""Seconds after which a work that goes on is asked to end, and within which it has to."""
CODES = {0, 2, 3, 4, 5, 6, 7, 8, 128 + signal.SIGTERM}


def ends(option: Option) -> list[str]:
    """Return the ends of an option's limits and what lies just beyond."""
    found = re.fullmatch(r"[\[(](-?[\d.e-]+), ?(-?[\d.e-]+)[\])]", option.limits)
    if not found:
        return []
    low, high = (float(end) for end in found.groups())
    shown = "{:.0f}" if option.kind in ("int", "ints") else "{!r}"
    return [shown.format(value) for value in (low, low - 1, high, high + 1)]


def value(option: Option, draw: random.Random, inputs: list[str]) -> str:
    if option.kind in ("int", "float", "ints"):
        return draw.choice([*NUMBERS, *ends(option) * 3])
    known = [*option.choices, *ends(option)]
    default = [str(option.default)] if option.default else []
    return draw.choice([*known, *known, *default, *WORDS, *NUMBERS, *inputs])


def lines(seed: int, inputs: list[str]) -> Iterator[list[str]]:
    """Yield command lines without end; `inputs` are files that are there."""
    draw = random.Random(seed)
    while True:
        words, command = draw.choice(EVERY)
        line = [*words, *NEEDED.get(words[0], [])]
        # A traceback is what --debug asks for.
        options = [option for option in command.every if option.name != "debug"]
        for option in draw.sample(options, min(len(options), draw.randint(1, 4))):
            if option.kind == "bool":
                line.append(option.flag)
            else:
                line.append(f"{option.flag}={value(option, draw, inputs)}")
        if command.argument:
            line += [draw.choice([*inputs, *inputs, *WORDS]) for _ in range(draw.choice((0, 1, 2)))]
        yield line


def ended(run: Running) -> tuple[Outcome | None, bool]:
    """Return how a line ended, None if it hangs, and whether it was asked to."""
    outcome = run.wait(SOON)
    if outcome is not None:
        return outcome, False
    run.send(signal.SIGTERM)
    outcome = run.wait(STOP)
    if outcome is None:
        run.send(signal.SIGKILL)
        run.wait()
    return outcome, True


def wrong(outcome: Outcome | None) -> str:
    """Say what is wrong with the end of a line; empty where nothing is."""
    if outcome is None:
        return "it hangs"
    if outcome.code not in CODES:
        return f"exit {outcome.code}: {outcome.err[-300:]}"
    if "Traceback" in outcome.err or "\x1b[2J" in outcome.err + outcome.out:
        return f"raw text: {outcome.err[-300:]}"
    return ""


def inputs(folder: Path) -> list[str]:
    """Return the files of a finished run that lie in a folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in (".h5", ".safetensors", ".toml")
    )
