"""`advkit analyze WHAT`: one subcommand for each analysis on the shelf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import options, stage
from advkit.cli.options import Command, Given
from advkit.registry import Option, Part

if TYPE_CHECKING:
    from advkit.analyses import Result
    from advkit.artifacts.hdf5 import Logits

PLOT = Option("plot", "str", None, "draw into FILE.png, .svg or .pdf", options.DIALOGUE)
OUT = Option("out", "str", None, "whole table into FILE.json, .csv or .h5", options.DIALOGUE)


def _runner(part: Part) -> Callable[[Given], Iterator[Record]]:
    def run(given: Given) -> Iterator[Record]:
        return Analysis(part, given).records()

    return run


class Analysis:
    """One call of one analysis: reads, analyses, writes, and gives a record for each result."""

    def __init__(self, part: Part, given: Given) -> None:
        self.part, self.given = part, given
        self.stage = f"analyze {part.name}"
        self.kinds: tuple[str, ...] = part.constants.get("KINDS", ("logits",))
        self.plot = Path(given["plot"]) if given["plot"] else None
        self.out = Path(given["out"]) if given["out"] else None
        self.drawn: list[tuple[str, Result]] = []

    def records(self) -> Iterator[Record]:
        """Yield one record an input, or one over all inputs for an analysis that compares."""
        self._check()
        sources = stage.sources(self.given, " or ".join(self.kinds), self.kinds)
        if self.part.constants.get("COMPARES", False):
            yield self._analyzed([self._read(source) for source in sources])
        else:
            work = stage.each(
                self.given, self.stage, sources, lambda s: self._analyzed([self._read(s)])
            )
            for number, record in enumerate(work):
                if number and self.out:
                    stage.speaker(self.stage, self.given).warn(
                        f"-o {self.out} holds the last input only: give -o for one input at a time"
                    )
                yield record
        if self.plot:
            from advkit.analyses import _plot

            _plot.save(self.plot, self.drawn)

    def _check(self) -> None:
        if self.plot:
            from advkit.analyses import _plot

            _plot.check(self.plot)
        if self.out:
            from advkit.analyses import _save

            _save.check(self.out)

    def _read(self, source: Record) -> Logits:
        from advkit.artifacts import hdf5

        return hdf5.read_logits(records.wanted(source, self.kinds))

    def _analyzed(self, inputs: Sequence[Logits]) -> Record:
        module = registry.load("analyses", self.part.name)
        names = [option.name for option in self.part.options]
        chosen = {key: value for key, value in self.given.items() if key in names}
        extra = {key: value for key, value in chosen.items() if value is not None}
        result: Result = module.analyze(inputs, **extra)
        self.drawn.append((_title(inputs[0]), result))
        return self._written(result, inputs, extra)

    def _written(self, result: Result, inputs: Sequence[Logits], extra: dict[str, Any]) -> Record:
        from advkit.analyses import _save
        from advkit.artifacts import provenance

        description = provenance.describe(
            "analysis",
            config={"analysis": self.part.name, **extra},
            seed=0,
            parents=[provenance.parent(each.info) for each in inputs],
            environment={},
        )
        if self.out:
            _save.write(self.out, result, description)
        digest = _save.digest(result, description)
        self._draw_text(result)
        named = {"analysis": self.part.name, "input": records.relative(inputs[0].path)}
        if len(inputs) > 1 or self.part.constants.get("COMPARES", False):
            named = {"analysis": self.part.name}
        rows = {}
        if result.text:  # a table small enough to read is small enough for the record
            lines = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
            rows = {"rows": lines}
        return records.make("analysis", self.out, digest, **named, **result.numbers, **rows)

    def _draw_text(self, result: Result) -> None:
        import sys

        if self.given["quiet"]:
            return
        if result.text:
            print(result.text, file=sys.stderr)
        if not sys.stderr.isatty():
            return
        from advkit.analyses import _plot

        for figure in result.histograms:
            print("\n".join(_plot.spark(figure)), file=sys.stderr)


def _title(logits: Logits) -> str:
    config = logits.info["config"]
    run = Path(logits.path).resolve().parent.name
    attack = f"{config['attack']}, eps {config['eps']}" if config.get("eps") else "clean"
    return f"{run} ({attack})"


def _command(part: Part) -> Command:
    shared = (PLOT, OUT)
    return Command(
        part.name,
        part.help,
        (*part.options, *shared),
        _runner(part),
        argument="[FILE]...",
        example=f"advkit analyze {part.name} runs/*/best.*.h5",
    )


COMMANDS = tuple(_command(part) for part in registry.parts("analyses").values())
